"""C20: after a fork at any moment, neither parent nor child is left with a lock of the other."""

import os
import signal
import threading
import time
import warnings
from contextlib import suppress

import pytest

import ipcq
from ipcq._opening.name_lock import name_lock
from ipcq.testing.processes import Peers, fresh_name, say
from processes.programs import SMALL
from processes.sizes import size

FORKS = size(50, 1000)
SOON_SECONDS = 5.0

# From Python 3.12 on, os.fork warns in a process with threads. These tests show that it works.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)


def reap(pid: int, within: float) -> int | None:
    """Return a child's exit code, or None if it did not end in time and was killed."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    # SIGABRT makes it print its stacks.
    os.kill(pid, signal.SIGABRT)
    os.waitpid(pid, 0)
    return None


def fork_over_name_locks(name: str, backend: str, forks: int) -> None:
    """Fork while other threads create and unlink, let each child do the same, and report the children's exit codes."""
    over = threading.Event()

    def hammer(mine: str) -> None:
        while not over.is_set():
            with suppress(ipcq.QueueNotFound, ipcq.QueueGone):
                ipcq.open(mine, backend, **SMALL).close()
                ipcq.unlink(mine, backend)

    threads = [threading.Thread(target=hammer, args=(f"{name}-{number % 2}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(forks):
        pid = os.fork()
        if not pid:
            with suppress(ipcq.QueueNotFound, ipcq.QueueGone):
                ipcq.open(f"{name}-0", backend, **SMALL).close()
                ipcq.unlink(f"{name}-0", backend)
            os._exit(0)
        codes.append(reap(pid, SOON_SECONDS))
    over.set()
    for thread in threads:
        thread.join()
    for number in range(2):
        with suppress(ipcq.QueueNotFound):
            ipcq.unlink(f"{name}-{number}", backend)
    say(codes)


def test_a_child_forked_while_threads_hold_name_locks_can_open_and_unlink(
    name: str, backend: str, peers: Peers
) -> None:
    """C20: 100 forks amid three threads that create and unlink: each child does so too, within seconds."""
    peer = peers.spawn(fork_over_name_locks, name, backend, FORKS)
    assert peer.hear() == [0] * FORKS, peer.complaint()
    peer.done()


def keep_lock_in_child(name: str, backend: str) -> None:
    """Fork a child that lives on while this process holds and releases a name lock, and then time an open."""
    with name_lock(name, float("inf")):
        pid = os.fork()
        if not pid:
            time.sleep(60)
            os._exit(0)
    began = time.monotonic()
    ipcq.open(name, backend, open_timeout=SOON_SECONDS, **SMALL).close()
    say(time.monotonic() - began)
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def test_a_surviving_child_does_not_keep_the_lock_of_its_parent(name: str, backend: str, peers: Peers) -> None:
    """C20: the lock that a parent held at the fork is free once the parent releases it, though the child lives."""
    peer = peers.spawn(keep_lock_in_child, name, backend)
    assert peer.hear() < SOON_SECONDS
    peer.done()


def outlive_parent(name: str, backend: str) -> None:
    """Fork a child that lives on, hold a name lock, and die."""
    with name_lock(name, float("inf")):
        pid = os.fork()
        if not pid:
            time.sleep(60)
            os._exit(0)
        say(pid)
        os.kill(os.getpid(), 9)


def test_a_surviving_child_does_not_keep_the_lock_of_its_dead_parent(name: str, backend: str, peers: Peers) -> None:
    """C20: the lock that a parent held when it was killed is free, though a child forked under it lives."""
    peer = peers.spawn(outlive_parent, name, backend)
    child = peer.hear()
    try:
        assert peer.wait() == -9
        ipcq.open(name, backend, open_timeout=SOON_SECONDS, **SMALL).close()
    finally:
        os.kill(child, 9)


def hold_many_locks(name: str, backend: str, forks: int) -> None:
    """Fork children that live on while other threads take and release locks, and report the names that stay locked."""
    over = threading.Event()

    def hammer(mine: str) -> None:
        while not over.is_set():
            with name_lock(mine, float("inf")):
                pass

    names = [f"{name}-{number}" for number in range(4)]
    threads = [threading.Thread(target=hammer, args=(mine,)) for mine in names]
    for thread in threads:
        thread.start()
    children = []
    for _ in range(forks):
        pid = os.fork()
        if not pid:
            time.sleep(60)
            os._exit(0)
        children.append(pid)
    over.set()
    for thread in threads:
        thread.join()
    stuck = []
    for mine in names:
        try:
            with name_lock(mine, time.monotonic() + 1.0):
                pass
        except ipcq.TimedOutError:
            stuck.append(mine)
    for pid in children:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    say(stuck)


def test_no_fork_leaves_a_name_locked_in_a_child(name: str, backend: str, peers: Peers) -> None:
    """C20: 300 forks amid threads that take and release locks leave no child with a lock."""
    peer = peers.spawn(hold_many_locks, name, backend, 300)
    assert peer.hear() == []
    peer.done()


def fork_over_hammered_handle(name: str, backend: str, forks: int) -> None:
    """Fork while threads put, get and wait on one handle; each child can use the inherited handle, or is refused."""
    queue = ipcq.open(name, backend, **SMALL)
    over = threading.Event()

    def hammer(verb: str) -> None:
        while not over.is_set():
            with suppress(ipcq.TimedOutError):
                if verb == "put":
                    queue.put("item", timeout=0.05)
                else:
                    queue.get(timeout=0.05)

    threads = [threading.Thread(target=hammer, args=(verb,)) for verb in ("put", "get", "put", "get")]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(forks):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                with suppress(ipcq.TimedOutError, ipcq.QueueClosed):
                    queue.put("child", timeout=1.0)
                    queue.get(timeout=1.0)
                queue.close()
                code = 0
            finally:
                os._exit(code)
        codes.append(reap(pid, SOON_SECONDS))
    over.set()
    for thread in threads:
        thread.join()
    with suppress(ipcq.QueueEmpty):
        queue.get_many(block=False)
    queue.put("whole")
    say([codes, queue.get()])
    queue.unlink()
    queue.close()


def test_a_child_forked_while_threads_hammer_a_handle_can_use_or_close_it(
    name: str, backend: str, peers: Peers
) -> None:
    """C20: 100 forks amid four threads inside one handle: no child hangs, and the parent's handle still works."""
    peer = peers.spawn(fork_over_hammered_handle, name, backend, FORKS)
    codes, last = peer.hear()
    peer.done()
    assert codes == [0] * FORKS
    assert last == "whole"


def test_a_handle_is_pickled_to_an_unrelated_process_by_its_name(
    name: str, backend: str, queue: "ipcq.Queue[object]", peers: Peers
) -> None:
    """C20: a pickled handle attaches again by name in another process."""
    import pickle

    peer = peers.spawn(put_by_pickle, pickle.dumps(queue).hex())
    peer.done()
    assert queue.get(timeout=10) == "from the other side"


def put_by_pickle(data: str) -> None:
    """Put through a handle that arrives as a pickle."""
    import pickle

    with pickle.loads(bytes.fromhex(data)) as queue:  # the test's own bytes
        queue.put("from the other side")


def end_in_child(backend: str) -> None:
    """Close and drop an inherited handle in a child, and report whether the parent's still works."""
    name = fresh_name()
    queue = ipcq.open(name, backend, **SMALL)
    pid = os.fork()
    if not pid:
        queue.close()
        os._exit(0)
    os.waitpid(pid, 0)
    queue.put("still here")
    say(queue.get())
    queue.unlink()
    queue.close()


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_closing_an_inherited_handle_in_a_child_leaves_the_parents_open(
    method: str, backend: str, peers: Peers
) -> None:
    """C20: a forked child closes only its own copy."""
    peer = getattr(peers, method)(end_in_child, backend)
    assert peer.hear() == "still here"
    peer.done()
