"""The peer's side of the harness: it loads and runs a program, which talks to the test with `say` and `hear`.

It is apart from `ipcq.testing.processes`, because every peer imports it and few need the rest.
"""

import contextlib
import faulthandler
import importlib
import importlib.util
import json
import math
import os
import select
import shutil
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

import ipcq

#: The key that marks a function among a program's arguments.
FUNCTION: Final = "ipcq.testing function"


class Connection:
    """One end of a socket that carries JSON lines."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        # A list, because appending to one string would copy it for each part of a long report.
        self._parts: list[bytes] = []

    def say(self, value: object) -> None:
        self.end.sendall(json.dumps(value).encode() + b"\n")

    def hear(self, deadline: float = math.inf) -> Any:
        while not self.complete:
            left = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
            if not select.select([self.end], [], [], left)[0]:
                raise TimeoutError
            self.read()
        line, _, rest = b"".join(self._parts).partition(b"\n")
        self._parts = [rest]
        return json.loads(line)

    @property
    def complete(self) -> bool:
        """Whether a complete line was received."""
        return any(b"\n" in part for part in self._parts)

    def read(self) -> None:
        """Wait for more data."""
        part = self.end.recv(1 << 16)
        if not part:
            raise EOFError
        self._parts.append(part)


class _Test:
    """The program's connection to the test."""

    line: ClassVar[Connection | None] = None


def say(value: object) -> None:  # pragma: no cover - see main
    """Send a JSON value from a program to the test."""
    assert _Test.line is not None, "say() must be called in a program that Peers runs"
    _Test.line.say(value)


def hear() -> Any:  # pragma: no cover - see main
    """Wait in a program for the next value from the test."""
    assert _Test.line is not None, "hear() must be called in a program that Peers runs"
    return _Test.line.hear()


def forget(*directories: str) -> None:  # pragma: no cover - see main
    """Remove the directories of a test whose process died."""
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


_loaded: dict[str, Mapping[str, Any]] = {}


def _prepare(call: Mapping[str, Any]) -> Callable[[], object]:  # pragma: no cover - see main
    """Load a program and the functions among its arguments."""
    program = _load(call)
    args = [_load(arg[FUNCTION]) if isinstance(arg, dict) and FUNCTION in arg else arg for arg in call["args"]]
    return lambda: program(*args, **call["kwargs"])


def _load(call: Mapping[str, Any]) -> Callable[..., object]:  # pragma: no cover - see main
    """Load a function from its module if that is the same file, else from the file, such as a test module."""
    file = call["file"]
    if file not in _loaded:
        try:
            spec = importlib.util.find_spec(call["module"])
        except (ImportError, ValueError):
            spec = None
        if spec is not None and spec.origin is not None and str(Path(spec.origin).resolve()) == file:
            _loaded[file] = vars(importlib.import_module(call["module"]))
        else:
            import runpy

            # It may import modules of its directory.
            sys.path.insert(0, str(Path(file).parent))
            _loaded[file] = runpy.run_path(file)
    program: Callable[..., object] = _loaded[file][call["function"]]
    return program


def main() -> None:  # pragma: no cover - in the program's process, whose coverage is not measured
    call = json.load(sys.stdin)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    end = socket.socket(fileno=int(sys.argv[1]))
    end.set_inheritable(False)
    _Test.line = line = Connection(end)
    program = _nurse(line, **call) if "farewell" in call else _prepare(call)
    program()


def run_script(source: str, arguments: list[str]) -> None:  # pragma: no cover - see main
    sys.argv[1:] = arguments
    warnings.simplefilter("error")
    exec(compile(source, "<script>", "exec"), vars(sys.modules["__main__"]))  # noqa: S102  # the test's own source


def run_inherited(
    end: socket.socket, path: str, program: Callable[..., object], args: tuple[object, ...]
) -> None:  # pragma: no cover - see main
    """Run a program in a process that multiprocessing started."""
    errors = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    os.close(errors)
    faulthandler.enable()
    _leave_with_parent()
    _Test.line = Connection(end)
    # If the test has ended, the result does not matter.
    with contextlib.suppress(EOFError):
        program(*args)


def _leave_with_parent() -> None:  # pragma: no cover - see main
    """End this process when the test dies, even during a wait."""
    if sys.platform == "win32":
        return
    import fcntl  # which only POSIX has
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is None:
        return

    # Only the test holds the other end of this pipe. The default action of SIGIO ends the process.
    pipe = parent.sentinel
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([pipe], [], [], 0)[0]:
        raise SystemExit(1)


def _nurse(
    line: Connection, farewell: dict[str, Any], directories: list[str]
) -> Callable[[], object]:  # pragma: no cover - see main
    """Fork and reap children as ordered, until the test ends; in a child, return its program."""
    ipcq.backends()
    line.say("ready")
    children: set[int] = set()
    with contextlib.suppress(ConnectionError):  # raised if the test ends in the middle of an order
        while order := _order(line):
            request, fds = order
            if "fork" in request:
                program = _prepare(request["fork"])
                pid = os.fork()
                if not pid:
                    line.end.close()
                    _Test.line = Connection(socket.socket(fileno=fds[0]))
                    os.dup2(fds[1], 1)
                    os.dup2(fds[1], 2)
                    os.close(fds[1])
                    return program
                children.add(pid)
                for fd in fds:
                    os.close(fd)
                line.say(pid)
            else:
                code = _reaped(request["reap"], request["timeout"])
                if code is not None:
                    children.discard(request["reap"])
                line.say(code)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    forget(*directories)
    return _prepare(farewell)


def _order(line: Connection) -> tuple[dict[str, Any], list[int]] | None:  # pragma: no cover - see main
    order, fds, _, _ = socket.recv_fds(line.end, 1 << 20, 2)
    while order and not order.endswith(b"\n"):
        order += line.end.recv(1 << 20)
    return (json.loads(order), fds) if order else None


def _reaped(pid: int, timeout: float) -> int | None:  # pragma: no cover - see main
    deadline = time.monotonic() + timeout
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.0005)
