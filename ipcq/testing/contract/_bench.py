"""The base of the suite's tests: queues that are removed, threads and processes that cannot hang, and skips."""

import faulthandler
import json
import os
import secrets
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property  # noqa: TID251  # only the thread of the test reads it
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar

import pytest

import ipcq
from ipcq.backend import Capabilities, Scope
from ipcq.testing.processes import Peer, Peers

P = ParamSpec("P")
T = TypeVar("T")

#: Limits of the promises, in seconds, times ten.
LATE = 0.5
"""C10: a call times out at most 50 ms late."""
INTERRUPTED = 1.0
"""C12: an exception of a signal handler propagates within 100 ms."""
WOKEN = 2.5
"""C13, C14: waiting calls are woken within 250 ms."""
NOTICED = 10.0
"""C14: all handles notice the end of a queue within one second."""

#: Seconds after which an operation without a limit of its own counts as hanging.
HANG = 20.0

# The start of every script: the openers `create` and `attach` that tests have too, and the way to talk to the test.
_PRELUDE = """
import faulthandler, json, os, random, signal, sys, threading, time
import ipcq
from ipcq.testing import _program
from ipcq.testing._program import hear
backend, name, small = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
del sys.argv[1:4]
def create(**options):
    return ipcq.open(name, backend=backend, exclusive=True, **{**small, **options})
def attach(**options):
    return ipcq.open(name, backend=backend, create=False, **options)
def say(*words):
    _program.say(" ".join(map(str, words)))
"""


class Hang(BaseException):
    """A test did not end in time; a BaseException, so that no `except Exception` suppresses it."""


class Worker(Generic[T]):
    """A thread that keeps the result or exception of its function."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._result: T | None = None
        self._error: BaseException | None = None
        self.seconds = 0.0
        # A daemon, so that a hanging thread, which fails its test, does not block the end of the test run.
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            self._result = self._call()
        except BaseException as error:  # for the test to see
            self._error = error
        self.seconds = time.monotonic() - began

    def running(self) -> bool:
        """Return whether the function is still running."""
        return self._thread.is_alive()

    def outcome(self, within: float = HANG) -> T:
        """Return the function's result or raise its exception; fail the test after `within` seconds."""
        self._thread.join(within)
        if self._thread.is_alive():
            frame = sys._current_frames().get(self._thread.ident or 0)
            where = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "its end"
            pytest.fail(f"a thread did not return within {within} s; it is at {where}")
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # set, because the function returned

    def error(self, within: float = HANG) -> BaseException | None:
        """Return the function's exception, or None."""
        try:
            self.outcome(within)
        except Exception as error:  # for the test to see
            return error
        return None


