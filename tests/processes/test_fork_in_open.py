"""C35: a fork while another thread opens or closes leaves the child with no descriptor of the parent's."""

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import ipcq
from ipcq._handle import lifecycle as _lifecycle
from ipcq._process import forks as _forks
from ipcq.backend import NativeRLock
from ipcq.testing.processes import Peers, fresh_name, say
from processes.needs import usable
from processes.programs import SMALL
from processes.sizes import size
from processes.test_fork import SOON_SECONDS, reap
from processes.users import warm_up

FORKS = size(60, 2000)

# From Python 3.12 on, os.fork warns in a process with threads. These tests show that it works.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)


def descriptors() -> list[str]:
    """Return the targets of this process's descriptors, except those on which our own threads wait."""
    found = []
    for each in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            place = os.readlink(f"/proc/self/fd/{each}")
            if not place.startswith("anon_inode"):
                found.append(place)
    return found


def mappings() -> int:
    """Count the mappings of queues' files."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        return sum("/dev/shm/" in line for line in maps)


def fork_over_opens(name: str, backend: str, forks: int) -> None:
    """Fork while threads open and close a queue; children report descriptors and mappings that they did not open."""
    warm_up(backend)
    over = threading.Event()
    keeper = ipcq.open(name, backend, **SMALL)
    own, maps = descriptors(), mappings()

    def hammer(number: int) -> None:
        while not over.is_set():
            ipcq.open(name, backend, create=False).close()
            if number:
                mine = f"{name}-{number}"
                ipcq.open(mine, backend, **SMALL).close()
                with suppress(ipcq.QueueNotFound):
                    ipcq.unlink(mine, backend)

    threads = [threading.Thread(target=hammer, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(forks):
        pid = os.fork()
        if not pid:
            # Handles that the threads had open at that instant are inherited, as the keeper is.
            for queue in list(_lifecycle._handles):
                if queue is not keeper:
                    queue.close()
            if len(descriptors()) > len(own) or mappings() > maps:
                os.write(2, f"{descriptors()} instead of {own}, {mappings()} mappings instead of {maps}\n".encode())
                os._exit(1)
            ipcq.open(name, backend, create=False).close()
            os._exit(0)
        codes.append(reap(pid, SOON_SECONDS))
    over.set()
    for thread in threads:
        thread.join()
    keeper.unlink()
    keeper.close()
    say(codes)


def test_a_child_has_no_descriptor_that_other_threads_were_opening(name: str, backend: str, peers: Peers) -> None:
    """C35: it has only the descriptors of inherited handles, and it can open the queue."""
    peer = peers.spawn(fork_over_opens, name, backend, FORKS)
    assert peer.hear() == [0] * FORKS, peer.complaint()
    peer.done()


def outlive(name: str, forks: int) -> None:
    """Fork children that live on while a thread opens and closes, report their process ids, and wait to be killed."""
    warm_up("shm")
    over = threading.Event()

    def hammer() -> None:
        while not over.is_set():
            ipcq.open(name, "shm", create=False).close()

    thread = threading.Thread(target=hammer)
    thread.start()
    children = []
    for _ in range(forks):
        pid = os.fork()
        if not pid:
            signal.pause()
            os._exit(0)
        children.append(pid)
    say(children)
    time.sleep(60)


def test_no_child_keeps_a_slot_alive(peers: Peers) -> None:
    """C20, C35: after the parent was killed its slots are free, although its children live."""
    usable("shm")
    name = fresh_name()
    with ipcq.open(name, "shm", **SMALL) as queue:
        peer = peers.spawn(outlive, name, FORKS)
        children = peer.hear()
        try:
            os.kill(peer.pid, signal.SIGKILL)
            peer.wait()
            # A child that has not yet run since its fork still has the descriptors of its parent.
            deadline = time.monotonic() + 2 * SOON_SECONDS
            while queue.stats().handles > 1 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert queue.stats().handles == 1
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)
        queue.unlink()


def fork_in_a_handler(name: str, backend: str) -> None:
    """Fork in a signal handler again and again while the same thread opens and closes, and report the exit codes."""
    warm_up(backend)
    children: list[int] = []

    def fork(*_: object) -> None:
        pid = os.fork()
        if not pid:
            with ipcq.open(f"{name}-{os.getpid()}", backend, **SMALL) as queue:
                queue.put(1)
                queue.get(timeout=SOON_SECONDS)
                queue.unlink()
            os._exit(0)
        children.append(pid)
        # One-shot, so that no handler interrupts another.
        if len(children) < size(20, 200):
            # Far enough apart that the children of a busy machine do not all wait for one lock.
            signal.setitimer(signal.ITIMER_REAL, 0.02 + 0.0013 * (len(children) % 10))

    signal.signal(signal.SIGALRM, fork)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    while len(children) < size(20, 200):
        ipcq.open(name, backend, **SMALL).close()
    signal.setitimer(signal.ITIMER_REAL, 0)
    ipcq.open(name, backend, **SMALL).unlink()
    say([reap(pid, SOON_SECONDS) for pid in children])


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_handler_that_forks_inside_open_leaves_a_child_that_can_open(name: str, backend: str, peers: Peers) -> None:
    """C35: the thread that opens forks itself."""
    peer = peers.spawn(fork_in_a_handler, name, backend)
    codes = peer.hear()
    assert set(codes) == {0}, peer.complaint()
    peer.done()


def test_a_fork_does_not_wait_forever_for_no_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finaliser under no_fork may wait for a lock of the forking thread; the child can still open."""
    monkeypatch.setattr(_forks, "_TIMEOUT_SECONDS", 0.01)
    inside, over = threading.Event(), threading.Event()

    def keep_forks_out() -> None:
        with _forks.no_fork:
            inside.set()
            over.wait(SOON_SECONDS)

    thread = threading.Thread(target=keep_forks_out)
    thread.start()
    inside.wait()
    pid = os.fork()
    if not pid:
        os._exit(0 if _forks.no_fork.acquire(blocking=False) else 1)
    waits = thread.is_alive()
    over.set()
    thread.join()
    assert (waits, reap(pid, SOON_SECONDS)) == (True, 0)


