"""C18, C19: a queue shared between PID namespaces is refused or correct; equal process ids do not confuse owners."""

import ctypes
import os
import signal
import sys
import time

import pytest

import ipcq
from ipcq.testing.processes import Peer, Peers, say
from ipcq.testing.workers import PATIENCE
from processes.sizes import size
from processes.users import warm_up

pytestmark = pytest.mark.usefixtures("as_root")

if sys.platform != "linux":
    pytest.skip(f"Windows has no PID namespaces, nor has {sys.platform}", allow_module_level=True)

CLONE_NEWPID = 0x20000000
REFUSED = 3
COUNT = 300


def put_from_a_namespace(name: str, backend: str, who: int, seconds: float | None = None) -> None:
    """As process 1 of a new namespace, put numbered messages, and report how that ended.

    Args:
        name: Of the queue.
        backend: Of the queue.
        who: The first part of each message.
        seconds: Time after which process 1 is killed. It puts without end then.
    """
    warm_up(backend)
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWPID):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWPID) is needed, and refused here")
    pid = os.fork()
    if not pid:
        status = 1
        try:
            assert os.getpid() == 1
            status = put_all(name, backend, who, endless=seconds is not None)
        finally:
            os._exit(status)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    say(os.waitstatus_to_exitcode(status))


def put_all(name: str, backend: str, who: int, *, endless: bool) -> int:
    try:
        with ipcq.open(name, backend, create=False) as queue:
            number = 0
            while endless or number < COUNT:
                queue.put([who, number], timeout=PATIENCE)
                number += 1
    except ipcq.VersionMismatch:
        return REFUSED
    return 0


def take_all(queue: "ipcq.Queue[object]", peers: list[Peer]) -> dict[int, list[int]]:
    """Take messages until the peers have ended and the queue is empty; return the numbers by producer."""
    numbers: dict[int, list[int]] = {}
    while not queue.empty() or any(peer.state() not in "ZX" for peer in peers):
        try:
            who, number = queue.get(timeout=0.05)  # type: ignore[misc]  # the messages of this test
        except ipcq.QueueEmpty:
            continue
        numbers.setdefault(who, []).append(number)
    return numbers


def test_two_namespaces_with_the_same_process_id_are_refused_or_correct(
    name: str, backend: str, queue: "ipcq.Queue[object]", peers: Peers
) -> None:
    """C19: two processes 1 put at the same time; either every message arrives once and in order, or none does."""
    both = [peers.fork(put_from_a_namespace, name, backend, who) for who in (0, 1)]
    numbers = take_all(queue, both)
    outcomes = [peer.hear() for peer in both]
    if outcomes == [REFUSED, REFUSED]:
        assert not numbers
    else:
        assert (outcomes, numbers) == ([0, 0], {0: list(range(COUNT)), 1: list(range(COUNT))})


def test_a_process_killed_in_another_namespace_blocks_no_other(
    name: str, backend: str, queue: "ipcq.Queue[object]", peers: Peers
) -> None:
    """C15, C19: when a process 1 is killed at a random instant, the other one loses nothing."""
    for _ in range(size(5, 100)):
        victim = peers.fork(put_from_a_namespace, name, backend, 0, peers.random.random() / 20)
        other = peers.fork(put_from_a_namespace, name, backend, 1)
        numbers = take_all(queue, [victim, other])
        victim.hear()
        outcome = other.hear()
        assert (outcome, numbers.get(1, [])) in ((0, list(range(COUNT))), (REFUSED, []))
        assert numbers.get(0, []) == list(range(len(numbers.get(0, []))))
