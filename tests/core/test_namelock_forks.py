"""C20: the lock for a name and forks: no child keeps its parent's lock or frees it."""

import os
from pathlib import Path

import pytest

from core import locking
from core.locking import Launch, hear, taken
from ipcq._opening.name_lock import name_lock
from ipcq._process import forks
from ipcq._process.deadline import NEVER

directory, launch = locking.directory, locking.launch

FORKED_CHILD_LIVES = """
with name_lock("/jobs", NEVER):
    if not os.fork():
        signal.pause()
say("free")
signal.pause()
"""


def test_a_child_forked_meanwhile_does_not_keep_the_lock(launch: Launch) -> None:
    """C20: a child that lives on does not hold its parent's lock."""
    assert (hear(launch(FORKED_CHILD_LIVES)), taken()) == ("free", False)


def test_a_child_forked_meanwhile_does_not_free_the_lock(launch: Launch) -> None:
    """C20: the end of the child does not release the parent's lock."""
    holder = launch(
        """
        with name_lock("/jobs", NEVER):
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
                say("child is gone")
                signal.pause()
        """
    )
    assert (hear(holder), taken()) == ("child is gone", True)


def test_a_forked_child_can_lock_for_itself(launch: Launch) -> None:
    """C20: nothing inherited from the parent blocks it."""
    forker = launch(
        """
        with name_lock("/jobs", NEVER):
            pass
        if not os.fork():
            with name_lock("/jobs", PASSED):
                say("child has it")
        """
    )
    assert hear(forker) == "child has it"


def test_a_fork_just_before_the_release_does_not_keep_the_lock(launch: Launch) -> None:
    """C20: another thread cannot fork between forgetting the descriptor and closing it."""
    forker = launch(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # about forking beside threads, which is the point
        forked = threading.Event()

        def fork():
            if not os.fork():
                signal.pause()
            forked.set()

        class Os:
            def __getattr__(self, name):
                return getattr(os, name)

            def close(self, descriptor):
                if armed:
                    armed.clear()
                    threading.Thread(target=fork).start()
                    forked.wait(1)  # the fork happens after closing if it is excluded before
                os.close(descriptor)

        _namelock.os = Os()
        armed = []
        with name_lock("/jobs", NEVER):
            armed.append(True)
        forked.wait()
        say("forked")
        signal.pause()
        """
    )
    assert (hear(forker), taken()) == ("forked", False)


def test_the_first_step_of_a_child_closes_its_parents_locks(directory: Path) -> None:
    """C20: the same, step by step in one process."""
    with name_lock("/jobs", NEVER):
        (descriptor,) = forks._descriptors
        forks.abandon_others(())
        with pytest.raises(OSError):
            os.fstat(descriptor)


def test_a_released_lock_is_not_recorded(directory: Path) -> None:
    """A child that is forked later has nothing to close."""
    with name_lock("/jobs", NEVER):
        pass
    assert not forks._descriptors


def test_a_waiting_thread_does_not_block_a_fork(launch: Launch) -> None:
    """C20: a fork does not wait for threads that wait for a lock."""
    forker = launch(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # about forking beside threads, which is the point
        with name_lock("/jobs", NEVER):
            def wait():
                with name_lock("/jobs", NEVER):
                    pass
            threading.Thread(target=wait).start()
            while len(forks._descriptors) < 2:
                pass
            if not os.fork():
                say("child")
                os._exit(0)
        """
    )
    assert hear(forker) == "child"
