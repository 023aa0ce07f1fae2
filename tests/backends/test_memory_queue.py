"""What only the in-process backend has: exceptions at every point, re-entrance, doorbells, and its limits."""

import gc
import heapq
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from types import FrameType
from typing import Any

import pytest

import ipcq
import ipcq_memory
from backends import overtaking
from ipcq.backend import Request, give_notice
from ipcq.errors import InvalidArgument, LimitExceeded, QueueExists, QueueGone, QueueNotFound
from ipcq.testing.processes import Peers, say

Handle = ipcq.Queue[Any]

SIZE = 16
FIT = 4
HANG_SECONDS = 20.0


@pytest.fixture
def name() -> Iterator[str]:
    """Return a name; unlink its queue after the test."""
    name = "/memory-queue"
    yield name
    with suppress(QueueNotFound):
        ipcq.unlink(name, "memory")


@pytest.fixture
def queue(name: str) -> Iterator[Handle]:
    """Return a handle to a new queue with serializer "raw" and a buffer of 64 bytes."""
    with ipcq.open(
        name, "memory", exclusive=True, buffer_size=SIZE * FIT, max_message_size=SIZE, serializer="raw", priorities=True
    ) as queue:
        yield queue


# Exceptions at every point


class Interrupt(Exception):
    """The exception of the signal handler."""


class Interruption:
    """Raise `Interrupt` at the n-th point of a call where CPython may run a signal handler.

    CPython runs handlers when a Python function begins and after a C function has returned. A profiler sees both.
    """

    def __init__(self, point: int) -> None:
        self.point = point
        self.reached = False
        self._count = 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event not in ("call", "c_return") or argument is sys.setprofile:
            return
        # By the name of the module: the directories of another's file may have any name.
        if not frame.f_globals.get("__name__", "").startswith(("ipcq", "threading")):
            return
        if self._count == self.point:
            self.reached = True
            sys.setprofile(None)
            raise Interrupt
        self._count += 1

    def during(self, call: Callable[[], object]) -> None:
        """Make the call, and suppress the interrupt."""
        before = signal.signal(signal.SIGUSR2, self)  # so that its exception counts as a signal handler's
        sys.setprofile(self)
        try:
            call()
        except Interrupt:
            pass
        finally:
            sys.setprofile(None)
            signal.signal(signal.SIGUSR2, before)


VERBS: dict[str, Callable[[Handle], object]] = {
    "put": lambda queue: queue.put(b"x" * SIZE),
    "put with a priority": lambda queue: queue.put(b"x" * SIZE, priority=5),
    "put an empty message": lambda queue: queue.put(b""),
    "put_many": lambda queue: queue.put_many([b"x" * SIZE, b"", b"y"]),
    "get": lambda queue: queue.get(),
    "get_message": lambda queue: queue.get_message(),
    "get_many": lambda queue: queue.get_many(),
    "peek": lambda queue: queue.peek(),
    "clear": lambda queue: queue.clear(),
    "qsize": lambda queue: queue.qsize(),
    "full": lambda queue: queue.full(),
    "stats": lambda queue: queue.stats(),
    "fileno": lambda queue: queue.fileno(),
    "a second handle": lambda queue: ipcq.open(queue.name, "memory", create=False).close(),
}

#: An exception in a finaliser is only reported by sys.unraisablehook, and pytest turns that into a warning.
ignore_unraisable = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

#: The messages in the queue before each call.
BEFORE = (b"a" * SIZE, b"")


def drain(queue: Handle) -> list[bytes]:
    items = []
    with suppress(ipcq.QueueEmpty):
        while True:
            items.append(queue.get_nowait())
    return items


def interrupt_each_point(queue: Handle, verb: str) -> Iterator[int]:
    """Interrupt a call at each of its points in turn, and yield the point, so that the test can look for damage."""
    point = 0
    while True:
        drain(queue)
        queue.put_many(BEFORE)
        interruption = Interruption(point)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # a handle that was interrupted while it was opened
            interruption.during(lambda: VERBS[verb](queue))
        yield point
        if not interruption.reached:
            assert point > 3, "nothing was interrupted"
            return
        point += 1


@ignore_unraisable
@pytest.mark.parametrize("verb", VERBS)
def test_an_exception_at_any_point_leaves_the_depth_right(queue: Handle, verb: str) -> None:
    """C5: qsize() agrees with the messages in the queue."""
    wrong = []
    for point in interrupt_each_point(queue, verb):
        depth = queue.qsize()
        if depth != len(drain(queue)):
            wrong.append(point)
    assert not wrong


