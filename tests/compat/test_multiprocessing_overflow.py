"""The overflow file of the queues for multiprocessing: its blocks, its lock, and calls that interrupt its steps."""

import errno
import gc
import mmap
import os
import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

import ipcq
from compat import queue_programs as programs
from compat.conftest import HANG, no_ring
from ipcq._process.deadline import NEVER
from ipcq.compat import _messages, _overflow, _parcels
from ipcq.compat.multiprocessing import JoinableQueue, Queue, SimpleQueue

fcntl = pytest.importorskip("fcntl", reason="could not import 'fcntl', which only POSIX has")

pytestmark = [
    pytest.mark.needs("shm"),
    pytest.mark.usefixtures("works"),
    # Python 3.12 and later warn; the tests show that it works.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

#: Bytes of an object that is too large for the blocks of the overflow file.
HUGE = 4 << 20


def fail(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, "as ordered")


@contextmanager
def another_holder(shared: Any) -> Iterator[None]:
    """Hold the lock of a queue's overflow file as another process would."""
    number = os.open(f"/proc/self/fd/{shared._messages._overflow.file.number}", os.O_RDWR)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def test_an_emptied_overflow_file_is_used_again(kind: str) -> None:
    """Items that are put afterwards are taken in order too."""
    shared = Queue()
    for _ in range(3):
        programs.put_much(shared, 300, 20_000)
        assert [shared.get()[0] for _ in range(300)] == list(range(300))


def test_memory_of_an_overflow_file_that_is_never_empty_is_freed(kind: str) -> None:
    """After 60 MB have passed, only a few remain."""
    shared = Queue()
    for number in range(30):
        shared.put((number, bytes(10_000)))
    for number in range(30, 6000):
        shared.put((number, bytes(10_000)))
        assert shared.get()[0] == number - 30
    assert held(shared) < 8 << 20


def held(shared: Any) -> int:
    """Return the bytes of memory that the overflow file of a queue takes."""
    return os.fstat(shared._messages._overflow.file.number).st_blocks * 512


def test_memory_of_large_objects_is_freed(kind: str) -> None:
    """After an object of 32 MB was taken, nothing remains."""
    shared = Queue(2)
    shared.put(bytes(32 << 20))
    shared.get()
    assert held(shared) < 1 << 20


def test_an_object_without_space_leaves_no_memory_in_use(kind: str) -> None:
    """A refused put of a large object frees its memory."""
    shared = Queue(1)
    shared.put("first")
    with pytest.raises(queue.Full):
        shared.put(bytes(8 << 20), timeout=0.01)
    assert held(shared) < 1 << 20


@pytest.mark.parametrize("make", [Queue, SimpleQueue])
def test_putting_a_large_object_without_memory_raises(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: `put` raises, and nothing is put."""
    shared = make()
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", fail)
        patched.setattr(os, "pwrite", fail)
        with pytest.raises(OSError, match="as ordered"):
            shared.put(bytes(1 << 20))
    assert shared.empty()


def test_a_failure_to_free_memory_loses_no_message(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: freeing memory needs a descriptor, and there may be none left."""
    shared = Queue()
    programs.put_much(shared, 2, 1 << 20)
    monkeypatch.setattr(mmap, "mmap", fail)
    assert [shared.get()[0] for _ in range(2)] == [0, 1]


def test_an_object_whose_consumer_runs_out_of_memory_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process can take it any more."""

    def no_memory(*_: object) -> Any:
        raise MemoryError

    shared = Queue()
    shared.put(bytes(8 << 20))
    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", no_memory)
        with pytest.raises(MemoryError):
            shared.get()
    assert held(shared) < 1 << 20


def blocks_in_use(shared: Any) -> int:
    """Return how many blocks of a queue's overflow file are in use."""
    return sum(shared._messages._overflow.parcels.used)


def test_the_memory_of_large_objects_is_used_again() -> None:
    """After 100 objects of 1 MiB, one at a time, the queue has less memory than for two."""
    shared = Queue()
    for _ in range(100):
        shared.put(bytes(1 << 20))
        shared.get()
    assert held(shared) < 2 << 20


@pytest.mark.parametrize("size", [100_000, 1 << 20, HUGE])
def test_large_objects_are_taken_in_order_whether_blocks_are_free_or_not(size: int) -> None:
    """Objects without free blocks are stored elsewhere in the overflow file."""
    shared = Queue()
    programs.put_much(shared, 20, size)
    assert [shared.get()[0] for _ in range(20)] == list(range(20))


def test_an_object_for_which_no_block_has_memory_is_put_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may refuse to allocate the memory of a block."""
    shared = Queue()
    monkeypatch.setattr(os, "posix_fallocate", fail)
    shared.put(bytes(1 << 20))
    assert (blocks_in_use(shared), len(shared.get())) == (0, 1 << 20)


def test_blocks_of_killed_processes_do_not_stop_others() -> None:
    """The blocks stay in use, and objects are stored elsewhere."""
    shared = Queue()
    used = shared._messages._overflow.parcels.used
    used[:] = b"\1" * len(used)
    programs.put_much(shared, 3, 100_000)
    assert [shared.get()[0] for _ in range(3)] == [0, 1, 2]


def test_a_put_that_waited_for_blocks_in_vain_is_not_followed_by_one_that_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise a producer without a consumer would wait for each object."""
    shared, waits = Queue(), []
    used = shared._messages._overflow.parcels.used
    used[:] = b"\1" * len(used)
    shared.put(bytes(100_000))
    monkeypatch.setattr(_messages, "pause", lambda *given: waits.append(given))
    shared.put(bytes(100_000))
    assert not waits


def test_a_put_that_may_not_wait_does_not_stop_the_next_one_from_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own deadline does not show that consumers are slow."""
    shared, waits = Queue(), []
    used = shared._messages._overflow.parcels.used
    used[:] = b"\1" * len(used)
    shared.put(bytes(100_000), block=False)
    monkeypatch.setattr(_messages, "pause", lambda *given: waits.append(given))
    shared.put(bytes(100_000))
    assert waits


def test_a_put_waits_for_blocks_that_become_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting is faster than allocating other memory."""
    shared = Queue()
    used = shared._messages._overflow.parcels.used
    used[:] = b"\1" * len(used)

    def free(*_: object) -> None:
        used[:25] = bytes(25)

    monkeypatch.setattr(_messages, "pause", free)
    shared.put(bytes(100_000))
    shared.get()
    assert bytes(used[:26]) == bytes(25) + b"\1"


def test_an_interrupted_put_frees_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler may raise while the object is copied."""
    shared = Queue()
    with monkeypatch.context() as patched:
        patched.setattr(_parcels.Parcels, "write", fail)
        with pytest.raises(OSError, match="as ordered"):
            shared.put(bytes(1 << 20))
    assert blocks_in_use(shared) == 0


def test_an_object_that_cannot_be_loaded_frees_its_blocks() -> None:
    """The object is lost, as in the standard library."""
    shared = Queue()
    shared.put([bytes(100_000), programs.Unloadable()])
    with pytest.raises(ValueError, match="on purpose"):
        shared.get()
    assert blocks_in_use(shared) == 0


def test_a_waiter_for_the_ring_sees_the_overflow_file() -> None:
    """C13: within 250 ms, even if no further message comes through the ring."""
    shared = Queue()
    overflow = shared._messages._overflow

    late = threading.Timer(0.1, overflow.locked, [lambda: overflow.append(pickle.dumps("in line"))])
    began = time.monotonic()
    late.start()
    assert shared.get(timeout=HANG) == "in line" and time.monotonic() - began < 0.1 + 2.5
    late.join()


def test_a_stopped_holder_of_the_lock_does_not_delay_a_timeout(kind: str) -> None:
    """C11: a get waits for the lock of the overflow file until its timeout."""
    shared = Queue()
    programs.put_much(shared, 200, 1000)
    with another_holder(shared), pytest.raises(queue.Empty):
        while True:
            shared.get(timeout=0.2)


def test_a_stopped_holder_of_the_lock_makes_a_put_raise_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """C11: a put ends at its timeout too."""
    monkeypatch.setattr(_messages, "create", no_ring)
    shared = Queue(3)
    with another_holder(shared), pytest.raises(queue.Full):
        shared.put(1, timeout=0.2)


def test_a_put_waits_for_the_lock(kind: str) -> None:
    """A put without a timeout succeeds when the holder releases the lock."""
    shared = Queue()
    programs.put_much(shared, 300, 1000)
    holder = ExitStack()
    holder.enter_context(another_holder(shared))
    late = threading.Timer(0.3, holder.close)
    late.start()
    shared.put("behind")
    late.join()
    assert shared.qsize() == 301


def test_a_fork_while_a_thread_has_the_lock_is_safe(kind: str) -> None:
    """C20: the lock is free in the child, and the child does not release the parent's."""
    shared = Queue()
    programs.put_much(shared, 300, 1000)

    def fork_and_close() -> int:
        child = os.fork()
        if not child:
            shared.close()
            os._exit(0)
        return child

    child = shared._messages._overflow.locked(fork_and_close)
    assert os.waitpid(child, 0)[1] == 0


class Once:
    """Calls another function after the first call."""

    def __init__(self, call: Callable[..., Any], then: Callable[[], object]) -> None:
        self._call = call
        self._then = [then]

    def __call__(self, *arguments: Any) -> Any:
        result = self._call(*arguments)
        while self._then:
            self._then.pop()()
        return result


@pytest.fixture
def line() -> Iterator[Any]:
    """Return a queue with 3 objects in its overflow file."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_messages, "create", no_ring)
        shared = JoinableQueue[Any]()
    for number in range(3):
        shared.put(number)
    yield shared
    shared.close()


def rest_of(shared: Any) -> list[Any]:
    """Take all items."""
    return [shared.get() for _ in range(shared.qsize())]


def test_a_handler_can_put_while_a_put_is_about_to_write(line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """C12: the interrupted put has read an end of the overflow file that is out of date."""
    overflow = line._messages._overflow
    monkeypatch.setattr(overflow, "_line", Once(overflow._line, lambda: line.put("inner")))
    line.put("outer")
    assert rest_of(line) == [0, 1, 2, "inner", "outer"]


def test_a_handler_that_clears_the_doorbell_does_not_hide_the_interrupted_put(
    line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C13: the handler reads the byte that the put has already written, so the put writes it again."""
    rest_of(line)

    def find_nothing() -> None:
        with pytest.raises(queue.Empty):
            line.get(False)

    monkeypatch.setattr(_overflow.os, "write", Once(os.write, find_nothing))
    line.put("outer")
    assert line._reader.poll(HANG)


@pytest.mark.parametrize("verb", ["put", "get"])
def test_a_handler_can_put_while_a_step_is_about_to_commit(
    line: Any, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """C12: the uncommitted bytes are not read, and the step starts again."""
    copy = SimpleNamespace(
        pack_into=Once(_overflow._COPY.pack_into, lambda: line.put("inner")), unpack_from=_overflow._COPY.unpack_from
    )
    monkeypatch.setattr(_overflow, "_COPY", copy)
    taken = [line.put("outer")] if verb == "put" else [line.get()]
    want = {"put": [None, 0, 1, 2, "inner", "outer"], "get": [0, 1, 2, "inner"]}
    assert taken + rest_of(line) == want[verb]


@pytest.mark.parametrize("size", [1, HUGE])
def test_a_handler_can_put_a_large_object_while_space_for_another_is_reserved(
    line: Any, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """C12: each gets its own space."""
    overflow = line._messages._overflow
    tickets: list[Any] = []
    find = Once(overflow.parcels.free_blocks, lambda: tickets.append(overflow.wrap(b"i" * size, NEVER)))
    monkeypatch.setattr(overflow.parcels, "free_blocks", find)
    tickets.append(overflow.wrap(b"o" * size, NEVER))
    assert [overflow.parcels.take(ticket, bytes)[:1] for ticket in tickets] == [b"i", b"o"]


def test_a_handler_can_call_task_done_during_task_done(line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """C12: both count."""
    count = _overflow.Overflow.done
    interruptions = iter([lambda: None, line.task_done])  # in the check for remaining tasks, and in counting

    def interrupted(overflow: _overflow.Overflow) -> Any:
        result = count.fget(overflow)
        next(interruptions, lambda: None)()
        return result

    monkeypatch.setattr(_overflow.Overflow, "done", property(interrupted, count.fset))
    line.task_done()
    assert line._messages._overflow.done == 2


def test_a_finaliser_can_close_in_the_middle_of_a_put(kind: str) -> None:
    """C34: the put succeeds, and closes the descriptors when it ends."""
    shared = Queue()
    overflow = shared._messages._overflow
    held = overflow.locked(lambda: (shared.close(), overflow.file.number)[1])
    assert (held >= 0, overflow.file.number) == (True, -1)


def test_a_call_after_a_close_in_an_outer_call_is_refused(line: Any) -> None:
    """It is refused as after any close."""
    overflow = line._messages._overflow

    def close_and_use() -> None:
        overflow.close()
        overflow.locked(lambda: None)

    with pytest.raises(ipcq.QueueClosed):
        overflow.locked(close_and_use)


def test_finalisers_can_put_wherever_the_garbage_collector_runs(kind: str) -> None:
    """C12: even during a put or a get of the same thread; each item is put."""
    shared, stored = Queue(), 0

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            nonlocal stored
            shared.put("inner")
            stored += 1

    programs.put_much(shared, 100, 3000)
    before = gc.get_threshold()
    try:
        for threshold in range(2, 10):
            gc.set_threshold(threshold, 2, 2)
            for _ in range(20):
                Cycle()
                shared.put(bytes(1000))
                shared.get()
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert stored == 160 and len(rest_of(shared)) == 100 + stored


@pytest.mark.parametrize("size", [10, 1 << 20])
@pytest.mark.parametrize("limits", [{"timeout": 0.2}, {"block": False}])
def test_a_put_ends_at_its_timeout_if_a_stopped_process_holds_the_lock(
    kind: str, size: int, limits: dict[str, Any]
) -> None:
    """C10: this holds for small objects behind a full ring and for objects that are too large for it."""
    shared = Queue()
    programs.put_much(shared, 300, 3000)
    stopped = pytest.raises(queue.Full, match="another process, probably stopped, holds the lock")
    with another_holder(shared), stopped:
        shared.put(bytes(size), **limits)
    assert len(rest_of(shared)) == 300


def test_a_close_while_an_object_is_copied_into_the_queue_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """C14: no other file that may have got the same descriptor is written to."""
    before = os.listdir("/proc/self/fd")
    shared, pwrite = Queue(), os.pwrite

    def close_and_write(*given: Any) -> int:
        shared.close()
        return pwrite(*given)

    monkeypatch.setattr(os, "pwrite", close_and_write)
    with pytest.raises(ipcq.QueueClosed):
        shared.put(bytes(HUGE))
    assert os.listdir("/proc/self/fd") == before


def test_closed_messages_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """C14: a thread may be about to use them when another closes them."""
    monkeypatch.setattr(_messages, "create", no_ring)
    messages = _messages.make(0)
    messages.close()
    with pytest.raises(ipcq.QueueClosed):
        messages.put(b"late")


def test_a_child_that_cannot_reopen_the_overflow_file_has_a_closed_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """C20: it raises QueueClosed."""
    monkeypatch.setattr(_messages, "create", no_ring)
    messages = _messages.make(0)
    with monkeypatch.context() as patched:
        patched.setattr(_overflow, "_opened_again", fail)
        _overflow._after_fork()  # as in a child
        _overflow._after_fork()
    with pytest.raises(ipcq.QueueClosed):
        messages.put(b"late")


def test_a_child_can_use_the_overflow_file_that_it_inherits(monkeypatch: pytest.MonkeyPatch) -> None:
    """C20: it reopens the file."""
    monkeypatch.setattr(_messages, "create", no_ring)
    shared = Queue()
    shared.put("one")
    _overflow._after_fork()  # as in a child
    assert shared.get() == "one"


def test_a_transfer_may_take_several_system_calls(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call moves at most 2 GiB; here, one page."""
    pread, pwrite = os.pread, os.pwrite
    monkeypatch.setattr(os, "pread", lambda file, size, at: pread(file, min(size, 4096), at))
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[:4096], at))
    shared = Queue()
    shared.put(bytes(range(256)) * (HUGE >> 8))
    assert shared.get() == bytes(range(256)) * (HUGE >> 8)


def test_an_overflow_file_that_cannot_be_reopened_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """C17: any of the three attempts may fail."""
    again, before = _overflow._opened_again, os.listdir("/proc/self/fd")
    for works in range(3):
        calls = iter([*[again] * works, fail])
        monkeypatch.setattr(_overflow, "_opened_again", lambda *given: next(calls)(*given))  # noqa: B023  # it is used in this iteration
        with pytest.raises(OSError, match="as ordered"):
            Queue()
    assert os.listdir("/proc/self/fd") == before


def test_a_lack_of_descriptors_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: the error has the limit and the way out."""
    monkeypatch.setattr(os, "memfd_create", no_descriptor)
    with pytest.raises(ipcq.LimitExceeded, match="RLIMIT_NOFILE"):
        Queue()


def no_descriptor(*_: object) -> Any:
    raise OSError(errno.EMFILE, "as ordered")


def test_a_limit_on_the_size_of_files_is_named() -> None:
    """C24: it also applies to files without a name."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, before[1]))
    try:
        with pytest.raises(ipcq.LimitExceeded, match="RLIMIT_FSIZE"):
            Queue()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
