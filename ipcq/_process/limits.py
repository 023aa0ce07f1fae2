"""Limits of the process and of the machine that any backend may hit."""

import _thread
import errno
import os
import sys

from ipcq.errors import LimitExceeded, MessageQueueError, NoSpace, Unsupported

if sys.platform != "win32":
    import resource  # now, because it could not be loaded once the descriptor table is full


def too_many_descriptors(number: int = errno.EMFILE) -> LimitExceeded:
    """Make the error for a full descriptor table, with the current limit.

    Args:
        number: ``EMFILE``: too many open files in the process. ``ENFILE``: too many on the machine.
    """
    if number == errno.ENFILE:
        most = _number("/proc/sys/fs/file-max")
        again = f"sudo sysctl fs.file-max={2 * most}" if most else "sudo sysctl fs.file-max with a larger number"
        return LimitExceeded(
            limit="fs.file-max",
            value=most,
            asked=most + 1,
            remedy=f"end a process with many open files (see lsof), or run {again}",
            errno=number,
        )
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return LimitExceeded(
        limit="RLIMIT_NOFILE",
        value=most,
        asked=most + 1,
        remedy=f"close unneeded files, or run ulimit -n {2 * most} before the program starts",
        errno=number,
    )


def shortage(error: BaseException) -> MessageQueueError | None:
    """Return our error if a call or an import failed because descriptors or memory ran out, else None."""
    if sys.platform == "win32":  # Windows reports neither the limit nor its value
        return None
    number = error.errno if isinstance(error, OSError) else errno.ENOMEM if isinstance(error, MemoryError) else 0
    if isinstance(error, ImportError):  # the dynamic loader reports the cause only as text
        words = str(error)
        number = next((each for each in (errno.EMFILE, errno.ENFILE, errno.ENOMEM) if os.strerror(each) in words), 0)
    if number in (errno.EMFILE, errno.ENFILE):
        return too_many_descriptors(number)
    if number == errno.ENOMEM:
        return NoSpace("there is not enough memory: free some and try again", errno=number)
    return None


def too_many_threads() -> LimitExceeded:
    """Make the error for a thread that the system refuses to start, with the current limit."""
    limit, most, raising = "kernel.threads-max", 0, "sudo sysctl kernel.threads-max with a larger number"
    if sys.platform != "win32":
        most, _ = resource.getrlimit(resource.RLIMIT_NPROC)
        if most == resource.RLIM_INFINITY:
            most = _number("/proc/sys/kernel/threads-max")
        else:
            limit, raising = "RLIMIT_NPROC", f"ulimit -u {2 * most} before the program starts"
    remedy = f"end processes so that a thread can be started, or {raising} (in a container also --pids-limit)"
    return LimitExceeded(limit=limit, value=most, asked=most + 1, remedy=remedy, errno=errno.EAGAIN)


def check_daemon_threads() -> None:
    """Check that this interpreter can start daemon threads.

    Raises:
        Unsupported: It cannot, because it has its own GIL (Python 3.12 and later).
    """
    allowed = getattr(_thread, "daemon_threads_allowed", None)
    if allowed is not None and not allowed():
        raise Unsupported(
            "this needs a daemon thread, and an interpreter with its own GIL has none: use the main interpreter for it"
        )


def check_file_size(size: int) -> None:
    """Check that this process may write a file of `size` bytes: exceeding RLIMIT_FSIZE would raise SIGXFSZ.

    Raises:
        LimitExceeded: RLIMIT_FSIZE is lower than `size`.
    """
    if sys.platform == "win32":
        return
    most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if most != resource.RLIM_INFINITY and size > most:
        remedy = "ulimit -f unlimited, or ask for less"
        raise LimitExceeded(limit="RLIMIT_FSIZE", value=most, asked=size, remedy=remedy, errno=errno.EFBIG)


def _number(path: str) -> int:
    """Read a limit of the machine; return 0 if it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            return int(file.read())
    except OSError:  # reading it takes a descriptor, and there may be none
        return 0
