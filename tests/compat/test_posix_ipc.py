"""The compatibility module for posix_ipc: posix_ipc's tests, a comparison with it, and improvements."""

import array
import os
import pickle
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import ipcq
from ipcq.compat import _interruptions, posix_ipc
from ipcq.compat.posix_ipc import O_CREAT, O_CREX, MessageQueue
from ipcq.testing.processes import Peer, Peers, fresh_name, until

if sys.platform != "linux":
    pytest.skip("peers are installed on Linux alone", allow_module_level=True)

import posix_ipc as library

from compat import mqueue_programs as programs
from compat.conftest import HANG
from compat.sources import source

pytestmark = [pytest.mark.needs("mqueue"), pytest.mark.needs("shm")]

#: The limits of a small queue.
SMALL = {"max_messages": 2, "max_message_size": 16}

DIGEST = "6923232111329954a8349f7d99f212b6e96b5206e77fbd39aaf1b3cb4a5e9260"

#: Its tests of message queues; its other tests are about semaphores and shared memory.
TESTS = (
    "tests.test_message_queues",
    "tests.test_module.TestModule.test_constant_queue_priority_max",
    "tests.test_module.TestModule.test_errors",
    "tests.test_module.TestModule.test_unlink_message_queue",
)
COUNT = 47

#: Runs them with the compatibility module under the library's name, which the backend needs for the library afterwards.
RUNNER = f"""
import importlib, sys, unittest
from ipcq.compat import posix_ipc as face
sys.modules["posix_ipc"] = face
for name in ("tests.test_message_queues", "tests.test_module"):
    assert importlib.import_module(name).posix_ipc is face
del sys.modules["posix_ipc"]
unittest.main(module=None, argv=["unittest", *{TESTS!r}])
"""


@pytest.fixture
def queue(backend: str, name: str) -> Iterator[MessageQueue]:
    """Return an open queue of two messages."""
    with MessageQueue(name, O_CREX, **SMALL) as queue:
        yield queue


@pytest.fixture(autouse=True, scope="module")
def watched() -> None:
    """Create the pipe, which is kept, before the tests."""
    _interruptions.unwatch(_interruptions.watch())


# The tests of posix_ipc


