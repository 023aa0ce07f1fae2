"""The compatibility module for baseplate: its documented examples, sharing queues with it, and improvements."""

import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import ipcq
from ipcq.compat import baseplate
from ipcq.compat.baseplate import MessageQueue, TimedOutError, queue_tool
from ipcq.testing.processes import Peers, fresh_name

if sys.platform != "linux":
    pytest.skip("peers are installed on Linux alone", allow_module_level=True)

import resource

from compat import mqueue_programs as programs
from compat.conftest import HANG
from compat.sources import source
from greenlets import PATIENCE, command

pytestmark = [pytest.mark.needs("mqueue"), pytest.mark.needs("shm")]

DIGEST = "97356d73b684759c887a69302acbca93953a6be564585ee48927a59440673a1e"

#: The producer and the consumer in baseplate's documentation, with another import.
PRODUCER = """
from ipcq.compat.baseplate import MessageQueue
mq = MessageQueue({name!r}, max_messages=1, max_message_size=1)
message = "1"
mq.put(message)
print("Put Message: %s" % message)
"""
CONSUMER = """
from ipcq.compat.baseplate import MessageQueue
mq = MessageQueue({name!r}, max_messages=1, max_message_size=1)
message = mq.get()
print("Get Message: %s" % message.decode())
"""

TOOL = (sys.executable, "-m", "ipcq.compat.baseplate")

#: A program under gevent, with everything patched.
GREEN = Path(__file__).with_name("green.py")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the compatibility module use its default backend."""
    monkeypatch.delenv("IPCQ_BACKEND", raising=False)


@pytest.fixture
def queue(backend: str, name: str) -> Iterator[MessageQueue]:
    """Return an open queue of two messages."""
    with MessageQueue(name, max_messages=2, max_message_size=16) as queue:
        yield queue


@pytest.fixture(scope="module")
def sources() -> str:
    """Return the directory of baseplate's source distribution."""
    return str(source("baseplate", "2.7.1", DIGEST))


def run(*command: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    """Run a program and return when it has exited."""
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=HANG, check=False)


# With baseplate


def test_the_documented_example_works(backend: str, name: str) -> None:
    """It is unchanged, including str messages, and runs in two processes one after the other."""
    ran = [run(sys.executable, "-c", program.format(name=name)) for program in (PRODUCER, CONSUMER)]
    assert [each.stdout for each in ran] == ["Put Message: 1\n", "Get Message: 1\n"], ran


@pytest.mark.parametrize(("putter", "getter"), [("real", "face"), ("face", "real")])
def test_queues_are_shared_with_baseplate(
    peers: Peers, kernel: None, name: str, sources: str, putter: str, getter: str
) -> None:
    """This works in both directions between processes, without configuration."""
    texts = ["one", "two", "three"]
    other = peers.spawn(programs.get, getter, sources, name, len(texts))
    peers.spawn(programs.put, putter, sources, name, texts).done()
    assert [other.hear() for _ in texts] == texts
    other.done()


def test_baseplate_runs_on_the_compatibility_module_for_posix_ipc(
    peers: Peers, backend: str, name: str, sources: str
) -> None:
    """Its code is unchanged, and only the library is replaced."""
    peer = peers.spawn(programs.on_the_face, sources, name)
    told = [peer.hear() for _ in range(4)]
    peer.done()
    assert told == ["TimedOutError", "TimedOutError", "one", "InvalidParametersError"]


# Messages and waiting


def test_a_message_is_bytes(queue: MessageQueue) -> None:
    """Any bytes arrive unchanged."""
    queue.put(b"\0\xff")
    assert queue.get() == b"\0\xff"


def test_a_str_is_put_as_utf_8(queue: MessageQueue) -> None:
    """posix_ipc does the same."""
    queue.put("ä")
    assert queue.get() == "ä".encode()


def test_a_message_of_another_type_is_a_type_error(queue: MessageQueue) -> None:
    """Nothing is put; posix_ipc crashes here."""
    with pytest.raises(TypeError, match="must be a str or bytes"):
        queue.put(5)
    assert queue.queue.current_messages == 0