@ignore_unraisable
@pytest.mark.parametrize("verb", VERBS)
def test_an_exception_at_any_point_leaves_the_space_right(queue: Handle, verb: str) -> None:
    """C5: space is neither lost nor gained: exactly as much fits as before."""
    wrong = []
    for point in interrupt_each_point(queue, verb):
        drain(queue)
        if queue.put_many([b"x" * SIZE] * (FIT + 1), block=False) != FIT:
            wrong.append(point)
    assert not wrong


@ignore_unraisable
@pytest.mark.parametrize("verb", VERBS)
def test_an_exception_at_any_point_costs_one_message_at_most(queue: Handle, verb: str) -> None:
    """C2: the outcome of one message, or of one batch, is unknown; the others are as they were."""
    counts = {
        "put_many": range(2, 6),
        "get_many": range(3),
        "clear": range(3),
        **dict.fromkeys(["get", "get_message"], range(1, 3)),
        **dict.fromkeys(["put", "put with a priority", "put an empty message"], range(2, 4)),
    }.get(verb, range(2, 3))
    wrong = [point for point in interrupt_each_point(queue, verb) if queue.qsize() not in counts]
    assert not wrong


@ignore_unraisable
@pytest.mark.parametrize("verb", VERBS)
def test_an_exception_at_any_point_leaves_nothing_locked(queue: Handle, verb: str) -> None:
    """C5: other threads are not blocked."""
    stuck = []
    for point in interrupt_each_point(queue, verb):
        other = threading.Thread(target=queue.qsize, daemon=True)
        other.start()
        other.join(HANG_SECONDS)
        if other.is_alive():
            stuck.append(point)
            break
    assert not stuck


@ignore_unraisable
@pytest.mark.parametrize("verb", VERBS)
def test_an_exception_at_any_point_leaves_the_descriptor_right_after_the_next_call(queue: Handle, verb: str) -> None:
    """The next call on the queue corrects the doorbell."""
    descriptor = queue.fileno()
    wrong = []
    for point in interrupt_each_point(queue, verb):
        there = queue.qsize() > 0
        if bool(select.select([descriptor], [], [], 0)[0]) != there:
            wrong.append(point)
    assert not wrong


@pytest.mark.parametrize("verb", ["get", "put"])
def test_an_exception_at_any_point_of_a_wait_comes_out_unchanged(queue: Handle, verb: str) -> None:
    """C12: an exception from any handler propagates unchanged, wherever in the wait it struck."""
    if verb == "put":
        queue.put_many([b"x" * SIZE] * FIT)
    wrong = []
    point = 0
    while True:
        interruption = Interruption(point)
        try:
            interruption.during(
                lambda: queue.get(timeout=0.001) if verb == "get" else queue.put(b"x" * SIZE, timeout=0.001)
            )
        except ipcq.TimedOutError:
            pass
        except Exception as error:
            wrong.append((point, repr(error)))
        if not interruption.reached:
            break
        point += 1
    assert not wrong


@pytest.mark.parametrize("verb", ["get", "put"])
def test_an_exception_at_any_point_of_a_wait_leaves_nothing_locked(queue: Handle, verb: str) -> None:
    """C5: the next waiter is served."""
    if verb == "put":
        queue.put_many([b"x" * SIZE] * FIT)
    point = 0
    while True:
        interruption = Interruption(point)
        with suppress(ipcq.TimedOutError, RuntimeError):
            interruption.during(
                lambda: queue.get(timeout=0.001) if verb == "get" else queue.put(b"x" * SIZE, timeout=0.001)
            )
        other = threading.Thread(target=queue.qsize, daemon=True)
        other.start()
        other.join(HANG_SECONDS)
        assert not other.is_alive(), point
        if not interruption.reached:
            return
        point += 1


