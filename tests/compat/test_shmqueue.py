"""The compatibility module for shmqueue: its tests, and what its documentation promises, on several backends."""

import json
import logging
import os
import pickle
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import ipcq
from compat import programs
from compat.sources import source
from ipcq.compat import shmqueue
from ipcq.compat.shmqueue import SIZE_HEADER, SYSTEM_PAGESIZE, SerializationMethods, ShmQueue, _queue
from ipcq.compat.shmqueue import exceptions as errors
from ipcq.testing.processes import Peers, fresh_name, until

pytestmark = pytest.mark.needs("shm")

#: Those of its tests that use the private member `_shm_collection`, to access its counters or its lock.
PRIVATE = {
    "tests.test_debug_ref_log_action.TestDebugRefLog.test_create_on_shutdown_queue_raises_not_initialized",
    "tests.test_debug_ref_log_action.TestDebugRefLog.test_create_writes_created_and_ref_count",
    "tests.test_debug_ref_log_action.TestDebugRefLog.test_invalid_action_type_raises_value_error",
    "tests.test_debug_ref_log_action.TestDebugRefLog.test_shutdown_adds_shutdown_timestamp",
    "tests.test_exceptions.TestNotInitializedError.test_clear_after_shutdown",
    "tests.test_exceptions.TestNotInitializedError.test_reduce_ref_counter_after_shutdown",
    "tests.test_exceptions.TestRuntimeError.test_reduce_ref_counter_last_ref_raises_value_error",
    "tests.test_exceptions.TestRuntimeError.test_reduce_ref_counter_when_ref_count_is_zero",
}

#: The number of tests in shmqueue 0.0.2.
COUNT = 53

#: Makes `import shmqueue`, and the modules that its tests import, the compatibility module.
ALIAS = """
import sys
from ipcq.compat import shmqueue as face
sys.modules.update({name: face for name in ("shmqueue", "shmqueue.shared_memory_collection")})
sys.modules["shmqueue.exceptions"] = face.exceptions
"""

#: Timeout of anything that may hang, in seconds.
HANG = 20.0

OWN = SerializationMethods.FIRST_PUBLIC_NUMBER


class Point:
    """An object that MessagePack cannot hold."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self.x == other.x

    def __repr__(self) -> str:
        return f"Point({self.x})"  # the same in every process, because it is part of test names

    __hash__ = None


@pytest.fixture(autouse=True)
def warned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suppress the warning about pickles."""
    monkeypatch.setattr(_queue, "_warned", True)