def test_a_message_that_is_too_long_is_a_value_error(queue: MessageQueue) -> None:
    """It raises at once and does not wait for the timeout."""
    with pytest.raises(ValueError, match="17 bytes"):
        queue.put(17 * b"x", timeout=HANG)


@pytest.mark.parametrize("seconds", [0, 0.05])
def test_an_empty_queue_times_out(queue: MessageQueue, seconds: float) -> None:
    """C10: it never raises early."""
    since = monotonic()
    with pytest.raises(TimedOutError):
        queue.get(timeout=seconds)
    assert monotonic() - since >= seconds


@pytest.mark.parametrize("seconds", [0, 0.05])
def test_a_full_queue_times_out(queue: MessageQueue, seconds: float) -> None:
    """C10: nothing is put."""
    queue.put(b"1")
    queue.put(b"2")
    with pytest.raises(TimedOutError):
        queue.put(b"3", timeout=seconds)
    assert queue.queue.current_messages == 2


def test_a_handler_that_returns_does_not_end_the_wait(queue: MessageQueue) -> None:
    """C12: baseplate does the same, unlike posix_ipc."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(TimedOutError):
            queue.get(timeout=0.2)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_closing_ends_the_wait(queue: MessageQueue) -> None:
    """C14: another thread may close."""
    closer = threading.Timer(0.05, queue.close)
    closer.start()
    with pytest.raises(ipcq.QueueClosed):
        queue.get()
    closer.join()


def test_a_queue_with_a_descriptor_above_1023_can_wait(kernel: None, name: str) -> None:
    """select cannot, and neither can baseplate."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2048), hard))
    try:
        with ExitStack() as stack:
            end = os.open(os.devnull, os.O_RDONLY)
            stack.callback(os.close, end)
            while end < 1024:
                end = os.dup(end)
                stack.callback(os.close, end)
            queue = stack.enter_context(MessageQueue(name, 2, 16))
            with pytest.raises(ValueError, match="out of range"):
                select.select([queue.queue.mqd], [], [], 0)
            with pytest.raises(TimedOutError):
                queue.get(timeout=0.05)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Under gevent


@pytest.fixture
def green(backend: str, name: str) -> Iterator["subprocess.Popen[str]"]:
    """Run the program, and kill it after the test."""
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    with subprocess.Popen(command(GREEN, name), env=environment, stdout=subprocess.PIPE, text=True) as program:
        yield program
        program.kill()


def said(program: "subprocess.Popen[str]") -> dict[str, Any]:
    """Return the next line of the program's output; if it hangs, fail after it has written its stacks to stderr."""
    watchdog = threading.Timer(PATIENCE, program.send_signal, [signal.SIGUSR1])
    watchdog.start()
    line = program.stdout.readline()
    watchdog.cancel()
    watchdog.join()
    if not line:
        pytest.fail(f"green.py ended with {program.wait(HANG)}, or said nothing for {PATIENCE} s", pytrace=False)
    facts: dict[str, Any] = json.loads(line)
    return facts


@pytest.fixture
def facts(green: "subprocess.Popen[str]") -> dict[str, Any]:
    """Return what the program observes before other programs use the queue."""
    return said(green)


def test_other_greenlets_run_while_one_waits(facts: dict[str, Any]) -> None:
    """It waits in get, put, and in receive and send of the underlying queue."""
    assert facts["served"] == {
        "get": "get",
        "receive": "receive",
        "put": None,
        "send": None,
        "rest": ["put", "send"],
    }


def test_a_greenlet_that_gives_up_has_taken_nothing(facts: dict[str, Any]) -> None:
    """It may be killed, or timed out by itself or by gevent."""
    assert facts["given_up"] == {"own": "QueueEmpty", "rest": "kept"}


def test_a_close_ends_the_wait_of_a_greenlet(facts: dict[str, Any]) -> None:
    """C14: another greenlet closes."""
    assert facts["closed"] == "QueueClosed"