def test_real_signals_at_random_points_leave_depth_and_space_right() -> None:
    """C5: an interval timer strikes while messages go in and out; depth and space are right at the end."""
    # In a new process, because coverage's tracer has a lock that an exception would leave locked.
    script = """
        import signal, time
        import ipcq

        class Interrupt(Exception):
            pass

        armed = False

        def strike(number, frame):
            global armed
            if armed:
                armed = False
                raise Interrupt

        signal.signal(signal.SIGALRM, strike)
        queue = ipcq.open("/struck", "memory", buffer_size=64, max_message_size=16, serializer="raw")
        struck = 0
        until = time.monotonic() + 10
        while struck < 1000 and time.monotonic() < until:
            try:
                try:
                    armed = True
                    signal.setitimer(signal.ITIMER_REAL, 0.0002)
                    while True:
                        queue.put(b"x" * 16, block=False)
                        queue.get(block=False)
                finally:
                    armed = False
            except Interrupt:
                struck += 1
            except ipcq.QueueEmpty:
                pass
            except ipcq.QueueFull:
                queue.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        depth, there = queue.qsize(), queue.clear()
        print(struck > 100, depth == there, queue.put_many([b"x" * 16] * 5, block=False))
        queue.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=3 * HANG_SECONDS,
        check=False,
    )
    assert done.stdout.strip() == "True True 4", done.stdout + done.stderr


# Re-entrance


@pytest.mark.parametrize("inner", overtaking.INNER)
@pytest.mark.parametrize("outer", overtaking.VERBS)
def test_a_call_in_the_middle_of_another_completes_and_loses_nothing(outer: str, inner: str) -> None:
    """C12: at any point where a handler or a finaliser can interrupt a step of its own thread."""
    with ipcq.open("/memory-overtaken", "memory", max_messages=overtaking.CAPACITY, max_message_size=64) as queue:
        overtaking.check_everywhere(queue, outer, inner)
        queue.unlink()


@pytest.mark.parametrize("inner", overtaking.INNER)
def test_a_call_in_the_middle_of_another_leaves_the_descriptor_right(queue: Handle, inner: str) -> None:
    """C32: also where it strikes while the descriptor becomes readable or stops being readable."""
    descriptor = queue.fileno()
    for point in count():
        strike = overtaking.Overtaking(point, lambda: queue.qsize() < FIT and overtaking.INNER["put"](queue))
        if inner == "get":
            strike = overtaking.Overtaking(point, lambda: drain(queue))
        strike.during(lambda: queue.put(b"x"))
        readable = bool(select.select([descriptor], [], [], 0)[0])  # first: qsize() corrects the doorbell
        assert readable == (queue.qsize() > 0), point
        drain(queue)
        if not strike.reached:
            break


def get_if_any(queue: Handle, taken: list[bytes]) -> None:
    """Get one message, if there is one."""
    with suppress(ipcq.QueueEmpty):
        taken.append(queue.get(False))


def test_a_message_taken_in_the_middle_of_a_clear_counts_once(queue: Handle) -> None:
    """C12: a message that a handler gets during a clear is not counted as dropped."""
    for point in count():
        queue.put_many(BEFORE)
        taken: list[bytes] = []
        strike = overtaking.Overtaking(point, partial(get_if_any, queue, taken))
        dropped = strike.during(queue.clear)
        assert dropped == len(BEFORE) - len(taken), point
        if not strike.reached:
            break


def test_a_put_from_within_a_step_is_stored(queue: Handle) -> None:
    """C12: a signal handler may call the queue that it interrupted."""
    queue._channel._queue.alone(queue.put, b"x")
    assert queue.get(timeout=5) == b"x"


def test_another_queue_can_be_used_in_a_handler(queue: Handle) -> None:
    """C12: only the interrupted queue is busy."""
    shared = queue._channel._queue
    with ipcq.open("/memory-other", "memory") as other:
        shared.alone(other.put, 5)
        assert other.get(timeout=5) == 5
        other.unlink()


def test_a_handle_may_be_closed_in_a_handler_that_interrupted_another_handle(queue: Handle) -> None:
    """C12: closing cannot be postponed, so it is not refused."""
    shared = queue._channel._queue
    other = ipcq.open(queue.name, "memory")
    shared.alone(other.close)
    assert shared.holders == 1


def test_a_handle_may_be_collected_while_another_is_inside(queue: Handle) -> None:
    """C12: a finaliser runs wherever the garbage collector does."""
    shared = queue._channel._queue

    def forget() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            ipcq.open(queue.name, "memory")
            gc.collect()

    shared.alone(forget)
    assert shared.holders == 1


# Doorbells


def readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def test_each_handle_has_a_descriptor_of_its_own(queue: Handle) -> None:
    """It belongs to the handle."""
    with ipcq.open(queue.name, "memory") as other:
        assert queue.fileno() != other.fileno()


def test_one_message_makes_every_descriptor_readable(queue: Handle) -> None:
    """All pollers are woken."""
    with ipcq.open(queue.name, "memory") as other:
        descriptors = queue.fileno(), other.fileno()
        queue.put(b"x")
        assert [readable(descriptor) for descriptor in descriptors] == [True, True]


def test_taking_the_messages_makes_no_descriptor_readable(queue: Handle) -> None:
    """It does not matter which handle took the messages."""
    with ipcq.open(queue.name, "memory") as other:
        descriptors = queue.fileno(), other.fileno()
        queue.put_many([b"x", b"y"])
        other.clear()
        assert [readable(descriptor) for descriptor in descriptors] == [False, False]


def test_a_closed_handles_descriptor_is_closed(queue: Handle) -> None:
    """C17, clause 16: close gives it back."""
    other = ipcq.open(queue.name, "memory")
    descriptor = other.fileno()
    other.close()
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_a_closed_handles_descriptor_is_no_longer_rung(queue: Handle) -> None:
    """The other handles still are."""
    other = ipcq.open(queue.name, "memory")
    other.fileno()
    other.close()
    queue.put(b"x")
    assert readable(queue.fileno())


def test_a_descriptor_survives_any_number_of_rounds(queue: Handle) -> None:
    """The doorbell never fills up."""
    descriptor = queue.fileno()
    for _ in range(3000):
        queue.put(b"x")
        queue.get()
    assert not readable(descriptor)


# Last close


@pytest.fixture
def last_close_queue(name: str) -> Handle:
    """Return a handle to a new queue with lifetime="last-close"."""
    return ipcq.open(name, "memory", exclusive=True, lifetime="last-close")


def test_a_last_close_queue_stays_while_one_handle_is_open(last_close_queue: Handle) -> None:
    """The last handle to close unlinks it, not an earlier one."""
    other = ipcq.open(last_close_queue.name, "memory")
    last_close_queue.close()
    there = ipcq.exists(other.name, "memory")
    other.close()
    assert there


def test_a_last_close_queue_goes_with_its_last_handle(last_close_queue: Handle) -> None:
    """The last handle to close unlinks it."""
    ipcq.open(last_close_queue.name, "memory").close()
    last_close_queue.close()
    assert not ipcq.exists(last_close_queue.name, "memory")


def test_a_last_close_queue_goes_with_a_forgotten_handle(last_close_queue: Handle, name: str) -> None:
    """Garbage collection of a handle counts as its close."""
    other = ipcq.open(name, "memory")
    last_close_queue.close()
    with pytest.warns(ResourceWarning):
        del other
        gc.collect()
    assert not ipcq.exists(name, "memory")


def test_a_last_close_queues_last_handle_leaves_its_successor_alone(last_close_queue: Handle, name: str) -> None:
    """A new queue of the same name is another queue."""
    last_close_queue.unlink()
    with ipcq.open(name, "memory"):
        last_close_queue.close()
        assert ipcq.exists(name, "memory")


def test_attaching_while_the_last_handle_closes_gives_a_queue(last_close_queue: Handle, name: str) -> None:
    """Nobody can attach while a close decides whether its handle is the last."""
    opened: list[Handle] = []
    remove = ipcq_memory._names.remove

    def attach_first(name: str, queue: Any, **options: Any) -> bool:
        opened.append(ipcq.open(name, "memory"))
        return remove(name, queue, **options)

    ipcq_memory._names.remove = attach_first
    try:
        last_close_queue.close()
    finally:
        ipcq_memory._names.remove = remove
    with opened[0] as other:
        assert other.empty()


# Limits: DESIGN 4


@pytest.mark.parametrize(
    ("asked", "attributes"),
    [
        ({}, (None, 262144, 1048576)),
        ({"max_messages": 3}, (3, 262144, 1048576)),
        ({"max_message_size": 1000}, (None, 1000, 1048576)),
        ({"max_message_size": 1 << 20}, (None, 1 << 20, 4 << 20)),
        ({"buffer_size": 4000}, (None, 1000, 4000)),
        ({"buffer_size": 1}, (None, 1, 1)),
        ({"buffer_size": 3}, (None, 1, 3)),
        ({"max_messages": 3, "max_message_size": 1000}, (3, 1000, None)),
        ({"max_messages": 3, "buffer_size": 4000}, (3, 1000, 4000)),
        ({"max_message_size": 1000, "buffer_size": 1000}, (None, 1000, 1000)),
        ({"max_messages": 3, "max_message_size": 1000, "buffer_size": 3000}, (3, 1000, 3000)),
    ],
)
def test_limits_that_were_not_given_follow_from_the_others(
    name: str, asked: dict[str, int], attributes: tuple[int | None, int, int | None]
) -> None:
    """DESIGN 4: as many messages as fit in the buffer, a quarter of the buffer, 1 MiB."""
    with ipcq.open(name, "memory", **asked) as queue:
        assert (queue.max_messages, queue.max_message_size, queue.buffer_size) == attributes


@pytest.mark.parametrize(
    "asked",
    [
        {"max_messages": 3, "max_message_size": 1000, "buffer_size": 2999},
        {"max_message_size": 1000, "buffer_size": 999},
    ],
)
def test_limits_that_contradict_each_other_are_refused(name: str, asked: dict[str, int]) -> None:
    """DESIGN 4: unless that many messages of that size fit, the limits are refused."""
    with pytest.raises(InvalidArgument, match=r"do not hold .*leave one of them out"):
        ipcq.open(name, "memory", **asked)


@pytest.mark.parametrize("size", [0, 1, SIZE])
def test_empty_messages_are_bounded_by_bytes_too(queue: Handle, size: int) -> None:
    """C7: a limit in bytes also limits the number of empty messages."""
    assert queue.put_many([b"x" * size] * 1000, block=False) == FIT * SIZE // max(size, 1)


def test_default_limits_hold_eight_messages_of_eight_kib(name: str) -> None:
    """DESIGN 4: every backend holds at least that many."""
    with ipcq.open(name, "memory", serializer="raw") as queue:
        assert queue.put_many([b"x" * 8192] * 8, block=False) == 8


def test_a_full_queue_has_no_space_for_an_empty_message(queue: Handle) -> None:
    """full: a put of the smallest message would have to wait."""
    queue.put_many([b"x" * SIZE] * FIT)
    assert queue.full()


# Ends


def test_every_statistic_is_kept(queue: Handle) -> None:
    """stats: within one process every figure is known."""
    queue.put_many([b"xx", b"yyy"])
    queue.get()
    with suppress(ipcq.QueueFull):
        queue.put_many([b"x" * SIZE] * FIT, timeout=0.2)
    stats = queue.stats()
    assert (stats.puts, stats.gets, stats.depth, stats.high_water_mark, stats.waits, stats.timeouts, stats.bytes) == (
        *(5, 1, 4, 4, 1, 1),
        3 + 3 * SIZE,
    )


def test_closing_a_handle_cancels_its_notice(queue: Handle) -> None:
    """Another handle can register after that."""
    other = ipcq.open(queue.name, "memory")
    other.notify(print)
    other.close()
    queue.notify(print)
    with pytest.raises(LimitExceeded):
        queue.notify(print)


def test_a_handle_cannot_cancel_the_notice_of_another(queue: Handle) -> None:
    """notify() without arguments cancels only the request of its own handle."""
    with ipcq.open(queue.name, "memory") as other:
        other.notify(print)
        queue.notify()
        with pytest.raises(LimitExceeded):
            queue.notify(print)


def test_unlinking_wakes_waiters(queue: Handle) -> None:
    """C14: the waiter is woken at once, not after a slice of the wait."""
    waiting = threading.Event()
    wait = queue._channel.wait_readable

    def wait_and_signal(since: float, until: float) -> None:
        waiting.set()
        wait(since, until)

    queue._channel.wait_readable = wait_and_signal
    errors: list[BaseException] = []

    def get() -> None:
        try:
            queue.get(timeout=HANG_SECONDS)
        except QueueGone as error:
            errors.append(error)

    getter = threading.Thread(target=get)
    getter.start()
    assert waiting.wait(HANG_SECONDS)
    ipcq.unlink(queue.name, "memory")
    getter.join(HANG_SECONDS)
    assert errors


def test_only_one_of_two_concurrent_unlinks_succeeds(name: str) -> None:
    """Of two concurrent unlinks, one succeeds."""
    ipcq.open(name, "memory").close()
    queue = ipcq_memory._names.queues[name]
    assert [ipcq_memory._names.remove(name, queue), ipcq_memory._names.remove(name, queue)] == [True, False]


# Forking: step by step in one process


def test_a_forked_child_has_no_queues(queue: Handle) -> None:
    """C20: copies in the child would be other queues under the same names."""
    with Peers() as peers:
        assert not peers.fork(report_queues).hear()
    assert ipcq_memory._names.queues


def report_queues() -> None:
    say(bool(ipcq_memory._names.queues))


def test_a_forked_childs_handles_cannot_be_used(queue: Handle) -> None:
    """C20: a call works or raises."""
    assert not queue._channel.after_fork()


# The backend's contract, called without the core, which checks first


def test_creating_what_exists_is_refused(queue: Handle) -> None:
    """Clause 1: a taken name raises QueueExists and changes nothing."""
    with pytest.raises(QueueExists):
        ipcq_memory.MemoryBackend().create(queue.name, Request())


def test_attaching_to_what_does_not_exist_is_refused(name: str) -> None:
    """Clause 2: a missing name raises QueueNotFound."""
    with pytest.raises(QueueNotFound):
        ipcq_memory.MemoryBackend().attach(name, Request())


def test_unlinking_what_does_not_exist_is_refused(name: str) -> None:
    """Clause 4: a missing name raises QueueNotFound."""
    with pytest.raises(QueueNotFound):
        ipcq_memory.MemoryBackend().unlink(name)


def test_a_notice_by_signal_is_sent_to_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """notify: a signal number means a signal to this process."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    give_notice(signal.SIGUSR1)
    assert sent == [(os.getpid(), signal.SIGUSR1)]


