"""One-shot notices by ``mq_notify(3)``, kept alive over a habit of the kernel.

Linux takes a process's registration back when the process closes *any* descriptor of that queue (`mqueue_flush_file` in
ipc/mqueue.c), so a second handle that is closed, or a mere look whether the queue exists, would cancel the notice of
the first. So every descriptor of a queue is closed in here, and a registration that went with it is made again.
"""

import errno
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from ipcq.backend import (
    Notice,
    explained,
    give_notice,
    hold_over_forks,
    notice_taken,
    reraise_from_handler,
    too_many_threads,
)
from ipcq.errors import MessageQueueError
from ipcq_mqueue._library import library

# What this process is registered for: by the queue's inode number, the posix_ipc object that asked and what it asked
# for.
_registered: dict[int, tuple[Any, Notice]] = {}

# glibc starts a helper thread for functions, and reports ENOSYS if it could not.
_NO_THREAD: Final = {errno.ENOSYS: too_many_threads, errno.EAGAIN: too_many_threads}


def request(queue: Any, notice: Notice) -> None:
    """Register for a notice.

    Raises:
        LimitExceeded: Somebody is registered already, or the system starts no thread.
    """
    inode = os.fstat(queue.mqd).st_ino
    # posix_ipc drops this process's own registration before it makes another, so the kernel would not object.
    if inode in _registered and _registrant(queue.mqd) == os.getpid():
        raise notice_taken()
    try:
        queue.request_notification(notice if isinstance(notice, int) else (_told, (inode, notice)))
    except library().BusyError as error:
        raise notice_taken() from error
    except OSError as error:
        raise explained(error, {} if isinstance(notice, int) else _NO_THREAD) from error
    _registered[inode] = (queue, notice)


def cancel(queue: Any) -> None:
    """Take this handle's registration back, if it is still there."""
    inode = os.fstat(queue.mqd).st_ino
    if inode in _registered and _registered[inode][0] is queue:
        del _registered[inode]
        queue.request_notification(None)


def _told(registration: tuple[int, Callable[[], object]]) -> None:
    inode, notice = registration
    _registered.pop(inode, None)
    try:
        notice()
    except BaseException:  # posix_ipc, which calls this in a thread of its own, would drop it without a word
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), None)))


def close(descriptor: int, closing: Callable[[], object], owner: Any = None) -> None:
    """Close a descriptor of a queue by `closing`, and register another handle's notice again if it went with it."""
    try:
        inode = os.fstat(descriptor).st_ino
    except OSError as error:
        closing()
        reraise_from_handler(error)
        return  # a handle that is not to be closed would be worse than a notice that is not given
    queue, notice = _registered.get(inode, (None, None))
    if queue is None or notice is None:
        closing()
        return
    if queue is owner:
        _registered.pop(inode, None)
        closing()
        return
    pending = _registrant(queue.mqd) == os.getpid()
    was_empty = not queue.current_messages
    closing()
    if not pending:  # a signal was sent and told nobody here
        _registered.pop(inode, None)
        return
    del _registered[inode]
    try:
        request(queue, notice)
    except MessageQueueError:
        return  # another process was faster, perhaps, and whoever closes a descriptor has not asked for a notice
    if was_empty and queue.current_messages:
        # It came between the two, and the kernel told nobody.
        cancel(queue)
        if isinstance(notice, int):
            give_notice(notice)  # here, since its handler may raise
        else:
            _told((inode, notice))


def _registrant(descriptor: int) -> int:
    """Return the id of the process that is registered, 0 for none, and this one's where the handle cannot read."""
    try:
        fields = dict(field.split(b":") for field in os.pread(descriptor, 256, 0).split())
    except OSError:
        return os.getpid()
    return int(fields[b"NOTIFY_PID"])


# The kernel registers processes: a forked child is not registered for what its parent asked for.
hold_over_forks(in_child=_registered.clear)
