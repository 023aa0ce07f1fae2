"""Closing a handle of shm: by several threads, with threads inside, a pending notice, or a stopped process."""

import os
import subprocess
import sys
import threading
import time

import pytest

from backends import shm
from backends.shm import attach, create, held_by, run_script
from ipcq.errors import TimedOutError
from processes.sizes import size

works, name, stopped = shm.works, shm.name, shm.stopped

ROUNDS = size(25, 2000)

CLOSERS = """
import sys, threading, time
import ipcq

name, verb, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
LARGE = bytes(8 << 20)
keeper = ipcq.open(name, "shm", serializer="raw", buffer_size=4 * len(LARGE), max_message_size=len(LARGE))
calls = {
    "get": lambda queue: queue.get(timeout=20),
    "put": lambda queue: queue.put(LARGE, timeout=20),
    "get_many": lambda queue: queue.get_many(timeout=20),
    "put_many": lambda queue: queue.put_many([LARGE, LARGE], timeout=20),
    "peek": lambda queue: queue.peek(),
    "clear": lambda queue: queue.clear(),
    "stats": lambda queue: queue.stats(),
    "wait to get": lambda queue: queue.get(timeout=20),
    "wait to put": lambda queue: queue.put(LARGE, timeout=20),
}
for number in range(rounds):
    keeper.clear()
    for _ in range({"get": 1, "get_many": 2, "peek": 1, "clear": 2, "wait to put": 3}.get(verb, 0)):
        keeper.put(LARGE)
    handle = ipcq.open(name, "shm", serializer="raw")
    inside = threading.Event()

    def use():
        inside.set()
        try:
            while True:
                calls[verb](handle)
        except (ipcq.QueueClosed, ipcq.QueueEmpty, ipcq.QueueFull):
            pass

    user = threading.Thread(target=use)
    closers = [threading.Thread(target=handle.close) for _ in range(2)]
    user.start()
    inside.wait()
    time.sleep(0.0003 * (number % 6))
    for thread in closers:
        thread.start()
    for thread in (*closers, user):
        thread.join(10)
        if thread.is_alive():
            sys.exit(f"a thread hangs in round {number}")
keeper.unlink()
keeper.close()
print("survived")
"""


@pytest.mark.parametrize(
    "verb", ["get", "put", "get_many", "put_many", "peek", "clear", "stats", "wait to get", "wait to put"]
)
def test_two_threads_may_close_while_a_third_is_inside(name: str, verb: str) -> None:
    """C34: the ring stays mapped until the last use has ended, whichever thread closes first."""
    assert run_script(CLOSERS, name, verb, str(ROUNDS)) == "survived"


NOTIFIED = """
import sys
import ipcq

queue = ipcq.open(sys.argv[1], "shm", create=False)
queue.notify(lambda: print("told"))
print("asked", flush=True)
sys.stdin.readline()
queue.close()
print("closed")
"""


def test_a_handle_closes_with_a_pending_notice_while_a_process_is_stopped_inside(name: str, stopped: int) -> None:
    """C34: the thread that waits for the notice leaves the ring before it is unmapped."""
    with create(name) as queue:
        program = subprocess.Popen(
            [sys.executable, "-c", NOTIFIED, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with program:
            assert program.stdout is not None
            assert program.stdout.readline() == "asked\n"
            with held_by(queue, stopped, "put"):
                assert program.communicate("\n", timeout=60)[0] == "closed\n"
        assert program.returncode == 0


def test_a_notice_that_could_not_be_cancelled_ends_with_its_handle(name: str, stopped: int) -> None:
    """C34, clause 20: the next handle can register."""
    with create(name) as queue:
        other = attach(name)
        other.notify(lambda: None)
        with held_by(queue, stopped, "put"):
            other.close()
        queue.notify(lambda: None)
        queue.notify()


def test_a_notice_is_cancelled_despite_a_stopped_process(name: str, stopped: int) -> None:
    """C37, clause 20: another handle can register at once, while this one stays open."""
    with create(name) as queue, attach(name) as other:
        other.notify(lambda: None)
        with held_by(queue, stopped, "put"):
            other.notify()
        queue.notify(lambda: None)
        queue.notify()


def test_a_request_for_a_notice_reports_a_stopped_holder(name: str, stopped: int) -> None:
    """C37: the error does not claim that another process has registered."""
    with create(name) as queue, held_by(queue, stopped, "put"), pytest.raises(TimedOutError, match="holds the lock"):
        queue.notify(lambda: None)


def test_closing_lets_other_threads_run_while_it_waits_for_the_doorbell(name: str) -> None:
    """C6: disarming the doorbell takes the producers' lock, and no thread waits for that with the GIL."""
    turns = [0]
    over = threading.Event()

    def count() -> None:
        while not over.is_set():
            turns[0] += 1
            time.sleep(0.0001)

    with create(name) as queue:
        others = [attach(name) for _ in range(20)]
        for other in others:
            other.fileno()
        thread = threading.Thread(target=count)
        interval = sys.getswitchinterval()
        with held_by(queue, os.getpid(), "put"):
            thread.start()
            sys.setswitchinterval(1000)  # no thread is forced to release the GIL
            try:
                # The host may not schedule the thread at that moment, but it does so at least once.
                ran = [turns[0] - before for before, _ in ((turns[0], other._channel.detach()) for other in others)]
            finally:
                sys.setswitchinterval(interval)
                over.set()
                thread.join()
        for other in others:
            other.close()
        queue.unlink()
    assert max(ran) > 0
