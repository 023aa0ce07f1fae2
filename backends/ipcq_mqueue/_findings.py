"""Findings for `ipcq doctor`: the limits on message queues, and leftover queues, with the command that helps."""

import os
import resource
import shlex
from collections.abc import Iterator
from typing import Final

from ipcq.backend import Finding, Severity
from ipcq_mqueue import _limits
from ipcq_mqueue._kernel import SHUT_DOWN

# The kernel's defaults (include/linux/ipc_namespace.h, include/uapi/linux/resource.h).
_DEFAULT_MESSAGES: Final = 10
_DEFAULT_SIZE_BYTES: Final = 8192
_DEFAULT_BUDGET_BYTES: Final = 819_200

#: How many leftover queues the command names.
_MOST_NAMED: Final = 5


def findings(place: str | None) -> Iterator[Finding]:
    """Check the limits, and the queues if their file system is mounted.

    Args:
        place: The mount point of the mqueue file system; None if it is not mounted.
    """
    if place is None:
        text = "the mqueue file system is not mounted, so queues can be used but not listed"
        yield Finding(severity=Severity.NOTE, text=text, fix=_limits.MOUNT)
    if not _limits.privileged():
        yield from _geometry()
    yield from _budget()
    if place is not None:
        names = sorted(os.listdir(place))
        if not _limits.privileged():
            yield from _number(len(names))
        yield from _left_over(place, names)


def _geometry() -> Iterator[Finding]:
    messages, size = _limits.setting("msg_max", _DEFAULT_MESSAGES), _limits.setting("msgsize_max", _DEFAULT_SIZE_BYTES)
    if messages <= _DEFAULT_MESSAGES or size <= _DEFAULT_SIZE_BYTES:
        yield Finding(
            severity=Severity.NOTE,
            text=f"a queue has at most {messages:,} messages (msg_max) of {size:,} bytes (msgsize_max)",
            fix="sudo sysctl fs.mqueue.msg_max=1000 fs.mqueue.msgsize_max=65536   # or what is needed",
        )


def _budget() -> Iterator[Finding]:
    most, _ = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    if most == resource.RLIM_INFINITY or most > _DEFAULT_BUDGET_BYTES:
        return
    each = _limits.default_messages() * (_limits.default_size() + _limits.OVERHEAD_BYTES)
    room = most // each
    yield Finding(
        severity=Severity.NOTE if room else Severity.WARNING,
        text=f"RLIMIT_MSGQUEUE allows {most:,} bytes for all queues of this user, and a queue with the default limits "
        f"takes {each:,} bytes: there is space for {room}",
        fix=f"sudo prlimit --pid $$ --msgqueue={10 * _DEFAULT_BUDGET_BYTES}"
        "   # permanently: /etc/security/limits.conf, item msgqueue",
    )


def _number(there: int) -> Iterator[Finding]:
    most = _limits.setting("queues_max", 256)
    if there >= most * 9 // 10:
        yield Finding(
            severity=Severity.WARNING,
            text=f"there are {there:,} queues, and the limit is {most:,} (queues_max)",
            fix=f"sudo sysctl fs.mqueue.queues_max={2 * most}   # or remove some: ipcq ls, ipcq rm",
        )


def _left_over(place: str, names: list[str]) -> Iterator[Finding]:
    found = [name for name in names if _is_left_over(os.path.join(place, name))]
    if found:
        named = " ".join(shlex.quote("/" + name) for name in found[:_MOST_NAMED])
        yield Finding(
            severity=Severity.NOTE,
            text=f"{len(found):,} of this user's queues are shut down and empty, so they are no longer in use",
            fix=f"ipcq rm --yes {named}{'   # and others' if len(found) > _MOST_NAMED else ''}",
        )


def _is_left_over(path: str) -> bool:
    try:
        found = os.stat(path)
        if found.st_uid != os.geteuid() or not found.st_mode & SHUT_DOWN:
            return False
        with open(path, "rb") as queue:  # it reads as one line of status (mq_overview(7))
            return queue.read(256).startswith(b"QSIZE:0 ")
    except OSError:
        return False  # it was removed meanwhile
