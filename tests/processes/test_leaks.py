"""C17: crashes and restarts leave nothing behind except the queues that persist by design."""

import gc
import os
import signal
from contextlib import suppress

import pytest

import ipcq
from ipcq.testing.processes import Peers, fresh_name, say
from processes.programs import SMALL
from processes.sizes import size
from processes.users import become, free_user

resource = pytest.importorskip("resource", reason="could not import 'resource', which only POSIX has")

CYCLES = size(200, 10_000)


def use_and_die(name: str, backend: str) -> None:
    """Use the queue, begin another, and die with both open."""
    queue = ipcq.open(name, backend, **SMALL)
    with suppress(ipcq.QueueFull):
        queue.put_nowait("item")
    other = ipcq.open(f"{name}-other", backend, **SMALL)
    other.unlink()
    os.kill(os.getpid(), signal.SIGKILL)


def descriptors() -> int:
    """Count the open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def list_files(name: str) -> list[tuple[str, int]]:
    """Return the files of a queue, with their sizes on disk in bytes."""
    paths = [f"/dev/shm/{file}" for file in os.listdir("/dev/shm") if name[1:] in file]
    return sorted((path, os.stat(path).st_blocks * 512) for path in paths)


def test_crashes_and_restarts_of_others_cost_this_process_no_descriptor(
    name: str, backend: str, queue: "ipcq.Queue[object]", peers: Peers
) -> None:
    """C17: after 200 crashes (10,000 nightly), descriptors, files, bytes and slots are those after ten."""
    counts = []
    for _ in range(CYCLES):
        peer = peers.fork(use_and_die, name, backend)
        assert peer.wait() == -9
        with ipcq.open(name, backend, create=False) as other:
            other.clear()
        counts.append((descriptors(), list_files(name)))
    assert counts[-1] == counts[9]
    assert not ipcq.exists(f"{name}-other", backend)


def test_handles_that_are_opened_used_and_closed_leave_no_descriptor(
    name: str, backend: str, queue: "ipcq.Queue[object]"
) -> None:
    """C17: 300 handles, and as many failed opens, hold nothing once they are closed."""
    counts = []
    for _ in range(300):
        with ipcq.open(name, backend, create=False) as other:
            other.put("item")
            other.get()
        for wrong in ({"exclusive": True}, {"max_messages": 3}, {"mode": -1}):
            with pytest.raises(ipcq.MessageQueueError):
                ipcq.open(name, backend, **wrong)  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(ipcq.QueueNotFound):
            ipcq.open(f"{name}-missing", backend, create=False)
        counts.append(descriptors())
    gc.collect()
    # SQLite keeps the descriptor of a checkpoint until its file has no locks, to use it again.
    assert counts[-1] - counts[9] in ((0, 1) if backend == "sqlite" else (0,))


def report_charge(uid: int, backend: str, cycles: int) -> None:
    """As a user with no other queue, crash in children; report the bytes charged after 10 cycles and after all."""
    name = fresh_name()
    with ipcq.open(name, backend, **SMALL) as queue:
        queue.put("warm")
        queue.get()
    ipcq.unlink(name, backend)
    become(uid)
    said = []
    for number in range(cycles):
        pid = os.fork()
        if not pid:
            use_and_die(name, backend)
        os.waitpid(pid, 0)
        if number in (9, cycles - 1):
            said.append(find_charge(backend))
    ipcq.unlink(name, backend)
    say([*said, find_charge(backend)])


def find_charge(backend: str) -> int:
    """Find the smallest RLIMIT_MSGQUEUE under which this user can still create a queue of one byte."""
    low, high = 0, 819_200
    name = fresh_name()
    while low < high:
        limit = (low + high) // 2
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (limit, 819_200))
        try:
            ipcq.open(name, backend, max_messages=1, max_message_size=1).close()
        except ipcq.LimitExceeded:
            low = limit + 1
        else:
            ipcq.unlink(name, backend)
            high = limit
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (819_200, 819_200))
    return low


@pytest.mark.alone
def test_the_kernel_charges_a_user_for_no_queue_of_a_dead_process(mqueue: str, peers: Peers, as_root: None) -> None:
    """C17: after 200 crashes a user is charged for the one queue that persists, and after its unlink for none."""
    with free_user() as uid:
        peer = peers.fork(report_charge, uid, mqueue, CYCLES)
        after_ten, after_all, after_unlink = peer.hear()
        peer.done()
    assert after_ten == after_all
    assert after_ten - after_unlink == 4 * (512 + 96)
