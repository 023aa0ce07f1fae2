"""C24, C31: a process that cannot start a thread chooses the same backend as others; the error names the limit."""

import asyncio
import sys
from collections.abc import Callable

import pytest

import ipcq
import ipcq.aio
from ipcq.logging import QueueListener
from ipcq.testing.processes import Peers, say
from processes.needs import usable
from processes.users import NOBODY, become, warm_up

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.usefixtures("as_root")

if sys.platform != "linux":
    pytest.skip(f"Windows has no RLIMIT_NPROC, and {sys.platform} counts otherwise", allow_module_level=True)


def open_and_use(name: str) -> str:
    with ipcq.open(name) as queue:
        queue.put(1)
        queue.get(timeout=1)
        queue.unlink()
        return queue.backend


def request_notice(name: str, backend: str) -> None:
    with ipcq.open(name, backend, max_messages=2, max_message_size=64) as queue:
        try:
            queue.notify(print)
        finally:
            queue.unlink()


async def open_and_close(name: str) -> None:
    async with ipcq.aio.open(name):
        pass


def open_for_asyncio(name: str) -> None:
    asyncio.run(open_and_close(name))


def start_listener(name: str) -> None:
    listener = QueueListener(name)
    try:
        listener.start()
    finally:
        listener.queue.close()


WITHOUT_THREADS: dict[str, Callable[[str], object]] = {
    "open": open_and_use,
    "notify on shm": lambda name: request_notice(name, "shm"),
    "notify on mqueue": lambda name: request_notice(name, "mqueue"),
    "open of socketpair": lambda name: ipcq.open(name, "socketpair"),
    "aio.open": open_for_asyncio,
    "QueueListener.start": start_listener,
}


def try_without_threads(what: str, name: str) -> None:
    """As a user who may start no more threads, make a call and report the result."""
    for backend in ("shm", "mqueue", "socketpair"):
        warm_up(backend)
    asyncio.run(open_and_close(name))  # imports the modules that only a running loop imports
    ipcq.unlink(name)
    become(NOBODY)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    try:
        say(["returned", WITHOUT_THREADS[what](name)])
    except ipcq.LimitExceeded as error:
        say(["raised", error.limit])


def try_locks_without_threads() -> None:
    """As a user who may start no more threads, check whether the kernel supports shm, before any queue is used."""
    from ipcq_shm import _core

    become(NOBODY)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    say(_core.works())


def test_the_probe_of_shm_needs_no_thread(peers: Peers) -> None:
    """C31: otherwise shm would be skipped, and the name split between two backends."""
    usable("shm")
    assert peers.spawn(try_locks_without_threads).hear() is True


def test_without_threads_the_same_backend_is_chosen(name: str, peers: Peers) -> None:
    """C31: the choice depends on what is installed and permitted, and shm needs no thread."""
    usable("shm")
    assert peers.fork(try_without_threads, "open", name).hear() == ["returned", "shm"]


@pytest.mark.parametrize("what", list(WITHOUT_THREADS)[1:])
def test_a_call_that_needs_a_thread_names_the_limit(what: str, name: str, peers: Peers) -> None:
    """C24: the call that needs one names the limit."""
    for backend in ("shm", "mqueue", "socketpair"):
        usable(backend)
    assert peers.fork(try_without_threads, what, name).hear() == ["raised", "RLIMIT_NPROC"]
