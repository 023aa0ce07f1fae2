"""The state machine: one queue with several handles here and in another process, compared with a model.

A backend's test is one line, or a subclass that sets more attributes::

    from ipcq.testing.machine import machine_for

    TestMineAgrees = machine_for("mine")

Hypothesis generates sequences of calls. Each call runs on the backend (`Stage`) and on `ipcq.testing.model`, and must
return the same value, or raise an exception of the same class. Handles are in numbered slots: the first two in this
process, the others in a second process, if the backend's scope allows that. `replay` compares two backends with the
same sequence; a new backend needs only its name.

This does not test concurrency, because every call has returned before the next begins; see `ipcq.testing.processes`.

``IPCQ_TEST_PROFILE=nightly`` runs a hundred times as many examples, and ``IPCQ_TEST_SEED`` replays a run.
"""

import atexit
import contextlib
import os
import time
import unittest
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Final

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import ipcq
from ipcq.backend import HIGHEST_PRIORITY, Capabilities, Persistence, Scope
from ipcq.errors import MessageQueueError, QueueNotFound
from ipcq.testing._answers import until_answered
from ipcq.testing.model import NOTHING, Model, Outcome, Step
from ipcq.testing.processes import Peer, Peers, fresh_name, hear, own_seed, say

__all__ = (
    "LeaseMachine",
    "QueueMachine",
    "Stage",
    "capabilities",
    "end_helper",
    "machine_for",
    "options_for",
    "profile",
    "replay",
    "shared",
    "traces",
)

#: Default options of the queue.
SMALL: Final[Mapping[str, Any]] = {"max_messages": 4, "max_message_size": 512}

#: Seconds within which all handles must notice that the queue was shut down or unlinked. The contract allows one
#: second, with which the machine would take minutes; a backend that needs more than this sets `settle`.
SETTLE: Final = 0.005

#: Slots for handles; those from `AWAY` on are in the other process.
SLOTS: Final = 4
AWAY: Final = 2

#: Seconds after which a call in the other process counts as hanging.
HANG: Final = 20.0

#: Messages that msgpack cannot decode: an empty one, a frame without a number, with an unknown one and with a refused
#: one, a truncated map, a truncated string, and one with bytes after its end.
POISON: Final = (b"", b"\xc1", b"\xc1\x87\x68x", b"\xc1\x01N.", b"\x81", b"\xd9\x04ab", b"\x01\x01")

SPOILT: Final = ("", "unencodable", "oversize")

#: How every sequence of calls begins: with a handle in each slot.
BEGINNING: Final[Sequence[Step]] = tuple(("renew", slot, {}) for slot in range(SLOTS))


# --- generated calls ---------------------------------------------------------------------------------------------


_slots = st.integers(0, SLOTS - 1)
_items = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.binary(max_size=64),
    st.binary(min_size=500, max_size=507),
    st.lists(st.integers(0, 300), max_size=5),
)
_batches = st.lists(_items, min_size=1, max_size=6)
_priorities = st.one_of(st.just(0), st.sampled_from([1, 2, HIGHEST_PRIORITY]))
_counts = st.one_of(st.none(), st.integers(1, 5))

#: The strategies for each call's arguments, shared by the machine's rules and `traces`.
CALLS: Final[Mapping[str, Mapping[str, st.SearchStrategy[Any]]]] = {
    "open": {
        "create": st.booleans(),
        "exclusive": st.booleans(),
        "rights": st.sampled_from(["both", "both", "both", "read", "write"]),
        "other_limit": st.sampled_from([False, False, False, True]),
        "stay": st.sampled_from([False, False, False, True]),
    },
    "renew": {},
    "close": {},
    "unlink": {},
    "forget": {},
    "exists": {},
    "put": {"item": _items, "priority": _priorities},
    "put_dropping": {"item": _items, "priority": _priorities},
    "put_spoilt": {"spoilt": st.sampled_from(SPOILT[1:])},
    "put_raw": {"data": st.sampled_from(POISON)},
    "put_many": {"items": _batches, "spoilt": st.sampled_from(("", "", "", *SPOILT[1:]))},
    "get": {"timeout": st.sampled_from([None, 0, 0.002])},
    "get_message": {},
    "get_latest": {},
    "get_many": {"most": _counts},
    "peek": {},
    "clear": {},
    "look": {},
    "shutdown": {"immediate": st.booleans()},
    "misuse": {"how": st.sampled_from(["get(0.5)", "timeout", "nan", "priority", "most"])},
}


