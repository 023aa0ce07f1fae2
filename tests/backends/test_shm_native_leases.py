"""Leases in C: they exist, behave like the methods in Python, and lose no message whatever happens during a call."""

import datetime as dt
import gc
import os
import pickle
import signal
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import ipcq
from backends import shm
from backends.native import grown_by
from backends.shm import run_script
from ipcq._abilities import lease as lease_module
from ipcq._abilities.session import Session
from ipcq.errors import InvalidArgument, LeaseLost
from ipcq.serializers import register

if sys.platform != "linux":
    pytest.skip("shm is for Linux", allow_module_level=True)

from ipcq import _native

# Most tests leave their leases to the end of the handle.
pytestmark = pytest.mark.filterwarnings("ignore:unsettled:ResourceWarning")

works, name = shm.works, shm.name

Handle = ipcq.Queue[Any]
Open = Callable[..., Handle]

HANG_SECONDS = 20.0
LIMITS: dict[str, Any] = {"max_messages": 16, "max_message_size": 100_000, "leases": True}
TIME = b"\xd6\xff\0\0\0\x01"  # msgpack decodes it, and C does not
BAD = b"\xc7"


class Decoder:
    """A decoder that a test can replace."""

    def __init__(self) -> None:
        self.decode: Callable[[bytes], Any] = lambda data: data

    def __call__(self, data: bytes) -> Any:
        return self.decode(data)


decoder = Decoder()
register(7002, "test-leases", lambda item: item, decoder)


@pytest.fixture(autouse=True)
def switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IPCQ_SHORTCUTS", raising=False)
    decoder.__init__()  # type: ignore[misc]  # reset it


