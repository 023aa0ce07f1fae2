"""Memory for a message that is put once it is filled."""

import os
import warnings
from types import TracebackType
from typing import Any, Final, NoReturn, Protocol, Self

from ipcq._abilities.memory import Memory, Owner
from ipcq._process.deadline import deadline_of
from ipcq._process.finaliser import quiet_at_exit
from ipcq.errors import InvalidArgument, MessageQueueError
from ipcq.serializers._in_place import HEAD_ROOM, Kind, array_over, head_of_array, head_of_bytes

_REFERRED: Final = (
    "something still refers to the memory of this reservation, such as an array or a slice of its buffer, and could "
    "change the message afterwards: delete it (del array) before the block ends"
)


class Putter(Protocol):
    """What a reservation needs of its handle."""

    @property
    def name(self) -> str: ...

    @property
    def backend(self) -> str: ...

    def _put_encoded(self, data: bytes, priority: int, deadline: float, delay: float = 0) -> None: ...


class Reservation(Owner):
    """Memory for a message, from `Queue.reserve`: fill it, and the end of the ``with`` block puts the message.

    The message enters the order of the queue when it is put, so an unfinished reservation holds up nothing. An
    exception in the block gives the reservation up, and so does the end of the process: then nothing was put. A
    reservation that is dropped before its end is given up, with a `ResourceWarning`.
    """

    __slots__ = ("_array", "_block", "_claims", "_kind", "_pid", "_priority", "_putter", "_size", "_timeout")

    buffer: memoryview
    """The memory: `size` writable bytes. Their values are undefined until you write them."""

    def __init__(
        self, putter: Putter, kind: Kind, size: int, block: bool, timeout: float | None, priority: int
    ) -> None:
        self._claims: list[None] = []  # has one entry unless the reservation has ended, or is being put
        self._putter = putter
        self._kind: Kind = kind
        self._block = block
        self._timeout = timeout
        self._priority = priority
        self._size = size
        self._pid = os.getpid()
        self._array: tuple[bytes, int] | None = None  # head and size, in bytes, if the message is an array
        self.memory = Memory(HEAD_ROOM + size)
        self._go_on()

    def _go_on(self) -> None:
        self.buffer = memoryview(self.memory)[HEAD_ROOM:]
        self._claims.append(None)

    @property
    def size(self) -> int:
        """The number of bytes that were reserved."""
        return self._size

    @property
    def ended(self) -> bool:
        """Whether the message was put, or the reservation given up."""
        return not self._claims

    def array(self, shape: Any, dtype: Any = "float64") -> Any:
        """Return an array of NumPy over the buffer, in C order.

        With ``serializer="arrays"`` the item becomes this array. Otherwise it stays the bytes.

        Args:
            shape: The length in each dimension, or one length.
            dtype: Anything that `numpy.dtype` takes.

        Raises:
            InvalidArgument: The array does not fit, its elements are Python objects, or NumPy has no such dtype or
                shape; or the reservation has ended.
            Unsupported: NumPy is not installed.
        """
        if not self._claims:
            raise self._ended()
        try:
            array = array_over(self.buffer, shape, dtype)
            if self._kind == "arrays":
                self._array = head_of_array(array), array.nbytes
        except MessageQueueError as error:
            raise error.at(self._putter.name, self._putter.backend)
        return array

    def commit(self, size: int | None = None) -> None:
        """Put the message now. If this raises, the reservation goes on.

        Args:
            size: Put only so many bytes from the start of the buffer; None puts all, or the `array`.

        Raises:
            BufferError: Something still refers to the buffer, such as an array or a slice. It could change the message
                later, so nothing was put.
            QueueFull: No space became free in time; and all other exceptions of `Queue.put`.
            InvalidArgument: `size` is not an int from 0 to the size that was reserved, or is given though the message
                is an array; or the reservation has ended, or belongs to the parent process.
        """
        start, end = self._extent(size)
        try:
            self._claims.pop()  # of several threads, one succeeds
        except IndexError:
            raise self._ended() from None
        try:
            if os.getpid() != self._pid:
                raise self._refused("the parent process made this reservation: make another one in the child")
            if not self.withdraw():
                raise BufferError(_REFERRED)
            with memoryview(self.memory) as message:
                data = bytes(message[start:end])
            self._putter._put_encoded(data, self._priority, deadline_of(self._block, self._timeout))
        except BaseException:
            self._go_on()
            raise
        self.memory = Memory()

    def _extent(self, size: int | None) -> tuple[int, int]:
        """Write the head of the message, and return where the message begins and ends in the memory."""
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= self._size):
            raise self._refused(f"size must be an int from 0 to {self._size}, which were reserved, not {size!r}")
        if size is not None and self._array is not None:
            raise self._refused("size is given, but the message is an array: reserve what the array needs")
        length = self._size if size is None else size
        head, length = self._array or (head_of_bytes(self._kind, length), length)
        start = HEAD_ROOM - len(head)
        self.memory[start:HEAD_ROOM] = head
        return start, HEAD_ROOM + length

    def cancel(self) -> None:
        """Give the reservation up; nothing is put. If it has ended, do nothing."""
        try:
            self._claims.pop()
        except IndexError:
            return
        self.withdraw()
        self.memory = Memory()  # whatever refers to the old one keeps it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and self._claims:
                self.commit()
        finally:
            self.cancel()

    @quiet_at_exit
    def __del__(self) -> None:
        if getattr(self, "_claims", None) and os.getpid() == self._pid:
            warnings.warn(f"{self!r} was given up, nothing was put", ResourceWarning, source=self, stacklevel=2)

    def _ended(self) -> InvalidArgument:
        return self._refused("this reservation has ended: make another one")

    def _refused(self, detail: str) -> InvalidArgument:
        return InvalidArgument(detail).at(self._putter.name, self._putter.backend)

    def __repr__(self) -> str:
        state = "open" if self._claims else "ended"
        return f"<ipcq.Reservation of {self._size} bytes on {self._putter.name!r}, {state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a reservation belongs to the process that made it: fill it here, or send the data")
