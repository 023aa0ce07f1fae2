"""The limits of ``mq_overview(7)``: their current values, and which of them an error number refers to."""

import errno
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

from ipcq.backend import reraise_from_handler, too_many_descriptors
from ipcq.errors import LimitExceeded, MessageQueueError, NoSpace, PermissionDenied, QueueExists, QueueNotFound

if sys.platform != "win32":  # Windows imports this module only to report why the backend is unavailable
    import resource

DIRECTORY: Final = "/proc/sys/fs/mqueue"
#: The command that makes queues listable.
MOUNT: Final = "sudo mkdir -p /dev/mqueue && sudo mount -t mqueue none /dev/mqueue"
#: What the kernel charges for each message in addition to its size: ``struct msg_msg`` and
#: ``struct posix_msg_tree_node`` (ipc/mqueue.c, on 64-bit).
OVERHEAD_BYTES: Final = 96
# Limits for a process with CAP_SYS_RESOURCE (include/linux/ipc_namespace.h).
_HARD_MESSAGES: Final = 65536
_HARD_SIZE_BYTES: Final = 16 << 20
_CAP_SYS_RESOURCE: Final = 24


def setting(name: str, otherwise: int) -> int:
    """Read a setting such as ``msg_max``; return `otherwise`, the kernel's default, if /proc is not readable."""
    try:
        with open(f"{DIRECTORY}/{name}", encoding="utf-8") as file:
            return int(file.read())
    except (FileNotFoundError, PermissionError):
        return otherwise


def default_messages() -> int:
    return min(setting("msg_default", 10), setting("msg_max", 10))


def default_size() -> int:
    return min(setting("msgsize_default", 8192), setting("msgsize_max", 8192))


def privileged() -> bool:
    """Return whether this process has CAP_SYS_RESOURCE, so that msg_max, msgsize_max and queues_max do not apply."""
    try:
        with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
            effective = next((line.split()[1] for line in file if line.startswith("CapEff:")), "0")
    except (FileNotFoundError, PermissionError):
        return False
    return bool(int(effective, 16) >> _CAP_SYS_RESOURCE & 1)


def errors(messages: int = 0, size: int = 0) -> dict[int, Callable[[], MessageQueueError]]:
    """Return the meanings of the error numbers of a failed call (`ipcq.backend.translated`).

    Args:
        messages: The requested capacity, in messages; 0 if the call does not create a queue.
        size: The requested maximum message size, in bytes.
    """
    denied = partial(
        PermissionDenied, "its mode denies access to this user: ask its owner (ls -l in the mqueue file system)"
    )
    found: dict[int, Callable[[], MessageQueueError]] = {
        errno.ENOENT: QueueNotFound,
        errno.EEXIST: QueueExists,
        errno.EACCES: denied,
        errno.EPERM: denied,
        errno.ENOMEM: partial(NoSpace, "the kernel has no memory for the queue: free some, or ask for less"),
        errno.ENOSPC: _too_many_queues,
        errno.EMFILE: lambda: descriptors() or _budget(messages, size),
    }
    if messages:
        found[errno.EINVAL] = found[errno.EOVERFLOW] = partial(_geometry, messages, size)
    return found


def _too_many_queues() -> MessageQueueError:
    most = setting("queues_max", 256)
    return LimitExceeded(
        limit="fs.mqueue.queues_max",
        value=most,
        asked=most + 1,
        remedy=f"remove unused queues (ipcq ls), or sudo sysctl fs.mqueue.queues_max={2 * most}",
        errno=errno.ENOSPC,
    )


def _geometry(messages: int, size: int) -> MessageQueueError:
    for limit, most, asked in (
        ("msg_max", _HARD_MESSAGES if privileged() else setting("msg_max", 10), messages),
        ("msgsize_max", _HARD_SIZE_BYTES if privileged() else setting("msgsize_max", 8192), size),
    ):
        if asked > most:
            hard = most in (_HARD_MESSAGES, _HARD_SIZE_BYTES)
            remedy = "no setting raises it: ask for less" if hard else f"sudo sysctl fs.mqueue.{limit}={asked}"
            return LimitExceeded(limit=f"fs.mqueue.{limit}", value=most, asked=asked, remedy=remedy, errno=errno.EINVAL)
    return _budget(messages, size)


def descriptors() -> LimitExceeded | None:
    """Return the error if the descriptor table is full: mq_open reports EMFILE for that and for RLIMIT_MSGQUEUE."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        reraise_from_handler(error)
        return too_many_descriptors(error.errno or errno.EMFILE)
    return None


def _budget(messages: int, size: int) -> LimitExceeded:
    most, _ = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    asked = messages * (size + OVERHEAD_BYTES)
    return LimitExceeded(
        limit="RLIMIT_MSGQUEUE",
        value=most,
        asked=asked,
        remedy=(
            f"the limit covers all queues of this user: remove some (ipcq ls), "
            f"or sudo prlimit --pid $$ --msgqueue={most + asked} before the program starts"
        ),
        errno=errno.EMFILE,
    )


#: For calls that do not create a queue.
ERRORS: Final = errors()
