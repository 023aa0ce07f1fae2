"""The limits of a queue whose creator did not give all of them."""

from collections.abc import Callable
from typing import Final

from ipcq.backend._attributes import Attributes
from ipcq.backend._request import Request
from ipcq.errors import InvalidArgument

#: Bytes that a queue holds by default.
BUFFER_SIZE: Final = 1 << 20

#: How many messages of the default largest size a queue holds.
_LARGEST_MESSAGES: Final = 4


def default_limits(request: Request, cost: Callable[[int], int] = int) -> Attributes:
    """Return the attributes of a new queue on a mechanism that can bound it both in bytes and in messages (clause 6).

    Limits that the request gives are kept. Without `buffer_size` the queue holds `BUFFER_SIZE` bytes, or four of its
    largest messages if that is more; if both `max_messages` and `max_message_size` are given, they alone bound it.
    Without `max_message_size` the largest message is a quarter of the buffer.

    Args:
        request: What the creator asks for.
        cost: Returns how many bytes of the buffer a message of so many bytes takes.

    Raises:
        InvalidArgument: The limits of the request contradict each other.
    """
    messages, size, room = request.max_messages, request.max_message_size, request.buffer_size
    if room is None and (messages is None or size is None):
        room = max(BUFFER_SIZE, _LARGEST_MESSAGES * (size or 0))
    if size is None:
        size = max(1, (room or 0) // _LARGEST_MESSAGES)
    # Of messages whose size is not given, any number fits: smaller ones than the largest.
    least = cost(size) * (messages or 1 if request.max_message_size else 1)
    if room is not None and room < least:
        raise InvalidArgument(
            f"buffer_size={room} bytes do not hold max_messages={messages} of max_message_size={size}, which take "
            f"{least} bytes: leave one of them out"
        )
    return Attributes(
        mode=request.mode,
        max_messages=messages,
        max_message_size=size,
        buffer_size=room,
        priorities=request.priorities,
        lifetime=request.lifetime,
    )