#: The calls on a queue with leases besides.
LEASE_CALLS: Final[Mapping[str, Mapping[str, st.SearchStrategy[Any]]]] = {
    "lease": {},
    "lease_many": {"most": st.integers(1, 5)},
    "settle": {"which": st.integers(0, 3), "how": st.sampled_from(["ack", "release", "fail", "reject", "delay"])},
    "count": {},
    "get_dead": {},
    "requeue": {"most": st.integers(1, 3)},
}

#: Relative frequency of the calls, by default 1: calls that end a queue or a handle are rarer than others.
_WEIGHTS: Final[Mapping[str, int]] = {"put": 6, "put_many": 4, "get": 3, "get_message": 2, "get_many": 3, "renew": 8}


def traces(
    calls: Sequence[str] = tuple(CALLS), most: int = 50, *, priorities: bool = True
) -> st.SearchStrategy[list[Step]]:
    """Return a strategy for sequences of calls, for `replay`.

    Args:
        calls: Names of the calls.
        most: Largest number of calls.
        priorities: Put with priorities, which some backends refuse and some always have.
    """
    plain = {call: {**CALLS[call], "priority": st.just(0)} for call in ("put", "put_dropping")}
    generated = CALLS if priorities else {**CALLS, **plain}
    steps = [
        st.tuples(st.just(call), _slots, st.fixed_dictionaries(dict(generated[call])))
        for call in calls
        for _ in range(_WEIGHTS.get(call, 1))
    ]
    return st.lists(st.one_of(*steps), max_size=most).map(lambda rest: [*BEGINNING, *rest])


# --- the backend -------------------------------------------------------------------------------------------------


