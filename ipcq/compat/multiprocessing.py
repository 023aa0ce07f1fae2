"""The queues of `multiprocessing`, over ipcq: ``import ipcq.compat.multiprocessing as multiprocessing`` and go on.

`Queue`, `JoinableQueue` and `SimpleQueue` are passed to processes as those of the standard library are, under each
start method, and behave as they do, except that nothing that happens to one process keeps another from going on. Every
other name is the standard library's own.
"""

import multiprocessing as _standard
from contextlib import suppress as _suppress
from importlib import import_module as _import_module
from multiprocessing.connection import wait as _wait
from time import monotonic as _monotonic
from typing import Any, Final, Generic, NoReturn, TypeVar

from ipcq._process.deadline import NEVER, pause
from ipcq._process.imports import importing as _importing
from ipcq.compat._messages import Line, make
from ipcq.compat._pickling import dumps, loads
from ipcq.errors import Unsupported as _Unsupported

#: For ``from ipcq.compat.multiprocessing import *``, all that the standard library offers so.
__all__ = tuple(sorted(_standard.__all__, key=lambda name: (not name[0].isupper(), name)))

_T = TypeVar("_T")

#: Seconds at the most between two looks whether all work is done.
_DONE: Final = 0.01


#: What a connection has and an end does not.
_PIPE: Final = frozenset({"recv_bytes", "recv_bytes_into", "send", "send_bytes"})


class _NoPipe(_Unsupported, AttributeError):
    """There is no pipe behind these queues; an AttributeError too, so that `hasattr` answers."""


class _End:
    """What `multiprocessing.connection.wait` takes for a queue."""

    def __init__(self, messages: Line) -> None:
        self._messages = messages
        self.closed = False

    def fileno(self) -> int:
        """Return a descriptor that is readable while the queue is not empty; it belongs to the queue."""
        self.check_open()
        return self._messages.fileno()

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Wait at most so many seconds for a message, and tell whether there is one."""
        self.check_open()
        count = self._messages.qsize()
        if count or timeout == 0:
            return count > 0
        return bool(_wait([self.fileno()], timeout))

    def recv(self) -> Any:
        """Take the next object, as `concurrent.futures.ProcessPoolExecutor` does from a queue of its context."""
        self.check_open()
        return loads(self._messages.get())

    def close(self) -> None:
        """Close the queue."""
        if not self.closed:
            self.closed = True
            self._messages.close()

    def __getattr__(self, name: str) -> NoReturn:
        if name not in _PIPE:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise _NoPipe(
            f"there is no pipe behind this queue, and so no {name}: put and get objects; for a pool take the context's "
            "Pool() or multiprocessing.Pool(), which have the standard library's queues"
        )

    def check_open(self) -> None:
        """Refuse a queue that is closed, with the words of a connection."""
        if self.closed:
            raise OSError("handle is closed")


class _Base(Generic[_T]):
    def __init__(self, messages: Line) -> None:
        self._messages = messages
        # Under the names by which people hand them to `multiprocessing.connection.wait`.
        self._reader = self._writer = _End(messages)

    def __getstate__(self) -> Any:
        self._reader.check_open()
        return (self._messages,)

    def __setstate__(self, state: Any) -> None:
        (messages,) = state
        _Base.__init__(self, messages)

    def close(self) -> None:
        """Close this process's end; what was put stays for the others. Twice is once."""
        self._reader.close()

    def empty(self) -> bool:
        """Tell whether a get would have to wait.

        Raises:
            OSError: The queue is closed.
        """
        return not self._reader.poll()


class SimpleQueue(_Base[_T]):
    """A queue of any number of objects, without limits of time.

    Args:
        ctx: Is not needed, and may be given as to `multiprocessing.queues.SimpleQueue`.
    """

    def __init__(self, *, ctx: object = None) -> None:
        super().__init__(make(0))

    def put(self, obj: _T) -> None:
        """Store an object.

        Raises:
            OSError: The queue is closed.
            Exception: Whatever pickling the object raises.
        """
        self._writer.check_open()
        self._messages.put(dumps(obj))

    def get(self) -> _T:
        """Take the next object.

        Raises:
            OSError: The queue is closed.
        """
        self._reader.check_open()
        return loads(self._messages.get())  # type: ignore[no-any-return]  # the user's word for what is in the queue


