"""Creating and attaching to queues: limits, files and names."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from ipcq.backend import Attributes, Request, belongs, closed, default_limits, no_fork, opened
from ipcq.errors import QueueExists, QueueNotFound, Unsupported
from ipcq_shm import _core, _segment
from ipcq_shm._channel import ShmChannel
from ipcq_shm._lease_channel import ShmLeaseChannel

_MOST_MESSAGE_BYTES: Final = 2**32 - 1
_MOST_DELIVERIES: Final = 2**32 - 1
# RING_LARGEST and CELLS_LARGEST of csrc/layout.h.
_MOST_RING_BYTES: Final = 1 << 46
_MOST_CELLS_BYTES: Final = 1 << 38


def created(name: str, request: Request) -> ShmChannel:
    if request.mode & 0o077 and not request.other_users:
        raise Unsupported(
            f"mode={request.mode:#o} allows other users to truncate the queue, which kills its users: "
            "create it with other_users=True if you trust them"
        )
    channel = _channel(name, _formatted(name, request), request)
    try:
        _publish(channel, name)
    except BaseException:
        channel.detach()
        raise
    return channel


def _formatted(name: str, request: Request) -> int:
    attributes, limit = _limits(request)
    flags = _flags(attributes)
    descriptor = _segment.nameless(_core.segment_size(limit, flags), request.mode)
    try:
        _core.format(
            descriptor,
            limit,
            attributes.max_messages or 0,
            attributes.max_message_size,
            flags,
            attributes.max_deliveries or 0,
        )
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
        channel = _channel("", descriptor, request)
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
    channel = _channel(name, _segment.opened(name, request), request)
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
    flags = (_segment.ORDERED if request.priorities else 0) | (_segment.LEASES if request.leases else 0)

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
    most = _MOST_CELLS_BYTES if flags else _MOST_RING_BYTES
    if limit > most or (attributes.max_messages or 0) >= 2**64:
        raise Unsupported(f"a queue of this kind has at most {most} bytes, asked for {limit}: ask for less")
    if (attributes.max_deliveries or 0) > _MOST_DELIVERIES:
        raise Unsupported(
            f"max_deliveries is at most {_MOST_DELIVERIES}, asked for {attributes.max_deliveries}: ask for less"
        )
    return attributes, limit


def _flags(attributes: Attributes) -> int:
    return (
        (_segment.ORDERED if attributes.priorities else 0)
        | (_segment.LEASES if attributes.leases else 0)
        | (_segment.LAST_CLOSE if attributes.lifetime == "last-close" else 0)
        | (_segment.BYTES if attributes.buffer_size is not None else 0)
    )


def _channel(name: str, descriptor: int, request: Request) -> ShmChannel:
    """Become a participant; the channel owns the descriptor from now on, and it is closed on failure."""
    try:
        leases = _segment.read_header(descriptor).flags & _segment.LEASES
    except BaseException:
        closed(descriptor)
        raise
    return (ShmLeaseChannel if leases else ShmChannel)(name, descriptor, request)
