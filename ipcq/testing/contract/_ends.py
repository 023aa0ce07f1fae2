"""C14: close, shutdown, unlink, and creating again; the related parts of C16 and C18."""

import gc
import queue as standard
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import ipcq
from ipcq.backend import Persistence
from ipcq.testing.contract._bench import HANG, NOTICED, WOKEN, Bench

#: Each method that accesses the queue.
VERBS: dict[str, Callable[["ipcq.Queue[Any]"], object]] = {
    "put": lambda queue: queue.put("item", timeout=HANG),
    "put_nowait": lambda queue: queue.put_nowait("item"),
    "put_many": lambda queue: queue.put_many(["item"], block=False),
    "get": lambda queue: queue.get(timeout=HANG),
    "get_nowait": lambda queue: queue.get_nowait(),
    "get_many": lambda queue: queue.get_many(block=False),
    "get_message": lambda queue: queue.get_message(block=False),
    "iteration": lambda queue: next(iter(queue)),
    "qsize": lambda queue: queue.qsize(),
    "empty": lambda queue: queue.empty(),
    "full": lambda queue: queue.full(),
    "clear": lambda queue: queue.clear(),
    "stats": lambda queue: queue.stats(),
}
OPTIONAL_VERBS: dict[str, Callable[["ipcq.Queue[Any]"], object]] = {
    "peek": lambda queue: queue.peek(),
    "shutdown": lambda queue: queue.shutdown(),
    "pollable": lambda queue: queue.fileno(),
    "notify": lambda queue: queue.notify(),
}


