"""A faster class of handles, which a channel may offer."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn, Protocol

from ipcq.backend._channel import Channel

#: What a codec does with a `bytes` of exactly that class, and with a message that is one: nothing (``"bare"``);
#: MessagePack's bin 8, 16 or 32, whichever is the first to suffice (``"bin"``); what only it knows (``"encoded"``).
OfBytes = Literal["bare", "bin", "encoded"]


class Shortcut(Protocol):
    """What a subclass that `Channel.shortcut` returns may rest on, beside the puts and gets that it overrides.

    It overrides the first two of these as well, and calls the others.
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
        """Begin: the handle is open, and may put, get, and wait as the channel does, as the last three arguments say.

        Where it may not wait so, it leaves waiting to the class, which lets greenlets of the same thread run meanwhile.

        Of an item that is exactly a `bytes`, and of a message that is one, `of_bytes` says what `encode` and `decode`
        do, so that they need not be called.
        """

    def _disarm(self) -> None:
        """End: leave everything to the class from now on.

        When this returns, no further call begins to use the channel. The channel's `close` waits for calls that still
        use it without the handle's lock. A call that is inside `encode` or `decode` leaves the rest to the class when
        it comes back.
        """

    def _put_encoded(self, data: bytes, priority: int, deadline: float, /) -> None:
        """Put what `encode` returned, and what could not be put at once.

        `deadline` is a point on `time.monotonic`, in seconds; infinity is never, and minus infinity does not wait.
        """

    def _put_rest(self, items: Sequence[bytes], stored: int, deadline: float, /) -> int:
        """Put the rest of a batch of which so many items are stored, and return how many are then; `put_many`."""
        raise NotImplementedError  # pragma: no cover - abstract

    def _get_rest(self, items: list[Any], most: int, /) -> list[Any]:
        """Take what else is there of a batch, and return it behind these items; `get_many`.

        `most` is how many messages the batch may still have, and one more for the last of the items.
        """
        raise NotImplementedError  # pragma: no cover - abstract

    def _raise(self, error: BaseException, /) -> NoReturn:
        """Raise what `encode` or `decode` raised, as `put` and `get` do."""
        raise NotImplementedError  # pragma: no cover - abstract
