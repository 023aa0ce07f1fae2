"""A channel over one ring: limits, creation and ends of a queue. `_core.Ring` moves the messages."""

import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from ipcq.backend import (
    Attributes,
    Channel,
    Holder,
    Notice,
    Request,
    Stats,
    belongs,
    check_daemon_threads,
    closed,
    default_limits,
    holder_of_byte,
    holder_of_thread,
    no_fork,
    notice_taken,
    opened,
    translated,
)
from ipcq.errors import QueueExists, QueueNotFound, Unsupported, VersionMismatch
from ipcq_shm import CAPABILITIES, _core, _notice, _segment

#: With priorities, and without.
_CAPABILITIES: Final = {ordered: replace(CAPABILITIES, priorities=ordered) for ordered in (True, False)}

_MOST_MESSAGE_BYTES: Final = 2**32 - 1
# RING_LARGEST and CELLS_LARGEST of csrc/layout.h.
_MOST_RING_BYTES: Final = 1 << 46
_MOST_CELLS_BYTES: Final = 1 << 38


class ShmChannel(_core.Ring, Channel):
    def __init__(self, name: str, descriptor: int, request: Request) -> None:
        """Become a participant. This object owns the descriptor from now on, and closes it on failure."""
        self._name = name
        self._request: _notice.Request | None = None
        try:
            bell = _segment.bell_of(name) if name else ""
            with no_fork:
                self.attach(descriptor, bell, request.after_unlink == "continue")
                belongs(self, descriptor)
            self.attributes = _attributes(self)
            self.capabilities = _CAPABILITIES[self.attributes.priorities]
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
        self.settle()
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


def created(name: str, request: Request) -> ShmChannel:
    if request.mode & 0o077 and not request.other_users:
        raise Unsupported(
            f"mode={request.mode:#o} allows other users to truncate the queue, which kills its users: "
            "create it with other_users=True if you trust them"
        )
    channel = ShmChannel(name, _formatted(name, request), request)
    try:
        _publish(channel, name)
    except BaseException:
        channel.detach()
        raise
    return channel


def _formatted(name: str, request: Request) -> int:
    attributes, limit = _limits(request)
    descriptor = _segment.nameless(_core.segment_size(limit), request.mode)
    try:
        _core.format(descriptor, limit, attributes.max_messages or 0, attributes.max_message_size, _flags(attributes))
        os.pwrite(descriptor, os.fsencode(name), _segment.NAME_AT)
    except BaseException:
        closed(descriptor)
        raise
    return descriptor


def created_nameless(request: Request) -> ShmChannel:
    bell = _segment.nameless_bell()
    try:
        descriptor = _formatted("", replace(request, lifetime="last-close"))
    except BaseException:
        closed(bell)
        raise
    return _nameless(descriptor, bell, request)


def adopted(descriptors: Sequence[int], request: Request) -> ShmChannel:
    lent, bell = (opened(partial(int, each)) for each in descriptors)
    try:
        # Open the file again: locks belong to the open file, and those of `lent` belong to the sender.
        descriptor = _segment.opened_again(lent)
    except BaseException:
        closed(bell)
        raise
    finally:
        closed(lent)
    return _nameless(descriptor, bell, request)


def _nameless(descriptor: int, bell: int, request: Request) -> ShmChannel:
    try:
        channel = ShmChannel("", descriptor, request)
        try:
            with no_fork:
                channel.adopt_bell(bell)
                belongs(channel, bell)
        except BaseException:
            channel.detach()
            raise
    except BaseException:
        closed(bell)
        raise
    return channel


def _publish(channel: ShmChannel, name: str) -> None:
    try:
        _segment.publish(channel.descriptor, name)
    except FileExistsError:
        if _segment.exists(name):
            raise QueueExists from None
        # The existing queue had lost its last handle, and `exists` removed it.
        _segment.publish(channel.descriptor, name)
    channel.named()


def attached(name: str, request: Request) -> ShmChannel:
    channel = ShmChannel(name, _segment.opened(name, request), request)
    try:
        # It was removed before this handle had its slot, or by a process that did not see the slot.
        if not _segment.is_linked(channel.descriptor, channel.attributes.lifetime):
            raise QueueNotFound
    except BaseException:
        channel.detach()
        raise
    return channel


def _limits(request: Request) -> tuple[Attributes, int]:
    """Return the attributes of a new queue, and the size of its ring in bytes.

    Raises:
        InvalidArgument: The limits contradict each other.
        Unsupported: The ring would be too large.
    """
    flags = _segment.ORDERED if request.priorities else 0

    def cost(size: int) -> int:
        if size > _MOST_MESSAGE_BYTES:
            raise Unsupported(
                f"a message has at most {_MOST_MESSAGE_BYTES} bytes, asked for max_message_size={size}: ask for less"
            )
        return _core.message_size(size, flags)

    attributes = default_limits(request, cost)
    limit = attributes.buffer_size
    if limit is None:
        limit = cost(attributes.max_message_size) * (attributes.max_messages or 1)
    most = _MOST_CELLS_BYTES if request.priorities else _MOST_RING_BYTES
    if limit > most or (attributes.max_messages or 0) >= 2**64:
        raise Unsupported(f"a queue of this kind has at most {most} bytes, asked for {limit}: ask for less")
    return attributes, limit


def _flags(attributes: Attributes) -> int:
    return (
        (_segment.ORDERED if attributes.priorities else 0)
        | (_segment.LAST_CLOSE if attributes.lifetime == "last-close" else 0)
        | (_segment.BYTES if attributes.buffer_size is not None else 0)
    )


def _attributes(ring: _core.Ring) -> Attributes:
    # The checked values of the private copy; the segment may have been changed since.
    limit, max_messages, max_message_size, flags = ring.limits()
    return Attributes(
        mode=stat.S_IMODE(os.fstat(ring.descriptor).st_mode),
        max_messages=max_messages or None,
        max_message_size=max_message_size,
        buffer_size=limit if flags & _segment.BYTES else None,
        priorities=bool(flags & _segment.ORDERED),
        lifetime="last-close" if flags & _segment.LAST_CLOSE else "persistent",
    )
