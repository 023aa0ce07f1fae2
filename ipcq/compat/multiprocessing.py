"""A drop-in replacement for the queues of `multiprocessing`: ``import ipcq.compat.multiprocessing as multiprocessing``.

`Queue`, `JoinableQueue` and `SimpleQueue` are passed to processes like those of the standard library, with each start
method, and behave like them, except that a process that is killed or stopped never blocks another. All other names are
those of the standard library.
"""

import multiprocessing as _standard
from contextlib import suppress as _suppress
from importlib import import_module as _import_module
from multiprocessing.connection import wait as _wait
from time import monotonic as _monotonic
from typing import Any, Final, Generic, NoReturn, TypeVar

from ipcq._process.deadline import NEVER, pause
from ipcq._process.imports import importing as _importing
from ipcq.compat._messages import FileQueue, make
from ipcq.compat._pickling import Parts, dumps
from ipcq.errors import Unsupported as _Unsupported

#: ``from ipcq.compat.multiprocessing import *`` imports the same names as from the standard library.
__all__ = tuple(sorted(_standard.__all__, key=lambda name: (not name[0].isupper(), name)))

_T = TypeVar("_T")

#: The longest interval at which `join` checks whether all objects are processed.
_JOIN_POLL_SECONDS: Final = 0.01

#: Attributes of a connection that an end lacks.
_PIPE: Final = frozenset({"recv_bytes", "recv_bytes_into", "send", "send_bytes"})


class _NoPipe(_Unsupported, AttributeError):
    """These queues have no pipe; also an AttributeError, so that `hasattr` returns False."""


class _End:
    """The object that `multiprocessing.connection.wait` accepts in place of a queue's connection."""

    def __init__(self, messages: FileQueue) -> None:
        self._messages = messages
        self.closed = False

    def fileno(self) -> int:
        """Return a descriptor that is readable while the queue is not empty; it belongs to the queue."""
        self.check_open()
        return self._messages.fileno()

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Wait at most `timeout` seconds for a message, and return whether there is one."""
        self.check_open()
        count = self._messages.qsize()
        if count or timeout == 0:
            return count > 0
        return bool(_wait([self.fileno()], timeout))

    def recv(self) -> Any:
        """Take the next object; `concurrent.futures.ProcessPoolExecutor` calls this on the queues of its context."""
        self.check_open()
        return self._messages.get()

    def close(self) -> None:
        """Close the queue."""
        if not self.closed:
            self.closed = True
            self._messages.close()

    def __getattr__(self, name: str) -> NoReturn:
        if name not in _PIPE:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise _NoPipe(
            f"this queue has no pipe, and so no {name}: put and get objects; for a pool, use the context's Pool() or "
            "multiprocessing.Pool(), which have the standard library's queues"
        )

    def check_open(self) -> None:
        """Raise the error of a closed connection if the queue is closed."""
        if self.closed:
            raise OSError("handle is closed")


class _Base(Generic[_T]):
    def __init__(self, messages: FileQueue) -> None:
        self._messages = messages
        # Programs pass these attributes to `multiprocessing.connection.wait`.
        self._reader = self._writer = _End(messages)

    def __getstate__(self) -> Any:
        self._reader.check_open()
        return (self._messages,)

    def __setstate__(self, state: Any) -> None:
        (messages,) = state
        _Base.__init__(self, messages)

    def close(self) -> None:
        """Close this process's end; the objects stay for other processes. A second call does nothing."""
        self._reader.close()

    def empty(self) -> bool:
        """Return whether a get would have to wait.

        Raises:
            OSError: The queue is closed.
        """
        return not self._reader.poll()


class SimpleQueue(_Base[_T]):
    """An unbounded queue of objects, without timeouts.

    Args:
        ctx: Accepted like that of `multiprocessing.queues.SimpleQueue`, and ignored.
    """

    def __init__(self, *, ctx: object = None) -> None:
        super().__init__(make(0))

    def put(self, obj: _T) -> None:
        """Store an object.

        Raises:
            OSError: The queue is closed.
            Exception: Any exception of pickling the object.
        """
        self._writer.check_open()
        self._messages.put(dumps(obj, Parts))

    def get(self) -> _T:
        """Take the next object.

        Raises:
            OSError: The queue is closed.
        """
        self._reader.check_open()
        return self._messages.get()  # type: ignore[no-any-return]  # the user declares the type of the objects


