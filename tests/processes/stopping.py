"""Processes that are stopped, above all where they hold the lock of a queue."""

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

#: Seconds within which a process that does nothing else is met inside.
MET = 60.0


#: Stops the process that runs it.
STOP = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)\n"


@contextmanager
def stopped_program(code: str, *arguments: str, descriptors: Collection[int] = ()) -> Iterator[int]:
    """Run a program until it is stopped, and kill it at the end; its process id is the value."""
    program = subprocess.Popen([sys.executable, "-c", code + STOP, *arguments], pass_fds=descriptors)
    try:
        os.waitid(os.P_PID, program.pid, os.WSTOPPED)
        yield program.pid
    finally:
        program.send_signal(signal.SIGKILL)
        program.wait()


def stop_inside(peer: Peer, dice: random.Random) -> None:
    """Stop a process where it holds a lock.

    Raises:
        Hang: It was not met there.
    """
    deadline = time.monotonic() + MET
    while time.monotonic() < deadline:
        peer.stop()
        if holds_lock(peer.pid):
            return
        peer.resume()
        time.sleep(dice.uniform(0, 0.0005))
    raise Hang(f"{peer} was not met inside in {MET} seconds")


def held(queue: "ipcq.Queue[object]") -> str | None:
    """Return the verb that is held, of a queue that is nearly empty; None where the holder was on its way out."""
    try:
        queue.put("beside", timeout=0.05)
    except ipcq.QueueFull:
        return "put"
    try:
        queue.get(timeout=0.05)
    except ipcq.QueueEmpty:
        return "get"
    return None