def test_the_tests_of_posix_ipc_pass_unchanged(backend: str) -> None:
    """All run, and none is skipped."""
    ran = subprocess.run(
        [sys.executable, "-c", RUNNER],
        cwd=source("posix_ipc", "1.3.2", DIGEST),
        env={**os.environ, "PYTHONPATH": ".", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert re.search(rf"^Ran {COUNT} tests in .*\n\nOK\n\Z", ran.stderr, re.MULTILINE), ran.stderr


# Comparison with posix_ipc

Case = Callable[[Any, Any], object]


def closed(queue: Any) -> Any:
    queue.close()
    return queue


def taken(lib: Any, queue: Any) -> list[object]:
    """Send messages out of order, and receive them."""
    queue.send("low", priority=1)
    queue.send("high", priority=9)
    return [queue.receive(), queue.receive()]


CASES: dict[str, Case] = {
    "a missing queue": lambda lib, queue: lib.MessageQueue(f"{queue.name}-other"),
    "a name without a slash": lambda lib, queue: lib.MessageQueue("jobs", lib.O_CREAT),
    "a name that is too long": lambda lib, queue: lib.MessageQueue("/" + 256 * "x", lib.O_CREAT),
    "a name that is a number": lambda lib, queue: lib.MessageQueue(3),
    "no name without O_EXCL": lambda lib, queue: lib.MessageQueue(None, lib.O_CREAT),
    "an existing queue with O_CREX": lambda lib, queue: lib.MessageQueue(queue.name, lib.O_CREX),
    "O_EXCL alone": lambda lib, queue: lib.MessageQueue(queue.name, lib.O_EXCL),
    "neither to read nor to write": lambda lib, queue: lib.MessageQueue(queue.name, read=False, write=False),
    "no message": lambda lib, queue: lib.MessageQueue(None, lib.O_CREX, max_messages=0),
    "a limit that is text": lambda lib, queue: lib.MessageQueue(None, lib.O_CREX, max_messages="2"),
    "flags that are text": lambda lib, queue: lib.MessageQueue(queue.name, "0"),
    "priorities": taken,
    "a str": lambda lib, queue: (queue.send("ä"), queue.receive())[1],
    "a bytearray": lambda lib, queue: (queue.send(bytearray(b"ab")), queue.receive())[1],
    "an array": lambda lib, queue: (queue.send(array.array("H", [1, 2])), queue.receive())[1],
    "nothing": lambda lib, queue: (queue.send(b""), queue.receive())[1],
    "a message that is too long": lambda lib, queue: queue.send(17 * b"x"),
    "a negative priority": lambda lib, queue: queue.send(b"x", None, -1),
    "a priority that is too high": lambda lib, queue: queue.send(b"x", None, lib.QUEUE_PRIORITY_MAX + 1),
    "a priority that is no int": lambda lib, queue: queue.send(b"x", None, 1.5),
    "a priority that is True": lambda lib, queue: (queue.send(b"x", None, True), queue.receive())[1],
    "a negative timeout": lambda lib, queue: queue.receive(-1),
    "a timeout that is text": lambda lib, queue: queue.receive("1"),
    "an empty queue": lambda lib, queue: queue.receive(0),
    "an empty queue for a while": lambda lib, queue: queue.receive(timeout=0.01),
    "a full queue": lambda lib, queue: [queue.send(b"x", 0) for _ in range(3)],
    "a full queue for a while": lambda lib, queue: [queue.send(b"x", timeout=0.01) for _ in range(3)],
    "receiving without blocking": lambda lib, queue: (setattr(queue, "block", 0), queue.receive())[1],
    "sending without blocking": lambda lib, queue: (setattr(queue, "block", ""), [queue.send(b"x") for _ in "abc"]),
    "a timeout without blocking": lambda lib, queue: (setattr(queue, "block", False), queue.receive(100)),
    "O_NONBLOCK": lambda lib, queue: closed(lib.MessageQueue(queue.name, lib.O_NONBLOCK)) and None,
    "block is a bool": lambda lib, queue: (setattr(queue, "block", "yes"), queue.block)[1],
    "a str of it": lambda lib, queue: str(queue) == queue.name,
    "a repr of it": lambda lib, queue: repr(queue).replace(queue.name, ""),
    "its mode": lambda lib, queue: queue.mode,
    "its limits": lambda lib, queue: (queue.max_messages, queue.max_message_size),
    "its messages": lambda lib, queue: (queue.send("x"), queue.current_messages)[1],
    "another's limits": lambda lib, queue: (
        other := closed(lib.MessageQueue(queue.name, lib.O_CREAT, max_messages=7)),
        other.max_messages,
    )[1],
    "a name as bytes": lambda lib, queue: closed(lib.MessageQueue(queue.name.encode())).name == queue.name,
    "setting its name": lambda lib, queue: setattr(queue, "name", "/x"),
    "setting what it has not": lambda lib, queue: setattr(queue, "other", 1),
    "its descriptor after closing": lambda lib, queue: closed(queue).mqd,
    "its file number after closing": lambda lib, queue: closed(queue).fileno(),
    "sending after closing": lambda lib, queue: closed(queue).send("x"),
    "receiving after closing": lambda lib, queue: closed(queue).receive(),
    "counting after closing": lambda lib, queue: closed(queue).current_messages,
    "unlinking after closing": lambda lib, queue: closed(queue).unlink(),
    "unlinking twice": lambda lib, queue: (queue.unlink(), queue.unlink()),
    "sending after unlinking": lambda lib, queue: (queue.unlink(), queue.send("x"), queue.receive())[2],
    "unlinking by name": lambda lib, queue: lib.unlink_message_queue(queue.name),
    "unlinking what is not there": lambda lib, queue: lib.unlink_message_queue(f"{queue.name}-other"),
    "a notice that is text": lambda lib, queue: queue.request_notification("now"),
    "a notice of a function alone": lambda lib, queue: queue.request_notification((print,)),
    "a notice of no function": lambda lib, queue: queue.request_notification((1, 2)),
    "no notice": lambda lib, queue: queue.request_notification(),
}

#: The classes by which a program can distinguish errors.
KINDS = ("BusyError", "ExistentialError", "PermissionsError", "SignalError", "Error")
BUILTINS = (AttributeError, TypeError, ValueError, OSError)


def outcome(lib: Any, case: Case, name: str) -> object:
    """Return the result of a case, or the classes by which a program would catch its exception."""
    queue = lib.MessageQueue(name, lib.O_CREX, **SMALL)
    try:
        return case(lib, queue)
    except Exception as error:
        of_lib = [kind for kind in KINDS if isinstance(error, getattr(lib, kind))]
        # Errors of the compatibility module have more parents than those of the library.
        return of_lib or [kind for kind in BUILTINS if isinstance(error, kind)][:1]
    finally:
        with suppress(lib.ExistentialError):
            queue.close()
        with suppress(lib.ExistentialError):
            lib.unlink_message_queue(name)


@pytest.mark.parametrize("case", CASES)
def test_each_case_behaves_as_in_posix_ipc(backend: str, name: str, case: str) -> None:
    """It returns the same value, or raises an error that the same except clause catches."""
    assert outcome(posix_ipc, CASES[case], name) == outcome(library, CASES[case], name)


@pytest.mark.parametrize(
    "constant", [each for each in dir(library) if each.isupper() and each not in posix_ipc._OMITTED]
)
def test_constants_are_posix_ipcs(constant: str) -> None:
    """They are those of the imitated release."""
    assert getattr(posix_ipc, constant) == getattr(library, constant)


@pytest.mark.parametrize("thing", [each for each in dir(library) if each[0] != "_" and not hasattr(posix_ipc, each)])
def test_the_error_for_a_missing_name_points_to_posix_ipc(thing: str) -> None:
    """Semaphores and shared memory are not replaced."""
    with pytest.raises(AttributeError, match=rf"{thing}.*import posix_ipc itself"):
        getattr(posix_ipc, thing)


def test_a_name_that_posix_ipc_lacks_gets_no_advice() -> None:
    """It is probably mistyped."""
    with pytest.raises(AttributeError, match=r"has no attribute 'MessageQueu'$"):
        posix_ipc.MessageQueu  # noqa: B018


# Sharing queues with posix_ipc

MESSAGES = [["low", 1], ["high", 32767], ["middle", 5]]
IN_ORDER = [["high", 32767], ["middle", 5], ["low", 1]]


@pytest.mark.parametrize(("sender", "receiver"), [("real", "face"), ("face", "real")])
def test_queues_are_shared_with_posix_ipc(
    peers: Peers, monkeypatch: pytest.MonkeyPatch, name: str, sender: str, receiver: str
) -> None:
    """This works in both directions between processes, and priorities are kept."""
    monkeypatch.delenv("IPCQ_BACKEND", raising=False)
    library.MessageQueue(name, O_CREX, max_messages=3, max_message_size=16).close()
    peers.spawn(programs.send, sender, name, MESSAGES).done()
    other = peers.spawn(programs.receive, receiver, name, len(MESSAGES))
    assert [other.hear() for _ in MESSAGES] == IN_ORDER
    other.done()


def test_unrelated_processes_share_a_queue(peers: Peers, backend: str, queue: MessageQueue) -> None:
    """They only need its name."""
    other = peers.spawn(programs.receive, "face", queue.name, 1)
    queue.send("hello", priority=3)
    assert other.hear() == ["hello", 3]
    other.done()


# Signals


def waiting(peers: Peers, program: Callable[..., object], *arguments: Any) -> Peer:
    """Start a program, and return it when it waits."""
    peer = peers.spawn(program, *arguments)
    assert peer.hear() == "ready"
    until(peer.asleep)
    return peer


@pytest.mark.parametrize("kind", ["real", "face"])
@pytest.mark.parametrize("verb", ["receive", "send"])
def test_a_handler_that_returns_ends_the_wait(peers: Peers, backend: str, name: str, kind: str, verb: str) -> None:
    """It raises SignalError, so that a loop can check what the handler has set."""
    lib = programs.of_posix_ipc(kind)
    queue = lib.MessageQueue(name, O_CREX, max_messages=1, max_message_size=16)
    if verb == "send":
        queue.send("first")
    peer = waiting(peers, programs.interrupted, kind, verb, name)
    peer.send(signal.SIGUSR1)
    assert peer.hear() == "SignalError"
    peer.done()
    queue.close()


def test_an_exception_of_a_handler_passes_through(peers: Peers, queue: MessageQueue) -> None:
    """C12: it is unchanged; posix_ipc drops it."""
    peer = waiting(peers, programs.raising, queue.name)
    peer.send(signal.SIGUSR1)
    assert peer.hear() == "Own"
    peer.done()


def test_ctrl_c_ends_the_wait(peers: Peers, queue: MessageQueue) -> None:
    """C12: it raises KeyboardInterrupt."""
    peer = waiting(peers, programs.ctrl_c, queue.name)
    peer.send(signal.SIGINT)
    assert peer.hear() == "KeyboardInterrupt"
    peer.done()


def test_a_forked_child_does_not_affect_the_parents_wait(peers: Peers, queue: MessageQueue) -> None:
    """Signals to the child are not reported in the parent, and the child's end changes nothing there."""
    peer = peers.spawn(programs.inherited, queue.name)
    assert [peer.hear(), peer.hear()] == [0, "BusyError"]
    peer.done()


@pytest.fixture
def alarm() -> Iterator[list[int]]:
    """Return a list to which the handler of SIGALRM appends."""
    came: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: came.append(number))
    yield came
    signal.signal(signal.SIGALRM, before)


def test_a_late_signal_ends_the_wait_too(queue: MessageQueue, alarm: list[int]) -> None:
    """The duration of the wait does not matter."""
    signal.setitimer(signal.ITIMER_REAL, 0.25)
    with pytest.raises(posix_ipc.SignalError, match="call it again"):
        queue.receive()
    assert alarm == [signal.SIGALRM]


@pytest.fixture
def wakeup() -> Iterator[int]:
    """Return the reading end of a pipe whose writing end is the wakeup descriptor, as in an event loop."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write)
    yield read
    signal.set_wakeup_fd(before)
    os.close(read)
    os.close(write)


def test_the_previous_wakeup_descriptor_gets_the_signals_of_a_wait(alarm: list[int], wakeup: int) -> None:
    """An event loop does not miss signals during a wait."""
    mark = _interruptions.watch()
    signal.raise_signal(signal.SIGALRM)
    assert _interruptions.interrupted(mark)
    _interruptions.unwatch(mark)
    assert os.read(wakeup, 9) == bytes([signal.SIGALRM])


def test_the_previous_wakeup_descriptor_is_restored_after_a_wait(alarm: list[int], wakeup: int) -> None:
    """Later signals go there directly."""
    _interruptions.unwatch(_interruptions.watch())
    signal.raise_signal(signal.SIGALRM)
    assert os.read(wakeup, 9) == bytes([signal.SIGALRM])


def test_a_descriptor_that_cannot_be_written_is_no_error(alarm: list[int], wakeup: int) -> None:
    """Python itself would ignore it."""
    mark = _interruptions.watch()
    _interruptions._before = 1 << 20
    signal.raise_signal(signal.SIGALRM)
    assert _interruptions.interrupted(mark)
    _interruptions.unwatch(_interruptions.UNWATCHED)
    _interruptions._waits = 0


def test_nested_waits_are_distinguished(alarm: list[int]) -> None:
    """A signal before the inner wait only interrupts the outer one."""
    outer = _interruptions.watch()
    signal.raise_signal(signal.SIGALRM)
    inner = _interruptions.watch()
    assert (_interruptions.interrupted(inner), _interruptions.interrupted(outer)) == (False, True)
    _interruptions.unwatch(inner)
    _interruptions.unwatch(outer)


def test_a_signal_before_a_wait_does_not_interrupt_it(alarm: list[int]) -> None:
    """It arrived after the previous wait."""
    _interruptions.unwatch(_interruptions.watch())
    signal.raise_signal(signal.SIGALRM)
    mark = _interruptions.watch()
    assert not _interruptions.interrupted(mark)
    _interruptions.unwatch(mark)


def test_waits_of_other_threads_are_not_interrupted(alarm: list[int]) -> None:
    """Signal handlers run in the main thread."""
    marks: list[int] = []
    thread = threading.Thread(target=lambda: marks.append(_interruptions.watch()))
    thread.start()
    thread.join()
    assert (marks, _interruptions.interrupted(marks[0])) == ([_interruptions.UNWATCHED], False)


@pytest.fixture
def kept() -> Iterator[None]:
    """Create the pipe again for later tests."""
    yield
    _interruptions.unwatch(_interruptions.watch())


def test_a_forked_child_has_no_pipe_of_its_parent(kept: None) -> None:
    """It closes the pipe, because the parent reads it."""
    mark = _interruptions.watch()
    _interruptions._after_fork()
    assert (_interruptions._pipe, _interruptions._waits, signal.set_wakeup_fd(-1)) == (None, 0, -1)
    _interruptions.interrupted(mark)
    _interruptions.unwatch(mark)


def test_a_forked_child_without_a_pipe_closes_nothing(kept: None) -> None:
    """The second call finds no pipe."""
    _interruptions._after_fork()
    _interruptions._after_fork()
    assert _interruptions._pipe is None


# Waiting


def test_a_message_ends_the_wait(queue: MessageQueue) -> None:
    """Another thread sends it."""
    sender = threading.Timer(0.05, queue.send, ["late"], {"priority": 4})
    sender.start()
    assert queue.receive() == (b"late", 4)
    sender.join()


def test_a_message_ends_the_wait_of_another_thread(queue: MessageQueue) -> None:
    """That thread does not watch for signals."""
    taken: list[object] = []
    taker = threading.Thread(target=lambda: taken.append(queue.receive(HANG)))
    taker.start()
    queue.send("late")
    taker.join()
    assert taken == [(b"late", 0)]


def test_space_ends_the_wait(queue: MessageQueue) -> None:
    """The message is in the queue when the call returns."""
    queue.send("1")
    queue.send("2")
    taker = threading.Timer(0.05, queue.receive)
    taker.start()
    queue.send("3", timeout=HANG)
    taker.join()
    assert [queue.receive(), queue.receive()] == [(b"2", 0), (b"3", 0)]


@pytest.mark.parametrize("seconds", [0.05, 0.25])
def test_a_timeout_is_never_early(queue: MessageQueue, seconds: float) -> None:
    """C10: it is measured with the monotonic clock."""
    since = monotonic()
    with pytest.raises(posix_ipc.BusyError):
        queue.receive(seconds)
    assert monotonic() - since >= seconds


@pytest.mark.parametrize("backend", ["shm"], indirect=True)
@pytest.mark.parametrize(("verb", "arguments"), [("receive", ()), ("send", ("3",))])
def test_a_wait_is_counted_once(queue: MessageQueue, verb: str, arguments: tuple[str, ...]) -> None:
    """It may check for signals many times."""
    if verb == "send":
        queue.send("1")
        queue.send("2")
    with pytest.raises(posix_ipc.BusyError):
        getattr(queue, verb)(*arguments, timeout=0.25)
    figures = queue._queue.stats()
    assert (figures.waits, figures.timeouts) == (1, 1)


def test_closing_ends_the_wait(queue: MessageQueue) -> None:
    """C14: posix_ipc would go on waiting."""
    closer = threading.Timer(0.05, queue.close)
    closer.start()
    with pytest.raises(posix_ipc.ExistentialError):
        queue.receive()
    closer.join()


def test_using_a_queue_that_was_shut_down_is_an_existential_error(queue: MessageQueue) -> None:
    """For posix_ipc's programs, the queue does not exist any more."""
    with ipcq.open(queue.name, os.environ["IPCQ_BACKEND"], create=False) as other:
        other.shutdown()
    with pytest.raises(posix_ipc.ExistentialError):
        queue.receive()


# Errors of both trees


@pytest.mark.parametrize(
    ("case", "parents"),
    [
        ("an empty queue", (posix_ipc.BusyError, ipcq.QueueEmpty, TimeoutError)),
        ("a full queue", (posix_ipc.BusyError, ipcq.QueueFull, TimeoutError)),
        ("a missing queue", (posix_ipc.ExistentialError, ipcq.QueueNotFound, FileNotFoundError)),
        ("an existing queue with O_CREX", (posix_ipc.ExistentialError, ipcq.QueueExists, FileExistsError)),
        ("receiving after closing", (posix_ipc.ExistentialError, ipcq.QueueClosed)),
        ("a message that is too long", (ipcq.MessageTooLarge, ValueError)),
        ("a negative priority", (ipcq.InvalidArgument, ValueError)),
    ],
)
def test_errors_are_of_both_trees(queue: MessageQueue, case: str, parents: tuple[type[Exception], ...]) -> None:
    """Programs can catch them as errors of posix_ipc, of ipcq, or of the standard library."""
    with pytest.raises(Exception) as caught:
        CASES[case](posix_ipc, queue)
    assert [parent for parent in parents if not isinstance(caught.value, parent)] == []


def test_an_error_has_the_text_of_ipcq(queue: MessageQueue, backend: str) -> None:
    """It has queue, backend and way out."""
    with pytest.raises(posix_ipc.BusyError) as caught:
        queue.receive(0)
    assert str(caught.value) == f"queue {queue.name!r} on backend {backend!r}: {ipcq.QueueEmpty.wording}"


@pytest.mark.parametrize(("flags", "way"), [(O_CREX, "leave out O_EXCL, or unlink it first"), (0, "with O_CREAT")])
def test_the_way_out_uses_the_arguments_of_posix_ipc(queue: MessageQueue, flags: int, way: str) -> None:
    """The arguments of `ipcq.open` do not exist here."""
    with pytest.raises(posix_ipc.ExistentialError, match=f"{way}$"):
        MessageQueue(queue.name if flags else f"{queue.name}-missing", flags)


def test_an_error_survives_pickling(queue: MessageQueue) -> None:
    """All errors of ipcq do."""
    with pytest.raises(posix_ipc.BusyError) as caught:
        queue.receive(0)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("kind", ["Error", "BusyError", "ExistentialError", "PermissionsError", "SignalError"])
def test_errors_can_be_raised_by_programs(kind: str) -> None:
    """Tests of programs raise them with any text or none."""
    error = getattr(posix_ipc, kind)
    assert "it is busy" in str(error("it is busy"))
    assert str(error())


def test_a_limit_of_the_kernel_is_a_value_error_that_names_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """C24: the text has the command that raises the limit."""
    monkeypatch.setenv("IPCQ_BACKEND", "mqueue")
    with pytest.raises(ValueError, match=r"asked for 1000000") as caught:
        MessageQueue(name, O_CREX, max_messages=1_000_000, max_message_size=1)
    assert isinstance(caught.value, ipcq.LimitExceeded)


def test_a_request_that_the_backend_does_not_support_is_a_value_error(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """An example is a size that no kernel allows."""
    monkeypatch.setenv("IPCQ_BACKEND", "mqueue")
    with pytest.raises(ValueError, match="at most 16777216 bytes") as caught:
        MessageQueue(name, O_CREX, max_messages=1, max_message_size=1 << 30)
    assert isinstance(caught.value, ipcq.Unsupported)


@pytest.mark.parametrize("limits", [{"max_messages": 1_000_000, "max_message_size": 1}, {"max_message_size": 1 << 30}])
def test_another_backend_is_suggested_by_environment_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, limits: dict[str, int]
) -> None:
    """The compatibility module has no argument for it."""
    monkeypatch.setenv("IPCQ_BACKEND", "mqueue")
    with pytest.raises(ValueError, match=r"(use|try) IPCQ_BACKEND=\w+$"):
        MessageQueue(name, O_CREX, **limits)


@pytest.mark.parametrize(("right", "verb"), [("read", "receive"), ("write", "send")])
def test_a_right_that_was_not_requested_is_denied(queue: MessageQueue, right: str, verb: str) -> None:
    """The error is of both trees."""
    arguments = {"send": ["x"], "receive": []}[verb]
    with MessageQueue(queue.name, **{right: False}) as other, pytest.raises(posix_ipc.PermissionsError) as caught:
        getattr(other, verb)(*arguments)
    assert isinstance(caught.value, ipcq.PermissionDenied)


# Notices


@pytest.fixture
def signals() -> Iterator[list[int]]:
    """Return a list to which the handler of SIGUSR2 appends."""
    came: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: came.append(number))
    yield came
    signal.signal(signal.SIGUSR2, before)