def test_no_fork_is_free_in_a_child_though_a_thread_of_its_parent_held_it() -> None:
    """That thread does not exist in the child, so it cannot release the lock."""
    thread = threading.Thread(target=_forks.no_fork.acquire)
    thread.start()
    thread.join()
    _forks._after_fork_in_child()
    free = _forks.no_fork.acquire(blocking=False)
    _forks.no_fork.release()
    assert free


def test_a_child_closes_descriptors_being_opened_though_a_finaliser_closes_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A finaliser may run between any two steps. If the child failed there, handles would stay the parent's."""
    close = os.close
    left = [_forks.opened(lambda: os.open("/dev/null", os.O_RDONLY)) for _ in range(4)]

    def finalise_and_close(descriptor: int) -> None:
        left.remove(descriptor)
        close(descriptor)
        if len(left) == 3:
            _forks.closed(left[0])

    monkeypatch.setattr(os, "close", finalise_and_close)
    _forks.abandon_others([id(channel) for channel in _forks._channels])
    assert left == []


def test_a_channel_is_abandoned_once(name: str, backend: str) -> None:
    """Clause 17: its descriptors are closed, and a second call does nothing."""
    before = len(descriptors())
    queue = ipcq.open(name, backend, **SMALL)
    channel = queue._channel
    if backend == "socketpair":
        channel._offer.host.end()  # a child does not have the parent's thread
        from ipcq_socketpair import _host

        _host._hosts.clear()
    channel.abandon()
    channel.abandon()
    if backend == "sqlite":  # a child keeps its copy of the connection
        from ipcq_sqlite import _database

        (connection,) = _database._abandoned
        _database._abandoned.clear()
        connection.close()
    queue._unclosed.clear()
    queue._refuse_calls("abandoned")
    with suppress(ipcq.QueueNotFound):
        ipcq.unlink(name, backend)
    assert len(descriptors()) == before


def test_a_handle_that_was_closing_is_abandoned_in_a_child(name: str, backend: str) -> None:
    """C35: the thread that was closing its channel does not exist in the child."""
    queue = ipcq.open(name, backend, **SMALL)
    (channel,) = queue._unclosed.values()
    queue._refuse_calls("closed")
    queue._forget_calls()
    assert not queue._unclosed
    channel.close()
    queue.unlink()


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the functions that are registered for a fork; no fork happens."""
    registered: dict[str, Any] = {}
    monkeypatch.setattr(os, "register_at_fork", lambda **functions: registered.update(functions))
    return registered


@pytest.mark.parametrize("in_child", [None, lambda: None])
def test_a_lock_that_is_held_over_forks_is_free_in_the_child(
    handlers: dict[str, Any], in_child: Callable[[], object] | None
) -> None:
    """Clause 17: also one that a thread acquired before it was registered."""
    lock = NativeRLock()
    _forks.hold_over_forks(lock, in_child=in_child)
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join()
    handlers["after_in_child"]()
    assert lock.acquire(blocking=False)


def test_a_lock_that_is_held_over_forks_is_free_in_the_parent(handlers: dict[str, Any]) -> None:
    """And if the fork did not acquire it, that is no error."""
    lock = NativeRLock()
    _forks.hold_over_forks(lock)
    handlers["before"]()
    handlers["after_in_parent"]()
    handlers["after_in_parent"]()
    assert not lock._is_owned()  # type: ignore[attr-defined]  # which threading.Condition uses


FORK_BEFORE_REGISTERED = """
import os, signal, sys, threading
import ipcq

module, lock, backend = sys.argv[1:]
held, forked = threading.Event(), threading.Event()

def use():
    with getattr(__import__(module, fromlist=["_"]), lock):
        held.set()
        forked.wait()

user = threading.Thread(target=use)

def let_it_use():
    user.start()
    held.wait()

os.register_at_fork(before=let_it_use)
child = os.fork()
if not child:
    signal.alarm(10)
    os._exit(ipcq.exists("/nobody-has-this-name", backend))
forked.set()
user.join()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize(
    ("offered_by", "module", "lock"),
    [
        pytest.param("memory", "ipcq_memory._names", "lock", marks=pytest.mark.needs("memory")),
        pytest.param("socketpair", "ipcq_socketpair._host", "_lock", marks=pytest.mark.needs("socketpair")),
    ],
)
def test_a_backend_that_another_thread_loads_during_a_fork_works_in_the_child(
    offered_by: str, module: str, lock: str
) -> None:
    """Clause 17: the fork did not wait for a lock that was not registered yet, and the child finds it free."""
    program = [sys.executable, "-W", "ignore", "-c", FORK_BEFORE_REGISTERED, module, lock, offered_by]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