@pytest.fixture(params=["shm", "pyshm"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Create queues on each backend that counts bytes and whose queues can vanish with their last handle."""
    monkeypatch.setenv("IPCQ_BACKEND", request.param)
    return str(request.param)


@pytest.fixture
def socketpair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Create queues on a backend that counts neither bytes nor handles."""
    monkeypatch.setenv("IPCQ_BACKEND", "socketpair")


@pytest.fixture
def name() -> str:
    """Return an unused name."""
    return fresh_name()[1:]


@pytest.fixture
def queue(name: str) -> Iterator[ShmQueue]:
    """Return a queue on the backend that `auto` chooses."""
    queue = ShmQueue(name)
    yield queue
    queue.shutdown()


@pytest.fixture
def peers() -> Iterator[Peers]:
    """Return a group of unrelated processes."""
    with Peers() as peers:
        yield peers


# The tests of shmqueue


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """Run the unchanged tests of shmqueue, and return the outcome of each."""
    peer = source("shmqueue", "0.0.2", "3988ced5d6f789be2e246dbbf1978d71268c2c095aa203c92aa8446ba445b905")
    place = tmp_path_factory.mktemp("alias")
    (place / "shmqueue.py").write_text(ALIAS)
    # Only the tests: its code must not be importable.
    (place / "tests").symlink_to(peer / "tests", target_is_directory=True)
    program = Path(__file__).with_name("unchanged.py")
    ran = subprocess.run(
        [sys.executable, str(program), "shmqueue", "ipcq.compat.shmqueue", "tests"],
        env={**os.environ, "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=place,
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
        check=True,
    )
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def test_the_public_tests_of_shmqueue_pass(outcomes: dict[str, str | None]) -> None:
    """They are unchanged, but import the compatibility module."""
    assert {name: wrong for name, wrong in outcomes.items() if wrong and name not in PRIVATE} == {}


def test_no_test_of_shmqueue_is_left_out(outcomes: dict[str, str | None]) -> None:
    """All tests are found."""
    assert len(outcomes) == COUNT


@pytest.mark.parametrize("name", sorted(PRIVATE))
def test_the_other_tests_of_shmqueue_fail_only_because_of_a_private_member(
    outcomes: dict[str, str | None], name: str
) -> None:
    """The tests that are listed here cannot pass."""
    assert "has no attribute '_shm_collection'" in (outcomes[name] or "")


# The module


def test_the_module_has_the_public_names_of_shmqueue() -> None:
    """Each name in shmqueue's `__all__` is in ours."""
    theirs = {"ShmQueue", "SYSTEM_PAGESIZE", "SIZE_HEADER", "exceptions", "SerializationMethods", "DebugRefLogAction"}
    assert theirs <= set(shmqueue.__all__)


@pytest.mark.parametrize(
    ("name", "parent"),
    [
        ("ShmQueueBufferOverflow", OverflowError),
        ("ShmQueueEmpty", ipcq.QueueEmpty),
        ("ShmQueueFull", ipcq.QueueFull),
        ("ShmQueueNotInitializedError", RuntimeError),
        ("ShmQueueRuntimeError", RuntimeError),
        ("ShmQueueTypeError", TypeError),
        ("ShmQueueValueError", ValueError),
        ("ShmQueueSerializationError", ipcq.EncodeError),
        ("ShmQueueDeserializationError", ipcq.DecodeError),
    ],
)
def test_exceptions_have_the_parents_of_shmqueue_and_of_ipcq(name: str, parent: type[Exception]) -> None:
    """Programs can catch the class of the standard library or of ipcq."""
    kind = getattr(errors, name)
    assert issubclass(kind, parent) and issubclass(kind, errors.ShmQueueException)


# Putting and getting


@pytest.mark.parametrize(
    "item",
    [None, True, 7, 2**70, 1.5, "text", "\ud800", b"bytes", [1, 2], {"a": 1}, {1: 2}, {1, 2}, Point(3), 2j, b""],
    ids=repr,
)
def test_an_item_comes_back(backend: str, name: str, item: object) -> None:
    """MessagePack encodes it, or pickle if MessagePack cannot hold it."""
    queue = ShmQueue(name)
    queue.put(item)
    assert queue.get() == item


def test_a_time_comes_back_in_utc(queue: ShmQueue) -> None:
    """MessagePack encodes it, as with every handle of ipcq."""
    now = datetime.now().astimezone()
    queue.put(now)
    assert queue.get() == now and now.astimezone(UTC) == now


@pytest.mark.parametrize("method", [SerializationMethods.MSGPACK, SerializationMethods.PICKLE])
def test_the_caller_chooses_the_method(queue: ShmQueue, method: int) -> None:
    """MessagePack turns a tuple into a list, and pickle does not."""
    queue.put((1, 2), serialization_method=method)
    assert queue.get() == ([1, 2], (1, 2))[method]


def test_a_native_handle_reads_items_of_the_compatibility_module(backend: str, name: str) -> None:
    """Programs can migrate to `ipcq.open` one after the other."""
    queue = ShmQueue(name)
    with ipcq.open(f"/{name}", create=False, allow_pickle=True) as native:
        queue.put({"id": 1})
        queue.put({1, 2})
        assert native.get_many(2, timeout=HANG) == [{"id": 1}, {1, 2}]


def test_the_compatibility_module_reads_items_of_a_native_handle(backend: str, name: str) -> None:
    """The item is a marked pickle."""
    queue = ShmQueue(name)
    with ipcq.open(f"/{name}", create=False, serializer="pickle", allow_pickle=True) as native:
        native.put({1, 2})
    assert queue.get(timeout=HANG) == {1, 2}


def test_the_compatibility_module_attaches_to_a_native_queue(name: str) -> None:
    """Its limits are not compared."""
    with ipcq.open(f"/{name}", max_message_size=1000) as native:
        native.unlink()
    with ipcq.open(f"/{name}", max_message_size=1000) as native:
        native.put("native")
        queue = ShmQueue(name)
        native.unlink()
        assert queue.max_buffer_size() == 1000 + SIZE_HEADER


@pytest.mark.parametrize("block", [0, "", None])
def test_a_false_value_does_not_block(queue: ShmQueue, block: Any) -> None:
    """As in shmqueue, only the truth value counts."""
    with pytest.raises(errors.ShmQueueEmpty):
        queue.get(block)


@pytest.mark.parametrize("block", [1, "yes"])
def test_a_true_value_blocks(queue: ShmQueue, block: Any) -> None:
    """This holds for put and get."""
    queue.put("item", block, 5)
    assert queue.get(block) == "item"


@pytest.mark.parametrize("timeout", [-1, -0.5])
def test_a_negative_timeout_does_not_wait(queue: ShmQueue, timeout: float) -> None:
    """As in shmqueue, the deadline has passed."""
    with pytest.raises(errors.ShmQueueEmpty):
        queue.get(timeout=timeout)


@pytest.mark.parametrize("timeout", [float("nan"), True])
def test_an_invalid_timeout_is_refused(queue: ShmQueue, timeout: float) -> None:
    """It is not interpreted as a number of seconds."""
    with pytest.raises(ipcq.InvalidArgument, match="timeout"):
        queue.put("item", timeout=timeout)


def test_a_put_waits_no_longer_than_its_timeout(backend: str, name: str) -> None:
    """At the timeout, nothing is put."""
    queue = ShmQueue(name)
    fill(queue)
    before = queue.qsize()
    with pytest.raises(errors.ShmQueueFull):
        queue.put("one more" * 20, timeout=0.05)
    assert queue.qsize() == before


def fill(queue: ShmQueue) -> int:
    """Put items until the queue is full, and return their number."""
    count = 0
    try:
        while True:
            queue.put(b"x" * 100, block=False)
            count += 1
    except errors.ShmQueueFull:
        return count


@pytest.mark.parametrize("method", [SerializationMethods.MSGPACK, SerializationMethods.PICKLE, OWN])
def test_an_item_that_can_never_fit_is_refused_at_once(queue: ShmQueue, method: int) -> None:
    """The error has the size that the item needs."""
    queue.custom_serialize(lambda method, data: bytes(data))
    with pytest.raises(errors.ShmQueueValueError, match=r"takes 41\d\d bytes, the buffer has 4096: .*buffer_size=41"):
        queue.put(b"x" * 4095, serialization_method=method)


@pytest.mark.parametrize("method", ["0", 1.5, None, 2**32])
def test_an_invalid_method_is_refused(queue: ShmQueue, method: Any) -> None:
    """It raises shmqueue's exception for invalid values."""
    with pytest.raises(errors.ShmQueueValueError, match="serialization_method"):
        queue.put("item", serialization_method=method)


@pytest.mark.parametrize("method", [2, 1000, -1, OWN])
def test_a_method_without_a_serializer_is_not_implemented(queue: ShmQueue, method: int) -> None:
    """It raises NotImplementedError, as in shmqueue."""
    with pytest.raises(NotImplementedError):
        queue.put("item", serialization_method=method)
    assert queue.empty()


def test_an_item_that_cannot_be_pickled_either_is_refused(queue: ShmQueue) -> None:
    """The queue stays empty."""
    with pytest.raises(errors.ShmQueueSerializationError, match="cannot be pickled"):
        queue.put(lambda: None)
    assert queue.empty()


# Pickles


def test_nothing_is_pickled_unless_allowed(name: str) -> None:
    """An item that MessagePack cannot hold is refused."""
    queue = ShmQueue(name, allow_pickle=False)
    with pytest.raises(errors.ShmQueueSerializationError, match="MessagePack cannot hold this Point"):
        queue.put(Point(1))


def test_pickle_cannot_be_chosen_unless_allowed(name: str) -> None:
    """An explicit request of the method is refused too."""
    queue = ShmQueue(name, allow_pickle=False)
    with pytest.raises(errors.ShmQueueSerializationError, match="allow_pickle=False"):
        queue.put("item", serialization_method=SerializationMethods.PICKLE)


def test_no_pickle_is_read_unless_allowed(queue: ShmQueue, name: str) -> None:
    """C26: its code does not run, and the error has its bytes."""
    queue.put(Point(1))
    with pytest.raises(errors.ShmQueueDeserializationError, match="it is a pickle") as caught:
        ShmQueue(name, allow_pickle=False).get()
    assert pickle.loads(caught.value.data) == Point(1)


def test_the_warning_about_pickles_is_shown_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning by the second handle would fail this test, because warnings are errors."""
    monkeypatch.setattr(_queue, "_warned", False)
    with pytest.warns(UserWarning, match="allow_pickle=False") as told:
        ShmQueue(name)
    ShmQueue(name)
    assert told[0].filename == __file__


def test_a_handle_that_reads_no_pickles_does_not_warn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no risk."""
    monkeypatch.setattr(_queue, "_warned", False)
    assert ShmQueue(name, allow_pickle=False).refs == 1


# Custom serializers


@pytest.mark.parametrize("method", [OWN, OWN + 1, 2**32 - 1])
def test_an_item_passes_through_custom_functions(backend: str, name: str, method: int) -> None:
    """They get the number of the method."""
    queue = ShmQueue(name)
    queue.custom_serialize(lambda number, data: struct.pack("<II", number, data))
    queue.custom_deserialize(lambda number, pieces: (number, struct.unpack("<II", b"".join(pieces))))
    queue.put(7, serialization_method=method)
    assert queue.get() == (method, (method, 7))


def test_an_exception_of_a_custom_function_passes_through(queue: ShmQueue) -> None:
    """It is unchanged, and the queue stays empty."""

    def serialize(method: int, data: object) -> bytes:
        raise LookupError("no such thing")

    queue.custom_serialize(serialize)
    with pytest.raises(LookupError, match="no such thing"):
        queue.put(1, serialization_method=OWN)
    assert queue.empty()


def test_a_custom_function_must_return_bytes(queue: ShmQueue) -> None:
    """Any other result is refused, and the item is not pickled instead."""
    queue.custom_serialize(lambda method, data: str(data))  # type: ignore[arg-type,return-value]  # this is what is tested
    with pytest.raises(errors.ShmQueueTypeError, match="must return bytes, not '1'"):
        queue.put(1, serialization_method=OWN)
    assert queue.empty()


def test_an_item_that_a_custom_function_cannot_serialize_is_pickled(queue: ShmQueue) -> None:
    """The function raises the exception for that."""

    def serialize(method: int, data: object) -> bytes:
        raise errors.ShmQueueSerializationError

    queue.custom_serialize(serialize)
    queue.put(Point(1), serialization_method=OWN)
    assert queue.get() == Point(1)


def test_a_message_without_a_custom_function_is_not_lost(queue: ShmQueue) -> None:
    """C6: the error has its bytes, and the next get works."""
    queue.custom_serialize(lambda method, data: bytes(data))
    queue.put(b"own", serialization_method=OWN)
    queue.put("next")
    with pytest.raises(errors.ShmQueueDeserializationError, match="custom_deserialize") as caught:
        queue.get()
    assert (caught.value.data, queue.get()) == (b"\xc1\xe9\x07own", "next")


@pytest.mark.parametrize("data", [b"\xc1", b"\xc1\xff\xff\xff\xff\xff\xff", b"\xc1\x05own", b"\xc2\xc2", b""])
def test_custom_functions_do_not_get_other_messages(queue: ShmQueue, name: str, data: bytes) -> None:
    """C6: they only get messages of custom functions."""
    queue.custom_deserialize(lambda method, pieces: pytest.fail("not for it"))
    with ipcq.open(f"/{name}", create=False, serializer="raw") as native:
        native.put(data)
    with pytest.raises(errors.ShmQueueDeserializationError) as caught:
        queue.get()
    assert caught.value.data == data


def test_a_failed_call_does_not_keep_a_reference(name: str) -> None:
    """Otherwise the queue would stay until a garbage collection."""
    queue = ShmQueue(name)
    queue.custom_serialize(lambda method, data: bytes(data))
    queue.custom_deserialize(lambda method, pieces: 1)
    queue.put(b"own", serialization_method=OWN)
    queue.get()
    with pytest.raises(NotImplementedError):
        queue.put(1, serialization_method=2)
    del queue
    assert not ipcq.exists(f"/{name}")


# Figures


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 17, 100, 1000])
def test_the_buffer_holds_as_many_items_as_in_shmqueue(backend: str, name: str, size: int) -> None:
    """Each item counts with its bytes and eight more."""
    queue = ShmQueue(name, buffer_size=2 * SYSTEM_PAGESIZE)
    with ipcq.open(f"/{name}", create=False, serializer="raw") as native:
        for _ in range(queue.max_buffer_size() // (SIZE_HEADER + size)):
            native.put(bytes(size), block=False)
    assert queue.full() == (queue.buffer_occupancy() == queue.max_buffer_size())


def test_the_largest_item_of_shmqueue_fits(backend: str, name: str) -> None:
    """It takes the whole buffer."""
    queue = ShmQueue(name)
    queue.put(b"x" * (SYSTEM_PAGESIZE - SIZE_HEADER - len(b"\xc5\x00\x00")), block=False)
    assert queue.buffer_occupancy() == queue.max_buffer_size()


def test_a_large_buffer_takes_little_more_than_requested(name: str) -> None:
    """Two MiB more are for the overhead of backends."""
    queue = ShmQueue(name, buffer_size=8 << 20)
    with ipcq.open(f"/{name}", create=False) as native:
        assert (queue.max_buffer_size(), native.buffer_size) == (8 << 20, 10 << 20)


def test_a_snapshot_has_the_positions(backend: str, name: str) -> None:
    """They are the numbers of bytes put and taken, each item with its header."""
    queue = ShmQueue(name)
    queue.put(None)
    queue.put(None)
    queue.get()
    handles = 1 if backend == "shm" else None
    assert queue.snapshot() == (handles, 18, 9, SYSTEM_PAGESIZE, 1, 1)


def test_a_snapshot_distinguishes_laps(queue: ShmQueue) -> None:
    """`same_lap` is 0 if the writer is one lap ahead."""
    queue.put(b"x" * 4000)
    queue.get()
    queue.put(b"x" * 200)
    assert queue.snapshot().same_lap == 0


def test_a_figure_that_a_backend_does_not_know_is_none(socketpair: None, name: str) -> None:
    """The snapshot does not invent it."""
    queue = ShmQueue(name)
    queue.put(None)
    assert queue.snapshot() == (None, None, None, SYSTEM_PAGESIZE, 1, None)


@pytest.mark.parametrize("ask", [ShmQueue.buffer_occupancy, lambda queue: queue.refs], ids=["buffer_occupancy", "refs"])
def test_an_unknown_figure_is_refused(socketpair: None, name: str, ask: Callable[[ShmQueue], int]) -> None:
    """The error has the way out."""
    with pytest.raises(NotImplementedError, match="IPCQ_BACKEND"):
        ask(ShmQueue(name))


def test_without_a_count_of_bytes_full_means_that_a_put_would_wait(socketpair: None, name: str) -> None:
    """Even the smallest message would have to wait."""
    queue = ShmQueue(name)
    before = queue.full()
    fill(queue)
    assert (before, queue.full()) == (False, True)


def test_handles_of_other_processes_count(queue: ShmQueue, name: str, peers: Peers) -> None:
    """They do not count any more after a kill."""
    peer = peers.spawn(programs.hold, name)
    peer.hear()
    assert queue.refs == 2
    peer.kill()
    until(lambda: queue.refs == 1)


def test_an_inherited_handle_counts(name: str, peers: Peers) -> None:
    """It needs no call for that, and does not count any more after its process was killed."""
    peer = peers.spawn(programs.put_in_a_child, name)
    assert peer.hear() == [["from the child", 2], 1]
    peer.wait()


# Several processes, and ends


def test_unrelated_processes_share_a_queue(queue: ShmQueue, name: str, peers: Peers) -> None:
    """They only need the name, and any of them may be the first."""
    started = [peers.spawn(programs.put_one, name, number) for number in range(3)]
    assert sorted(queue.get(timeout=HANG) for _ in started) == [0, 1, 2]
    for peer in started:
        peer.hear()
        peer.say("done")
        peer.wait()


def test_processes_that_create_a_queue_at_the_same_time_share_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one attaches."""
    first: list[ShmQueue] = []
    real = _queue.open_queue

    def late(name: str, **options: Any) -> Any:
        if not first and options.get("exclusive"):
            monkeypatch.setattr(_queue, "open_queue", real)
            first.append(ShmQueue(name))
        return real(name, **options)

    monkeypatch.setattr(_queue, "open_queue", late)
    assert ShmQueue(name).refs == 2


def test_the_last_close_removes_the_queue(backend: str, name: str) -> None:
    """It does not matter who created it."""
    first, second = ShmQueue(name), ShmQueue(name)
    first.put("item")
    first.shutdown()
    assert second.get() == "item"
    second.shutdown()
    assert not ipcq.exists(f"/{name}")


def test_a_second_close_does_nothing(queue: ShmQueue, name: str) -> None:
    """Other handles stay open."""
    other = ShmQueue(name)
    other.shutdown()
    other.shutdown(use_gc=False)
    assert queue.refs == 1


def test_an_unreferenced_handle_is_closed(queue: ShmQueue, name: str) -> None:
    """There is no warning, as in shmqueue."""
    other = ShmQueue(name)
    assert other.refs == 2
    del other
    assert queue.refs == 1


def test_a_queue_vanishes_when_the_interpreter_exits(name: str, peers: Peers) -> None:
    """The program does not have to call `shutdown`."""
    assert peers.spawn(programs.leave_with_the_interpreter, name).wait() == 0
    assert not os.path.exists(f"/dev/shm/ipcq-shm.{name}")


def test_a_queue_vanishes_with_a_killed_process(name: str, peers: Peers) -> None:
    """A queue that only dead processes had does not exist."""
    peer = peers.spawn(programs.put_one, name, "item")
    peer.hear()
    peer.kill()
    peer.wait()
    assert not ipcq.exists(f"/{name}")


def test_a_killed_producer_leaves_no_lock(queue: ShmQueue, name: str, peers: Peers) -> None:
    """C15: others go on at once, and get whole items."""
    for _ in range(10):
        peer = peers.spawn(programs.put_forever, name)
        peer.hear()
        assert queue.get(timeout=HANG) == b"x" * 100
        peer.kill()
        peer.wait()
        while not queue.empty():
            assert queue.get(block=False) == b"x" * 100
    queue.put("whole", timeout=HANG)
    assert queue.get() == "whole"


AFTER: dict[str, Callable[[ShmQueue], object]] = {
    "put": lambda queue: queue.put(1),
    "put by a method": lambda queue: queue.put(1, serialization_method=1),
    "get": lambda queue: queue.get(),
    "clear": lambda queue: queue.clear(),
    "qsize": lambda queue: queue.qsize(),
    "empty": lambda queue: queue.empty(),
    "full": lambda queue: queue.full(),
    "buffer_occupancy": lambda queue: queue.buffer_occupancy(),
    "max_buffer_size": lambda queue: queue.max_buffer_size(),
    "refs": lambda queue: queue.refs,
    "snapshot": lambda queue: queue.snapshot(),
    "debug_ref_data": lambda queue: queue.debug_ref_data,
}


@pytest.mark.parametrize("verb", AFTER)
def test_a_closed_handle_refuses(queue: ShmQueue, verb: str) -> None:
    """It raises shmqueue's exception for that."""
    queue.shutdown()
    with pytest.raises(errors.ShmQueueNotInitializedError):
        AFTER[verb](queue)


@pytest.mark.parametrize("verb", ["identifier", "__repr__"])
def test_a_closed_handle_still_has_its_name(queue: ShmQueue, name: str, verb: str) -> None:
    """Logs need it."""
    queue.shutdown()
    assert name in (queue.identifier, repr(queue))[verb == "__repr__"]


def test_an_unlinked_queue_is_gone(queue: ShmQueue, name: str) -> None:
    """C14: it raises QueueGone, as every handle of ipcq."""
    ipcq.unlink(f"/{name}")
    with pytest.raises(ipcq.QueueGone):
        queue.get(timeout=HANG)


def test_references_cannot_be_counted_manually(queue: ShmQueue) -> None:
    """Raising the number does nothing, and lowering it is refused."""
    queue.add_ref_manually(os.getpid())
    with pytest.raises(NotImplementedError, match=r"shutdown\(\)"):
        queue.reduce_ref_counter()
    assert queue.refs == 1


def test_clearing_drops_the_items(backend: str, name: str) -> None:
    """The queue is empty afterwards."""
    queue = ShmQueue(name)
    queue.put(1)
    queue.clear()
    assert (queue.qsize(), queue.buffer_occupancy()) == (0, 0)


# Signals


@pytest.fixture
def handlers() -> Iterator[None]:
    """Restore the signal handlers after the test."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_a_signal_closes_the_handle_and_then_calls_the_previous_handler(queue: ShmQueue, handlers: None) -> None:
    """Here, that handler raises KeyboardInterrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    queue.set_console_handlers(register_atexit=True)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(errors.ShmQueueNotInitializedError):
        queue.qsize()


def test_a_signal_that_was_ignored_only_closes_the_handle(queue: ShmQueue, handlers: None) -> None:
    """The process goes on."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    queue.set_console_handlers()
    signal.raise_signal(signal.SIGHUP)
    with pytest.raises(errors.ShmQueueNotInitializedError):
        queue.qsize()


def test_a_signal_that_ends_the_process_still_does(
    queue: ShmQueue, handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is raised again with the default action."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    queue.set_console_handlers()
    handler = signal.getsignal(signal.SIGTERM)
    raised: list[tuple[int, object]] = []
    monkeypatch.setattr(signal, "raise_signal", lambda number: raised.append((number, signal.getsignal(number))))
    assert callable(handler)
    handler(signal.SIGTERM, None)
    assert raised == [(signal.SIGTERM, signal.SIG_DFL)]


def test_the_queue_of_a_terminated_process_vanishes(name: str, peers: Peers) -> None:
    """The process dies of the signal, as its parent sees."""
    peer = peers.spawn(programs.end_by_signal, name, int(signal.SIGTERM))
    assert (peer.wait(), os.path.exists(f"/dev/shm/ipcq-shm.{name}")) == (-signal.SIGTERM, False)


# Creation


@pytest.mark.parametrize("name", ["", "a/b", "x" * 300, "\0"])
def test_an_invalid_name_is_refused(name: str) -> None:
    """It raises shmqueue's exception for invalid values."""
    with pytest.raises(errors.ShmQueueValueError):
        ShmQueue(name)


@pytest.mark.parametrize(("name", "size"), [(7, 4096), (b"name", 4096), ("name", 4096.0), ("name", "4096")])
def test_arguments_of_another_type_are_refused(name: Any, size: Any) -> None:
    """It raises shmqueue's exception for wrong types."""
    with pytest.raises(errors.ShmQueueTypeError):
        ShmQueue(name, buffer_size=size)


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_without_space_is_refused(name: str, size: int) -> None:
    """It is not rounded up."""
    with pytest.raises(errors.ShmQueueValueError):
        ShmQueue(name, buffer_size=size)


def test_a_name_may_begin_with_a_slash(queue: ShmQueue, name: str) -> None:
    """In shmqueue, the system treats both as the same name."""
    assert ShmQueue(f"/{name}").refs == 2


def test_the_creator_chooses_the_size(queue: ShmQueue, name: str) -> None:
    """A handle that attaches gets the queue as it is."""
    assert ShmQueue(name, buffer_size=10 * SYSTEM_PAGESIZE).max_buffer_size() == SYSTEM_PAGESIZE


def test_a_logger_must_be_a_logger(name: str) -> None:
    """Anything else raises ValueError, as in shmqueue."""
    with pytest.raises(ValueError, match="logger"):
        ShmQueue(name, logger=print)


def test_a_logger_logs_rounding(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """It also logs pickles, opening and closing."""
    caplog.set_level(logging.DEBUG)
    queue = ShmQueue(name, buffer_size=1, logger=logging.getLogger("mine"))
    queue.put({1})
    queue.shutdown()
    begun = [record.getMessage().split()[0] for record in caplog.records]
    assert begun == ["buffer_size", "opened", "method", "closing"]


def test_references_are_logged_on_request(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file in the private directory of this user gets a line for each opening and closing."""
    monkeypatch.setattr(_queue, "make_private_directory", lambda part: str(tmp_path))
    ShmQueue(name, debug_ref_to_file_log=True).shutdown()
    lines = map(json.loads, (tmp_path / "references.jsonl").read_text().splitlines())
    assert [(line["action"], line["queue"], line["ref_count"]) for line in lines] == [
        ("create", name, 1),
        ("shutdown", name, 1),
    ]


def test_a_handle_of_an_unlinked_queue_is_shut_down(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log has no number of references, because it is unknown."""
    monkeypatch.setattr(_queue, "make_private_directory", lambda part: str(tmp_path))
    queue = ShmQueue(name, debug_ref_to_file_log=True)
    ipcq.unlink(f"/{name}")
    until(lambda: is_gone(queue))
    queue.shutdown()
    assert json.loads((tmp_path / "references.jsonl").read_text().splitlines()[-1])["ref_count"] is None


def is_gone(queue: ShmQueue) -> bool:
    try:
        queue.qsize()
    except ipcq.QueueGone:
        return True
    return False


def test_a_handle_is_shut_down_even_if_that_cannot_be_logged(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of the file system is raised, and nothing stays open."""
    monkeypatch.setattr(_queue, "make_private_directory", lambda part: str(tmp_path))
    queue = ShmQueue(name, debug_ref_to_file_log=True)
    monkeypatch.setattr(_queue, "make_private_directory", lambda part: str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        queue.shutdown()
    assert not ipcq.exists(f"/{name}")


def test_a_handle_cannot_be_pickled(queue: ShmQueue) -> None:
    """The same holds in shmqueue; the error has the way out."""
    with pytest.raises(TypeError, match="in the other process"):
        pickle.dumps(queue)
