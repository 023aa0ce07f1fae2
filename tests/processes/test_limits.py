"""C24: limits of the kernel are exceeded for real; the error has the value, the amount asked, the way out and errno.

Each limit is lowered or reached in a new process, so that other queues are not affected: limits of processes by
setrlimit, the number of queues in a new IPC namespace. The tests run as root, as root without CAP_SYS_RESOURCE, as in
containers, and as an ordinary user.
"""

import ctypes
import errno
import gc
import os
import struct
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import pytest

import ipcq
from ipcq.testing.processes import Peers, fresh_name, say
from processes.needs import usable
from processes.programs import SMALL
from processes.users import NOBODY, become, free_user, warm_up

resource = pytest.importorskip("resource", reason="could not import 'resource', which only POSIX has")

pytestmark = [pytest.mark.usefixtures("as_root"), pytest.mark.alone]

CAP_SYS_RESOURCE = 24
CLONE_NEWIPC = 0x08000000
HARD_MESSAGES, HARD_SIZE = 65536, 16 << 20


def setting(name: str) -> int:
    """Read one of the kernel's settings for message queues."""
    with open(f"/proc/sys/fs/mqueue/{name}", encoding="utf-8") as file:
        return int(file.read())


def full_root() -> None:
    """Stay root with all capabilities."""


def bare_root() -> None:
    """Stay root, but give up CAP_SYS_RESOURCE, as root in a container does."""
    library = ctypes.CDLL(None, use_errno=True)
    # struct __user_cap_header_struct and two of __user_cap_data_struct (capget(2)).
    header = struct.pack("Ii", 0x20080522, 0)
    data = ctypes.create_string_buffer(24)
    assert library.capget(header, data) == 0
    words = list(struct.unpack("6I", data.raw))
    for place in (0, 1):
        words[place] &= ~(1 << CAP_SYS_RESOURCE)
    assert library.capset(header, struct.pack("6I", *words)) == 0


def ordinary_user() -> None:
    """Become an ordinary user."""
    become(NOBODY)


USERS: dict[str, Callable[[], None]] = {"root": full_root, "bare-root": bare_root, "nobody": ordinary_user}


def is_privileged(user: str) -> bool:
    """Return whether a user may exceed the kernel's settings; root in a container may not."""
    with open("/proc/self/status", encoding="utf-8") as file:
        effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    return user == "root" and bool(effective >> CAP_SYS_RESOURCE & 1)


def report_hit(backend: str, user: str, limit: str, ask: dict[str, int]) -> None:
    """As a user, exceed a limit beside a queue in use; report the error and whether the queue still works."""
    warm_up(backend)
    if limit == "fs.mqueue.queues_max":
        enter_namespace()
    USERS[user]()
    with ExitStack() as opened:
        queue: ipcq.Queue[Any] = opened.enter_context(ipcq.open(fresh_name(), backend, exclusive=True, **SMALL))
        opened.callback(queue.unlink)
        queue.put("before")
        approach(limit, backend, opened)
        try:
            opened.callback(ipcq.open(fresh_name(), backend, exclusive=True, **ask).unlink)
            said: list[Any] = ["created"]
        except ipcq.LimitExceeded as error:
            said = ["LimitExceeded", error.limit, error.value, error.asked, error.remedy, error.errno, str(error)]
        except ipcq.MessageQueueError as error:
            said = [type(error).__name__, str(error), error.errno]
        queue.put("after")
        say([said, queue.get_many()])


def enter_namespace() -> None:
    """Enter a new IPC namespace, in which there are no queues."""
    library = ctypes.CDLL(None, use_errno=True)
    assert library.unshare(CLONE_NEWIPC) == 0, os.strerror(ctypes.get_errno())


def approach(limit: str, backend: str, opened: ExitStack) -> None:
    """Come so close to a limit that one more queue exceeds it."""
    if limit == "RLIMIT_MSGQUEUE":
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (2000, resource.getrlimit(resource.RLIMIT_MSGQUEUE)[1]))
    elif limit == "RLIMIT_NOFILE":
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        while True:
            try:
                descriptor = os.dup(2)
            except OSError:
                return
            opened.callback(os.close, descriptor)
    elif limit == "fs.mqueue.queues_max":
        for _ in range(setting("queues_max") - 1):
            tiny = ipcq.open(fresh_name(), backend, max_messages=1, max_message_size=1)
            opened.callback(tiny.unlink)
            tiny.close()


