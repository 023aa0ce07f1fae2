"""Default limits of a queue whose creator did not give all of them."""

from collections.abc import Callable
from typing import Final

from ipcq.backend._attributes import Attributes
from ipcq.backend._request import Request
from ipcq.errors import InvalidArgument

#: Bytes that a queue holds by default.
BUFFER_SIZE: Final = 1 << 20

#: How many messages of the default largest size a queue holds.
_LARGEST_MESSAGES_HELD: Final = 4


def default_limits(request: Request, cost: Callable[[int], int] = int) -> Attributes:
    """Return the attributes of a new queue on a mechanism that can limit both bytes and messages (clause 6).

    Limits that the request gives are kept. Without `buffer_size` the queue holds `BUFFER_SIZE` bytes, or four of its
    largest messages if that is more; if both `max_messages` and `max_message_size` are given, they alone limit it.
    Without `max_message_size` the largest message is a quarter of the buffer.

    Args:
        request: The creator's request.
        cost: Returns how many bytes of the buffer a message of the given size in bytes takes.

    Raises:
        InvalidArgument: The limits of the request contradict each other.
    """
    messages, size, capacity = request.max_messages, request.max_message_size, request.buffer_size
    if capacity is None and (messages is None or size is None):
        capacity = max(BUFFER_SIZE, _LARGEST_MESSAGES_HELD * (size or 0))
    if size is None:
        size = max(1, (capacity or 0) // _LARGEST_MESSAGES_HELD)
    # If the size is not given, any number of messages fits: they may be smaller than the largest.
    needed = cost(size) * (messages or 1 if request.max_message_size else 1)
    if capacity is not None and capacity < needed:
        raise InvalidArgument(
            f"buffer_size={capacity} bytes do not hold max_messages={messages} of max_message_size={size}, which take "
            f"{needed} bytes: leave one of them out"
        )
    return Attributes(
        mode=request.mode,
        max_messages=messages,
        max_message_size=size,
        buffer_size=capacity,
        priorities=request.priorities,
        leases=request.leases,
        max_deliveries=request.max_deliveries,
        lifetime=request.lifetime,
    )
