"""Clause 20: operations that a capability grants work, and others raise Unsupported with the way out."""

import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import fields
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import urlsplit

import pytest

import ipcq
from ipcq.backend import HIGHEST_PRIORITY, Backend, Capabilities, Channel, Place, Request, Stats
from ipcq.hooks import GROUP
from ipcq.testing._answers import until_answered
from ipcq.testing.contract._bench import HANG, WOKEN, Bench

#: For each capability that a method needs, calls that are refused without it.
REFUSED: dict[str, tuple[Callable[["ipcq.Queue[Any]"], object], ...]] = {
    "priorities": (lambda queue: queue.put("item", priority=1),),
    "pollable": (lambda queue: queue.fileno(),),
    "notify": (lambda queue: queue.notify(print), lambda queue: queue.notify()),
    "peek": (lambda queue: queue.peek(),),
    "leases": (
        lambda queue: queue.lease(),
        lambda queue: queue.lease_many(1),
        lambda queue: queue.ack_many([]),
        lambda queue: queue.leases(),
        lambda queue: queue.join(),
        lambda queue: queue.dead(),
    ),
    "delays": (lambda queue: queue.put("item", delay=1),),
    "drop_oldest": (lambda queue: queue.put("item", drop_oldest=True), lambda queue: queue.get_latest()),
    "shutdown": (lambda queue: queue.shutdown(), lambda queue: queue.shutdown(immediate=True)),
}
#: The ways in which a queue ends for every process.
ENDINGS: dict[str, Callable[["ipcq.Queue[Any]"], object]] = {
    "shutdown": lambda queue: queue.shutdown(),
    "unlink": lambda queue: ipcq.unlink(queue.name, queue.backend),
}
REQUIRABLE = [field.name for field in fields(Capabilities) if field.default is False]


