"""One-shot notices by ``mq_notify(3)`` that survive the closing of other handles.

Linux cancels a process's registration when the process closes *any* descriptor of the queue (`mqueue_flush_file` in
ipc/mqueue.c). So closing a second handle, or a probe for the queue's existence, would cancel the notice of the first
handle. Therefore every descriptor of a queue is closed here, and a registration that was lost is renewed.
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

# The registrations of this process: for each inode number of a queue, the posix_ipc object and the notice.
_registered: dict[int, tuple[Any, Notice]] = {}

# glibc starts a helper thread if the notice is a function, and reports ENOSYS if it cannot.
_NO_THREAD: Final = {errno.ENOSYS: too_many_threads, errno.EAGAIN: too_many_threads}


def request(queue: Any, notice: Notice) -> None:
    """Register for a notice.

    Raises:
        LimitExceeded: Another handle is registered already, or the system cannot start a thread.
    """
    inode = os.fstat(queue.mqd).st_ino
    # posix_ipc cancels this process's own registration before it registers, so the kernel sees no conflict.
    if inode in _registered and _registrant(queue.mqd) == os.getpid():
        raise notice_taken()
    try:
        queue.request_notification(notice if isinstance(notice, int) else (_notified, (inode, notice)))
    except library().BusyError as error:
        raise notice_taken() from error
    except OSError as error:
        raise explained(error, {} if isinstance(notice, int) else _NO_THREAD) from error
    _registered[inode] = (queue, notice)


def cancel(queue: Any) -> None:
    """Cancel this handle's registration, if there is one."""
    inode = os.fstat(queue.mqd).st_ino
    if inode in _registered and _registered[inode][0] is queue:
        del _registered[inode]
        queue.request_notification(None)


def _notified(registration: tuple[int, Callable[[], object]]) -> None:
    inode, notice = registration
    _registered.pop(inode, None)
    try:
        notice()
    except BaseException:  # posix_ipc, which calls this in a separate thread, would drop it silently
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), None)))


def close(descriptor: int, closing: Callable[[], object], owner: Any = None) -> None:
    """Close a descriptor of a queue by calling `closing`, and renew another handle's registration if it was lost."""
    try:
        inode = os.fstat(descriptor).st_ino
    except OSError as error:
        closing()
        reraise_from_handler(error)
        return  # a handle that cannot be closed would be worse than a lost notice
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
    if not pending:  # the notice was a signal, which does not update the registry
        _registered.pop(inode, None)
        return
    del _registered[inode]
    try:
        request(queue, notice)
    except MessageQueueError:
        return  # perhaps another process registered first; the caller only closes a descriptor, so it gets no error
    if was_empty and queue.current_messages:
        # A message came between closing and registering, and the kernel notified no process.
        cancel(queue)
        if isinstance(notice, int):
            give_notice(notice)  # in this thread, because its handler may raise
        else:
            _notified((inode, notice))


def _registrant(descriptor: int) -> int:
    """Return the id of the registered process; 0 if there is none, this process's id if the handle cannot read."""
    try:
        fields = dict(field.split(b":") for field in os.pread(descriptor, 256, 0).split())
    except OSError:
        return os.getpid()
    return int(fields[b"NOTIFY_PID"])


# The kernel registers processes: a forked child does not inherit its parent's registrations.
hold_over_forks(in_child=_registered.clear)