def run_program(peers: Peers, program: Callable[..., object], *arguments: object) -> Any:
    """Run a program to its end, by which it has removed its queues, and return its report."""
    peer = peers.fork(program, *arguments)
    answer = peer.hear()
    peer.done()
    return answer


def expect(answer: list[Any], limit: str, value: int, asked: int, remedy: str, *numbers: int) -> None:
    """Check that the limit was named in full and that the other queue still works."""
    said, kept = answer
    assert said[0] == "LimitExceeded", said
    _, named, told, wanted, way, number, text = said
    assert (named, told, wanted) == (limit, value, asked)
    assert remedy in way
    assert number in numbers
    assert all(part in text for part in (limit, str(value), str(asked), way))
    assert kept == ["before", "after"]


@pytest.mark.parametrize("user", USERS)
def test_more_messages_than_the_kernel_allows_a_queue(user: str, mqueue: str, peers: Peers) -> None:
    """C24: the error names fs.mqueue.msg_max, or the kernel's hard limit for a user who may exceed the setting."""
    most = HARD_MESSAGES if is_privileged(user) else setting("msg_max")
    asked = most + 1
    answer = run_program(peers, report_hit, mqueue, user, "", {"max_messages": asked, "max_message_size": 1})
    remedy = "ask for less" if is_privileged(user) else f"sudo sysctl fs.mqueue.msg_max={asked}"
    expect(answer, "fs.mqueue.msg_max", most, asked, remedy, errno.EINVAL)


@pytest.mark.parametrize("user", USERS)
def test_larger_messages_than_the_kernel_allows_a_queue(user: str, mqueue: str, peers: Peers) -> None:
    """C24: the error names fs.mqueue.msgsize_max, or the kernel's hard limit for a user who may exceed the setting."""
    most = HARD_SIZE if is_privileged(user) else setting("msgsize_max")
    asked = most + 1
    answer = run_program(peers, report_hit, mqueue, user, "", {"max_messages": 1, "max_message_size": asked})
    remedy = "ask for less" if is_privileged(user) else f"sudo sysctl fs.mqueue.msgsize_max={asked}"
    expect(answer, "fs.mqueue.msgsize_max", most, asked, remedy, errno.EINVAL)


@pytest.mark.parametrize("user", USERS)
def test_more_queues_than_the_kernel_allows(user: str, mqueue: str, peers: Peers) -> None:
    """C24: the error names fs.mqueue.queues_max; a user who may exceed it creates the queue."""
    most = setting("queues_max")
    answer = run_program(peers, report_hit, mqueue, user, "fs.mqueue.queues_max", SMALL)
    if is_privileged(user):
        assert answer == [["created"], ["before", "after"]]
        return
    expect(answer, "fs.mqueue.queues_max", most, most + 1, "sudo sysctl fs.mqueue.queues_max=", errno.ENOSPC)


@pytest.mark.parametrize("user", USERS)
def test_more_bytes_of_queues_than_the_user_may_have(user: str, mqueue: str, peers: Peers) -> None:
    """C24: the error names RLIMIT_MSGQUEUE and the bytes that the queue needs."""
    answer = run_program(peers, report_hit, mqueue, user, "RLIMIT_MSGQUEUE", SMALL)
    expect(answer, "RLIMIT_MSGQUEUE", 2000, 4 * (512 + 96), "before the program starts", errno.EMFILE)


@pytest.mark.parametrize("user", USERS)
def test_more_descriptors_than_the_process_may_have(user: str, mqueue: str, peers: Peers) -> None:
    """C24: the error names RLIMIT_NOFILE."""
    answer = run_program(peers, report_hit, mqueue, user, "RLIMIT_NOFILE", SMALL)
    expect(answer, "RLIMIT_NOFILE", 64, 65, "before the program starts", errno.EMFILE)