def readable(descriptor: int, seconds: float = 0) -> bool:
    """Return whether a descriptor is readable, or becomes so within some seconds."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


class Abilities(Bench):
    """Operations that not every backend supports."""

    @pytest.mark.parametrize("ability", REFUSED)
    def test_what_is_denied_is_refused(self, ability: str) -> None:
        """Clause 20: the call raises Unsupported and leaves the queue unchanged."""
        queue = self._without(ability)
        queue.put("kept")
        for call in REFUSED[ability]:
            with pytest.raises(ipcq.Unsupported):
                call(queue)
        assert self.drain(queue) == ["kept"]

    @pytest.mark.parametrize("ability", REFUSED)
    def test_a_refusal_names_a_backend_that_can(self, ability: str) -> None:
        """Clause 20: the error names the installed backends that have the capability.

        If this backend is one of them, the message names the option of the queue alone.
        """
        queue = self._without(ability)
        able = {
            info.name
            for info in ipcq.backends()
            if info.usable and info.capabilities is not None and getattr(info.capabilities, ability)
            if info.capabilities.scope < ipcq.Scope.NETWORK
        }
        best = described(self._plugin).capabilities
        with pytest.raises(ipcq.Unsupported) as caught:
            REFUSED[ability][0](queue)
        assert set(caught.value.alternatives) == able
        ways = ["=True"] if getattr(best, ability) else [f"use backend={name!r}" for name in able]
        assert all(way in str(caught.value) for way in ways)
        assert not getattr(best, ability) or "use backend=" not in str(caught.value)

    def _without(self, ability: str) -> "ipcq.Queue[Any]":
        queue = self.create()
        if getattr(queue.capabilities, ability):
            pytest.skip(f"capabilities.{ability} is True on backend {self.backend!r}, nothing is refused")
        return queue

    @pytest.mark.parametrize("ability", REQUIRABLE)
    def test_a_required_ability_is_there_or_refused(self, ability: str) -> None:
        """Clause 20: require= opens a queue that has the capability, or raises and leaves no queue."""
        options: dict[str, Any] = {"priorities": True} if ability == "priorities" else {}
        if getattr(self.can, ability):
            assert getattr(self.create(require=[ability], **options).capabilities, ability)
        else:
            with pytest.raises(ipcq.Unsupported):
                self.create(require=[ability])
            assert not ipcq.exists(self.name, self.backend)

    def test_an_ability_that_was_not_asked_for_at_creation_is_refused_whole(self) -> None:
        """Clause 20: if the new queue lacks the required capability, it is removed."""
        try:
            queue = self.create(require=["priorities"])
        except ipcq.MessageQueueError:
            assert not ipcq.exists(self.name, self.backend)
        else:
            assert queue.capabilities.priorities

    # Counting

    def test_empty_and_full_are_told(self) -> None:
        """C25: empty and full are exact on every backend, and the same on every handle."""
        queue, other = self.create(), self.attach()
        for handle in (queue, other):
            assert (handle.empty(), handle.full()) == (True, False)
        queue.put("item")
        for handle in (queue, other):
            assert (handle.empty(), handle.full()) == (False, False)
        self.fill(queue)
        for handle in (queue, other):
            assert (handle.empty(), handle.full()) == (False, True)

    def test_the_count_is_exact(self) -> None:
        """C25: with exact_qsize, qsize follows every put and get on every handle."""
        self.needs("exact_qsize")
        queue, other = self.create(), self.attach()
        for count in range(self.capacity + 1):
            assert (queue.qsize(), other.qsize()) == (count, count)
            if count < self.capacity:
                queue.put("item")
        for count in reversed(range(self.capacity)):
            other.get(timeout=HANG)
            assert (queue.qsize(), other.qsize()) == (count, count)

    def test_clearing_drops_what_is_there_and_counts_it(self) -> None:
        """C25: clear returns the number of messages that it dropped, and the queue keeps working."""
        queue, other = self.create(), self.attach()
        queue.put_many([1, 2, 3])
        assert other.clear() == 3
        assert other.clear() == 0
        assert queue.empty()
        queue.put("after")
        assert other.get(timeout=HANG) == "after"

    def test_clearing_makes_space_for_who_waits(self) -> None:
        """C13: clear wakes a producer that waits for space."""
        queue = self.create()
        self.fill(queue)
        producer = self.start_waiting(queue.put, "item", timeout=HANG)
        queue.clear()
        producer.outcome(WOKEN)
        assert queue.get(timeout=HANG) == "item"

    def test_the_figures_are_right_or_absent(self) -> None:
        """C25: each value of stats is correct for all handles together, or None."""
        queue, other = self.create(serializer="raw"), self.attach(serializer="raw")
        for size in (1, 2, 3):
            queue.put(bytes(size))
        other.get(timeout=HANG)
        with pytest.raises(ipcq.QueueFull):
            while True:
                # Long enough to begin to wait on a busy machine.
                until_answered(lambda seconds: other.put(b"", timeout=seconds), 0.2)
        right = Stats(
            depth=self.capacity,
            bytes=5,
            bytes_put=6,
            puts=self.capacity + 1,
            gets=1,
            dropped=0,
            high_water_mark=self.capacity,
            waits=1,
            timeouts=1,
            recoveries=0,
            handles=2,
        )
        for handle in (queue, other):
            figures = handle.stats()
            for field in fields(Stats):
                assert getattr(figures, field.name) in (getattr(right, field.name), None), field.name

    # Peek

    def test_looking_takes_nothing(self) -> None:
        """Clause 20: repeated peeks return the next item, and get then takes it."""
        self.needs("peek")
        queue = self.create()
        queue.put_many([1, 2])
        assert (queue.peek(), queue.peek()) == (1, 1)
        assert (queue.get(timeout=HANG), queue.peek()) == (1, 2)

    def test_looking_into_an_empty_queue_is_queue_empty(self) -> None:
        """Clause 20: peek at an empty queue raises QueueEmpty."""
        self.needs("peek")
        with pytest.raises(ipcq.QueueEmpty):
            self.create().peek()

    # Priorities

    def test_the_highest_priority_comes_first(self) -> None:
        """C8, clause 9: messages come by priority, and in FIFO order within a priority."""
        self.needs("priorities")
        queue = self.create(priorities=True)
        for item, priority in (("low", 0), ("high", HIGHEST_PRIORITY), ("middle", 5), ("middle too", 5)):
            queue.put(item, priority=priority)
        assert [queue.get(timeout=HANG) for _ in range(4)] == ["high", "middle", "middle too", "low"]

    def test_a_batch_has_a_priority(self) -> None:
        """C8, C9, clause 9: put_many gives its priority to each item, and FIFO order is kept within it."""
        self.needs("priorities")
        queue = self.create(priorities=True)
        assert (queue.put_many([1, 2]), queue.put_many([3, 4], timeout=HANG, priority=7)) == (2, 2)
        taken = [queue.get_message(timeout=HANG) for _ in range(4)]
        assert [(each.item, each.priority) for each in taken] == [(3, 7), (4, 7), (1, 0), (2, 0)]

    def test_a_message_tells_its_priority(self) -> None:
        """Clause 9: get_message returns the item and its priority."""
        self.needs("priorities")
        queue = self.create(priorities=True)
        queue.put("item", priority=7)
        assert queue.get_message(timeout=HANG) == ipcq.Message("item", 7)

    def test_a_message_without_a_priority_has_none(self) -> None:
        """C25: get_message works on every backend, and returns priority 0 by default."""
        queue = self.create()
        queue.put("item", priority=0)
        assert queue.get_message(timeout=HANG) == ipcq.Message("item", 0)

    @pytest.mark.parametrize("priority", [-1, HIGHEST_PRIORITY + 1, 2**64, True, 1.0, "1", None], ids=repr)
    def test_a_bad_priority_is_refused(self, priority: Any) -> None:
        """C25: every backend raises InvalidArgument and queues nothing."""
        queue = self.create()
        with pytest.raises(ipcq.InvalidArgument):
            queue.put("item", priority=priority)
        assert queue.empty()

    def test_priorities_are_refused_at_creation_where_they_cannot_be(self) -> None:
        """Clause 20: open raises Unsupported and creates nothing."""
        self.lacks("priorities")
        with pytest.raises(ipcq.Unsupported):
            self.create(priorities=True)
        assert not ipcq.exists(self.name, self.backend)

    # Descriptor

    def test_the_descriptor_is_readable_exactly_while_a_message_is_there(self) -> None:
        """Clause 20: the descriptor is readable from a put until the last message is taken."""
        self.needs("pollable")
        queue, other = self.create(), self.attach()
        descriptors = queue.fileno(), other.fileno()
        for _ in range(3):
            assert list(map(readable, descriptors)) == [False, False]
            other.put_many([1, 2])
            assert [readable(descriptor, HANG) for descriptor in descriptors] == [True, True]
            queue.get(timeout=HANG)
            assert list(map(readable, descriptors)) == [True, True]
            other.get(timeout=HANG)
        assert list(map(readable, descriptors)) == [False, False]
        queue.put("cleared")
        queue.clear()
        assert list(map(readable, descriptors)) == [False, False]

    def test_the_descriptor_tells_of_what_was_there_before(self) -> None:
        """Clause 20: this includes messages that are older than the handle."""
        self.needs("pollable")
        self.create().put("item")
        assert readable(self.attach().fileno(), HANG)

    def test_the_descriptor_stays_the_same(self) -> None:
        """Clause 20: fileno always returns the same descriptor, so event loops can keep their registration."""
        self.needs("pollable")
        queue = self.create()
        assert queue.fileno() == queue.fileno()

    def test_the_descriptor_wakes_who_polls(self) -> None:
        """C13: a put wakes a thread in poll."""
        self.needs("pollable")
        queue, other = self.create(), self.attach()
        poller = self.start_waiting(readable, queue.fileno(), HANG)
        other.put("item")
        assert poller.outcome(WOKEN)

    def test_the_descriptor_wakes_other_processes(self) -> None:
        """C13: a put in this process makes another process's descriptor readable, and its get finds the message."""
        self.needs("pollable")
        self.needs_processes()
        queue = self.create()
        child = self.launch(
            """
            import select
            queue = attach()
            assert not select.select([queue], [], [], 0)[0]
            say("ready")
            assert select.select([queue], [], [], 15)[0]
            say(queue.get_nowait())
            """
        )
        assert child.hear() == "ready"
        queue.put("item")
        assert child.hear() == "item"

    # The end of a queue, seen by the descriptor

    @pytest.mark.parametrize("act", ENDINGS)
    def test_the_end_wakes_who_polls(self, act: str) -> None:
        """C32, clause 14: a shutdown by another handle and an unlink wake a thread in poll."""
        queue = self._with_end(act)
        poller = self.start_waiting(readable, queue.fileno(), HANG)
        ENDINGS[act](self.attach())
        assert poller.outcome(WOKEN)

    @pytest.mark.parametrize("act", ENDINGS)
    def test_the_end_wakes_other_processes_that_poll(self, act: str) -> None:
        """C32, clause 14: they also wake another process, where the next get raises QueueShutDown or QueueGone."""
        self.needs_processes()
        queue = self._with_end(act)
        child = self.launch(
            """
            import select
            queue = attach()
            poll = select.poll()
            poll.register(queue, select.POLLIN)
            say("ready")
            poll.poll()
            try:
                queue.get(timeout=0)
            except ipcq.MessageQueueError as error:
                say(type(error).__name__)
            """
        )
        assert child.hear() == "ready"
        ENDINGS[act](queue)
        assert child.hear() == {"shutdown": "QueueShutDown", "unlink": "QueueGone"}[act]

    @pytest.mark.parametrize("act", ENDINGS)
    def test_an_end_by_another_process_makes_descriptors_readable(self, act: str) -> None:
        """C32, clause 14: the descriptors of all handles in this process become readable."""
        self.needs_processes()
        queue = self._with_end(act)
        descriptors = queue.fileno(), self.attach().fileno()
        self.run("queue = attach(); queue.shutdown() if sys.argv[1] == 'shutdown' else ipcq.unlink(name, backend)", act)
        assert [readable(descriptor, WOKEN) for descriptor in descriptors] == [True, True]

    @pytest.mark.parametrize("act", ENDINGS)
    def test_a_descriptor_stays_readable_after_the_end(self, act: str) -> None:
        """C32, clause 14: it stays readable after gets have raised QueueShutDown or QueueGone."""
        queue, other = self._with_end(act), self.attach()
        descriptors = queue.fileno(), other.fileno()
        ENDINGS[act](queue)
        for handle in (queue, other, queue):
            with pytest.raises((ipcq.QueueShutDown, ipcq.QueueGone)):
                handle.get(timeout=0.1)
        assert [readable(descriptor, WOKEN) for descriptor in descriptors] == [True, True]

    @pytest.mark.parametrize("act", ENDINGS)
    def test_a_descriptor_can_be_asked_for_again_after_the_end(self, act: str) -> None:
        """C32: fileno still returns the descriptor, so that programs can remove it from an event loop."""
        queue = self._with_end(act)
        descriptor = queue.fileno()
        ENDINGS[act](queue)
        with pytest.raises((ipcq.QueueShutDown, ipcq.QueueGone)):
            queue.get(timeout=0.1)
        assert queue.fileno() == descriptor

    def test_a_descriptor_that_is_asked_for_after_the_shutdown_is_readable(self) -> None:
        """C32, clause 14: so is that of a handle opened later, once the last message has been taken."""
        queue = self._with_end("shutdown")
        queue.put("left")
        queue.shutdown()
        late = self.attach()
        descriptor = late.fileno()
        assert late.get(timeout=HANG) == "left"
        assert readable(descriptor, WOKEN)

    def test_an_unlink_leaves_the_descriptor_of_a_handle_that_goes_on_alone(self) -> None:
        """C14, C32: with after_unlink="continue", only messages make the descriptor readable."""
        self.needs("ends_on_fileno")
        self.needs("after_unlink")
        queue = self.create(after_unlink="continue")
        other = self.attach(after_unlink="continue")
        descriptors = queue.fileno(), other.fileno()
        ipcq.unlink(self.name, self.backend)
        with pytest.raises(ipcq.QueueEmpty):
            queue.get(timeout=0.01)
        assert list(map(readable, descriptors)) == [False, False]
        other.put("item")
        assert [readable(descriptor, HANG) for descriptor in descriptors] == [True, True]

    def _with_end(self, act: str) -> "ipcq.Queue[Any]":
        self.needs("ends_on_fileno")
        if act == "shutdown":
            self.needs("shutdown")
        return self.create()

    # Notices

    def test_a_notice_comes_when_a_message_arrives(self) -> None:
        """Clause 20: the callback runs once, in its own thread, and no message is taken."""
        self.needs("notify")
        queue, other = self.create(), self.attach()
        told: list[int] = []
        called = threading.Event()

        def callback() -> None:
            told.append(threading.get_ident())
            called.set()

        queue.notify(callback)
        other.put("first")
        assert called.wait(HANG)
        other.put("second")
        assert [queue.get(timeout=HANG), queue.get(timeout=HANG)] == ["first", "second"]
        other.put("third")
        time.sleep(0.1)  # long enough for a second notice, which must not come
        assert len(told) == 1
        assert told[0] != threading.get_ident()

    def test_a_notice_can_be_asked_for_again(self) -> None:
        """Clause 20: after a notice, the process may register again, even in the callback."""
        self.needs("notify")
        queue = self.create()
        called = threading.Semaphore(0)

        def callback() -> None:
            queue.get(timeout=HANG)
            queue.notify(callback)
            called.release()

        queue.notify(callback)
        for number in range(3):
            queue.put(number)
            assert called.acquire(timeout=HANG)
        queue.notify()

    def test_a_notice_can_be_taken_back(self) -> None:
        """Clause 20: notify without arguments cancels the registration, if there is one."""
        self.needs("notify")
        queue = self.create()
        called = threading.Event()
        queue.notify()
        queue.notify(called.set)
        queue.notify()
        queue.put("item")
        assert not called.wait(0.1)

    def test_a_closed_handle_gives_no_notice(self) -> None:
        """C14, clause 16: closing the handle cancels its registration, and another handle may register."""
        self.needs("notify")
        queue, other = self.create(), self.attach()
        called, called_too = threading.Event(), threading.Event()
        queue.notify(called.set)
        queue.close()
        other.notify(called_too.set)
        other.put("item")
        assert called_too.wait(HANG)
        assert not called.is_set()

    def test_one_at_a_time_asks_for_a_notice(self) -> None:
        """Clause 20: a second registration raises LimitExceeded, and the first notice still comes."""
        self.needs("notify")
        queue, other = self.create(), self.attach()
        called = threading.Event()
        queue.notify(called.set)
        with pytest.raises(ipcq.LimitExceeded):
            other.notify(print)
        queue.put("item")
        assert called.wait(HANG)

    def test_a_notice_of_one_queue_is_not_anothers(self) -> None:
        """Clause 20: each queue has its own registration."""
        self.needs("notify")
        queue, other = self.create(), self.create(self.fresh_name())
        called, called_too = threading.Event(), threading.Event()
        queue.notify(called.set)
        other.notify(called_too.set)
        other.put("item")
        assert called_too.wait(HANG)
        assert not called.is_set()
        queue.put("item")
        assert called.wait(HANG)

    def test_a_notice_can_be_a_signal(self) -> None:
        """Clause 20: the process receives the requested signal once."""
        self.needs("notify")
        self.run(
            """
            told = []
            signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
            queue = create()
            queue.notify(signal=signal.SIGUSR1)
            queue.put("item")
            until = time.monotonic() + 10
            while not told and time.monotonic() < until:
                time.sleep(0.01)
            queue.get()
            queue.put("item")
            time.sleep(0.1)
            assert told == [1], told
            queue.unlink()
            queue.close()
            """
        )

    def test_a_notice_comes_for_another_process_message(self) -> None:
        """Clause 20: a put by another process causes a notice too."""
        self.needs("notify")
        self.needs_processes()
        queue = self.create()
        called = threading.Event()
        queue.notify(called.set)
        self.run("attach().put('item')")
        assert called.wait(HANG)

    @pytest.mark.parametrize(
        "arguments",
        [{"callback": 1}, {"signal": 0}, {"signal": True}, {"signal": "SIGUSR1"}, {"callback": print, "signal": 10}],
        ids=str,
    )
    def test_a_bad_notice_is_refused(self, arguments: dict[str, Any]) -> None:
        """C25: every backend raises InvalidArgument."""
        with pytest.raises(ipcq.InvalidArgument):
            self.create().notify(**arguments)

    # Queues without a name

    def _nameless(self) -> Channel:
        self.needs("nameless")
        return described(self._plugin).create_nameless(Request(buffer_size=1 << 16))

    def test_descriptors_lead_to_a_nameless_queue(self) -> None:
        """Clause 22: a channel made from the descriptors takes what the first one puts."""
        one = self._nameless()
        other = described(self._plugin).adopt([os.dup(each) for each in one.descriptors()], Request())
        one.try_put(b"item", 0)
        taken = other.try_get()
        one.close()
        other.close()
        assert taken == (b"item", 0)

    def test_a_nameless_queue_is_not_linked(self) -> None:
        """Clause 22: the channel is not linked to a name."""
        channel = self._nameless()
        linked = channel.linked()
        channel.close()
        assert not linked

    def test_a_nameless_queue_stores_a_batch_whole_or_not_at_all(self) -> None:
        """Clause 22: a batch that does not fit stores nothing."""
        channel = self._nameless()
        batch = [bytes(10_000)] * 4
        stored = [channel.try_put_all(batch), channel.try_put_all(batch), channel.qsize()]
        channel.close()
        assert stored == [4, 0, 4]

    def test_nameless_queues_are_refused_where_they_cannot_be(self) -> None:
        """Clause 20: each operation on queues without a name raises Unsupported."""
        self.lacks("nameless")
        self.create()
        backend = described(self.backend)
        channel = backend.attach(self.name, Request())
        try:
            ways: list[Callable[[], object]] = [
                lambda: backend.create_nameless(Request()),
                lambda: backend.adopt((), Request()),
                lambda: channel.try_put_all([]),
                channel.descriptors,
            ]
            for way in ways:
                with pytest.raises(ipcq.Unsupported):
                    way()
        finally:
            channel.close()


def described(where: str) -> Backend:
    """Return the descriptor of a backend, or of a place."""
    name, is_place, _ = where.partition("://")
    (entry,) = entry_points(group=GROUP, name=name)
    backend: Backend = entry.load().ipcq_backend()
    if not is_place:
        return backend
    url = urlsplit(where)
    return backend.at(Place(name, url.hostname or "", url.port, tuple(filter(None, url.path.split("/")))))