class Queue(_Base[_T]):
    """A queue of objects.

    Args:
        maxsize: Largest number of objects; 0 or less sets no limit.
        ctx: Accepted like that of `multiprocessing.queues.Queue`, and ignored.
    """

    _closed = False
    _used = False

    def __init__(self, maxsize: int = 0, *, ctx: object = None) -> None:
        super().__init__(make(max(0, maxsize)))

    def put(self, obj: _T, block: bool = True, timeout: float | None = None) -> None:
        """Store an object.

        When this returns, the object can be taken even if this process is killed.

        Args:
            obj: An object that can be pickled.
            block: Wait for space if the queue is full.
            timeout: Longest wait, in seconds; None waits without a limit.

        Raises:
            queue.Full: The queue held `maxsize` objects until the timeout.
            ValueError: The queue is closed.
            Exception: Any exception of pickling the object; nothing is stored.
        """
        if self._closed:
            self._refuse()
        try:
            data = dumps(obj, Parts)
        except Exception as error:
            self._on_queue_feeder_error(error, obj)
            return
        self._used = True
        self._messages.put(data, block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> _T:
        """Take the next object.

        Args:
            block: Wait for an object.
            timeout: Longest wait, in seconds; None waits without a limit.

        Raises:
            queue.Empty: The queue was empty until the timeout.
            ValueError: The queue is closed.
        """
        if self._closed:
            self._refuse()
        return self._messages.get(block, timeout)  # type: ignore[no-any-return]  # as above

    def put_nowait(self, obj: _T) -> None:
        """Store an object without waiting: ``put(obj, block=False)``."""
        self.put(obj, False)

    def get_nowait(self) -> _T:
        """Take the next object without waiting: ``get(block=False)``."""
        return self.get(False)

    def qsize(self) -> int:
        """Return the number of objects in the queue."""
        self._reader.check_open()
        return self._messages.qsize()

    def empty(self) -> bool:
        # As in the standard library, a queue that was closed before any put is empty.
        return super().empty() if self._used or not self._closed else True

    def full(self) -> bool:
        """Return whether a put would have to wait."""
        self._reader.check_open()
        return self._messages.full()

    def close(self) -> None:
        self._closed = True
        super().close()

    def join_thread(self) -> None:
        """Do nothing, because `put` stores objects itself and there is no feeder thread.

        Raises:
            AssertionError: The queue is not closed, as in the standard library.
        """
        assert self._closed, f"Queue {self!r} not closed"  # noqa: S101  # the standard library's own check

    def cancel_join_thread(self) -> None:
        """Do nothing, because no process waits at its exit for objects that it has put."""

    def _refuse(self) -> NoReturn:
        raise ValueError(f"Queue {self!r} is closed")

    @staticmethod
    def _on_queue_feeder_error(e: Exception, obj: Any) -> None:  # noqa: ARG004  # the standard library's signature
        """Raise the exception of pickling in `put`; subclasses may override this, as in the standard library."""
        raise e


class JoinableQueue(Queue[_T]):
    """A queue that counts the objects that are not processed yet."""

    def task_done(self) -> None:
        """Mark one object as processed.

        Raises:
            ValueError: All objects are already marked.
            OSError: The queue is closed.
        """
        self._reader.check_open()
        self._messages.task_done()

    def join(self) -> None:
        """Wait until all objects ever put are marked as processed.

        Raises:
            OSError: The queue is closed.
        """
        since = _monotonic()
        self._reader.check_open()
        while self._messages.unfinished() > 0:
            pause(since, NEVER, _JOIN_POLL_SECONDS)
            self._reader.check_open()


class _Context:
    """A context of `multiprocessing` with the queues of this module."""

    Queue: Any = staticmethod(Queue)
    JoinableQueue: Any = staticmethod(JoinableQueue)
    SimpleQueue: Any = staticmethod(SimpleQueue)

    def __init__(self, standard: Any) -> None:
        self._standard = standard

    def __reduce__(self) -> tuple[Any, ...]:
        return _Context, (self._standard,)

    def get_context(self, method: str | None = None) -> Any:
        return _Context(self._standard.get_context(method))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._standard, name)


def get_context(method: str | None = None) -> Any:
    """Return the context of a start method, with the queues of this module."""
    return _Context(_standard.get_context(method))


def __getattr__(name: str) -> Any:
    if not name.startswith("_") and not hasattr(_standard, name):
        # In the standard library, creating a queue imports `multiprocessing.queues` and so sets the attribute. Here
        # nothing has imported such a module yet.
        with _importing(), _suppress(ImportError):
            _import_module(f"{_standard.__name__}.{name}")
    return getattr(_standard, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_standard)})
