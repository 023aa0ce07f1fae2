"""Processes that are stopped, mostly while they hold the lock of a queue."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import ipcq
from ipcq.testing.locks import holds_lock
from ipcq.testing.processes import Hang, Peer

#: Seconds within which a process that does nothing else is caught while it holds the lock.
CATCH_SECONDS = 60.0


#: Stops the process that runs it.
STOP = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)\n"


@contextmanager
def stopped_program(code: str, *arguments: str, descriptors: Collection[int] = ()) -> Iterator[int]:
    """Run a program until it stops itself, yield its process id, and kill it at the end."""
    program = subprocess.Popen([sys.executable, "-c", code + STOP, *arguments], pass_fds=descriptors)
    try:
        os.waitid(os.P_PID, program.pid, os.WSTOPPED)
        yield program.pid
    finally:
        program.send_signal(signal.SIGKILL)
        program.wait()


def stop_inside(peer: Peer, dice: random.Random) -> None:
    """Stop a process while it holds a lock.

    Raises:
        Hang: It was never caught there.
    """
    deadline = time.monotonic() + CATCH_SECONDS
    while time.monotonic() < deadline:
        peer.stop()
        if holds_lock(peer.pid):
            return
        peer.resume()
        time.sleep(dice.uniform(0, 0.0005))
    raise Hang(f"{peer} was not met inside in {CATCH_SECONDS} seconds")


def held(queue: "ipcq.Queue[object]") -> str | None:
    """Return the verb whose lock is held, on a nearly empty queue; None if the holder had already released it."""
    try:
        queue.put("beside", timeout=0.05)
    except ipcq.QueueFull:
        return "put"
    try:
        queue.get(timeout=0.05)
    except ipcq.QueueEmpty:
        return "get"
    return None