@pytest.fixture
def opened(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Return a function that opens handles to one queue; those with ``in_c=False`` do every call in Python."""
    handles: list[Handle] = []

    def opened(in_c: bool = True, **options: Any) -> Handle:
        with monkeypatch.context() as patch:
            if not in_c:
                patch.setenv("IPCQ_SHORTCUTS", "0")
            handles.append(ipcq.open(name, "shm", **{**LIMITS, **options}))
        return handles[-1]

    yield opened
    while handles:
        handles.pop().close()


@pytest.fixture
def queue(opened: Open) -> Handle:
    return opened()


def leasing(queue: Handle) -> Any:
    """Return the channel of a queue with leases."""
    return queue._channel


def states(queue: Handle) -> tuple[int, ...]:
    """Return how many messages are ready, leased, delayed and dead."""
    return tuple(leasing(queue).counts())


def frames(call: Callable[[], object]) -> list[str]:
    """Return the names of the functions in Python that a call runs."""
    seen: list[str] = []
    sys.setprofile(lambda frame, event, _: seen.append(frame.f_code.co_name) if event == "call" else None)
    try:
        call()
    finally:
        sys.setprofile(None)
    return [each for each in seen if each != "<lambda>"]


CALLS: dict[str, Callable[[Handle], object]] = {
    "lease, ack": lambda queue: queue.lease().ack(),
    "lease with a hold, release": lambda queue: queue.lease(False, hold=5).release(),
    "lease with a timeout, release with a delay": lambda queue: queue.lease(timeout=1.5, hold=0.5).release(0.001),
    "lease_many, ack_many": lambda queue: queue.ack_many(queue.lease_many(5)),
    "lease_many with a hold, ack_many of a tuple": lambda queue: queue.ack_many(
        leases=tuple(queue.lease_many(2, hold=HANG_SECONDS))
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_function_in_python_runs(queue: Handle, call: Callable[[Handle], object]) -> None:
    """Leases are in C from end to end, including the codec."""
    queue.put_many([{"a": 1}, b"2"])
    assert frames(lambda: call(queue)) == []


def test_the_switch_turns_c_off(opened: Open) -> None:
    """IPCQ_SHORTCUTS=0."""
    queue = opened(in_c=False)
    queue.put(1)
    assert {"lease", "ack"} <= set(frames(lambda: queue.lease().ack()))


@pytest.mark.parametrize("verb", ["lease", "lease_many", "ack_many", "ack", "release"])
def test_the_verbs_are_in_c(verb: str) -> None:
    """And show the signature and the docstring that are written in Python."""
    owner = ipcq.Queue if hasattr(ipcq.Queue, verb) else ipcq.Lease
    method = getattr(owner, verb)
    assert isinstance(method, _native.Verb)
    assert method.__doc__ == method.__wrapped__.__doc__


@pytest.mark.parametrize("verb", ["ack", "release"])
@pytest.mark.parametrize("wrong", [(), (5,), (5, 6)], ids=str)
def test_a_verb_without_a_lease_is_an_error(verb: str, wrong: tuple[object, ...]) -> None:
    """It raises and does not crash."""
    with pytest.raises((TypeError, AttributeError)):
        getattr(ipcq.Lease, verb)(*wrong)


@pytest.mark.parametrize("verb", ["ack", "release"])
def test_a_lease_that_was_never_made_does_not_crash(verb: str) -> None:
    """Its fields in C are empty."""
    lease = ipcq.Lease.__new__(ipcq.Lease)
    with pytest.raises(AttributeError):
        getattr(lease, verb)()


def test_every_end_has_the_same_text_in_c(queue: Handle) -> None:
    """C keeps a number, and refuses other texts."""
    queue.put(1)
    job = queue.lease()
    for end in ("", *lease_module._ENDS.values(), lease_module._LOST):
        job._end = end
        assert job._end == end
    with pytest.raises(ValueError, match="does not end"):
        job._end = "over"
    with pytest.raises(ValueError, match="does not end"):
        del job._end


def test_a_session_must_have_serial_numbers(queue: Handle) -> None:
    """C uses it without looking again."""
    with pytest.raises(TypeError, match="serial"):
        queue._session = object()
    with pytest.raises(TypeError, match="serial"):
        del queue._session
    with pytest.raises(AttributeError):
        ipcq.Queue.__new__(ipcq.Queue)._session  # noqa: B018  # raises
    with pytest.raises(TypeError):
        _native.Serials().serial("x")


@pytest.mark.parametrize("wrong", [5, int])
def test_only_a_class_of_leases_arms_a_handle_for_leases(queue: Handle, wrong: Any) -> None:
    """Any other object is refused, and the handle works as before."""
    with pytest.raises(TypeError, match="class of leases"):
        queue._arm(queue._channel.native(), bytes, bytes, True, True, True, wrong)
    queue.put(b"item")
    with queue.lease() as job:
        assert job.item == b"item"


# It behaves as the methods in Python do


def outcome(call: Callable[[], object]) -> tuple[object, ...]:
    """Return what a call returned or raised, with everything that its caller sees."""
    try:
        return ("returned", call())
    except Exception as error:
        facts = [type(error), str(error), getattr(error, "queue", None), getattr(error, "backend", None)]
        return (*facts, getattr(error, "data", None), type(error.__cause__), str(error.__cause__))


def shown(lease: Any) -> tuple[object, ...]:
    return lease.item, lease.priority, lease.deliveries, lease.failures, lease.name, repr(lease), lease.lost


def twice(lease: Any) -> Any:
    lease.ack()
    return lease.ack()


def after_close(queue: Handle, settle: str) -> Any:
    lease = queue.lease()
    queue.close()
    return getattr(lease, settle)()


def late(queue: Handle, settle: Callable[[Any], object]) -> Any:
    lease = queue.lease(hold=0.001)
    time.sleep(0.01)
    return settle(lease)


def some_over(queue: Handle) -> Any:
    jobs = queue.lease_many(3)
    jobs[1].release(HANG_SECONDS)
    return queue.ack_many(jobs)


def some_late(queue: Handle) -> Any:
    jobs = [queue.lease(), queue.lease(hold=0.001), queue.lease()]
    time.sleep(0.01)
    return outcome(lambda: queue.ack_many(jobs)), [repr(job) for job in jobs]


def same_twice(queue: Handle) -> Any:
    job = queue.lease()
    return outcome(lambda: queue.ack_many([job, job])), repr(job)


def others(queue: Handle) -> Any:
    with ipcq.open(queue.name, "shm") as other:
        jobs = [queue.lease(), other.lease()]
        found = outcome(lambda: queue.ack_many(jobs))
        return found[0], [repr(job) for job in jobs]


ENDS: dict[str, Callable[[Handle], object]] = {
    "lease": lambda queue: shown(queue.lease()),
    "lease after a failure": lambda queue: (queue.lease().fail("why"), shown(queue.lease())),
    "lease after a release": lambda queue: (queue.lease().release(), shown(queue.lease())),
    "lease with everything": lambda queue: shown(queue.lease(block=True, timeout=5, hold=5)),
    "lease by position": lambda queue: shown(queue.lease(True, 5.0)),
    "lease without end": lambda queue: shown(queue.lease(hold=float("inf"))),
    "lease with the shortest hold": lambda queue: late(queue, lambda _: leasing(queue).counts()),
    **{f"hold {hold!r}": lambda queue, hold=hold: queue.lease(hold=hold) for hold in (0, -1, float("nan"), "5", True)},
    **{f"timeout {time!r}": lambda queue, time=time: queue.lease(timeout=time) for time in (-1, "5", float("nan"))},
    "block=1": lambda queue: queue.lease(1),
    "too many arguments": lambda queue: queue.lease(True, 5, 5),
    "an unknown name": lambda queue: queue.lease(wait=5),
    "lease_many": lambda queue: [shown(each) for each in queue.lease_many(2)],
    "lease_many of all": lambda queue: [shown(each) for each in queue.lease_many(1 << 40, hold=5)],
    **{f"lease_many({most!r})": lambda queue, most=most: queue.lease_many(most) for most in (0, -1, True, "5", None)},
    "lease_many of nothing": lambda queue: queue.lease_many(),
    "lease_many with a bad hold": lambda queue: queue.lease_many(2, hold=0),
    "ack": lambda queue: queue.lease().ack(),
    "ack with an argument": lambda queue: queue.lease().ack(5),
    "ack twice": lambda queue: twice(queue.lease()),
    "ack after close": lambda queue: after_close(queue, "ack"),
    "ack too late": lambda queue: late(queue, lambda lease: lease.ack()),
    "release": lambda queue: queue.lease().release(),
    "release by name": lambda queue: queue.lease().release(delay=HANG_SECONDS),
    "release for a moment": lambda queue: queue.lease().release(1e-12),
    "release too late": lambda queue: late(queue, lambda lease: lease.release()),
    "release after close": lambda queue: after_close(queue, "release"),
    **{
        f"release({delay!r})": lambda queue, delay=delay: queue.lease().release(delay)
        for delay in (-1, float("nan"), "5", None, True, float("inf"))
    },
    "ack_many": lambda queue: queue.ack_many(queue.lease_many(3)),
    "ack_many of an iterator": lambda queue: queue.ack_many(iter(queue.lease_many(3))),
    "ack_many of none": lambda queue: queue.ack_many([]),
    "ack_many of one": lambda queue: queue.ack_many(queue.lease()),
    "ack_many of others": lambda queue: queue.ack_many([queue.lease(), 5])[0],
    "ack_many of leases of another handle": others,
    "ack_many of the same twice": same_twice,
    "ack_many of some that are settled": some_over,
    "ack_many of some that are over": some_late,
    "the with statement": lambda queue: queue.lease().__enter__().__exit__(None, None, None),
    "fail": lambda queue: queue.lease().fail("why", HANG_SECONDS),
    "reject": lambda queue: queue.lease().reject("why"),
    "extend": lambda queue: queue.lease().extend(5),
    "pickle": lambda queue: pickle.dumps(queue.lease()),
}


@pytest.mark.parametrize("call", ENDS.values(), ids=ENDS)
def test_a_call_ends_in_the_same_way(opened: Open, call: Callable[[Handle], object]) -> None:
    """It returns or raises the same, and leaves the messages in the same states."""
    keeper, found = opened(), []
    for in_c in (True, False):
        handle = opened(in_c)
        keeper.put_many([{"a": 1}, b"2", None])
        found.append((outcome(partial(call, handle)), states(keeper)))
        handle.close()
        keeper.clear()
        leasing(keeper).clear_dead()
    assert found[0] == found[1]


@pytest.mark.parametrize("options", [{"read": False}, {"write": False}], ids=str)
def test_rights_are_kept(opened: Open, options: dict[str, Any]) -> None:
    """Who may not read leases nothing."""
    opened().put_many([1, 2])
    handles = opened(**options), opened(in_c=False, **options)
    found = [outcome(lambda handle=handle: handle.lease(False).ack()) for handle in handles]
    assert found[0] == found[1]
    assert found[0][0] == ("returned" if "write" in options else ipcq.PermissionDenied)


def test_a_queue_without_leases_says_so(opened: Open) -> None:
    """Its table has no such functions."""
    queue = opened(leases=False)
    for call in (queue.lease, lambda: queue.lease_many(5), lambda: queue.ack_many([5])):
        with pytest.raises((ipcq.Unsupported, InvalidArgument)):
            call()


BATCHES = {
    "dicts and bytes": [b"\x81\xa1a\x01", b"\xc4\x01a", b"\x05"],
    "large ones": [b"\x05", b"\xc6\0\0\x80\0" + bytes(32768), b"\xc5\x30\x00" + bytes(0x3000), b"\x06"],
    "one that msgpack decodes": [b"\x05", TIME, b"\x06"],
    "first one that msgpack decodes": [TIME, b"\x06"],
    "one that cannot be decoded": [b"\x05", BAD, b"\x06"],
    "first one that cannot be decoded": [BAD, b"\x06"],
    "none that can be decoded": [BAD, BAD],
    "empty messages": [b"", b""],
}


@pytest.mark.parametrize("options", [{}, {"serializer": "raw"}, {"serializer": "test-leases"}], ids=str)
@pytest.mark.parametrize("most", [0, 1, 2, 9])
@pytest.mark.parametrize("bound", [None, 2])
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_messages_become_the_same_leases(
    opened: Open, batch: list[bytes], bound: int | None, most: int, options: dict[str, Any]
) -> None:
    """Whether C or Python decodes them; what nobody can decode is given back with the same verdict."""
    raw, found = opened(serializer="raw", max_deliveries=bound), []
    for in_c in (True, False):
        handle = opened(in_c, max_deliveries=bound, **options)
        raw.put_many(batch)
        for _ in batch:
            ended = outcome(partial(handle.lease_many, most, False) if most else partial(handle.lease, False))
            leases: Any = ended[1] if ended[0] == "returned" else []
            leases = leases if most or not leases else [leases]
            found.append((list(map(shown, leases)) if leases else ended, states(raw)))
            handle.ack_many(leases)
        found.append((states(raw), [letter.reason for letter in leasing(raw).peek_dead(0, 9)]))
        handle.close()
        raw.clear()
        leasing(raw).clear_dead()
    assert found[: len(found) // 2] == found[len(found) // 2 :]


def test_priorities_are_kept(opened: Open) -> None:
    """In the order and in the field."""
    queue = opened(priorities=True)
    queue.put(1, priority=5)
    queue.put(2, priority=32767)
    assert [(each.item, each.priority) for each in queue.lease_many(5)] == [(2, 32767), (1, 5)]


def test_the_token_in_c_is_that_of_the_channel(queue: Handle) -> None:
    """Methods of the channel settle leases of C."""
    queue.put_many([1, 2])
    first, second = queue.lease(), queue.lease()
    lost = leasing(queue).find_lost([first._token, second._token, 99])
    assert lost == [99]
    second.extend(HANG_SECONDS)
    second.fail("why")
    first._token = 99
    assert (first._token, first.lost) == (99, True)


@pytest.mark.parametrize("settle", ["ack", "release", "ack_many"])
def test_a_lease_of_another_session_is_refused(queue: Handle, monkeypatch: pytest.MonkeyPatch, settle: str) -> None:
    """C20: a forked child has a handle with a new session, whose participant has no leases."""
    queue.put("job")
    job = queue.lease()
    with monkeypatch.context() as patch, pytest.raises(LeaseLost):
        patch.setattr(queue, "_session", Session())
        queue.ack_many([job]) if settle == "ack_many" else getattr(job, settle)()
    assert (job.lost, states(queue)) == (False, (0, 1, 0, 0))


# Waiting


@pytest.mark.parametrize("verb", ["lease", "lease_many"])
def test_a_wait_that_is_served_is_counted_once(opened: Open, verb: str) -> None:
    """After more than one slice."""
    queue, other = opened(), opened()
    later = threading.Timer(0.25, other.put, ["item"])
    later.start()
    got = queue.lease(timeout=HANG_SECONDS) if verb == "lease" else queue.lease_many(5, timeout=HANG_SECONDS)[0]
    later.join()
    figures = queue.stats()
    assert (got.item, figures.waits, figures.timeouts) == ("item", 1, 0)


@pytest.mark.parametrize("verb", ["lease", "lease_many"])
def test_a_wait_in_vain_is_counted_once(queue: Handle, verb: str) -> None:
    """And lasts as long as its timeout."""
    began = time.monotonic()
    with pytest.raises(ipcq.QueueEmpty):
        queue.lease(timeout=0.05, hold=5) if verb == "lease" else queue.lease_many(5, timeout=0.05)
    figures = queue.stats()
    assert (time.monotonic() - began >= 0.05, figures.waits, figures.timeouts) == (True, 1, 1)


def test_the_exception_of_a_signal_handler_ends_a_wait(queue: Handle) -> None:
    """C12: and nothing is leased afterwards."""

    def stop(*_: object) -> None:
        queue.put(1)
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with pytest.raises(InterruptedError):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            queue.lease(timeout=HANG_SECONDS)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert states(queue) == (1, 0, 0, 0)


def test_a_lease_of_a_shut_down_queue_ends(queue: Handle) -> None:
    """The reason comes from Python."""
    queue.put(1)
    job = queue.lease()
    queue.shutdown()
    job.ack()
    with pytest.raises(ipcq.QueueShutDown):
        queue.lease()


# What is leased and cannot be returned


@pytest.mark.parametrize("kind", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("verb", ["lease", "lease_many"])
def test_an_exception_of_the_decoder_gives_the_messages_back(
    opened: Open, verb: str, place: int, kind: type[BaseException]
) -> None:
    """Without a failure. What ran out of memory is not returned, but the leases before it are."""
    queue = opened(serializer="test-leases")
    queue.put_many([b"0", b"1", b"2"])

    def decode(data: bytes) -> bytes:
        if data == b"%d" % place:
            raise kind
        return data

    decoder.decode = decode
    got: list[Any] = []
    try:
        while not got or verb == "lease":
            got.extend([queue.lease(False)] if verb == "lease" else queue.lease_many(3, False))
    except kind:
        assert verb == "lease" or kind is not MemoryError or place == 0
    assert [each.item for each in got] == [b"0", b"1", b"2"][: len(got)]
    assert states(queue) == (3 - len(got), len(got), 0, 0)
    queue.ack_many(got)
    decoder.decode = lambda data: data
    assert [(each.item, each.failures) for each in queue.lease_many(9)] == [
        (b"%d" % number, 0) for number in range(len(got), 3)
    ]


@pytest.mark.parametrize("batch", [[BAD, b"\x06"], [b"\x06", BAD]], ids=["first", "second"])
@pytest.mark.parametrize("busy", [False, True])
def test_messages_that_python_cannot_take_over_are_given_back(
    opened: Open, batch: list[bytes], busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out on the way from C to Python; if C cannot give back either, Python does."""
    raw, queue = opened(serializer="raw"), opened()
    raw.put_many(batch)

    def fail(*_: object) -> None:
        if busy:
            queue._disarm()
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(ipcq.Queue, "_lent_rest", fail)
        queue.lease_many(2)
    assert states(queue) == (2, 0, 0, 0)
    assert [each.failures for each in raw.lease_many(2)] == [0, 0]


def test_what_nobody_can_give_back_comes_back_with_the_handle(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call still raises its own error."""
    raw, queue = opened(serializer="raw"), opened()
    raw.put(BAD)

    def fail(*_: object) -> None:
        queue._disarm()
        raise MemoryError

    monkeypatch.setattr(ipcq.Queue, "_lent_rest", fail)
    monkeypatch.setattr(ipcq.Queue, "_recall_batch", fail)
    with pytest.raises(MemoryError):
        queue.lease()
    assert states(raw) == (0, 1, 0, 0)
    queue.close()
    assert states(raw) == (1, 0, 0, 0)


def test_a_handle_that_is_closed_by_its_decoder_has_no_lease(opened: Open) -> None:
    """The close gave the message back."""
    raw, queue = opened(serializer="raw"), opened(serializer="test-leases")
    queue.put(b"1")
    decoder.decode = lambda data: queue.close() or data
    job = queue.lease()
    with pytest.raises(LeaseLost, match="handle is closed"):
        job.ack()
    assert states(raw) == (1, 0, 0, 0)


def test_a_closed_handle_is_noticed_while_leases_are_made(queue: Handle) -> None:
    """Up to Python 3.11, a finaliser may run there."""
    queue.put(1)

    class Closer:
        def __del__(self) -> None:
            queue.close()

    threshold = gc.get_threshold()
    gc.collect()
    cycle: list[object] = [Closer()]
    cycle.append(cycle)
    del cycle
    gc.set_threshold(1)
    try:
        with pytest.raises((ipcq.QueueClosed, LeaseLost)):
            queue.lease().ack()
            queue.lease(False)
    finally:
        gc.set_threshold(*threshold)


def test_no_memory_loses_no_message(name: str) -> None:
    """C36: whichever allocation fails, what was not returned is not leased, and what was not settled is."""
    pytest.importorskip("_testcapi", reason="_testcapi came with Python 3.0")
    code = f"""
import _testcapi, ipcq
failed = set()
LARGE = {{"text": "x" * 1500}}
with ipcq.open({name!r}, "shm", max_messages=16, max_message_size=2000, leases=True) as queue:
    def take(call, settle):
        for allocation in range(40):
            queue.put_many([LARGE, {{"number": 1}}, b"data"])
            leases = []
            _testcapi.set_nomemory(allocation, allocation + 3)
            try:
                leases = call()
            except MemoryError:
                failed.add(allocation)
            _testcapi.remove_mem_hooks()
            leases = leases if isinstance(leases, list) else [leases]
            assert queue.stats().leased == len(leases), (allocation, leases, queue.stats())
            assert [each.item for each in leases] == [LARGE, {{"number": 1}}, b"data"][:len(leases)]
            if not leases:
                queue.clear()
                continue
            _testcapi.set_nomemory(allocation, allocation + 3)
            try:
                settle(leases)
                done = True
            except MemoryError:
                done = False
            _testcapi.remove_mem_hooks()
            assert queue.stats().leased == (0 if done else len(leases)), (allocation, done)
            queue.ack_many([each for each in leases if not each._end])
            assert all(each.failures == 0 for each in queue.lease_many(9, False)) if queue.qsize() else True
            queue.clear()
    take(queue.lease, lambda leases: [each.ack() for each in leases])
    take(lambda: queue.lease_many(3), queue.ack_many)
print(len(failed))
"""
    assert int(run_script(code)) > 5


# References and memory


def test_a_lease_that_is_dropped_is_given_back(queue: Handle) -> None:
    """At once, with a warning that points to where it was dropped."""
    queue.put(1)
    job = queue.lease()
    with pytest.warns(ResourceWarning, match="unsettled") as warned:
        del job
    assert states(queue) == (1, 0, 0, 0)
    assert warned[0].filename == __file__


def test_a_lease_that_is_settled_is_dropped_without_python(queue: Handle) -> None:
    """The finaliser is in C."""
    queue.put(1)
    jobs = [queue.lease()]
    jobs[0].ack()
    assert frames(jobs.pop) == []


def test_an_error_of_the_finaliser_is_reported(
    queue: Handle, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """And an exception that is being handled stays."""
    seen: list[Any] = []
    queue.put(1)
    job = queue.lease()

    def fail(_: object) -> None:
        raise ValueError

    with monkeypatch.context() as patch:
        patch.setattr(sys, "unraisablehook", seen.append)
        patch.setattr(ipcq.Lease, "_dropped", fail)
        del job
    assert [each.exc_type for each in seen] == [ValueError]


def test_a_cycle_through_a_lease_is_collected(queue: Handle) -> None:
    """The garbage collector sees the references in C."""
    queue.put(1)
    job = queue.lease()
    job.item = [job]
    gone = weakref.ref(job)
    job.ack()
    del job
    gc.collect()
    assert gone() is None


def raise_bad(*_: object) -> Any:
    raise ValueError("bad")


LOOPS: dict[str, Callable[[Handle], object]] = {
    "ack": lambda queue: (queue.put(b"1" * 60), queue.lease().ack()),
    "release": lambda queue: (queue.put({"a": 1}), queue.lease(hold=5).release(), queue.clear()),
    "batches": lambda queue: (queue.put_many([{"a": 1}, "b"]), queue.ack_many(queue.lease_many(5))),
    "large": lambda queue: (queue.put_many([bytes(20000)] * 2), queue.ack_many(queue.lease_many(5))),
    "what msgpack decodes": lambda queue: (
        queue._channel.try_put_many([b"\x05", TIME]),
        queue.ack_many(queue.lease_many(5)),
    ),
    "no message": lambda queue: (
        queue._channel.try_put_many([b"\x05", BAD]),
        outcome(lambda: queue.ack_many(queue.lease_many(5))),
        leasing(queue).clear_dead(),
    ),
    "empty": lambda queue: (outcome(lambda: queue.lease(False)), outcome(lambda: queue.lease_many(5, False))),
    "bad arguments": lambda queue: (outcome(lambda: queue.lease(1)), outcome(lambda: queue.lease_many(0))),
    "twice": lambda queue: (queue.put(1), outcome(lambda: twice(queue.lease()))),
    "batches twice": lambda queue: (queue.put(1), outcome(lambda: queue.ack_many([queue.lease()] * 2))),
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_no_call_leaks(queue: Handle, loop: Callable[[Handle], object]) -> None:
    """C17: neither memory nor references leak."""
    codec = queue._decode.__self__  # type: ignore[attr-defined]  # it is in C
    watched = [None, True, queue, queue._channel, queue._session, ipcq.Lease, b"", b"1", (), codec, queue._decode]
    assert not any(grown_by(lambda: loop(queue), [*watched, *gc.get_referents(codec)]))


def test_jobs_of_threads_are_neither_lost_nor_doubled(opened: Open) -> None:
    """C3, C21: with one handle for all threads, and settled by other threads than they were leased by."""
    queue = opened(max_messages=50)
    taken: list[int] = []

    def work() -> None:
        while True:
            jobs = queue.lease_many(3, timeout=HANG_SECONDS)
            items = [job.item for job in jobs]
            if items[0] % 2:
                queue.ack_many(jobs)
            else:
                for job in jobs:
                    job.ack()
            taken.extend(item for item in items if item < 3000)
            if max(items) >= 3000:
                return

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(3000):
        queue.put(number)
    while sorted(taken) != list(range(3000)):
        time.sleep(0.01)
    for _ in range(20):
        queue.put(3000)
    for thread in threads:
        thread.join(HANG_SECONDS)
    assert sorted(taken) == list(range(3000))


def test_a_forked_child_has_none_of_the_leases(queue: Handle) -> None:
    """C20: what it inherited is refused, and its own handle leases."""
    queue.put_many([1, 2])
    job = queue.lease()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(int(HANG_SECONDS))
        try:
            job.ack()
        except LeaseLost:
            queue.lease(timeout=HANG_SECONDS).ack()
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (job.lost, states(queue)) == (False, (0, 1, 0, 0))
    job.ack()


def test_a_time_is_leased(opened: Open) -> None:
    """msgpack decodes it in Python, and the lease is settled."""
    queue = opened()
    queue.put(dt.datetime.fromtimestamp(1, dt.UTC))
    with queue.lease() as job:
        assert job.item.timestamp() == 1
    assert states(queue) == (0, 0, 0, 0)
