"""Messages that a handle took but could not return: they cannot be decoded, or did not fit into memory."""

from collections import deque
from typing import Final, TypeAlias

from ipcq.backend import Channel, Received
from ipcq.errors import DecodeError, QueueClosed

#: A message; a batch in reverse order; or the bytes of a message if there was no memory to store its priority.
Kept: TypeAlias = Received | bytes | list[Received]

#: A message smaller than this that runs out of memory twice may be an attack.
_SMALL_BYTES: Final = 1 << 16


class Leftovers:
    """Messages that a handle took but could not return; `take` then replaces the channel's `try_get`.

    Created with the handle, because later there may be no memory. It has no reference to the handle, which would make a
    cycle.
    """

    __slots__ = ("_channel", "closing", "errors", "failed", "kept")

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        #: Errors of messages in a batch that could not be decoded: the next gets of this handle raise them.
        self.errors: deque[DecodeError] = deque()
        #: Messages that could not be returned because memory ran out: the next gets of this handle return them.
        self.kept: deque[Kept] = deque()
        self.closing = ""
        #: The last message that did not fit into memory when it was decoded.
        self.failed: Received | None = None

    def take(self) -> Received | None:
        if self.closing:
            raise QueueClosed(self.closing)
        # Another thread may take the last entry between the check and `popleft`.
        if self.errors:
            try:
                error = self.errors.popleft()
            except IndexError:
                pass
            else:
                raise error
        kept: Kept | None = None
        if self.kept:
            try:
                kept = self.kept.popleft()
            except IndexError:
                pass
        if kept is None:
            return self._channel.try_get()
        done = False
        try:
            if isinstance(kept, list):
                received = kept.pop()
                done = not kept
            else:
                received = (kept, 0) if isinstance(kept, bytes) else kept
                done = True
        finally:
            if not done:  # also if memory ran out
                self.kept.appendleft(kept)
        return received

    def count(self) -> int:
        return sum(len(kept) if isinstance(kept, list) else 1 for kept in list(self.kept))

    def drop(self) -> int:
        """Discard the kept messages, and return their number."""
        kept = list(self.kept)
        self.kept.clear()
        return sum(len(each) if isinstance(each, list) else 1 for each in kept)

    def failed_twice(self, received: Received) -> bool:
        """Return whether a small message failed to fit into memory twice; remember the first failure."""
        if received is self.failed and len(received[0]) < _SMALL_BYTES:
            return True
        self.failed = received
        return False


def out_of_memory_error(received: Received) -> DecodeError:
    """Make the error of a message that did not fit into memory twice."""
    return DecodeError("memory ran out twice while decoding it: see its bytes in the error's data", data=received[0])