class _Handles:
    """The handles of one process, and the calls on them."""

    def __init__(self, name: str, backend: str, options: Mapping[str, Any]) -> None:
        self._name = name
        self._backend = backend
        self._options = dict(options)
        self._queues: dict[int, ipcq.Queue[Any]] = {}
        self._jobs: dict[ipcq.Queue[Any], list[ipcq.Lease[Any]]] = {}

    def call(self, step: Step) -> Outcome:
        """Make one call and return its outcome."""
        call, slot, arguments = step
        try:
            if call in ("open", "renew", "forget", "exists"):
                return "returned", getattr(self, f"_{call}")(slot, **arguments)
            if slot not in self._queues:
                return NOTHING
            return "returned", getattr(self, f"_{call}")(self._queues[slot], **arguments)
        except MessageQueueError as error:
            return "raised", type(error).__name__

    def end(self) -> None:
        """Close all handles."""
        for queue in self._queues.values():
            _close(queue)
        self._queues.clear()
        self._jobs.clear()

    def _open(self, slot: int, create: bool, exclusive: bool, rights: str, other_limit: bool, stay: bool) -> None:
        options = dict(self._options)
        if other_limit:
            options["max_messages"] += 1
        elif not create:
            options = {}
        opened = ipcq.open(
            self._name,
            self._backend,
            create=create,
            exclusive=exclusive and create,
            read=rights != "write",
            write=rights != "read",
            after_unlink="continue" if stay else "raise",
            **options,
        )
        if slot in self._queues:
            _close(self._queues[slot])
            del self._jobs[self._queues[slot]]
        self._queues[slot] = opened
        self._jobs[opened] = []

    def _renew(self, slot: int) -> None:
        self._open(slot, create=True, exclusive=False, rights="both", other_limit=False, stay=False)

    def _forget(self, slot: int) -> None:
        ipcq.unlink(self._name, self._backend)

    def _exists(self, slot: int) -> bool:
        return ipcq.exists(self._name, self._backend)

    def _close(self, queue: "ipcq.Queue[Any]") -> None:
        _close(queue)

    def _unlink(self, queue: "ipcq.Queue[Any]") -> None:
        queue.unlink()

    def _put(self, queue: "ipcq.Queue[Any]", item: Any, priority: int) -> None:
        queue.put(item, block=False, priority=priority)

    def _put_dropping(self, queue: "ipcq.Queue[Any]", item: Any, priority: int) -> int:
        return queue.put(item, priority=priority, drop_oldest=True)

    def _put_spoilt(self, queue: "ipcq.Queue[Any]", spoilt: str) -> None:
        queue.put(_spoilt(queue, spoilt), timeout=0.002)

    def _put_raw(self, queue: "ipcq.Queue[Any]", data: bytes) -> None:
        with ipcq.open(self._name, self._backend, create=False, read=False, serializer="raw") as raw:
            raw.put_nowait(data)

    def _put_many(self, queue: "ipcq.Queue[Any]", items: list[Any], spoilt: str) -> int:
        return queue.put_many([*items, _spoilt(queue, spoilt)] if spoilt else items, block=False)

    def _get(self, queue: "ipcq.Queue[Any]", timeout: float | None) -> Any:
        if not timeout:
            return queue.get(timeout is not None, timeout)
        return until_answered(lambda seconds: queue.get(timeout=seconds), timeout)

    def _get_message(self, queue: "ipcq.Queue[Any]") -> list[Any]:
        message = queue.get_message(block=False)
        return [message.item, message.priority]

    def _get_latest(self, queue: "ipcq.Queue[Any]") -> Any:
        return queue.get_latest(block=False)

    def _get_many(self, queue: "ipcq.Queue[Any]", most: int | None) -> list[Any]:
        return queue.get_many(most, block=False)

    def _peek(self, queue: "ipcq.Queue[Any]") -> Any:
        return queue.peek()

    def _clear(self, queue: "ipcq.Queue[Any]") -> int:
        return queue.clear()

    def _look(self, queue: "ipcq.Queue[Any]") -> list[Any]:
        exact = queue.capabilities.exact_qsize
        return [queue.qsize() if exact else None, queue.empty(), queue.full(), queue.max_messages]

    def _shutdown(self, queue: "ipcq.Queue[Any]", immediate: bool) -> None:
        queue.shutdown(immediate)

    def _lease(self, queue: "ipcq.Queue[Any]") -> list[Any]:
        return self._taken(queue, [queue.lease(block=False)])[0]

    def _lease_many(self, queue: "ipcq.Queue[Any]", most: int) -> list[Any]:
        return self._taken(queue, queue.lease_many(most, block=False))

    def _taken(self, queue: "ipcq.Queue[Any]", jobs: list["ipcq.Lease[Any]"]) -> list[list[Any]]:
        self._jobs[queue] += jobs
        return [[job.item, job.priority, job.deliveries, job.failures] for job in jobs]

    def _settle(self, queue: "ipcq.Queue[Any]", which: int, how: str) -> str:
        jobs = self._jobs[queue]
        if not jobs:
            return "no lease"
        job = jobs[which % len(jobs)]
        if how == "delay":
            job.release(delay=1000)
        else:
            getattr(job, how)()
        return "settled"

    def _count(self, queue: "ipcq.Queue[Any]") -> list[int | None]:
        stats = queue.stats()
        return [stats.depth, stats.leased, stats.delayed, stats.dead]

    def _get_dead(self, queue: "ipcq.Queue[Any]") -> list[int]:
        letter = queue.dead().get_message(block=False)
        return [letter.priority, letter.deliveries]

    def _requeue(self, queue: "ipcq.Queue[Any]", most: int) -> int:
        return queue.dead().requeue(most)

    def _misuse(self, queue: "ipcq.Queue[Any]", how: str) -> None:
        if how == "get(0.5)":
            queue.get(0.5)  # type: ignore[arg-type]  # the misuse under test
        elif how == "timeout":
            queue.get(timeout=-1)
        elif how == "nan":
            queue.put(0, timeout=float("nan"))
        elif how == "priority":
            queue.put(0, priority=HIGHEST_PRIORITY + 1)
        else:
            queue.get_many(0)


