"""C23: a full tmpfs raises an exception at creation, and has no effect afterwards: never SIGBUS.

Each test runs in a new mount namespace, in which /dev/shm is a small file system.
"""

import os
import sys
from typing import Any

import pytest

import ipcq
from ipcq.testing.processes import Peers, fresh_name, say
from processes.mounts import PAGE_BYTES, SIZE_BYTES, fill, mount_small_dev_shm
from processes.needs import usable
from processes.sizes import size
from processes.users import NOBODY, become, warm_up

pytestmark = pytest.mark.usefixtures("as_root")

if sys.platform != "linux":
    pytest.skip(f"Windows has no /dev/shm, nor has {sys.platform}", allow_module_level=True)

MAX_MESSAGE_BYTES = 50_000
# Many pages, so that a page that was not allocated would show.
LARGE_BYTES = 20 << 20
SHARED = ("shm", "pyshm")


def create_in_many_sizes(backend: str, count: int) -> None:
    """As an ordinary user, create queues of many sizes; report the errors and what failed creations left behind."""
    warm_up(backend)
    mount_small_dev_shm()
    become(NOBODY)
    errors: set[str] = set()
    left: set[str] = set()
    made = 0
    for number in range(count):
        name = fresh_name()
        asked = PAGE_BYTES + number * 4 * SIZE_BYTES // count
        try:
            with ipcq.open(name, backend, exclusive=True, buffer_size=asked, serializer="raw") as queue:
                while queue.put_many([bytes(1000)] * 50, block=False) == 50:
                    pass
                made += 1
                queue.unlink()
        except ipcq.QueueFull:
            made += 1
            ipcq.unlink(name, backend)
        except ipcq.MessageQueueError as error:
            errors.add(type(error).__name__)
        left |= set(os.listdir("/dev/shm")) - {f"ipcq-{NOBODY}"}  # the directory for locks
    say([made, sorted(errors), sorted(left)])


@pytest.mark.parametrize("shared", SHARED)
def test_a_queue_of_any_size_fits_or_is_no_space(shared: str, peers: Peers) -> None:
    """C23: up to the free space queues work to the last byte; above it the error is NoSpace, and no name is left."""
    made, errors, left = peers.fork(create_in_many_sizes, usable(shared), size(60, 200)).hear()
    assert (errors, left) == (["NoSpace"], [])
    assert made > 5


def use_while_full(backend: str, priorities: bool) -> None:
    """Create a queue, fill the file system, use the queue in every way and to its last byte; report the differences."""
    warm_up(backend)
    mount_small_dev_shm(LARGE_BYTES + (LARGE_BYTES >> 1))
    become(NOBODY)
    name = fresh_name()
    with ipcq.open(
        name,
        backend,
        exclusive=True,
        buffer_size=LARGE_BYTES,
        max_message_size=MAX_MESSAGE_BYTES,
        priorities=priorities,
        serializer="raw",
    ) as queue:
        fill()
        wrong: list[str] = []
        for turn in range(3):
            messages: list[Any] = []
            try:
                while True:
                    message = bytes([turn]) * (1 + len(messages) * 7919 % MAX_MESSAGE_BYTES)
                    queue.put(message, block=False)
                    messages.append(message)
            except ipcq.QueueFull:
                pass
            taken = []
            while not queue.empty():
                taken += queue.get_many()
            if taken != messages or not messages:
                wrong.append(f"turn {turn}: {len(messages)} put, {len(taken)} got")
        with ipcq.open(name, backend, create=False, serializer="raw") as other:
            other.put(b"one more")
            if queue.get() != b"one more":
                wrong.append("another handle's message is another one")
        try:
            ipcq.open(f"{name}-other", backend, exclusive=True).close()
            wrong.append("another queue found room")
        except ipcq.NoSpace:
            pass
        ipcq.unlink(name, backend)
    say(wrong)


@pytest.mark.parametrize("priorities", [False, True])
@pytest.mark.parametrize("shared", SHARED)
def test_a_queue_needs_no_space_once_it_is_created(shared: str, priorities: bool, peers: Peers) -> None:
    """C23: other processes may use up the rest of the file system."""
    assert peers.fork(use_while_full, usable(shared), priorities).hear() == []


def listen_while_full(backend: str) -> None:
    """With the file system full, request a descriptor and a notice; report the refusals and whether a get works."""
    warm_up(backend)
    mount_small_dev_shm()
    become(NOBODY)
    name = fresh_name()
    refused: list[str] = []
    with ipcq.open(name, backend, exclusive=True, buffer_size=SIZE_BYTES // 4, serializer="raw") as queue:
        fill()
        for call in (queue.fileno, lambda: queue.notify(print), queue.notify):
            try:
                call()
            except (ipcq.NoSpace, ipcq.Unsupported) as error:
                refused.append(type(error).__name__)
        queue.put(b"item")
        say([refused, queue.get() == b"item"])
        queue.unlink()


@pytest.mark.parametrize("shared", SHARED)
def test_a_call_that_needs_more_space_is_refused(shared: str, peers: Peers) -> None:
    """C23: a doorbell may find no space; the queue still works."""
    refused, works = peers.fork(listen_while_full, usable(shared)).hear()
    assert works
    assert set(refused) <= {"NoSpace", "Unsupported"}
