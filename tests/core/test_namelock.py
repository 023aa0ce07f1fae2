"""Rule 3 of `auto`: one process at a time creates or unlinks a name, under a lock that the kernel releases."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

import ipcq
from core import locking
from core.conftest import HANG, Thread
from core.locking import HOLDER, Launch, hear, taken, tell
from ipcq._opening.name_lock import name_lock
from ipcq._process.deadline import NEVER, PASSED
from ipcq.errors import TimedOutError

directory, launch = locking.directory, locking.launch


def test_another_process_cannot_take_the_lock_meanwhile(launch: Launch) -> None:
    """Rule 3: the lock serialises creation and unlink."""
    holder = launch(HOLDER)
    assert (hear(holder), taken()) == ("held", True)


def test_another_process_can_take_the_lock_afterwards(launch: Launch) -> None:
    """The end of the block releases the lock."""
    holder = launch(HOLDER)
    hear(holder)
    tell(holder)
    assert (hear(holder), taken()) == ("free", False)


def test_another_name_is_free_meanwhile(launch: Launch) -> None:
    """Rule 3: each name has its own lock."""
    hear(launch(HOLDER))
    assert not taken("/other")


def test_the_lock_of_a_killed_process_is_free_at_once(launch: Launch) -> None:
    """C16: the kernel releases it, wherever its holder is killed."""
    holder = launch(HOLDER)
    hear(holder)
    holder.kill()
    holder.wait(HANG)
    assert not taken()


def test_threads_exclude_each_other(directory: Path, start: Callable[..., Thread]) -> None:
    """C21: an open-file-description lock excludes threads, because each acquisition opens the file again."""
    with name_lock("/jobs", NEVER):
        assert start(taken).outcome()


def test_a_waiter_gets_the_lock_when_it_is_free(launch: Launch, start: Callable[..., Thread]) -> None:
    """Waiting ends when the holder's block ends."""
    holder = launch(HOLDER)
    hear(holder)

    def wait() -> str:
        with name_lock("/jobs", NEVER):
            return "got it"

    waiter = start(wait)
    tell(holder)
    assert waiter.outcome() == "got it"


def test_waiting_ends_at_the_deadline(launch: Launch) -> None:
    """C10: never before it, and with TimedOutError."""
    hear(launch(HOLDER))
    began = monotonic()
    with pytest.raises(TimedOutError), name_lock("/jobs", began + 0.05):
        pass
    assert 0.05 <= monotonic() - began < 0.55


def test_the_error_shows_how_to_find_the_holder(launch: Launch, directory: Path) -> None:
    """`lslocks` lists the holder of the file."""
    hear(launch(HOLDER))
    words = f"queue '/jobs': .* the holder of {directory}/names.lock with lslocks"
    with pytest.raises(TimedOutError, match=words), name_lock("/jobs", PASSED):
        pass


def test_opening_gives_up_after_its_timeout(launch: Launch) -> None:
    """Rule 3: opening waits at most `open_timeout`."""
    hear(launch(HOLDER))
    best = next(info.name for info in ipcq.backends() if info.usable)
    with pytest.raises(TimedOutError, match=f"queue '/jobs' on backend {best!r}"):
        ipcq.open("/jobs", best, open_timeout=0.05)


def test_opening_within_a_process_needs_no_lock(launch: Launch) -> None:
    """Other processes cannot reach these queues."""
    hear(launch(HOLDER))
    with ipcq.open("/jobs", "memory", open_timeout=0) as queue:
        assert queue.backend == "memory"


def test_a_lock_that_timed_out_leaves_no_descriptor(launch: Launch) -> None:
    """C17: a failed attempt closes what it opened."""
    hear(launch(HOLDER))
    before = os.listdir("/proc/self/fd")
    taken()
    assert os.listdir("/proc/self/fd") == before


def test_an_error_in_the_block_frees_the_lock(directory: Path) -> None:
    """The lock is released in any case."""
    with pytest.raises(ZeroDivisionError), name_lock("/jobs", NEVER):
        raise ZeroDivisionError
    assert not taken()


def test_waiting_threads_take_turns(directory: Path) -> None:
    """Rule 3: at most one thread holds the lock."""
    inside: list[int] = []
    most: list[int] = []

    def take() -> None:
        for _ in range(20):
            with name_lock("/jobs", NEVER):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert max(most) == 1