class Ends(Bench):
    """The end of handles and queues: close, unlink and shutdown are independent."""

    # Close

    @pytest.mark.parametrize("verb", VERBS)
    def test_a_closed_handle_says_so(self, verb: str) -> None:
        """C14: every method of a closed handle raises QueueClosed."""
        queue = self.create()
        queue.close()
        with pytest.raises(ipcq.QueueClosed):
            VERBS[verb](queue)

    @pytest.mark.parametrize("ability", OPTIONAL_VERBS)
    def test_a_closed_handle_says_so_for_what_not_every_backend_can(self, ability: str) -> None:
        """C14: the methods that need a capability raise QueueClosed too."""
        self.needs(ability)
        queue = self.create()
        queue.close()
        with pytest.raises(ipcq.QueueClosed):
            OPTIONAL_VERBS[ability](queue)

    def test_closing_twice_is_closing_once(self) -> None:
        """C14, clause 16: a second close does nothing."""
        queue = self.create()
        assert not queue.closed
        queue.close()
        queue.close()
        assert queue.closed

    def test_a_with_block_closes(self) -> None:
        """C14: the end of a with block closes the handle, and the queue stays."""
        with self.create() as queue:
            other = self.attach()
            queue.put("kept")
        assert queue.closed
        assert other.get(timeout=HANG) == "kept"

    def test_closing_one_handle_leaves_the_others_alone(self) -> None:
        """C14, clause 16: close affects only its own handle."""
        queue, other = self.create(), self.attach()
        queue.put("item")
        queue.close()
        assert other.get(timeout=HANG) == "item"
        other.put("more")
        assert other.get(timeout=HANG) == "more"

    def test_closing_every_handle_keeps_the_queue(self) -> None:
        """C14, clauses 5, 16: close never unlinks a persistent queue."""
        if self.can.persistence == Persistence.HOLDERS:
            pytest.skip(f"capabilities.persistence is HOLDERS on backend {self.backend!r}")
        queue = self.create()
        queue.put("kept")
        queue.close()
        assert ipcq.exists(self.name, self.backend)
        assert self.attach().get(timeout=HANG) == "kept"

    def test_a_queue_outlives_every_process(self) -> None:
        """C1, clause 5: messages in a persistent queue survive the end of all processes."""
        self.needs_processes()
        if self.can.persistence < Persistence.KERNEL:
            pytest.skip(f"capabilities.persistence is {self.can.persistence.name} on backend {self.backend!r}")
        self.run("create().put('kept'); os._exit(0)")
        assert self.attach().get(timeout=HANG) == "kept"

    def test_a_forgotten_handle_warns_and_unlinks_nothing(self) -> None:
        """C14, C17, clause 16: garbage collection closes the handle, with a ResourceWarning that names the queue."""
        other = self.create()
        name = self.name
        with pytest.warns(ResourceWarning, match=name):
            self._forget_a_handle()
        other.put("kept")
        assert other.get(timeout=HANG) == "kept"

    def _forget_a_handle(self) -> None:
        ipcq.open(self.name, backend=self.backend, create=False)
        gc.collect()

    def test_a_closed_handle_is_forgotten_in_silence(self) -> None:
        """C14: a closed handle gives no ResourceWarning."""
        self.create()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ipcq.open(self.name, backend=self.backend, create=False).close()
            gc.collect()
        assert not [warning for warning in caught if issubclass(warning.category, ResourceWarning)]

    @pytest.mark.parametrize("verb", ["get", "put", "get_many", "put_many", "iteration"])
    def test_closing_wakes_who_waits_in_this_handle(self, verb: str) -> None:
        """C14: the waiting call raises QueueClosed within 250 ms, and close returns."""
        queue = self.create()
        if verb.startswith("put"):
            self.fill(queue)
        waiting: dict[str, Callable[[], object]] = {
            "get": lambda: queue.get(timeout=HANG),
            "get_many": lambda: queue.get_many(),
            "iteration": lambda: list(queue),
            "put": lambda: queue.put("item"),
            "put_many": lambda: queue.put_many(["item"], timeout=HANG),
        }
        waiter = self.start_waiting(waiting[verb])
        closer = self.start(queue.close)
        closer.outcome()
        assert closer.seconds < WOKEN
        assert isinstance(waiter.error(WOKEN), ipcq.QueueClosed)

    def test_closing_wakes_nobody_in_another_handle(self) -> None:
        """C14: a call that waits in another handle continues to wait, and succeeds."""
        queue, other = self.create(), self.attach()
        waiter = self.start_waiting(other.get, timeout=HANG)
        queue.close()
        self.attach().put("item")
        assert waiter.outcome() == "item"

    def test_closing_while_threads_are_at_work_breaks_nothing(self) -> None:
        """C14, C21: calls of other threads raise QueueClosed, and every put that returned has stored its message."""
        queue, other = self.create(), self.attach()

        def produce() -> int:
            number = 0
            try:
                while True:
                    queue.put(number)
                    number += 1
            except ipcq.QueueClosed:
                return number

        producer = self.start(produce)
        taken = [other.get(timeout=HANG) for _ in range(100)]
        queue.close()
        stored = producer.outcome()
        taken += self.drain(other)
        assert taken == list(range(stored))

    @pytest.mark.parametrize("verb", ["get", "put", "get_many", "put_many"])
    def test_several_threads_may_close_while_another_is_inside(self, verb: str) -> None:
        """C34, clause 16: each close returns, and the call raises QueueClosed."""
        self.create()
        for _ in range(5):
            queue = self.attach()

            def use(queue: "ipcq.Queue[Any]" = queue) -> None:
                while True:
                    with suppress(ipcq.TimedOutError, ipcq.ConnectionLost):
                        VERBS[verb](queue)

            user = self.start(use)
            for closer in [self.start(queue.close) for _ in range(3)]:
                closer.outcome()
            assert isinstance(user.error(WOKEN), ipcq.QueueClosed)

    # Unlink

    def test_unlink_frees_the_name(self) -> None:
        """C14, clause 4: the name is free at once for another queue."""
        queue = self.create()
        queue.put("old")
        ipcq.unlink(self.name, self.backend)
        assert not ipcq.exists(self.name, self.backend)
        assert self.create().empty()

    def test_unlinking_what_is_not_there_is_told(self) -> None:
        """C14, clause 4: ipcq.unlink raises QueueNotFound if there is no queue."""
        with pytest.raises(ipcq.QueueNotFound):
            ipcq.unlink(self.name, self.backend)

    def test_close_and_unlink_come_in_either_order_and_twice(self) -> None:
        """C14: close and unlink may be called in either order, and repeatedly."""
        queue = self.create()
        queue.unlink()
        queue.unlink()
        queue.close()
        queue.unlink()
        queue = self.create()
        queue.close()
        queue.unlink()
        queue.unlink()
        assert not ipcq.exists(self.name, self.backend)

    @pytest.mark.parametrize("verb", ["put", "put_many", "get", "get_many", "get_message", "iteration"])
    def test_the_end_of_a_queue_is_noticed_by_other_handles(self, verb: str) -> None:
        """C14, clause 4: after an unlink, every handle raises QueueGone within one second."""
        queue, other = self.create(), self.attach()
        # Otherwise the iteration would wait in the empty queue, which another test covers.
        other.put("item")
        queue.unlink()
        self.eventually(ipcq.QueueGone, lambda: VERBS[verb](other), NOTICED)

    @pytest.mark.parametrize("verb", ["get", "put"])
    def test_the_end_of_a_queue_is_noticed_by_who_waits(self, verb: str) -> None:
        """C14, clause 4: a call that waits in another handle raises QueueGone within one second."""
        queue, other = self.create(), self.attach()
        if verb == "put":
            self.fill(queue)
            waiter = self.start_waiting(other.put, "item")
        else:
            waiter = self.start_waiting(other.get)
        ipcq.unlink(self.name, self.backend)
        assert isinstance(waiter.error(NOTICED), ipcq.QueueGone)

    def test_the_end_of_a_queue_is_noticed_by_other_processes(self) -> None:
        """C14, clause 4: a call that waits in another process raises QueueGone within one second."""
        self.needs_processes()
        queue = self.create()
        child = self.launch(
            """
            queue = attach()
            say("ready")
            try:
                queue.get(timeout=15)
            except ipcq.QueueGone:
                say("gone")
            """
        )
        assert child.hear() == "ready"
        began = time.monotonic()
        queue.unlink()
        assert child.hear() == "gone"
        assert time.monotonic() - began < NOTICED

    def test_a_queue_created_anew_is_another_queue(self) -> None:
        """C14, clause 4: handles to the old queue raise QueueGone, and never reach the new one."""
        old = self.create()
        old.put("old")
        ipcq.unlink(self.name, self.backend)
        new = self.create()
        new.put("new")
        self.eventually(ipcq.QueueGone, lambda: VERBS["get"](old), NOTICED)
        self.eventually(ipcq.QueueGone, lambda: VERBS["put"](old), NOTICED)
        assert self.drain(new) == ["new"]

    def test_a_name_can_be_used_again_and_again(self) -> None:
        """C14, C16: a queue created right after an unlink is always a new one."""
        for number in range(30):
            queue, other = self.create(), self.attach()
            queue.put(number)
            ipcq.unlink(self.name, self.backend)
            with self.create() as anew:
                assert anew.empty()
                anew.put("new")
                self.eventually(ipcq.QueueGone, other.get_nowait, NOTICED)
                assert anew.get(timeout=HANG) == "new"
                anew.unlink()

    def test_an_old_handle_does_not_unlink_the_new_queue(self) -> None:
        """C14, C18: unlink on a handle to the old queue does not remove the new queue with the same name."""
        old = self.create()
        ipcq.unlink(self.name, self.backend)
        new = self.create()
        old.unlink()
        new.put("kept")
        assert ipcq.exists(self.name, self.backend)
        assert self.attach().get(timeout=HANG) == "kept"

    def test_a_nameless_queue_can_be_used_on(self) -> None:
        """C14, clause 4: with after_unlink="continue", handles keep working, as with POSIX mq_unlink."""
        self.needs("after_unlink")
        queue = self.create(after_unlink="continue")
        other = self.attach(after_unlink="continue")
        queue.put("before")
        queue.unlink()
        time.sleep(0.3)  # long enough for handles to notice the unlink
        other.put("after")
        assert queue.get(timeout=HANG) == "before"
        assert other.get(timeout=HANG) == "after"
        with pytest.raises(ipcq.QueueEmpty):
            other.get(timeout=0.3)

    def test_going_on_after_an_unlink_is_refused_where_it_cannot_be(self) -> None:
        """Clause 20: creating raises Unsupported and creates nothing; attaching raises Unsupported too."""
        self.lacks("after_unlink")
        with pytest.raises(ipcq.Unsupported):
            self.create(after_unlink="continue")
        assert not ipcq.exists(self.name, self.backend)
        self.create()
        with pytest.raises(ipcq.Unsupported):
            self.attach(after_unlink="continue")

    # Shutdown

    def test_what_is_in_a_queue_that_is_shut_down_can_be_drained(self) -> None:
        """C14, clause 15: gets take the remaining messages, and then raise QueueShutDown."""
        self.needs("shutdown")
        queue, other = self.create(), self.attach()
        queue.put_many([1, 2])
        queue.shutdown()
        assert [other.get(timeout=HANG), other.get(timeout=HANG)] == [1, 2]
        for handle in (queue, other):
            for verb in ("get", "get_nowait", "get_many", "get_message"):
                self.eventually(ipcq.QueueShutDown, lambda: VERBS[verb](handle), NOTICED)  # noqa: B023  # called here

    def test_looking_into_a_queue_that_is_shut_down_and_empty_says_so(self) -> None:
        """C14, clause 15: peek returns the next item, and raises QueueShutDown once there is none, like get."""
        self.needs("shutdown")
        self.needs("peek")
        queue, other = self.create(), self.attach()
        queue.put("item")
        queue.shutdown()
        assert (queue.peek(), other.peek(), other.get(timeout=HANG)) == ("item", "item", "item")
        for handle in (queue, other):
            self.eventually(ipcq.QueueShutDown, handle.peek, NOTICED)

    def test_clearing_a_queue_that_is_shut_down_drops_what_is_there(self) -> None:
        """C14, clause 15: clear drops the remaining messages, and returns 0 if there are none."""
        self.needs("shutdown")
        queue, other = self.create(), self.attach()
        queue.put_many([1, 2])
        queue.shutdown()
        assert (other.clear(), other.clear(), queue.clear()) == (2, 0, 0)

    @pytest.mark.parametrize("verb", ["put", "put_nowait", "put_many"])
    def test_nothing_is_put_by_who_shut_the_queue_down(self, verb: str) -> None:
        """C14, clause 15: the handle that shut the queue down raises QueueShutDown at once and stores nothing."""
        self.needs("shutdown")
        queue = self.create()
        queue.put_nowait("a put before tells nothing about one after")
        queue.shutdown()
        with pytest.raises(ipcq.QueueShutDown):
            VERBS[verb](queue)
        assert len(list(queue)) == 1

    @pytest.mark.parametrize("verb", ["put", "put_nowait", "put_many"])
    def test_nothing_is_put_into_a_queue_that_is_shut_down(self, verb: str) -> None:
        """C14, clause 15: within one second, puts by every other handle raise QueueShutDown too."""
        self.needs("shutdown")
        queue, other = self.create(), self.attach()
        other.put_nowait("a put before tells nothing about one after")
        queue.shutdown()
        self.eventually(ipcq.QueueShutDown, lambda: VERBS[verb](other), NOTICED)

    def test_what_goes_in_during_the_shutdown_comes_out(self) -> None:
        """C1, C14, clause 15: a put that returns has stored its item, even during another handle's shutdown."""
        self.needs("shutdown")
        for _ in range(20):
            queue, other = self.create(), self.attach()

            def produce(other: "ipcq.Queue[Any]" = other) -> int:
                number = 0
                try:
                    while True:
                        other.put(number)
                        number += 1
                except ipcq.QueueShutDown:
                    return number

            producer = self.start(produce)
            taken = [queue.get(timeout=HANG) for _ in range(10)]
            consumer = self.start(list, queue)
            queue.shutdown()
            stored = producer.outcome(NOTICED)
            assert taken + consumer.outcome(NOTICED) == list(range(stored))
            queue.unlink()

    @pytest.mark.parametrize("verb", ["get", "put"])
    def test_shutdown_wakes_who_waits(self, verb: str) -> None:
        """C14, clause 15: waiting calls of every handle raise QueueShutDown within one second."""
        self.needs("shutdown")
        queue, other = self.create(), self.attach()
        if verb == "put":
            self.fill(queue)
            waiters = [self.start_waiting(handle.put, "item") for handle in (queue, other)]
        else:
            waiters = [self.start_waiting(handle.get) for handle in (queue, other)]
        queue.shutdown()
        for waiter in waiters:
            assert isinstance(waiter.error(NOTICED), ipcq.QueueShutDown)

    def test_shutdown_wakes_other_processes(self) -> None:
        """C14, clause 15: within one second, iterations in another process end, and puts raise QueueShutDown."""
        self.needs("shutdown")
        self.needs_processes()
        queue = self.create()
        child = self.launch(
            """
            queue = attach()
            say("ready")
            say(list(queue))
            try:
                queue.put(1)
            except ipcq.QueueShutDown:
                say("down")
            """
        )
        assert child.hear() == "ready"
        queue.put_many([1, 2])
        queue.shutdown()
        began = time.monotonic()
        assert child.hear() == "[1, 2]"
        assert time.monotonic() - began < NOTICED
        assert child.hear() == "down"

    def test_shutdown_reaches_who_comes_later(self) -> None:
        """C14, clause 15: the queue is shut down for handles that are opened later, too."""
        self.needs("shutdown")
        queue = self.create()
        queue.put("left")
        queue.shutdown()
        late = self.attach()
        with pytest.raises(ipcq.QueueShutDown):
            late.put("item")
        assert list(late) == ["left"]

    def test_an_immediate_shutdown_drops_what_is_there(self) -> None:
        """C14, clause 15: gets raise QueueShutDown at once."""
        self.needs("shutdown")
        queue, other = self.create(), self.attach()
        queue.put_many([1, 2])
        queue.shutdown(immediate=True)
        for handle in (queue, other):
            with pytest.raises(ipcq.QueueShutDown):
                handle.get(timeout=HANG)

    def test_dropping_what_is_there_needs_the_right_to_get(self) -> None:
        """C14, C27: a handle without the right to get may shut the queue down, but not drop messages."""
        self.needs("shutdown")
        queue, other = self.create(), self.attach(read=False)
        queue.put("item")
        with pytest.raises(ipcq.PermissionDenied):
            other.shutdown(immediate=True)
        other.shutdown()
        assert queue.get(timeout=HANG) == "item"

    def test_shutting_down_twice_is_all_right(self) -> None:
        """C14, clause 15: a second shutdown changes nothing, and an immediate one drops the remaining messages."""
        self.needs("shutdown")
        queue = self.create()
        queue.put_many([1, 2])
        queue.shutdown()
        queue.shutdown()
        assert queue.get(timeout=HANG) == 1
        queue.shutdown(immediate=True)
        with pytest.raises(ipcq.QueueShutDown):
            queue.get(timeout=HANG)

    def test_an_iteration_ends_with_the_shutdown(self) -> None:
        """C14: after a shutdown, an iteration takes the remaining items and ends."""
        self.needs("shutdown")
        queue = self.create()
        queue.put_many([1, 2, 3])
        consumer = self.start_waiting(list, queue)
        queue.shutdown()
        assert consumer.outcome(NOTICED) == [1, 2, 3]

    def test_a_shut_down_queue_can_be_created_anew(self) -> None:
        """C14: after an unlink, a new queue can be created with the same name."""
        self.needs("shutdown")
        queue = self.create()
        queue.shutdown()
        queue.unlink()
        anew = self.create()
        anew.put("item")
        assert anew.get(timeout=HANG) == "item"

    def test_shutdown_is_what_the_standard_library_calls_it(self) -> None:
        """C14: the exception is a queue.ShutDown, if Python has that class."""
        self.needs("shutdown")
        queue = self.create()
        queue.shutdown()
        with pytest.raises(getattr(standard, "ShutDown", ipcq.QueueShutDown)):
            queue.get(timeout=HANG)