def attach_without_descriptors(name: str, backend: str, spare: int) -> None:
    """Attach to, look for and unlink a queue with a number of spare descriptors, and report the results."""
    warm_up(backend)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    held = []
    while True:
        try:
            held.append(os.dup(2))
        except OSError:
            break
    for descriptor in held[:spare]:
        os.close(descriptor)
    said = []

    def make_and_unlink() -> None:
        with ipcq.open(f"{name}-other", backend, **SMALL) as queue:
            queue.unlink()

    calls: list[Callable[[], object]] = [
        lambda: ipcq.open(name, backend, create=False).close(),
        lambda: ipcq.open(name, backend).close(),
        lambda: ipcq.exists(name, backend),
        make_and_unlink,
        lambda: ipcq.unlink(name, backend),
    ]
    for call in calls:
        before = len(os.listdir("/proc/self/fd")) if spare else 0
        try:
            call()
            said.append("worked")
        except ipcq.MessageQueueError as error:
            said.append(f"{type(error).__name__} {getattr(error, 'limit', error)}")
        gc.collect()  # contextlib of 3.12 makes a reference cycle of a chained exception
        after = len(os.listdir("/proc/self/fd")) if spare else 0
        if after != before:
            said.append(f"left {after - before} descriptors open")
    say(said)


@pytest.mark.parametrize("spare", range(8))
def test_every_call_names_the_missing_descriptor(spare: int, name: str, backend: str, peers: Peers) -> None:
    """C24: with few or no descriptors left, opening, looking and unlinking work or name RLIMIT_NOFILE."""
    with ipcq.open(name, backend, **SMALL):
        said = run_program(peers, attach_without_descriptors, name, backend, spare)
        with suppress(ipcq.QueueNotFound):  # it may exist, if its unlink lacked a descriptor
            ipcq.unlink(f"{name}-other", backend)
    assert set(said) <= {"worked", "LimitExceeded RLIMIT_NOFILE"}, said


def create_within(backend: str, limit: str, value: int) -> None:
    """As an ordinary user with a low limit for files or addresses, create a large queue, then a small one."""
    warm_up(backend)
    become(NOBODY)
    if limit == "RLIMIT_AS":
        with open("/proc/self/statm", encoding="utf-8") as file:
            value += int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(getattr(resource, limit), (value, value))
    said = []
    for messages in (100_000, 4):
        name = fresh_name()
        try:
            with ipcq.open(name, backend, exclusive=True, max_messages=messages, max_message_size=512) as queue:
                queue.put("item")
                said.append(str(queue.get()))
                queue.unlink()
        except ipcq.MessageQueueError as error:
            said.append(type(error).__name__)
        said += ["left"] * ipcq.exists(name, backend)
    say(said)


@pytest.mark.parametrize(
    ("limit", "value", "error"), [("RLIMIT_FSIZE", 1 << 20, "LimitExceeded"), ("RLIMIT_AS", 32 << 20, "NoSpace")]
)
@pytest.mark.parametrize("shared", ["shm", "pyshm"])
def test_limits_of_files_and_addresses_are_our_errors(
    limit: str, value: int, error: str, shared: str, peers: Peers
) -> None:
    """C24: our error, never SIGXFSZ or a MemoryError; nothing is left, and a queue that fits is created."""
    said = run_program(peers, create_within, usable(shared), limit, value)
    if limit == "RLIMIT_AS" and shared == "pyshm":  # pyshm maps nothing
        assert said == ["item", "item"]
    else:
        assert said == [error, "item"]


def fill_up(uid: int, backend: str) -> None:
    """As a user with a low limit, create queues until one is refused, remove one, create another; report the result."""
    warm_up(backend)
    become(uid)
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (10_000, resource.getrlimit(resource.RLIMIT_MSGQUEUE)[1]))
    queues: list[ipcq.Queue[Any]] = []
    try:
        while True:
            queues.append(ipcq.open(fresh_name(), backend, exclusive=True, **SMALL))
    except ipcq.LimitExceeded:
        queues[0].unlink()
        queues[0].close()
        again = ipcq.open(fresh_name(), backend, exclusive=True, **SMALL)
        again.put("again")
        say([len(queues), again.get()])
        again.unlink()
        for queue in queues[1:]:
            queue.unlink()


def test_a_removed_queue_makes_room_for_another(mqueue: str, peers: Peers) -> None:
    """C24: the way out that the error gives works."""
    with free_user() as uid:
        peer = peers.fork(fill_up, uid, mqueue)
        count, item = peer.hear()
        peer.done()
    assert count == 10_000 // (4 * (512 + 96))
    assert item == "again"
