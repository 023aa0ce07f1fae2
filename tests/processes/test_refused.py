"""C5: whichever system call fails with whatever number, the operation happened, or raised our error and did nothing.

Each call of each operation is made to fail once, in a new process: nightly with each number, otherwise with one.
"""

import errno
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import ipcq
from ipcq.testing.processes import Peers, fresh_name, say
from processes.programs import SMALL
from processes.sizes import size
from processes.users import warm_up

pytestmark = pytest.mark.storm

if sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"}:
    pytest.skip(f"Windows has no seccomp, nor has {sys.platform}", allow_module_level=True)

from processes.refusals import NUMBERS, Refuser  # noqa: E402  # only where seccomp exists

Handle = ipcq.Queue[Any]
SHORT_SECONDS = 0.2

#: Calls on a queue that holds "a" and "b", each with what the queue holds after it has returned.
ON_A_HANDLE: dict[str, tuple[Callable[[Handle], object], list[str]]] = {
    "put": (lambda queue: queue.put("c", timeout=SHORT_SECONDS), ["a", "b", "c"]),
    "put_many": (lambda queue: queue.put_many(["c"], timeout=SHORT_SECONDS), ["a", "b", "c"]),
    "get": (lambda queue: queue.get(timeout=SHORT_SECONDS), ["b"]),
    "peek": (lambda queue: queue.peek(), ["a", "b"]),
    "clear": (lambda queue: queue.clear(), []),
    "qsize": (lambda queue: queue.qsize(), ["a", "b"]),
}
#: Descriptors that may stay open. While a process has locks on a file, SQLite keeps one on it for the next connection,
#: and a second one if the refused call made the first read-only (open), or hid it from the next connection (stat).
KEPT = {"sqlite": 2}
#: The files on which SQLite may keep them.
SQLITES_FILE = re.compile(r"/\.ipcq-[0-9a-f]{32}/db(-wal|-shm)?( \(deleted\))?")
BY_NAME = ("create", "attach", "exists", "unlink", "close")


class Trial:
    """One operation on a queue, in a child."""

    def __init__(self, backend: str, verb: str) -> None:
        self.backend = backend
        self.verb = verb
        self.name = fresh_name()
        self.other = f"{self.name}-other"
        self.said: list[Any] = []

    def prepare(self) -> Handle:
        queue: Handle = ipcq.open(self.name, self.backend, exclusive=True, **SMALL)
        queue.put("a")
        queue.put("b")
        self.open_before = open_files()
        return queue

    def act(self, queue: Handle) -> None:
        try:
            self.do(queue)
            self.said = ["returned"]
        except ipcq.MessageQueueError as error:
            self.said = ["raised", f"{type(error).__name__}: {error}"]
        except BaseException as error:
            self.said = ["foreign", repr(error)]

    def do(self, queue: Handle) -> None:
        if self.verb in ON_A_HANDLE:
            ON_A_HANDLE[self.verb][0](queue)
        elif self.verb == "create":
            ipcq.open(self.other, self.backend, exclusive=True, **SMALL).close()
        elif self.verb == "attach":
            ipcq.open(self.name, self.backend, create=False).close()
        elif self.verb == "exists":
            assert ipcq.exists(self.name, self.backend)
        elif self.verb == "unlink":
            ipcq.unlink(self.name, self.backend)
        else:
            queue.close()

    def left_open(self) -> int:
        """Return how many more descriptors are open now than before the call, except those that may stay."""
        files = open_files()
        sqlites, before = (len(list(filter(SQLITES_FILE.search, each))) for each in (files, self.open_before))
        kept = min(max(0, sqlites - before), KEPT.get(self.backend, 0))
        return len(files) - len(self.open_before) - kept

    def report(self, queue: Handle) -> str:
        if self.said[0] == "foreign":
            with suppress(ipcq.MessageQueueError):
                ipcq.unlink(self.name, self.backend)
            return json.dumps([self.said, [], False, 0])
        # The listener's descriptor does not count. Another thread may be answering a process that looks for the queue.
        deadline = time.monotonic() + 5.0
        while (more := self.left_open() - 1) > 0 and time.monotonic() < deadline:
            time.sleep(0.001)
        gone = self.verb in {"unlink", "close"} and self.said == ["returned"]
        content = [] if gone else [queue.get(timeout=5.0) for _ in range(queue.qsize())]
        with suppress(ipcq.QueueGone):
            if not queue.closed and not gone:
                queue.put("again", timeout=5.0)
        if self.verb == "create":
            there = ipcq.exists(self.other, self.backend)
            with suppress(ipcq.QueueNotFound):
                ipcq.unlink(self.other, self.backend)
        else:
            there = ipcq.exists(self.name, self.backend)
        with suppress(ipcq.QueueNotFound):
            ipcq.unlink(self.name, self.backend)
        queue.close()
        return json.dumps([self.said, content, there, more])


def open_files() -> list[str]:
    """Return the file of each open descriptor."""
    files = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # it has just been closed
            files.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return files


def complaint(verb: str, text: str) -> str:
    """Return what is wrong with a child's report, or nothing."""
    try:
        said, content, there, more = json.loads(text)
    except ValueError:
        return text
    returned = said == ["returned"]
    if said[0] == "foreign":
        return f"another error than ours: {said}"
    if verb == "clear" and content in (["b"], ["a", "b"]):
        return ""  # messages are dropped one by one until a call fails
    if verb in ON_A_HANDLE and content != (ON_A_HANDLE[verb][1] if returned else ["a", "b"]):
        return f"{said}, and then the queue holds {content}"
    if verb == "create" and not returned and there:
        return f"{said}, and yet there is a queue"
    if verb == "unlink" and there == returned:
        return f"{said}, and yet the name is {'there' if there else 'free'}"
    if more > 0:
        return f"{said}, and {more} descriptors were left open"
    return ""


def refuse_each(backend: str, verb: str, tries: int) -> None:
    """Make each call of an operation fail in turn; report how many there were and what was wrong."""
    warm_up(backend)
    wrong = []
    place = 0
    while True:
        place += 1
        called = ""
        for turn in range(tries):
            number = NUMBERS[(place + turn) % len(NUMBERS)]
            trial = Trial(backend, verb)
            called, text = Refuser(trial.prepare, trial.act, trial.report).run(place, number)
            problem = complaint(verb, text)
            # Reading a regular file never returns EAGAIN.
            if problem and (called, number) != ("read", errno.EAGAIN):
                wrong.append(f"call {place}, {called or 'none'}, {os.strerror(number)}: {problem}")
        if not called:
            break
    say([place - 1, wrong])


@pytest.mark.parametrize("verb", [*ON_A_HANDLE, *BY_NAME])
def test_an_operation_with_a_failing_system_call_happens_or_does_nothing(
    verb: str, backend: str, peers: Peers, request: pytest.FixtureRequest
) -> None:
    """C5: every call of every operation, at its place."""
    if verb == "peek" and backend == "mqueue":
        pytest.skip("capabilities.peek is False on backend 'mqueue'")
    numbers = size(1, len(NUMBERS))
    calls, wrong = peers.fork(refuse_each, backend, verb, numbers).hear()
    print(f"{calls} system calls, each refused with {numbers} error numbers")
    assert not wrong, "\n".join(wrong)
    assert calls > 0 or verb != "create"  # the ring's calls on a handle make none
