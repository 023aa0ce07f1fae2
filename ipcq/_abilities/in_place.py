"""The methods of a handle by which messages are built and read where they lie."""

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ipcq._abilities.lease import Lease
from ipcq._abilities.reservation import Reservation
from ipcq._abilities.view import View
from ipcq._process.deadline import deadline_of
from ipcq.backend import Channel, Received
from ipcq.errors import DecodeError, InvalidArgument, MessageTooLarge, Unsupported
from ipcq.serializers import Codec
from ipcq.serializers._in_place import bytes_in

T = TypeVar("T")
R = TypeVar("R")


class InPlace(Generic[T]):
    """The methods of `ipcq.Queue` that lend memory."""

    __slots__ = ()

    if TYPE_CHECKING:
        _channel: Channel
        _codec: Codec
        _max_message_size: int
        _try_get: Callable[[], Received | None]

        @property
        @abstractmethod
        def name(self) -> str: ...
        @property
        @abstractmethod
        def backend(self) -> str: ...
        @abstractmethod
        def _check_priority(self, priority: int) -> None: ...
        @abstractmethod
        def _require_leases(self) -> None: ...
        @abstractmethod
        def _require_write(self) -> None: ...
        @abstractmethod
        def _with_channel(self, operation: Callable[[Channel], R]) -> R: ...
        @abstractmethod
        def _lease(
            self,
            block: bool,
            timeout: float | None,
            hold: float | None,
            check: Callable[[], object] = ...,
            decode: Callable[[bytes], Any] | None = ...,
        ) -> Lease[Any]: ...
        @abstractmethod
        def _wait_get(self, deadline: float) -> Received: ...
        @abstractmethod
        def _keep_batch(self, messages: list[Received]) -> None: ...
        @abstractmethod
        def _put_encoded(self, data: bytes, priority: int, deadline: float, delay: float = 0) -> None: ...

    def reserve(self, size: int, block: bool = True, timeout: float | None = None, *, priority: int = 0) -> Reservation:
        """Return memory for a message, to be filled in a ``with`` block, whose end puts it.

        The item is the bytes, or with ``serializer="arrays"`` the array of `Reservation.array`.

        Args:
            size: The bytes to reserve.
            block: Wait for space at the end of the block; False tries once.
            timeout: Seconds to wait for space there at most; None waits without a limit.
            priority: As for `put`.

        Raises:
            MessageTooLarge: `size` and the head of the message exceed `max_message_size`.
            Unsupported: The serializer makes objects of its own from all items; or a priority other than 0 on a queue
                without priorities.
            PermissionDenied: The handle was opened with ``write=False``.
            InvalidArgument: `size` is not an int of 0 or more, or as for `put`.
            MemoryError: The system has no memory of that size.
        """

        def make(_: Channel) -> Reservation:
            self._require_write()
            deadline_of(block, timeout)  # checks them
            self._check_priority(priority)
            if isinstance(size, bool) or not isinstance(size, int) or size < 0:
                raise InvalidArgument(f"size must be an int of 0 or more, not {size!r}")
            if not self._codec.kind:
                raise Unsupported(
                    f"serializer {self._codec.name!r} makes objects, which cannot be built in place: put them, or open "
                    "both ends with serializer='raw' or 'arrays'"
                )
            if size > self._max_message_size:
                raise MessageTooLarge(
                    f"{size} bytes are reserved, the limit is {self._max_message_size}: create the queue with "
                    f"max_message_size={size}",
                    size=size,
                    limit=self._max_message_size,
                )
            return Reservation(self, self._codec.kind, size, block, timeout, priority)

        return self._with_channel(make)

    def view(self, block: bool = True, timeout: float | None = None, *, hold: float | None = None) -> View[T]:
        """Take the next message, to be read in its memory, in a ``with`` block.

        Args:
            block: Wait for a message; False tries once.
            timeout: Seconds to wait at most; None waits without a limit, 0 tries once.
            hold: On a queue with leases, as for `lease`.

        Raises:
            QueueEmpty: No message arrived in time.
            QueueShutDown: The queue was shut down and is empty; with leases, nothing in it is ready, leased or delayed.
            Unsupported: `hold` is given, and the queue has no leases.
            PermissionDenied: The handle was opened with ``read=False``.
            InvalidArgument: As for `get` and `lease`.
            MemoryError: The message did not fit into memory; it is still in the queue, or the next get of this handle
                returns it.
        """
        if self._channel.capabilities.leases:
            lease = self._lease(block, timeout, hold, decode=bytes)
            data, lease.item = lease.item, None
            return View(self.name, self._codec, data, lease.priority, lease)
        if hold is not None:
            self._require_leases()

        def take(_: Channel) -> View[T]:
            deadline = deadline_of(block, timeout)
            return self._viewed(self._try_get() or self._wait_get(deadline))

        return self._with_channel(take)

    def _viewed(self, received: Received) -> View[T]:
        try:
            return View(self.name, self._codec, *received, None)
        except MemoryError:
            self._keep_batch([received])
            raise

    def get_into(self, buffer: Any, block: bool = True, timeout: float | None = None) -> int:
        """Take the next message, and copy its bytes into a buffer.

        Args:
            buffer: A writable object with a buffer in C order: a bytearray, an array of NumPy, and so on.
            block: Wait for a message; False tries once.
            timeout: Seconds to wait at most; None waits without a limit, 0 tries once.

        Returns:
            The number of bytes: of the item if it is bytes, or of the elements if it is an array.

        Raises:
            MessageTooLarge: The buffer is too small. The next get of this handle returns the message.
            DecodeError: The message was taken, but its item is neither bytes nor an array; the error has its bytes.
            QueueEmpty: No message arrived in time.
            QueueShutDown: The queue was shut down and is empty.
            PermissionDenied: The handle was opened with ``read=False``.
            InvalidArgument: As for `get`, or `buffer` is read-only, or not in C order, or has no buffer.
        """

        def take(_: Channel) -> int:
            deadline = deadline_of(block, timeout)
            with writable(buffer) as target:
                return self._copy_into(self._try_get() or self._wait_get(deadline), target)

        return self._with_channel(take)

    def _copy_into(self, received: Received, target: memoryview) -> int:
        try:
            source = self._bytes_of(received[0])
            size, limit = len(source), len(target)
            if size > limit:
                raise MessageTooLarge(
                    f"the message has {size} bytes, the buffer {limit}: the next get of this handle returns it; pass a "
                    "larger buffer",
                    size=size,
                    limit=limit,
                )
        except (MessageTooLarge, MemoryError):
            self._keep_batch([received])
            raise
        target[:size] = source
        return size

    def _bytes_of(self, data: bytes) -> memoryview:
        source = bytes_in(self._codec.kind, memoryview(data))
        if source is not None:
            return source
        item = self._codec.decode(data)
        try:
            elements = memoryview(item)
            return elements.cast("B") if elements.c_contiguous and elements.nbytes else memoryview(elements.tobytes())
        except (TypeError, ValueError):
            raise DecodeError(
                f"the item is of {type(item).__name__}, which has no bytes to copy: take such items with get", data=data
            ) from None


def writable(buffer: Any) -> memoryview:
    """Return the bytes of a buffer that can be written.

    Raises:
        InvalidArgument: It is read-only, or not in C order, or has no buffer.
    """
    try:
        target = memoryview(buffer)
    except TypeError as error:
        raise InvalidArgument(f"buffer must be a writable object with a buffer, not {buffer!r}") from error
    if target.readonly:
        raise InvalidArgument(f"buffer must be writable, and this {type(buffer).__name__} is not")
    if not target.c_contiguous:
        raise InvalidArgument("buffer must be in C order without gaps: pass a contiguous array")
    return target.cast("B") if target.nbytes else memoryview(bytearray())
