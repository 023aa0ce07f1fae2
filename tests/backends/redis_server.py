"""Redis servers that tests start on the loopback interface, stop, restart and disturb, each with its own directory."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from backends import redis_proxy
from leftovers import servers
from processes.needs import library, required

if sys.platform != "linux":
    pytest.skip("the server is installed on Linux alone", allow_module_level=True)

library("redis")
#: Another server, such as Valkey, can be tested too.
_NAME = os.environ.get("IPCQ_TEST_REDIS") or "redis-server"
PROGRAM = shutil.which(_NAME) or required(f"{_NAME} is missing: sudo apt-get install redis-server")
SETPRIV = shutil.which("setpriv") or required("setpriv is missing: sudo apt-get install util-linux")

#: Seconds for a server to start.
PATIENCE = 30.0


def version() -> tuple[int, ...]:
    """Return the first two numbers of the server's release."""
    text = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.findall(r"v=(\d+)\.(\d+)", text)[0]))


def free_port() -> int:
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        return int(end.getsockname()[1])


def ask(port: int, *words: str) -> bytes:
    """Send one command without the client library, and return the start of the reply."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as end:
        end.sendall(
            b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(each), each.encode()) for each in words)])
        )
        return end.recv(1 << 16)


def started(command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a program that ends with this thread, so a run that is killed leaves no server behind."""
    process = subprocess.Popen([SETPRIV, "--pdeathsig", "KILL", *command], **options)
    servers.add(str(process.pid))
    return process


class RedisProcess:
    """A Redis server.

    Args:
        directory: Where it keeps its data.
        **settings: Its settings, with ``_`` in place of ``-``.
    """

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        self.settings = {"appendonly": "yes", "appendfsync": "always", "save": "", **settings}
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0/"

    def start(self) -> None:
        if self.process is not None:
            return
        command = [PROGRAM, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        command += ["--loglevel", "warning", "--logfile", str(self.directory / "log")]
        for setting, value in self.settings.items():
            command += [f"--{setting.replace('_', '-')}", value]
        self.process = started(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert self.process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            return not ask(self.port, "PING").startswith(b"-LOADING")
        except OSError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stall(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)


class ProxiedRedis(RedisProcess):
    """A Redis server behind a proxy that drops replies and counts requests.

    Args:
        directory: Where the server keeps its data.
        address: Where the proxy listens.
        inside: Moves this thread to the machine of both.
        slow: How many of 100 replies are late.
    """

    def __init__(
        self,
        directory: Path,
        address: str = "127.0.0.1",
        inside: Callable[[], AbstractContextManager[None]] = nullcontext,
        slow: int = 0,
    ) -> None:
        self.address, self.inside = address, inside
        super().__init__(directory)
        command = [sys.executable, redis_proxy.__file__, address, str(self.port), str(slow)]
        env = {**os.environ, "PYTHONWARNINGS": "ignore"}
        with inside():
            self.proxy = started(command, stdout=subprocess.PIPE, env=env)
        assert self.proxy.stdout is not None
        with self.proxy.stdout as output:
            self.control_port = int(output.readline())
        self.outer_port = self._tell("open")

    @property
    def url(self) -> str:
        return f"redis://{self.address}:{self.outer_port}/0/"

    def _tell(self, *words: Any) -> int:
        with (
            self.inside(),
            socket.create_connection(("127.0.0.1", self.control_port), timeout=PATIENCE) as end,
            end.makefile() as file,
        ):
            end.sendall(" ".join(map(str, words)).encode() + b"\n")
            return int(file.readline())

    def start(self) -> None:
        with self.inside():
            super().start()
        if hasattr(self, "control_port"):
            self._tell("open")

    def stop(self) -> None:
        self._tell("close")
        super().stop()

    def drop_replies(self, count: int, after: int = 0) -> None:
        self._tell("drop", count, after)

    def requests(self) -> int:
        return self._tell("requests")

    def end(self) -> None:
        super().stop()
        self.proxy.kill()
        self.proxy.wait()


def certify(directory: Path, name: str) -> None:
    """Make files ``certificate`` and ``key`` for a server; the certificate is its own authority.

    Args:
        directory: Where to make them.
        name: The only name that is certified, such as ``DNS:localhost`` or ``IP:10.0.0.1``.
    """
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout key -out certificate -subj /CN=server"
    extension = ["-addext", f"subjectAltName={name}"]
    subprocess.run([*command.split(), *extension], cwd=directory, check=True, capture_output=True)


@contextmanager
def running(directory: Path, **settings: str) -> Iterator[RedisProcess]:
    """Start a server, and kill it in the end."""
    server = RedisProcess(directory, **settings)
    try:
        yield server
    finally:
        server.stop()