def _close(queue: "ipcq.Queue[Any]") -> None:
    with warnings.catch_warnings():
        # The warning that a batch held messages that cannot be decoded, whose errors were never raised.
        warnings.simplefilter("ignore", UserWarning)
        queue.close()


def _spoilt(queue: "ipcq.Queue[Any]", how: str) -> object:
    return object() if how == "unencodable" else bytes(queue.max_message_size + 1)


def _help() -> None:  # pragma: no cover - in the other process
    """Hold the handles of the slots from `AWAY` on, in another process, until the connection ends."""
    handles: _Handles | None = None
    with contextlib.suppress(EOFError):
        while True:
            order, content = _unpacked(hear())
            if order == "begin":
                handles = _Handles(*content)
                say("begun")
            elif order == "call":
                assert handles is not None
                say(_packed(handles.call(tuple(content))))
            else:
                assert handles is not None
                handles.end()
                say("ended")


def _packed(value: Any) -> Any:
    """Encode a value so that JSON can represent it."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, dict):
        return {"dict": {key: _packed(each) for key, each in value.items()}}
    if isinstance(value, list | tuple):
        return [_packed(each) for each in value]
    return value


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict):
        if "bytes" in value:
            return bytes.fromhex(value["bytes"])
        return {key: _unpacked(each) for key, each in value["dict"].items()}
    if isinstance(value, list):
        return [_unpacked(each) for each in value]
    return value


_helpers: list[tuple[Peers, Peer]] = []


def _helper() -> Peer:
    """Return the other process, which is started at the first call and kept, because starting one takes long."""
    if not _helpers:
        peers = Peers(patience=None, seed=0)
        peers.__enter__()
        _helpers.append((peers, peers.spawn(_help)))
    return _helpers[0][1]


def end_helper() -> None:
    """End the second process, which `Stage` and `replay` keep for their handles; the next use starts another."""
    while _helpers:
        peers, _ = _helpers.pop()
        peers.__exit__(None, None, None)


atexit.register(end_helper)


class Stage:
    """One queue of a backend, used from this process and another.

    Args:
        backend: The backend's name, or the URL of a place.
        options: Options of the queue, including `max_messages`, and `max_message_size` of at least 512.
        settle: Seconds that the backend needs until all handles notice a shutdown or an unlink.
    """

    def __init__(self, backend: str, options: Mapping[str, Any] = SMALL, settle: float = SETTLE) -> None:
        self._backend = backend
        self._settle = settle
        self._name = fresh_name("/ipcq-machine")
        self._handles = _Handles(self._name, backend, options)
        self._helper = _helper() if capabilities(backend).scope >= Scope.HOST else None
        if self._helper is not None:
            self._request("begin", [self._name, backend, options])

    def call(self, step: Step) -> Outcome:
        """Make one call, here or in the other process, and return its outcome."""
        outcome: Outcome
        if self._helper is not None and step[1] >= AWAY:
            kind, value = self._request("call", step)
            outcome = (kind, value)
        else:
            outcome = self._handles.call(step)
        if step[0] in ("shutdown", "unlink", "forget"):
            time.sleep(self._settle)
        return outcome

    def end(self) -> None:
        """Close every handle and remove the queue."""
        self._handles.end()
        if self._helper is not None:
            self._request("end", None)
        with contextlib.suppress(QueueNotFound):
            ipcq.unlink(self._name, self._backend)

    def _request(self, order: str, content: object) -> Any:
        assert self._helper is not None
        self._helper.say(_packed([order, content]))
        return _unpacked(self._helper.hear(HANG))


def capabilities(backend: str) -> Capabilities:
    """Return the capabilities of a backend.

    Raises:
        unittest.SkipTest: The backend cannot be used here; the text has the reason.
        LookupError: No backend has this name.
    """
    for info in ipcq.backends():
        if info.name == backend.partition("://")[0]:
            if not info.usable or info.capabilities is None:
                raise unittest.SkipTest(f"backend {backend!r} cannot be used here: {info.reason}")
            return info.capabilities
    raise LookupError(f"no backend is called {backend!r}")


def shared(*backends: str) -> list[str]:
    """Return the calls that have the same meaning on all of these backends, according to their capabilities."""
    able = [capabilities(backend) for backend in backends]
    differ = [call for call in ("peek", "shutdown") if len({getattr(each, call) for each in able}) > 1]
    if len({each.drop_oldest for each in able}) > 1:
        differ += ["put_dropping", "get_latest"]
    if len({each.persistence == Persistence.HOLDERS for each in able}) > 1:
        differ.append("close")  # closing the last handle ends the queue on some
    if len({each.after_unlink for each in able}) > 1:
        differ.append("open")  # a handle that continues after an unlink
    if len({each.places for each in able}) > 1:
        differ.append("unlink")  # by a closed handle, after the name was used again
    return [call for call in CALLS if call not in differ]


def options_for(*backends: str) -> dict[str, Any]:
    """Return options for a queue that have the same meaning on all of these backends."""
    return {**SMALL, "priorities": all(capabilities(backend).priorities for backend in backends)}


def replay(
    trace: Sequence[Step], backend: str, options: Mapping[str, Any] = SMALL, settle: float = SETTLE
) -> list[Outcome]:
    """Make the calls of a trace on a new queue of a backend, and return their outcomes."""
    stage = Stage(backend, options, settle)
    try:
        return [stage.call(step) for step in trace]
    finally:
        stage.end()


# --- the machine -------------------------------------------------------------------------------------------------


def _rule(call: str, *, rare: bool = False) -> Any:
    """Return a rule that makes one call, with a slot and the arguments that `CALLS` generates."""

    def play(self: "QueueMachine", slot: int, really: bool = True, **arguments: Any) -> None:
        if really:
            self.play((call, slot, arguments))

    play.__name__ = call
    arguments: dict[str, Any] = {"slot": _slots, **{**CALLS, **LEASE_CALLS}[call]}
    if rare:
        # Otherwise most calls would be on queues and handles that have ended.
        arguments["really"] = st.sampled_from([True, False, False, False])
    return rule(**arguments)(play)  # type: ignore[no-untyped-call]  # its overloads take no mapping


class QueueMachine(RuleBasedStateMachine):
    """Compare a backend with the model; subclass it and set `backend`, or call `machine_for`.

    Attributes:
        backend: The backend's name, or the URL of a place.
        options: Options of the queue: `max_messages`, `max_message_size` of at least 512, and the backend's own.
            Priorities are requested if the backend supports them.
        settle: Seconds that the backend needs until all handles notice a shutdown or an unlink; at most one.
    """

    backend: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = SMALL
    settle: ClassVar[float] = SETTLE

    def __init__(self) -> None:
        super().__init__()
        able = capabilities(self.backend)
        options = {"priorities": able.priorities, **self.options}
        self._stage = Stage(self.backend, options, self.settle)
        self._model = Model(options["max_messages"], able, options["priorities"], options.get("max_deliveries"))
        for step in BEGINNING:
            self.play(step)

    def play(self, step: Step) -> None:
        """Make one call on the backend and on the model, and compare the outcomes."""
        given = self._stage.call(step)
        expected = self._model.call(step)
        if expected is None:
            assert given[0] == "raised", f"{step} gave {given} but had to raise"
        else:
            # Compare the repr, because 1, 1.0 and True are equal.
            assert repr(given) == repr(expected), f"{step} gave {given}, not {expected}"

    # Several names for one call make it more frequent.
    open_handle = _rule("open")
    reopen = _rule("renew")
    close_handle = _rule("close", rare=True)
    unlink = _rule("unlink", rare=True)
    unlink_by_name = _rule("forget", rare=True)
    exists = _rule("exists")
    put = _rule("put")
    put_again = _rule("put")
    put_more = _rule("put")
    put_dropping = _rule("put_dropping")
    put_spoilt = _rule("put_spoilt")
    put_undecodable = _rule("put_raw")
    put_many = _rule("put_many")
    put_many_more = _rule("put_many")
    get = _rule("get")
    get_message = _rule("get_message")
    get_latest = _rule("get_latest")
    get_many = _rule("get_many")
    peek = _rule("peek")
    clear = _rule("clear", rare=True)
    shutdown = _rule("shutdown", rare=True)
    misuse = _rule("misuse")

    @rule(anew=st.booleans())
    def renew_all(self, anew: bool) -> None:
        """Put a working handle into each slot, sometimes on a new queue."""
        if anew or self._model.ended:
            self.play(("forget", 0, {}))
        for step in BEGINNING:
            self.play(step)

    @precondition(lambda self: self._model.ended)
    @rule()
    def begin_anew(self) -> None:
        """Replace a queue that was shut down or unlinked."""
        self.renew_all(False)

    @invariant()
    def same_length(self) -> None:
        """Check that every handle counts as many messages as the model."""
        for slot in range(SLOTS):
            self.play(("look", slot, {}))

    def teardown(self) -> None:
        """Check that the remaining messages come in order, and no others."""
        try:
            for slot, count in self._model.left().items():
                for _ in range(count + 1):
                    self.play(("get_message", slot, {}))
        finally:
            self._stage.end()

    class _Case:
        def __get__(self, machine: object, kind: type["QueueMachine"]) -> type[unittest.TestCase]:
            return _case_of(kind)

    TestCase: Any = _Case()


class LeaseMachine(QueueMachine):
    """Compare a queue with leases with the model; subclass it and set `backend`, or call `machine_for`.

    Time does not pass in the model, so no hold ends, and a delay is longer than the test.
    """

    options: ClassVar[Mapping[str, Any]] = {**SMALL, "max_deliveries": 2}

    lease = _rule("lease")
    lease_again = _rule("lease")
    lease_many = _rule("lease_many")
    settle_lease = _rule("settle")
    settle_another = _rule("settle")
    settle_more = _rule("settle")
    get_dead = _rule("get_dead", rare=True)
    requeue = _rule("requeue")

    @invariant()
    def same_counts(self) -> None:
        """Check that every handle counts as many messages in each state as the model."""
        for slot in range(SLOTS):
            self.play(("count", slot, {}))


@cache
def _case_of(machine: type[QueueMachine]) -> type[unittest.TestCase]:
    class AgreesWithTheModel(unittest.TestCase):
        def tearDown(self) -> None:
            end_helper()

        def test_every_call_gives_what_the_model_says(self) -> None:
            """C25: the same calls give the same results and exceptions as on the model."""
            run_state_machine_as_test(seed(own_seed())(machine), settings=profile())

    AgreesWithTheModel.__qualname__ = AgreesWithTheModel.__name__ = f"{machine.__name__}Case"
    AgreesWithTheModel.__module__ = machine.__module__
    return AgreesWithTheModel


def machine_for(
    backend: str, *, settle: float = SETTLE, leases: bool = False, **options: Any
) -> type[unittest.TestCase]:
    """Return a test case that compares a backend with the model; assign it to a name that begins with ``Test``.

    Args:
        backend: The backend's name, or the URL of a place.
        settle: As in `QueueMachine`.
        leases: Test a queue with leases.
        options: Options of the queue; by default it has 4 messages of 512 bytes.
    """
    kind = LeaseMachine if leases else QueueMachine
    attributes = {"backend": backend, "settle": settle, "options": {**kind.options, **options}, "__module__": __name__}
    title = backend.partition("://")[0].title()
    return _case_of(type(f"{title}{kind.__name__}", (kind,), attributes))


def profile(examples: int = 150) -> settings:
    """Return Hypothesis's settings for a pull request, or for a nightly run if ``IPCQ_TEST_PROFILE`` is ``nightly``."""
    nightly = os.environ.get("IPCQ_TEST_PROFILE") == "nightly"
    return settings(
        max_examples=examples * (100 if nightly else 1),
        stateful_step_count=50 if nightly else 40,
        deadline=None,
        print_blob=True,
        # Runs are replayed by their seed, so no database is needed.
        database=None,
        suppress_health_check=list(HealthCheck),
    )
