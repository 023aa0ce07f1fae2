"""A faster class of handles that a channel may provide."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn, Protocol

from ipcq.backend._channel import Channel

#: How a codec encodes an item of exactly the class `bytes`, and decodes a message to one: unchanged (``"bare"``); as
#: the shortest of MessagePack's bin 8, 16 and 32 (``"bin"``); in a format of the codec (``"encoded"``).
OfBytes = Literal["bare", "bin", "encoded"]


class Shortcut(Protocol):
    """What a subclass that `Channel.shortcut` returns may use, beside the puts and gets that it overrides.

    It also overrides the first two of these methods, and calls the others.
    """

    def _arm(
        self,
        channel: Channel,
        encode: Callable[[Any], bytes],
        decode: Callable[[bytes], Any],
        of_bytes: OfBytes,
        puts: bool,
        gets: bool,
        waits: bool,
        /,
    ) -> None:
        """Begin: the handle is open.

        The last three arguments say whether it may put, get, and wait as the channel does. Without `waits`, it
        leaves waiting to the class, which lets greenlets of the same thread run meanwhile.

        `of_bytes` says what `encode` and `decode` do with an item of exactly the class `bytes`, so that the subclass
        need not call them for it.
        """

    def _disarm(self) -> None:
        """End: leave every call to the class from now on.

        When this returns, no new call uses the channel. The channel's `close` waits for running calls that use it
        without the handle's lock. A call that is inside `encode` or `decode` leaves the rest to the class when
        these return.
        """

    def _put_encoded(self, data: bytes, priority: int, deadline: float, /) -> None:
        """Put an encoded message that could not be put at once.

        `deadline` is a time of `time.monotonic`, in seconds. Infinity waits without a limit, minus infinity does not
        wait.
        """

    def _put_rest(self, items: Sequence[bytes], stored: int, deadline: float, /) -> int:
        """Put the rest of a batch for `put_many`, of which `stored` items are stored; return the new number."""
        raise NotImplementedError  # pragma: no cover - abstract

    def _get_rest(self, items: list[Any], most: int, /) -> list[Any]:
        """Take more messages for `get_many`, and return them behind `items`.

        `most` is how many more messages the batch may have, plus one for the last of `items`.
        """
        raise NotImplementedError  # pragma: no cover - abstract

    def _raise(self, error: BaseException, /) -> NoReturn:
        """Raise an exception of `encode` or `decode`, as `put` and `get` do."""
        raise NotImplementedError  # pragma: no cover - abstract
