"""Programs for other processes in the tests of the compatibility modules for posix_ipc and baseplate."""

import importlib
import os
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ipcq.testing.processes import hear, say


def of_posix_ipc(kind: str) -> Any:
    """Return posix_ipc itself, or the compatibility module."""
    return importlib.import_module({"real": "posix_ipc", "face": "ipcq.compat.posix_ipc"}[kind])


def of_baseplate(kind: str, sources: str) -> Any:
    """Return baseplate's module from its source distribution, or the compatibility module.

    Only two of its modules are imported: the whole of baseplate needs libraries that conflict with ours.
    """
    if kind == "face":
        return importlib.import_module("ipcq.compat.baseplate")
    for name in ("baseplate", "baseplate.lib"):
        package = ModuleType(name)
        package.__path__ = [str(Path(sources, *name.split(".")))]
        sys.modules[name] = package
    return importlib.import_module("baseplate.lib.message_queue")


def send(kind: str, name: str, messages: list[list[Any]]) -> None:
    """Send messages with their priorities."""
    queue = of_posix_ipc(kind).MessageQueue(name)
    for text, priority in messages:
        queue.send(text, priority=priority)
    queue.close()


def receive(kind: str, name: str, count: int) -> None:
    """Receive messages and report them."""
    queue = of_posix_ipc(kind).MessageQueue(name)
    for _ in range(count):
        message, priority = queue.receive()
        say([message.decode(), priority])
    queue.close()


def put(kind: str, sources: str, name: str, texts: list[str]) -> None:
    """Put messages."""
    queue = of_baseplate(kind, sources).MessageQueue(name, 2, 16)
    for text in texts:
        queue.put(text.encode())
    queue.close()


def get(kind: str, sources: str, name: str, count: int) -> None:
    """Get messages and report them."""
    queue = of_baseplate(kind, sources).MessageQueue(name, 2, 16)
    for _ in range(count):
        say(queue.get(timeout=10).decode())
    queue.close()


def interrupted(kind: str, verb: str, name: str) -> None:
    """Wait for a message or space until a signal arrives whose handler returns, and report the exception."""
    library = of_posix_ipc(kind)
    queue = library.MessageQueue(name)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    say("ready")
    try:
        queue.receive() if verb == "receive" else queue.send("more")
    except library.Error as error:
        say(type(error).__name__)
    queue.close()


def raising(name: str) -> None:
    """Wait for a message until a signal arrives whose handler raises, and report the exception."""
    from ipcq.compat import posix_ipc

    class Own(Exception):
        pass

    def handle(*_: object) -> None:
        raise Own

    queue = posix_ipc.MessageQueue(name)
    signal.signal(signal.SIGUSR1, handle)
    say("ready")
    try:
        queue.receive()
    except BaseException as error:
        say(type(error).__name__)
    queue.close()


def ctrl_c(name: str) -> None:
    """Wait for a message until Ctrl-C, and report the exception."""
    from ipcq.compat import posix_ipc

    queue = posix_ipc.MessageQueue(name)
    say("ready")
    try:
        queue.receive()
    except KeyboardInterrupt as error:
        say(type(error).__name__)
    queue.close()


def registered(name: str) -> None:
    """Request a notice, and keep the request until the parent writes."""
    from ipcq.compat import posix_ipc

    queue = posix_ipc.MessageQueue(name)
    queue.request_notification((say, "told"))
    say("asked")
    hear()
    queue.close()


def on_the_face(sources: str, name: str) -> None:
    """Run baseplate's code on the compatibility module for posix_ipc, and report its results."""
    sys.modules["posix_ipc"] = of_posix_ipc("face")
    library = of_baseplate("real", sources)
    del sys.modules["posix_ipc"]  # the backend imports the library by that name
    queue = library.MessageQueue(name, max_messages=1, max_message_size=8)
    try:
        queue.get(timeout=0.05)
    except library.TimedOutError as error:
        say(type(error).__name__)
    queue.put(b"one", timeout=1)
    try:
        queue.put(b"two", timeout=0.05)
    except library.TimedOutError as error:
        say(type(error).__name__)
    say(queue.get(timeout=1).decode())
    try:
        library.MessageQueue(name + "-large", 1 << 40, 1 << 40)
    except ValueError as error:
        say(type(error).__name__)
    queue.unlink()
    queue.close()


def inherited(name: str) -> None:
    """Fork in a signal handler during a receive, and report whether only the child sees the child's signals."""
    from ipcq.compat import posix_ipc

    queue = posix_ipc.MessageQueue(name)
    children: list[int] = []

    def fork(*_: object) -> None:
        signal.signal(signal.SIGALRM, lambda *_: None)
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGALRM)
            # The signal arrived here, and not in the parent.
            os._exit(signal.set_wakeup_fd(-1) != -1)
        children.append(child)

    signal.signal(signal.SIGALRM, fork)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        queue.receive()
    except posix_ipc.SignalError:
        pass
    _, status = os.waitpid(children[0], 0)
    say(status)
    try:
        queue.receive(0.3)
    except posix_ipc.BusyError:
        say("BusyError")
    queue.close()
