"""POSIX message queues of the kernel (``mq_overview(7)``), through posix_ipc.

Names are created, probed and unlinked with the C library's own calls, which report the error number; messages go
through posix_ipc. This backend does not emulate what the kernel lacks: peek, a limit in bytes, and queues that are
removed with their last handle.
"""

import errno
import os
import sys
from typing import Any, Final

from ipcq.backend import (
    Availability,
    Backend,
    Capabilities,
    Channel,
    Finding,
    Persistence,
    Request,
    Scope,
    check_owner,
    closed,
    explained,
    importing,
    opened,
    translated,
)
from ipcq.errors import QueueNotFound, Unsupported
from ipcq.hooks import DISTRIBUTION, hookimpl
from ipcq_mqueue import _library, _limits

NAME: Final = "mqueue"

CAPABILITIES: Final = Capabilities(
    scope=Scope.HOST,
    persistence=Persistence.KERNEL,
    priorities=True,
    exact_qsize=True,
    pollable=True,
    notify=True,
    shutdown=True,
    listing=True,
    other_users=True,
    max_message_size=16 << 20,  # HARD_MSGSIZEMAX, include/linux/ipc_namespace.h
    modes=True,
    after_unlink=True,
)


class MqueueBackend(Backend):
    name = NAME
    capabilities = CAPABILITIES
    rank = 300
    platforms = ("linux",)

    def probe(self) -> Availability:
        if not os.path.isdir(_limits.DIRECTORY):
            return Availability.no(f"this kernel has no POSIX message queues ({_limits.DIRECTORY} is missing)")
        if not _library.is_installed():
            return Availability.no(f"posix_ipc is not installed: pip install '{DISTRIBUTION}[mqueue]'")
        return Availability.yes()

    def create(self, name: str, request: Request) -> Channel:
        with importing():
            from ipcq_mqueue import _kernel

        if request.buffer_size is not None:
            raise Unsupported("the kernel limits its queues in messages: pass max_messages instead of buffer_size")
        if request.lifetime != "persistent":
            raise Unsupported("the kernel keeps its queues until they are unlinked: leave out lifetime")
        messages = request.max_messages or _limits.default_messages()
        size = request.max_message_size or _limits.default_size()
        attributes = _kernel.Attributes(max_messages=messages, message_size=size)
        if attributes.max_messages != messages or attributes.message_size != size:  # they do not fit into a C long
            raise explained(OSError(errno.EINVAL, os.strerror(errno.EINVAL)), _limits.errors(messages, size))
        with translated(_limits.errors(messages, size)):
            return self._created(name, request, attributes)

    def _created(self, name: str, request: Request, attributes: Any) -> Channel:
        with importing():
            from ipcq_mqueue import _kernel, _notice

        how = os.O_RDWR | os.O_CREAT | os.O_EXCL
        descriptor = opened(lambda: _kernel.open_queue(name, how, request.mode, attributes))
        try:
            os.fchmod(descriptor, request.mode)  # the umask may have cleared bits
            return self._channel(name, request, made=descriptor)
        except BaseException:
            if os.fstat(descriptor).st_nlink:  # otherwise it was unlinked, and the name may be another queue's
                _kernel.unlink_queue(name)
            raise
        finally:
            _notice.close(descriptor, lambda: closed(descriptor))

    def attach(self, name: str, request: Request) -> Channel:
        with translated(_limits.ERRORS):
            return self._channel(name, request)

    def _channel(self, name: str, request: Request, made: int | None = None) -> Channel:
        with importing():
            from ipcq_mqueue import _channel, _notice

        queue = _channel.attached(name, request)
        try:
            found = os.fstat(queue.mqd)
            check_owner(found.st_uid, request, shareable=True)
            if made is not None and found.st_ino != os.fstat(made).st_ino:
                raise QueueNotFound("it was unlinked and replaced by another queue while it was created: open it again")
            return _channel.MqueueChannel(queue, request, CAPABILITIES)
        except BaseException:
            _notice.close(queue.mqd, lambda: closed(queue.mqd, queue.close), queue)
            raise

    def exists(self, name: str) -> bool:
        with importing():
            from ipcq_mqueue import _kernel, _notice

        if sys.platform != "linux":
            return False
        with translated(_limits.ERRORS):
            try:
                descriptor = opened(lambda: _kernel.open_queue(name, os.O_RDONLY))
            except FileNotFoundError:
                return False
            except PermissionError:
                return True
        _notice.close(descriptor, lambda: closed(descriptor))
        return True

    def unlink(self, name: str) -> None:
        with importing():
            from ipcq_mqueue import _kernel

        with translated(_limits.ERRORS):
            _kernel.unlink_queue(name)

    def names(self) -> list[str]:
        place = _mount_point()
        if place is None:
            raise Unsupported(f"the mqueue file system is not mounted: {_limits.MOUNT}")
        return ["/" + name for name in os.listdir(place)]

    def findings(self) -> list[Finding]:
        with importing():
            from ipcq_mqueue import _findings

        return list(_findings.findings(_mount_point()))


def _mount_point() -> str | None:
    """Return where the mqueue file system is mounted (``proc_pid_mounts(5)``)."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                _, place, kind, *_ = line.split(" ")
                if kind == "mqueue":
                    # Blanks in paths are written as octal escapes.
                    with importing():  # the first use of a codec imports it
                        text = place.encode("utf-8", "surrogateescape").decode("unicode_escape")
                    return os.fsdecode(text.encode("latin-1"))
    except FileNotFoundError:
        return None
    return None


@hookimpl
def ipcq_backend() -> Backend:
    return MqueueBackend()