class Queue(_Base[_T]):
    """A queue of objects.

    Args:
        maxsize: How many objects it holds at the most; 0 or less: any number.
        ctx: Is not needed, and may be given as to `multiprocessing.queues.Queue`.
    """

    _closed = False
    _used = False

    def __init__(self, maxsize: int = 0, *, ctx: object = None) -> None:
        super().__init__(make(max(0, maxsize)))

    def put(self, obj: _T, block: bool = True, timeout: float | None = None) -> None:
        """Store an object, and return when it is stored: whatever happens to this process then, it can be taken.

        Args:
            obj: What can be pickled.
            block: Wait for space where the queue is full.
            timeout: Seconds to wait at the most; None waits for ever.

        Raises:
            queue.Full: There are `maxsize` objects in the queue.
            ValueError: The queue is closed.
            Exception: Whatever pickling the object raises; nothing is stored then.
        """
        if self._closed:
            self._refuse()
        try:
            data = dumps(obj)
        except Exception as error:
            self._on_queue_feeder_error(error, obj)
            return
        self._used = True
        self._messages.put(data, block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> _T:
        """Take the next object.

        Args:
            block: Wait for one.
            timeout: Seconds to wait at the most; None waits for ever.

        Raises:
            queue.Empty: None came in time.
            ValueError: The queue is closed.
        """
        if self._closed:
            self._refuse()
        return loads(self._messages.get(block, timeout))  # type: ignore[no-any-return]  # as above

    def put_nowait(self, obj: _T) -> None:
        """Store an object if there is space now: ``put(obj, block=False)``."""
        self.put(obj, False)

    def get_nowait(self) -> _T:
        """Take the next object if there is one now: ``get(block=False)``."""
        return self.get(False)

    def qsize(self) -> int:
        """Count the objects in the queue."""
        self._reader.check_open()
        return self._messages.qsize()

    def empty(self) -> bool:
        # As there: a queue that was closed before anything was put into it is empty.
        return super().empty() if self._used or not self._closed else True

    def full(self) -> bool:
        """Tell whether a put would have to wait."""
        self._reader.check_open()
        return self._messages.full()

    def close(self) -> None:
        self._closed = True
        super().close()

    def join_thread(self) -> None:
        """Do nothing: what was put is stored, and no thread has to be waited for.

        Raises:
            AssertionError: The queue is not closed, as there.
        """
        assert self._closed, f"Queue {self!r} not closed"  # noqa: S101  # what it raises there

    def cancel_join_thread(self) -> None:
        """Do nothing: no process ever waits at its end for what it has put."""

    def _refuse(self) -> NoReturn:
        raise ValueError(f"Queue {self!r} is closed")

    @staticmethod
    def _on_queue_feeder_error(e: Exception, obj: Any) -> None:  # noqa: ARG004  # as there
        """Raise in `put` what pickling raised; a subclass may do something else, as there."""
        raise e


class JoinableQueue(Queue[_T]):
    """A queue that knows how much of what was put is done."""

    def task_done(self) -> None:
        """Say that the work on one object is done.

        Raises:
            ValueError: It is for all.
            OSError: The queue is closed.
        """
        self._reader.check_open()
        self._messages.task_done()

    def join(self) -> None:
        """Wait until the work on all that was put is done.

        Raises:
            OSError: The queue is closed.
        """
        since = _monotonic()
        self._reader.check_open()
        while self._messages.unfinished() > 0:
            pause(since, NEVER, _DONE)
            self._reader.check_open()


class _Context:
    """A context of `multiprocessing` whose queues are those of this module."""

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
    """Return the context of a start method, with these queues in it."""
    return _Context(_standard.get_context(method))


def __getattr__(name: str) -> Any:
    if not name.startswith("_") and not hasattr(_standard, name):
        # The standard library has its modules as attributes as soon as something imported them, as making a queue does
        # with `multiprocessing.queues`.
        with _importing(), _suppress(ImportError):
            _import_module(f"{_standard.__name__}.{name}")
    return getattr(_standard, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_standard)})