@pytest.mark.parametrize(
    ("backend", "kind"), [("mqueue", "real"), ("mqueue", "face"), ("shm", "face")], indirect=["backend"]
)
def test_greenlets_share_a_queue_with_programs_without_them(
    peers: Peers, green: "subprocess.Popen[str]", facts: dict[str, Any], name: str, sources: str, kind: str
) -> None:
    """This works in both directions: three greenlets take, and forty put."""
    texts = [str(number) for number in range(40)]
    peers.spawn(programs.put, kind, sources, name, [*texts, "end"]).done()
    taken = said(green)["taken"]
    taker = peers.spawn(programs.get, kind, sources, name, len(texts))
    put = sorted((taker.hear() for _ in texts), key=int)
    taker.done()
    assert (taken, put, green.wait(HANG)) == (texts, texts, 0)


# The queue


def test_the_queue_attribute_is_one_of_posix_ipc(queue: MessageQueue) -> None:
    """It has the limits and does not block, as in baseplate."""
    theirs = queue.queue
    assert (theirs.max_messages, theirs.max_message_size, theirs.block) == (2, 16, False)


def test_a_queue_has_the_mode_of_baseplate(kernel: None, name: str) -> None:
    """baseplate creates queues with mode 0644."""
    before = os.umask(0)
    try:
        with MessageQueue(name, 2, 16) as queue:
            assert queue.queue._queue.mode == 0o644
    finally:
        os.umask(before)


def test_an_existing_queue_keeps_its_limits(queue: MessageQueue) -> None:
    """Other limits are ignored, as in baseplate."""
    with MessageQueue(queue.queue.name, 7, 7) as other:
        assert other.queue.max_messages == 2


def test_a_queue_works_after_unlinking(queue: MessageQueue) -> None:
    """It works until it is closed, as in baseplate."""
    queue.unlink()
    queue.put(b"x")
    assert queue.get() == b"x"


def test_unlinking_twice_is_an_error(queue: MessageQueue) -> None:
    """It raises QueueNotFound."""
    queue.unlink()
    with pytest.raises(ipcq.QueueNotFound):
        queue.unlink()


# Errors


def test_the_errors_are_ipcqs() -> None:
    """One except clause catches the errors of both."""
    assert (baseplate.TimedOutError, baseplate.MessageQueueError) == (ipcq.TimedOutError, ipcq.MessageQueueError)


@pytest.mark.parametrize(
    ("arguments", "parents"),
    [
        (("jobs", 2, 16), (ipcq.InvalidName,)),
        ((None, 0, 16), (ipcq.InvalidArgument,)),
        ((None, 1_000_000, 16), (ipcq.LimitExceeded,)),
        ((None, 2, 1 << 30), (ipcq.Unsupported,)),
    ],
)
def test_invalid_arguments_are_value_errors(
    kernel: None, name: str, arguments: tuple[Any, ...], parents: tuple[type[Exception], ...]
) -> None:
    """All are of one class, as in baseplate, and each also of a class of ipcq."""
    with pytest.raises(baseplate.InvalidParametersError) as caught:
        MessageQueue(arguments[0] or name, *arguments[1:])
    wanted = ValueError, ipcq.InvalidArgument if parents == (ipcq.InvalidName,) else parents[0]
    assert all(isinstance(caught.value, parent) for parent in wanted)


@pytest.mark.alone
def test_reaching_the_limit_of_the_user_is_an_os_error_that_names_it(kernel: None) -> None:
    """C24: it is RLIMIT_MSGQUEUE with its value; baseplate reports too many open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (1, hard))
    try:
        with pytest.raises(baseplate.MessageQueueOSError, match="RLIMIT_MSGQUEUE is 1") as caught:
            MessageQueue(fresh_name(), 2, 16)
    finally:
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (soft, hard))
    assert isinstance(caught.value, OSError)


def test_an_error_without_a_class_in_baseplate_is_one_of_ipcq(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An example is a backend that does not exist."""
    monkeypatch.setenv("IPCQ_BACKEND", "nowhere")
    with pytest.raises(ipcq.BackendUnknown):
        MessageQueue(name, 2, 16)


