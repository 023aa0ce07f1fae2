"""Fixtures that run the command line: in this process, on a terminal, and as a program."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import ipcq
from ipcq._cli import _sinks, cli
from local_backends import local_backends

# Seconds after which a call that hangs fails; no test should come near it.
WATCHDOG_SECONDS = 60.0

numbers = count()


@pytest.fixture
def name() -> Iterator[str]:
    """Return a name that no queue has, and unlink its queue afterwards."""
    name = f"/cli-{os.getpid()}-{next(numbers)}"
    yield name
    for each in local_backends():
        with suppress(ipcq.QueueNotFound):
            ipcq.unlink(name, each.name)


@pytest.fixture
def queue(name: str, memory: str) -> Iterator[ipcq.Queue[Any]]:
    """Return a queue inside this process, which the command line finds when it runs here."""
    with ipcq.open(name, memory, max_messages=4, max_message_size=512) as queue:
        yield queue


@pytest.fixture
def wrong(tmp_path: Path) -> dict[str, str]:
    """Install deliberately faulty backends, and return the environment for programs that use them."""
    metadata = tmp_path / "wrong-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: wrong\nVersion: 1\n")
    entries = "[ipcq.backends]\ndoubles = cli.wrong:Doubles\nhangs = cli.wrong:Hangs\nendless = cli.wrong:Endless\n"
    (metadata / "entry_points.txt").write_text(entries)
    path = [str(tmp_path), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


@pytest.fixture
def shared(name: str) -> Iterator[ipcq.Queue[Any]]:
    """Return a queue that other processes can use."""
    with ipcq.open(name, max_messages=4, max_message_size=512) as queue:
        yield queue


@pytest.fixture
def opaque(name: str) -> Iterator[ipcq.Queue[Any]]:
    """Return a queue that other processes can use, on a backend without peek."""
    backend = next((info.name for info in ipcq.backends() if info.usable and not info.capabilities.peek), None)
    if backend is None:
        pytest.skip("backend 'mqueue' cannot be used here: it works on linux, this is " + sys.platform)
    with ipcq.open(name, backend, max_messages=4, max_message_size=512) as queue:
        yield queue


@pytest.fixture
def run() -> Callable[..., Result]:
    """Return a function that runs the command line in this process."""

    def run(*arguments: str, **options: Any) -> Result:
        result = CliRunner().invoke(cli, arguments, **options)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def program() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Return a function that runs the command line as a program."""

    def program(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        options = {"capture_output": True, "text": True, "timeout": WATCHDOG_SECONDS, **options}
        return subprocess.run([sys.executable, "-m", "ipcq", *arguments], check=False, **options)

    return program


@pytest.fixture
def start() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Return a function that starts the command line as a program; programs still running at the end are killed."""
    started = []

    def start(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
        options = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            **options,
        }
        process = subprocess.Popen([sys.executable, "-m", "ipcq", *arguments], **options)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """Return a function that runs the command line in this process with a terminal as stdin and stdout."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")

    pty = pytest.importorskip("pty", reason="could not import 'pty', which only POSIX has")

    def terminal(*arguments: str, typed: str = "") -> SimpleNamespace:
        master, slave = pty.openpty()
        seen = bytearray()

        def read() -> None:
            with suppress(OSError):  # EIO: the other end is closed
                while data := os.read(master, 4096):
                    seen.extend(data)

        reader = threading.Thread(target=read)
        reader.start()
        if typed:
            os.write(master, typed.encode())
        code = 0
        device = Path(f"/dev/fd/{slave}")
        with monkeypatch.context() as patch, device.open() as keyboard, device.open("w") as screen:
            patch.setattr(sys, "stdin", keyboard)
            patch.setattr(sys, "stdout", screen)
            patch.setattr(sys, "stderr", screen)
            try:
                code = cli.main(arguments, prog_name="ipcq", standalone_mode=False) or 0
            except click.ClickException as error:
                error.show()
                code = error.exit_code
            except SystemExit as error:
                code = int(error.code or 0)
        os.close(slave)
        reader.join(WATCHDOG_SECONDS)
        os.close(master)
        return SimpleNamespace(output=seen.decode(), text=click.unstyle(seen.decode()), code=code)

    return terminal


@pytest.fixture
def fail_write(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, int], None]:
    """Return a function that lets the write of each line with a text into a file fail, with an errno."""

    def fail_write(text: bytes, number: int) -> None:
        write = _sinks.FileSink.write

        def fail(self: _sinks.FileSink, line: bytes) -> None:
            if text in line:
                raise OSError(number, os.strerror(number))
            write(self, line)

        monkeypatch.setattr(_sinks.FileSink, "write", fail)

    return fail_write


@pytest.fixture
def no_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate an environment without rich."""
    for module in ("rich", "rich.console", "rich.live", "rich.table", "rich.text"):
        monkeypatch.setitem(sys.modules, module, None)
