"""Queues in shared memory: a ring in C that survives the crash of any participant (see csrc/queue.h).

A queue is one file in /dev/shm. This module and `_segment` are pure Python, so that queues can be found, listed and
removed even if the extension was not built.
"""

import errno
import os
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from ipcq.backend import (
    BUFFER_SIZE,
    Availability,
    Backend,
    Capabilities,
    Channel,
    Finding,
    Persistence,
    Request,
    Scope,
    Severity,
    importing,
    translated,
)
from ipcq.errors import QueueNotFound
from ipcq.hooks import DISTRIBUTION, hookimpl

if sys.platform == "linux":
    from ipcq_shm import _segment

NAME: Final = "shm"

CAPABILITIES: Final = Capabilities(
    scope=Scope.HOST,
    persistence=Persistence.KERNEL,
    priorities=True,
    exact_qsize=True,
    pollable=True,
    ends_on_fileno=True,
    notify=True,
    peek=True,
    shutdown=True,
    atomic_batch=True,
    drop_oldest=True,
    leases=True,
    death_notice=True,
    delays=True,
    listing=True,
    last_close=True,
    nameless=True,
    other_users=True,
    max_message_size=2**32 - 1,  # a record's size is 32 bits wide
    modes=True,
    after_unlink=True,
)


class ShmBackend(Backend):
    name = NAME
    capabilities = CAPABILITIES
    rank = 400
    platforms = ("linux",)

    def probe(self) -> Availability:
        if sys.platform != "linux":
            return Availability.no(f"its locks and waits need Linux, this is {sys.platform}")
        try:
            with importing():
                from ipcq_shm import _core
        except ImportError as error:
            if any(os.strerror(number) in str(error) for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)):
                raise  # the extension exists; loading it failed for lack of resources
            return Availability.no(
                f"its C extension was not built ({error}): install a C compiler and the headers of Python, then run "
                f"pip install --force-reinstall --no-cache-dir --no-binary {DISTRIBUTION} {DISTRIBUTION}"
            )
        if not os.access(_segment.DIRECTORY, os.R_OK | os.W_OK | os.X_OK):
            return Availability.no(
                f"{_segment.DIRECTORY} is missing or not writable: "
                f"sudo mount -t tmpfs -o mode=1777 none {_segment.DIRECTORY}"
            )
        if not os.path.exists("/proc/self/ns/pid"):
            return Availability.no("it needs /proc for its files and its PID namespace: mount /proc")
        if not _core.works():
            return Availability.no("this kernel does not release the locks of a dead thread (robust futexes)")
        return Availability.yes()

    def create(self, name: str, request: Request) -> Channel:
        with importing():
            from ipcq_shm import _opening

        with translated(_segment.ERRORS):
            return _opening.created(name, request)

    def attach(self, name: str, request: Request) -> Channel:
        with importing():
            from ipcq_shm import _opening

        with translated(_segment.ERRORS):
            return _opening.attached(name, request)

    def create_nameless(self, request: Request) -> Channel:
        with importing():
            from ipcq_shm import _opening

        with translated(_segment.ERRORS):
            return _opening.created_nameless(request)

    def adopt(self, descriptors: Sequence[int], request: Request) -> Channel:
        with importing():
            from ipcq_shm import _opening

        with translated(_segment.ERRORS):
            return _opening.adopted(descriptors, request)

    def exists(self, name: str) -> bool:
        if sys.platform != "linux":
            return False
        with translated(_segment.ERRORS):
            return _segment.exists(name)

    def unlink(self, name: str) -> None:
        if sys.platform != "linux":
            raise QueueNotFound
        with translated(_segment.ERRORS):
            _segment.unlink(name)

    def names(self) -> list[str]:
        if sys.platform != "linux":
            return []
        with translated(_segment.ERRORS):
            return _segment.names()

    def findings(self) -> list[Finding]:
        if sys.platform != "linux":
            return []
        try:
            system = os.statvfs(_segment.DIRECTORY)
        except OSError:
            return []
        free = system.f_bavail * system.f_frsize
        found = self._stuck()
        if free >= BUFFER_SIZE + _segment.MOST_OVERHEAD:
            return found
        return [
            *found,
            Finding(
                severity=Severity.WARNING,
                text=f"{_segment.DIRECTORY} has {free} bytes free, and a queue with default limits takes {BUFFER_SIZE}",
                fix=f"sudo mount -o remount,size=50% {_segment.DIRECTORY}, or docker run --shm-size=1g",
            ),
        ]

    def _stuck(self) -> list[Finding]:
        with importing():
            from ipcq_shm import _stuck

        found: list[Finding] = []
        for name in self.names():
            # Unlinked meanwhile, another user's, or damaged, so that it holds any numbers; attaching reports that.
            with suppress(OSError, struct.error, ArithmeticError):
                found += _stuck.findings(name)
        return found


@hookimpl
def ipcq_backend() -> Backend:
    return ShmBackend()