@contextmanager
def watchdog(seconds: float) -> Iterator[None]:
    """Raise `Hang` in the main thread if the block takes longer than `seconds`."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        faulthandler.dump_traceback_later(seconds, exit=True)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
        return

    def bark(number: int, frame: object) -> None:
        faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        raise Hang(f"the test did not end within {seconds} s")

    # Another watchdog may use the same timer, as pytest-timeout does: restore it with its remaining time.
    handler = signal.signal(signal.SIGALRM, bark)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    began = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, left - (time.monotonic() - began)), interval)


class Bench:
    """The base class of every part of the suite."""

    backend: ClassVar[str]
    small: ClassVar[Mapping[str, Any]] = {"max_messages": 4, "max_message_size": 512}
    patience: ClassVar[float] = 60.0

    name: str
    _cleaning: ExitStack

    @pytest.fixture(autouse=True)
    def _standing(self) -> Iterator[None]:
        if not isinstance(getattr(self, "backend", None), str):
            pytest.fail(f'{type(self).__name__} has no backend to test: set backend = "NAME"')
        self._skip_where_unusable()
        with watchdog(self.patience), ExitStack() as self._cleaning:
            self.name = self.fresh_name()
            yield

    def _skip_where_unusable(self) -> None:
        installed = {info.name: info for info in ipcq.backends()}
        if self._plugin not in installed:
            pytest.fail(f"no backend {self._plugin!r} is installed: installed are {', '.join(installed)}")
        if not installed[self._plugin].usable:
            pytest.skip(f"backend {self._plugin!r} cannot be used here: {installed[self._plugin].reason}")

    @property
    def _plugin(self) -> str:
        """Name of the backend, also if `backend` is a place."""
        return self.backend.partition("://")[0]

    # Queues

    def fresh_name(self) -> str:
        """Return an unused name; a queue with this name is unlinked after the test."""
        name = f"/contract-{os.getpid()}-{secrets.token_hex(4)}"
        self._cleaning.callback(self._forget, name)
        return name

    def _forget(self, name: str, at: str = "") -> None:
        with suppress(ipcq.MessageQueueError):
            ipcq.unlink(name, at or self.backend)

    def create(self, name: str | None = None, *, at: str = "", **options: Any) -> "ipcq.Queue[Any]":
        """Create the test's queue, or one called `name`, in the place `at`; `small` sets options that are not given."""
        opened = ipcq.open(
            name or self.name, backend=at or self.backend, **{"exclusive": True, **self.small, **options}
        )
        self._cleaning.callback(opened.close)
        return opened

    def attach(self, name: str | None = None, **options: Any) -> "ipcq.Queue[Any]":
        """Open another handle to the test's queue, or to the one called `name`."""
        opened = ipcq.open(name or self.name, backend=self.backend, create=False, **options)
        self._cleaning.callback(opened.close)
        return opened

    def fill(self, queue: "ipcq.Queue[Any]") -> int:
        """Put the numbers from 0 on until the queue is full, and return the count."""
        count = 0
        with suppress(ipcq.QueueFull):
            while True:
                queue.put_nowait(count)
                count += 1
        return count

    def drain(self, queue: "ipcq.Queue[Any]") -> list[Any]:
        """Take all items that are in the queue now."""
        items = []
        with suppress(ipcq.QueueEmpty):
            while True:
                items.append(queue.get_nowait())
        return items

    @property
    def capacity(self) -> int:
        """Capacity of the test's queue, in messages."""
        return int(self.small["max_messages"])

    @property
    def limit(self) -> int:
        """Size of the largest message of the test's queue, in bytes."""
        return int(self.small["max_message_size"])

    # Capabilities

    @property
    def can(self) -> Capabilities:
        """Capabilities of a queue with the options `small`, and with priorities and leases if the backend has them."""
        known = type(self).__dict__.get("_can")
        if known is None:
            best = next(info.capabilities for info in ipcq.backends() if info.name == self._plugin)
            abilities = {each: best is not None and getattr(best, each) for each in ("priorities", "leases")}
            options = {**self.small, **abilities}
            name = self.fresh_name()
            with ipcq.open(name, backend=self.backend, exclusive=True, **options) as queue:
                known = queue.capabilities
                queue.unlink()
            type(self)._can = known  # type: ignore[attr-defined]  # a cache for each subclass, not for this class
        assert isinstance(known, Capabilities)
        return known

    def needs(self, ability: str) -> None:
        """Skip the test unless the backend has the capability."""
        value = getattr(self.can, ability)
        if not value:
            pytest.skip(f"capabilities.{ability} is {value!r} on backend {self.backend!r}")

    def lacks(self, ability: str) -> None:
        """Skip the test, which needs a refusal, if the backend has the capability."""
        value = getattr(self.can, ability)
        if value:
            pytest.skip(f"capabilities.{ability} is {value!r} on backend {self.backend!r}, nothing is refused")

    def needs_processes(self) -> None:
        """Skip the test unless unrelated processes can share a queue."""
        if self.can.scope < Scope.HOST:
            pytest.skip(f"capabilities.scope is {self.can.scope.name} on backend {self.backend!r}")

    # Threads and processes

    def start(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Worker[T]:
        """Run a function in a thread."""
        return Worker(lambda: call(*args, **kwargs))

    def start_waiting(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Worker[T]:
        """Run a function that will wait in a thread, and give it time to begin its wait.

        The test is correct even if the thread does not wait yet, but then it proves less.
        """
        worker = self.start(call, *args, **kwargs)
        time.sleep(0.15)
        return worker

    @cached_property
    def _peers(self) -> Peers:
        return self._cleaning.enter_context(Peers(patience=None, seed=0))

    def launch(self, script: str, *arguments: object) -> Peer:
        """Start an unrelated process that runs a script, which can call `create`, `attach`, `say` and `hear`."""
        source = _PRELUDE + textwrap.dedent(script)
        peer = self._peers.script(source, self.backend, self.name, json.dumps(dict(self.small)), *map(str, arguments))
        peer.patience = HANG
        self._cleaning.callback(_kill_group, peer.pid)
        return peer

    def run(self, script: str, *arguments: object) -> list[str]:
        """Run a script as `launch` does, wait for its end and return what it sent."""
        peer = self.launch(script, *arguments)
        sent = peer.rest()
        peer.done()
        return sent

    def eventually(self, error: type[Exception], call: Callable[[], object], within: float) -> None:
        """Repeat a call until it raises `error`, ignoring timeouts and lost answers; fail after `within` seconds."""
        until = time.monotonic() + within
        while time.monotonic() < until:
            try:
                call()
            except error:
                return
            except (ipcq.TimedOutError, ipcq.ConnectionLost):
                pass
            time.sleep(0.01)
        pytest.fail(f"{error.__name__} was not raised within {within} s")


def _kill_group(pid: int) -> None:
    """Kill a script's children, which are in its process group."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
