"""A channel over one queue: its limits and its end. `_core.Ring` moves the messages."""

import os
import stat
from dataclasses import replace
from functools import cache
from typing import ClassVar

from ipcq.backend import (
    Attributes,
    Capabilities,
    Channel,
    Holder,
    Notice,
    Request,
    Stats,
    belongs,
    check_daemon_threads,
    closed,
    holder_of_byte,
    holder_of_thread,
    no_fork,
    notice_taken,
    translated,
)
from ipcq.errors import CorruptQueue, Unsupported, VersionMismatch
from ipcq_shm import CAPABILITIES, _core, _notice, _segment


class ShmChannel(_core.Ring, Channel):
    _leases: ClassVar = False

    def __init__(self, name: str, descriptor: int, request: Request) -> None:
        """Become a participant. This object owns the descriptor from now on, and closes it on failure."""
        self._name = name
        self._request: _notice.Request | None = None
        try:
            bell = _segment.bell_of(name) if name else ""
            with no_fork:
                # A queue of the version before this one can be emptied, but not used.
                self.attach(descriptor, bell, request.after_unlink == "continue", not request.write)
                belongs(self, descriptor)
            self.attributes = _attributes(self)
            self.capabilities = _capabilities(self.attributes.priorities, self.attributes.leases)
            if self.attributes.leases != self._leases:
                raise CorruptQueue  # its header was changed just now
        except BaseException:
            # Close exactly once, wherever a signal handler raised.
            if self.detach():
                belongs(self, descriptor)
            else:
                closed(descriptor)
            raise

    def fileno(self) -> int:
        with translated(_segment.ERRORS):
            return super().fileno()

    def notify(self, notice: Notice | None, /) -> None:
        if notice is None:
            self._withdraw()
        else:
            check_daemon_threads()
            seen = self.ask_notice()
            if seen is None:
                raise notice_taken()
            self._request = _notice.Request(self, seen, notice)

    def _withdraw(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            request.withdraw()

    def stats(self) -> Stats:
        holder = self.holder(False) or self.holder(True)
        return Stats(**self.figures(), handles=_segment.handles(self.descriptor), holder=holder)

    def holder(self, getting: bool, /) -> Holder | None:
        thread, slot, seconds = self.find_holder(getting)
        if not seconds:  # no call has waited for the lock, so it has been held for microseconds
            return None
        if thread:
            return holder_of_thread(thread, seconds)
        return holder_of_byte(self.descriptor, _segment.LOCKS_AT + slot, seconds, "has not finished the next message")

    def linked(self) -> bool:
        return os.fstat(self.descriptor).st_nlink > 0

    def close(self) -> None:
        self._withdraw()
        # Before the slot is released: otherwise others overwrite a message that a thread of this process still copies.
        self.settle_uses()
        try:
            if self._name and self.attributes.lifetime == "last-close":
                with translated(_segment.ERRORS):
                    _segment.release_slots(self.descriptor)
                    _segment.remove(self.descriptor, self._name, unless_held=True)
        finally:
            self.detach()

    def detach(self) -> bool:
        with no_fork:  # the core releases the GIL meanwhile
            return super().detach()

    def descriptors(self) -> tuple[int, ...]:
        if self._name:
            raise Unsupported("only a nameless queue is passed by descriptors: attach by its name")
        return self.descriptor, self.bell

    def after_fork(self) -> bool:
        self._request = None  # it belongs to the parent
        try:
            self.reattach()
        except (OSError, VersionMismatch):  # no free slot, or another PID namespace
            self.detach()
            return False
        return True


def _attributes(ring: _core.Ring) -> Attributes:
    # The checked values of the private copy; the segment may have been changed since.
    limit, max_messages, max_message_size, flags, max_deliveries = ring.limits()
    return Attributes(
        mode=stat.S_IMODE(os.fstat(ring.descriptor).st_mode),
        max_messages=max_messages or None,
        max_message_size=max_message_size,
        buffer_size=limit if flags & _segment.BYTES else None,
        priorities=bool(flags & _segment.ORDERED),
        leases=bool(flags & _segment.LEASES),
        max_deliveries=max_deliveries or None,
        lifetime="last-close" if flags & _segment.LAST_CLOSE else "persistent",
    )


@cache
def _capabilities(priorities: bool, leases: bool) -> Capabilities:
    return replace(CAPABILITIES, priorities=priorities, leases=leases, death_notice=leases, delays=leases)
