"""A message that was taken, and is read where it lies."""

from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Generic, NoReturn, Self, TypeVar

from ipcq._abilities.lease import Lease
from ipcq._abilities.memory import Memory, Owner
from ipcq.errors import InvalidArgument
from ipcq.serializers import Codec
from ipcq.serializers._in_place import bytes_in, is_of_arrays

T = TypeVar("T")

_REFERRED: Final = (
    "something still refers to the memory of this view, such as an array or a slice: delete it (del array) before the "
    "block ends, or copy what must stay"
)


_NOT_DECODED: Final[Any] = object()


class View(Owner, Generic[T]):
    """A message in its memory, from `Queue.view`. The end of the ``with`` block gives the memory back.

    Arrays and buffers of the item lie in that memory, so nothing may refer to them after the block: delete the
    variables, or copy what must stay. Otherwise the end of the block raises `BufferError`, and the memory stays until
    nothing refers to it: no access is ever unsafe. An exception of the block is never replaced.

    On a queue with leases the message is on loan: the end of the block acknowledges it, and an exception gives it back,
    as for a `Lease`.
    """

    __slots__ = ("_codec", "_decoded", "_ended", "_name", "lease", "priority")

    buffer: memoryview
    """The bytes of the item, read-only; if the item is not bytes, the encoded message."""
    priority: int
    """Its priority, from 0 to 32767."""
    lease: Lease[None] | None
    """On a queue with leases, the lease, to settle the message otherwise than the end of the block does."""

    def __init__(self, name: str, codec: Codec, data: bytes, priority: int, lease: Lease[None] | None) -> None:
        self._name = name
        self._codec = codec
        self._decoded: T = _NOT_DECODED
        self._ended = False
        self.priority = priority
        self.lease = lease
        self.memory = Memory(data)
        with memoryview(self.memory) as message:
            item = bytes_in(codec.kind, message)
            self.buffer = (message if item is None else item).toreadonly()

    @property
    def item(self) -> T:
        """The item. Bytes are a read-only memoryview, and arrays are read-only views of the memory.

        Raises:
            DecodeError: This handle cannot decode the message; the error has its bytes.
            InvalidArgument: The view has ended.
        """
        if self._ended:
            raise InvalidArgument("this view has ended: use its item inside the block, or copy it there")
        if self._decoded is _NOT_DECODED:
            self._decoded = self._decode()
        return self._decoded

    def _decode(self) -> Any:
        message: Any  # a codec of arrays takes any buffer
        with memoryview(self.memory).toreadonly() as message:
            if bytes_in(self._codec.kind, message) is not None:
                return self.buffer
            if self._codec.kind == "arrays" and is_of_arrays(message):
                return self._codec.decode(message)
            return self._codec.decode(bytes(message))

    def release(self) -> None:
        """Give the memory back now; a lease stays. If the view has ended, do nothing.

        Raises:
            BufferError: Something still refers to the memory. It is given back when nothing does any more.
        """
        if self._ended:
            return
        self._ended = True
        self._decoded = _NOT_DECODED
        alone = self.withdraw()
        self.memory = Memory()
        if not alone:
            raise BufferError(_REFERRED)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.lease is not None:
                self.lease.__exit__(kind, error, trace)
            if error is None:
                self.release()
        finally:
            with suppress(BufferError):
                self.release()

    def __repr__(self) -> str:
        return f"<ipcq.View on {self._name!r}, {'ended' if self._ended else 'open'}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a view belongs to the process that took the message: send its item")