# The command


def test_the_command_creates_a_queue(backend: str, name: str) -> None:
    """The queue has the requested limits."""
    queue_tool(["--create", "--max-messages", "3", "--max-message-size", "12", name])
    with MessageQueue(name, 1, 1) as queue:
        assert (queue.queue.max_messages, queue.queue.max_message_size) == (3, 12)


def test_the_command_writes_each_line_as_a_message(queue: MessageQueue) -> None:
    """Line ends are removed."""
    ran = run(*TOOL, "--write", queue.queue.name, text="hello!\r\nä")
    assert (ran.returncode, queue.get(), queue.get()) == (0, b"hello!", "ä".encode())


def test_the_command_reads_until_it_is_interrupted(queue: MessageQueue) -> None:
    """It prints a line for each message at once, whatever its bytes."""
    queue.put(b"\xff")
    command = [*TOOL, "--read", queue.queue.name]
    buffered = {variable: value for variable, value in os.environ.items() if variable != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, env=buffered, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tool:
        first = tool.stdout.readline()
        queue.put("two")
        second = tool.stdout.readline()
        tool.send_signal(signal.SIGINT)
        assert (first, second, tool.wait(HANG), tool.stderr.read()) == (b"\xff\n", b"two\n", 130, b"")


def test_the_command_reports_errors(kernel: None) -> None:
    """An error is one line with the way out."""
    ran = run(*TOOL, "--create", "jobs")
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert "call it '/jobs'" in ran.stderr


@pytest.mark.parametrize("arguments", [["/jobs"], ["--read", "--write", "/jobs"], ["--read"]])
def test_the_command_needs_one_mode_and_a_name(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """argparse reports an error."""
    with pytest.raises(SystemExit) as caught:
        queue_tool(arguments)
    assert caught.value.code == 2


class Pipe:
    """Stands in for a standard stream: it has lines to read, and fails at the second write."""

    def __init__(self, lines: tuple[bytes, ...] = (), error: Callable[[], BaseException] = BrokenPipeError) -> None:
        self.buffer = self
        self.written: list[bytes] = []
        self._lines = lines
        self._error = error
        self.flush = lambda: None

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._lines)

    def write(self, data: bytes) -> None:
        if self.written:
            raise self._error()
        self.written.append(data)

    def fileno(self) -> int:
        return self.end

    end = -1


def test_the_command_ends_when_its_reader_is_gone(queue: MessageQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """This happens if it is piped into head."""
    out = Pipe()
    monkeypatch.setattr(sys, "stdout", out)
    queue.put("1")
    queue.put("2")
    with open(os.devnull, "wb") as end:
        out.end = end.fileno()
        queue_tool(["--read", queue.queue.name])
    assert out.written == [b"1\n"]


def test_the_command_ends_on_ctrl_c(queue: MessageQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its status is the usual one in shells."""
    monkeypatch.setattr(sys, "stdout", Pipe(error=KeyboardInterrupt))
    queue.put("1")
    queue.put("2")
    with pytest.raises(SystemExit) as caught:
        queue_tool(["--read", queue.queue.name])
    assert caught.value.code == 130


def test_the_module_is_the_command(queue: MessageQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs as ``python -m ipcq.compat.baseplate``."""
    monkeypatch.setattr(sys, "stdin", Pipe((b"line\n",)))
    monkeypatch.setattr(sys, "argv", ["baseplate", "--write", queue.queue.name])
    monkeypatch.delitem(sys.modules, "ipcq.compat.baseplate")
    runpy.run_module("ipcq.compat.baseplate", run_name="__main__")
    assert queue.get() == b"line"


def test_the_command_exits_with_status_1_after_an_error(kernel: None, capsys: pytest.CaptureFixture[str]) -> None:
    """This is the same as above, in this process."""
    with pytest.raises(SystemExit) as caught:
        queue_tool(["--create", "jobs"])
    assert caught.value.code == 1