def test_a_notice_that_was_cancelled_meanwhile_is_not_given(queue: Handle) -> None:
    """There is no registrant any more."""
    shared = queue._channel._queue
    shared.alone(shared.tell)
    assert shared.registrant is None


def test_a_doorbell_that_was_closed_meanwhile_is_not_rung() -> None:
    """C12: a finaliser closes a handle while another handle's call updates all doorbells."""
    bell = ipcq_memory._queue.Doorbell(lambda: True)
    bell.close()
    bell.show()
    assert not bell._rung


def fail(*_: object) -> Any:
    """Simulate a call that runs out of memory."""
    raise MemoryError


def test_a_batch_reports_what_was_done_before_memory_ran_out(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C36: stored messages are counted, and messages that were taken are returned."""
    channel = queue._channel
    put, get = channel._put, channel._get
    left = iter(range(2))
    monkeypatch.setattr(channel, "_put", lambda *message: fail() if next(left, None) is None else put(*message))
    assert channel.try_put_many([b"1", b"2", b"3"]) == 2
    left = iter(range(1))
    monkeypatch.setattr(channel, "_get", lambda: fail() if next(left, None) is None else get())
    assert channel.try_get_many(2) == [(b"1", 0)]


def test_a_batch_without_memory_raises(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C36: and it changes nothing."""
    channel = queue._channel
    monkeypatch.setattr(channel, "_put", fail)
    monkeypatch.setattr(channel, "_get", fail)
    with pytest.raises(MemoryError):
        channel.try_put_many([b"1"])
    with pytest.raises(MemoryError):
        channel.try_get_many(2)


def test_a_heap_operation_without_memory_changes_no_statistic(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C36: nothing was stored and nothing was taken."""
    queue.put(b"1")
    before = queue.stats()
    for call, verb in (("heappush", lambda: queue.put(b"2")), ("heappop", queue.get)):
        monkeypatch.setattr(heapq, call, fail)
        with pytest.raises(MemoryError):
            verb()
    assert queue.stats() == before


def test_a_put_succeeds_though_no_waiter_can_be_woken(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C36: waiters look again after a slice of time, and the next call corrects the doorbell."""
    fileno = queue.fileno()
    bell, store = queue._channel._queue.bells[0], queue._channel._queue

    class Unlistable(list[Any]):
        __iter__ = fail

    class Mute:
        send = fail

    store.readers, other = Unlistable([1]), bell._other
    bell._other = Mute()
    queue.put(b"1")
    bell._other, store.readers = other, []
    queue.put(b"2")
    assert select.select([fileno], [], [], 0)[0] == [fileno]


def test_a_notice_for_which_no_thread_starts_waits_for_the_next_message(
    queue: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C5: the message is stored, so its put does not fail."""

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    told = threading.Event()
    queue.notify(told.set)
    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", no_thread)
        queue.put(b"first")
    assert queue.get(timeout=0) == b"first"
    queue.put(b"second")
    assert told.wait(HANG_SECONDS)
