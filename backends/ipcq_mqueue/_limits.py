"""The limits of ``mq_overview(7)``: what they are now, and which one an error number speaks of."""

import errno
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

from ipcq.backend import reraise_from_handler, too_many_descriptors
from ipcq.errors import LimitExceeded, MessageQueueError, NoSpace, PermissionDenied, QueueExists, QueueNotFound

if sys.platform != "win32":  # where there are no such queues, and the module is asked for its reason alone
    import resource

DIRECTORY: Final = "/proc/sys/fs/mqueue"
#: Makes the names of queues visible.
MOUNT: Final = "sudo mkdir -p /dev/mqueue && sudo mount -t mqueue none /dev/mqueue"
#: What the kernel charges for each message beside its size: ``struct msg_msg`` and ``struct posix_msg_tree_node``
#: (ipc/mqueue.c, on 64-bit).
OVERHEAD: Final = 96
# What a process with CAP_SYS_RESOURCE may go up to (include/linux/ipc_namespace.h).
_HARD_MESSAGES: Final = 65536
_HARD_SIZE: Final = 16 << 20
_CAP_SYS_RESOURCE: Final = 24


def setting(name: str, otherwise: int) -> int:
    """Read a setting such as ``msg_max``; `otherwise` is the kernel's default, for where /proc is not to be seen."""
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
    """Tell whether this process has CAP_SYS_RESOURCE, which lifts it above msg_max, msgsize_max and queues_max."""
    try:
        with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
            effective = next((line.split()[1] for line in file if line.startswith("CapEff:")), "0")
    except (FileNotFoundError, PermissionError):
        return False
    return bool(int(effective, 16) >> _CAP_SYS_RESOURCE & 1)


def errors(messages: int = 0, size: int = 0) -> dict[int, Callable[[], MessageQueueError]]:
    """Return what a refused call on a queue means (`ipcq.backend.translated`).

    Args:
        messages: Capacity that was asked for, in messages; 0 where none was.
        size: Largest message that was asked for, in bytes.
    """
    denied = partial(
        PermissionDenied, "its mode does not let this user: ask its owner, see ls -l in the mqueue file system"
    )
    found: dict[int, Callable[[], MessageQueueError]] = {
        errno.ENOENT: QueueNotFound,
        errno.EEXIST: QueueExists,
        errno.EACCES: denied,
        errno.EPERM: denied,
        errno.ENOMEM: partial(NoSpace, "the kernel has no memory for it: free some, or ask for less"),
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
        remedy=f"remove queues that nobody needs (ipcq ls), or sudo sysctl fs.mqueue.queues_max={2 * most}",
        errno=errno.ENOSPC,
    )


def _geometry(messages: int, size: int) -> MessageQueueError:
    for limit, most, asked in (
        ("msg_max", _HARD_MESSAGES if privileged() else setting("msg_max", 10), messages),
        ("msgsize_max", _HARD_SIZE if privileged() else setting("msgsize_max", 8192), size),
    ):
        if asked > most:
            hard = most in (_HARD_MESSAGES, _HARD_SIZE)
            remedy = "no setting goes beyond it: ask for less" if hard else f"sudo sysctl fs.mqueue.{limit}={asked}"
            return LimitExceeded(limit=f"fs.mqueue.{limit}", value=most, asked=asked, remedy=remedy, errno=errno.EINVAL)
    return _budget(messages, size)


def descriptors() -> LimitExceeded | None:
    """Tell whether it was the descriptor table: mq_open has one error number for that and for RLIMIT_MSGQUEUE."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        reraise_from_handler(error)
        return too_many_descriptors(error.errno or errno.EMFILE)
    return None


def _budget(messages: int, size: int) -> LimitExceeded:
    most, _ = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    asked = messages * (size + OVERHEAD)
    return LimitExceeded(
        limit="RLIMIT_MSGQUEUE",
        value=most,
        asked=asked,
        remedy=(
            f"that many bytes on top of what this user's other queues hold: remove some (ipcq ls), "
            f"or sudo prlimit --pid $$ --msgqueue={most + asked} before the program starts"
        ),
        errno=errno.EMFILE,
    )


#: What it means where no limit was asked for.
ERRORS: Final = errors()
