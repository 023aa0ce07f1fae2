"""C23: a file system in memory that is full is an exception at creation, and nothing at all afterwards: never SIGBUS.

Each test runs in a mount namespace of its own, in which /dev/shm is a small file system.
"""

import os
import sys
from typing import Any

import pytest

import ipcq
from ipcq.testing.processes import Peers, fresh_name, say
from processes.mounts import PAGE, ROOM, fill, mount_a_small_one
from processes.needs import usable
from processes.sizes import size
from processes.users import NOBODY, become, warm_up

pytestmark = pytest.mark.usefixtures("as_root")

if sys.platform != "linux":
    pytest.skip(f"Windows has no /dev/shm, nor has {sys.platform}", allow_module_level=True)

LARGEST = 50_000
# Many pages, so that any that was not allocated would be missed.
LARGE = 20 << 20
SHARED = ("shm", "pyshm")


def create_in_many_sizes(backend: str, count: int) -> None:
    """As an ordinary user, ask for queues of many sizes, and say which errors came and what was left of the failed."""
    warm_up(backend)
    mount_a_small_one()
    become(NOBODY)
    errors: set[str] = set()
    left: set[str] = set()
    made = 0
    for number in range(count):
        name = fresh_name()
        asked = PAGE + number * 4 * ROOM // count
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
    """C23: below what there is they work to the last byte, above it is NoSpace, and no name is left."""
    made, errors, left = peers.fork(create_in_many_sizes, usable(shared), size(60, 200)).hear()
    assert (errors, left) == (["NoSpace"], [])
    assert made > 5


def use_while_full(backend: str, priorities: bool) -> None:
    """Make a queue, fill the file system, and use the queue in every way and to its last byte; say what came out."""
    warm_up(backend)
    mount_a_small_one(LARGE + (LARGE >> 1))
    become(NOBODY)
    name = fresh_name()
    with ipcq.open(
        name,
        backend,
        exclusive=True,
        buffer_size=LARGE,
        max_message_size=LARGEST,
        priorities=priorities,
        serializer="raw",
    ) as queue:
        fill()
        wrong: list[str] = []
        for turn in range(3):
            messages: list[Any] = []
            try:
                while True:
                    message = bytes([turn]) * (1 + len(messages) * 7919 % LARGEST)
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
def test_a_queue_needs_no_space_once_it_is_made(shared: str, priorities: bool, peers: Peers) -> None:
    """C23: others may take all that is left."""
    assert peers.fork(use_while_full, usable(shared), priorities).hear() == []


def listen_while_full(backend: str) -> None:
    """With the file system full, ask for a descriptor and for a notice, and say what was refused and what works."""
    warm_up(backend)
    mount_a_small_one()
    become(NOBODY)
    name = fresh_name()
    refused: list[str] = []
    with ipcq.open(name, backend, exclusive=True, buffer_size=ROOM // 4, serializer="raw") as queue:
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
def test_what_needs_space_of_its_own_says_so(shared: str, peers: Peers) -> None:
    """C23: a doorbell may find none; the queue goes on."""
    refused, works = peers.fork(listen_while_full, usable(shared)).hear()
    assert works
    assert set(refused) <= {"NoSpace", "Unsupported"}