def test_a_signal_has_arrived_when_the_send_returns(queue: MessageQueue, signals: list[int]) -> None:
    """Notices of the kernel's queues behave in this way; it arrives once."""
    queue.request_notification(signal.SIGUSR2)
    queue.send("1")
    queue.send("2")
    assert signals == [signal.SIGUSR2]


def test_a_send_does_not_wait_for_a_signal_that_will_not_come(queue: MessageQueue, signals: list[int]) -> None:
    """The queue was not empty."""
    queue.send("1")
    queue.request_notification(signal.SIGUSR2)
    assert queue._due_notice() is None
    queue.send("2")
    assert signals == []


def test_a_function_is_called_with_its_argument(queue: MessageQueue) -> None:
    """It runs in a separate thread."""
    told: list[object] = []
    event = threading.Event()
    queue.request_notification((lambda given: (told.append([given, threading.get_ident()]), event.set()), "x"))
    queue.send("1")
    assert event.wait(HANG)
    (((given, thread),)) = told
    assert given == "x"
    assert thread != threading.get_ident()


def test_an_exception_of_a_function_is_reported(queue: MessageQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported as in every thread; posix_ipc drops it."""
    told: list[object] = []
    event = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda what: (told.append(what.exc_type), event.set()))
    queue.request_notification((int, "x"))
    queue.send("1")
    assert event.wait(HANG)
    assert told == [ValueError]


def test_a_new_request_replaces_the_old_one(queue: MessageQueue, signals: list[int]) -> None:
    """Both are requests of the same object."""
    event = threading.Event()
    queue.request_notification(signal.SIGUSR2)
    queue.request_notification((lambda _: event.set(), None))
    queue.send("1")
    assert event.wait(HANG)
    assert signals == []


def test_only_one_process_can_request_a_notice(peers: Peers, queue: MessageQueue) -> None:
    """Another process gets BusyError, which is also LimitExceeded."""
    other = peers.spawn(programs.registered, queue.name)
    assert other.hear() == "asked"
    with pytest.raises(posix_ipc.BusyError) as caught:
        queue.request_notification(signal.SIGUSR2)
    assert isinstance(caught.value, ipcq.LimitExceeded)
    other.say("end")
    other.done()


def test_another_object_of_the_same_process_cannot_request_a_notice(queue: MessageQueue, signals: list[int]) -> None:
    """It does not replace the request of the first; in posix_ipc it would."""
    queue.request_notification(signal.SIGUSR2)
    with MessageQueue(queue.name) as other, pytest.raises(posix_ipc.BusyError):
        other.request_notification(signal.SIGUSR2)


@pytest.mark.parametrize("number", [0, 1000, True])
def test_an_invalid_signal_is_refused(queue: MessageQueue, number: int) -> None:
    """Nothing is registered."""
    with pytest.raises(ValueError, match="number of a signal"):
        queue.request_notification(number)


# Names, ends and permissions


def test_a_random_name_that_is_taken_is_not_used(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another random name is used."""
    chances = iter(["taken", "taken", "free"])
    own = f"-{fresh_name()[1:]}"
    monkeypatch.setattr(posix_ipc, "token_hex", lambda _: next(chances) + own)
    with MessageQueue(None, O_CREX, **SMALL) as first, MessageQueue(None, O_CREX, **SMALL) as second:
        first.unlink()
        second.unlink()
        assert [first.name, second.name] == [f"/taken{own}", f"/free{own}"]


def test_a_queue_that_another_process_creates_meanwhile_is_opened(
    backend: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O_CREAT opens the queue of the faster process."""
    real, made = ipcq.open, []

    def late(name: str, *where: str, **how: Any) -> Any:
        if not how.get("create", True) and not made:
            try:
                return real(name, *where, **how)
            finally:
                made.append(real(name, *where, max_messages=1, max_message_size=4))
        return real(name, *where, **how)

    monkeypatch.setattr(posix_ipc, "open_queue", late)
    with MessageQueue(name, O_CREAT, **SMALL) as queue, made[0]:
        assert queue.max_messages == 1


def test_opening_gives_up_if_the_queue_keeps_appearing_and_vanishing(
    backend: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It retries until its timeout."""

    def never(name: str, *_: str, create: bool = True, **how: Any) -> Any:
        raise ipcq.QueueExists if create else ipcq.QueueNotFound

    monkeypatch.setattr(posix_ipc, "open_queue", never)
    monkeypatch.setattr(posix_ipc, "OPEN_TIMEOUT", 0.0)
    with pytest.raises(posix_ipc.ExistentialError):
        MessageQueue(name, O_CREAT)


def test_unlinking_leaves_another_queue_of_the_name_alone(queue: MessageQueue) -> None:
    """posix_ipc would remove it."""
    posix_ipc.unlink_message_queue(queue.name)
    with MessageQueue(queue.name, O_CREX, **SMALL), pytest.raises(posix_ipc.ExistentialError):
        queue.unlink()
    assert ipcq.exists(queue.name)


def test_a_second_close_does_nothing(queue: MessageQueue) -> None:
    """posix_ipc would raise."""
    queue.close()
    queue.close()
    assert queue.mqd == -1


def test_the_descriptor_is_readable_while_there_is_a_message(queue: MessageQueue) -> None:
    """This works for select and everything else that takes an object with `fileno`."""
    before = select.select([queue], [], [], 0)[0]
    queue.send("x")
    assert (before, select.select([queue], [], [], 0)[0]) == ([], [queue])


def test_a_writer_has_a_descriptor_too(queue: MessageQueue) -> None:
    """posix_ipc does not distinguish them."""
    with MessageQueue(queue.name, read=False) as writer:
        assert writer.mqd >= 0


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_umask_applies(monkeypatch: pytest.MonkeyPatch, name: str, mask: int, mode: int) -> None:
    """A program that protects its files also protects its queues."""
    monkeypatch.setenv("IPCQ_BACKEND", "mqueue")
    before = os.umask(mask)
    try:
        with MessageQueue(name, O_CREX, 0o666, **SMALL) as queue:
            assert queue._queue.mode == mode
    finally:
        os.umask(before)


def test_the_umask_is_restored(queue: MessageQueue) -> None:
    """Reading it requires setting it."""
    before = os.umask(0o027)
    MessageQueue(queue.name).close()
    assert os.umask(before) == 0o027


def test_on_another_backend_only_this_user_has_access(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Without the kernel's protection, another user with write permission could truncate the file."""
    monkeypatch.setenv("IPCQ_BACKEND", "shm")
    with MessageQueue(name, O_CREX, 0o666, **SMALL) as queue:
        assert (queue._queue.mode, queue.mode) == (0o600, 0o666)


def test_a_queue_with_a_limit_in_bytes_has_maxsize_messages(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The number of messages has no limit."""
    monkeypatch.setenv("IPCQ_BACKEND", "shm")
    with ipcq.open(name, "shm"), MessageQueue(name) as queue:
        assert queue.max_messages == sys.maxsize


def test_a_priority_on_a_queue_without_them_is_a_value_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A program of ipcq has created the queue."""
    monkeypatch.setenv("IPCQ_BACKEND", "shm")
    with ipcq.open(name, "shm"), MessageQueue(name) as queue, pytest.raises(ValueError, match="no priorities"):
        queue.send("x", priority=1)


def test_a_queue_can_be_pickled(queue: MessageQueue) -> None:
    """The pickle has the name, and unpickling attaches."""
    queue.send("x", priority=2)
    with pickle.loads(pickle.dumps(queue)) as other:
        assert other.receive(0) == (b"x", 2)


@pytest.mark.parametrize(("there", "backend"), [(Path("/proc"), "mqueue"), (Path("/nowhere"), "auto")])
def test_the_kernels_queues_are_the_default_if_they_exist(
    monkeypatch: pytest.MonkeyPatch, there: Path, backend: str
) -> None:
    """Otherwise `auto` chooses the backend."""
    monkeypatch.delenv("IPCQ_BACKEND", raising=False)
    monkeypatch.setattr(posix_ipc, "_KERNEL_QUEUES", str(there))
    assert posix_ipc._backend() == backend


def test_a_url_is_refused_as_a_name(backend: str) -> None:
    """posix_ipc would refuse it too."""
    with pytest.raises(ValueError, match="does not start with '/'"):
        MessageQueue("shm:///jobs", O_CREAT)
