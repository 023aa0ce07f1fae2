"""What a handle took and could not return: messages that cannot be decoded, or did not fit into memory."""

from collections import deque
from typing import Final, TypeAlias

from ipcq.backend import Channel, Received
from ipcq.errors import DecodeError, QueueClosed

#: A message, a batch with the next message last, or the bytes of a message whose priority did not fit into memory.
Kept: TypeAlias = Received | bytes | list[Received]

#: A message of less than this can be meant to use up memory, if it cannot be decoded twice.
_SMALL_BYTES: Final = 1 << 16


class Leftovers:
    """What a handle took and could not return; `take` then replaces the channel's `try_get`.

    It is created with the handle, because there may be no memory when it is needed. It does not refer to the handle.
    """

    __slots__ = ("_channel", "closing", "errors", "failed", "kept")

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        #: What a batch took beside its items and could not decode: the next gets of this handle raise it.
        self.errors: deque[DecodeError] = deque()
        #: What could not be returned because memory ran out: the next gets of this handle return it.
        self.kept: deque[Kept] = deque()
        self.closing = ""
        #: The last message that did not fit into memory when it was decoded.
        self.failed: Received | None = None

    def take(self) -> Received | None:
        if self.closing:
            raise QueueClosed(self.closing)
        # Another thread may take the last one between the check and `popleft`.
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
        """Discard what is kept, and count it."""
        kept = list(self.kept)
        self.kept.clear()
        return sum(len(each) if isinstance(each, list) else 1 for each in kept)

    def is_bomb(self, received: Received) -> bool:
        """Tell whether a small message did not fit into memory for the second time; remember it if not."""
        if received is self.failed and len(received[0]) < _SMALL_BYTES:
            return True
        self.failed = received
        return False


def too_much(received: Received) -> DecodeError:
    """Make the error of a message that did not fit into memory twice."""
    return DecodeError("memory ran out twice while decoding it: its bytes are in the error's data", data=received[0])
