"""A channel over one message queue of the kernel.

The kernel owns the messages, so no crash of a process can damage them. This leaves two tasks:

*Waiting.* The descriptor is non-blocking and waits use `poll`: ``mq_timedsend`` and ``mq_timedreceive`` use the
wall clock, and posix_ipc's blocking `receive` swallows what a signal handler raises.

*Ends.* A shutdown sets the sticky bit of the queue's mode, which every handle can read with ``fstat`` and the kernel
ignores. An unlinked queue has a link count of 0. Reading both costs as much as a message, so a channel whose calls
succeed reads them once per millisecond. `shutdown` and `unlink` last as long: a call that begins after they returned
sees their effect, in any process. A put that began earlier may still succeed. So a consumer that finds the queue empty
and shut down waits once for a few milliseconds, to drain such a message too. An immediate shutdown also sets the
set-user-ID bit, which makes consumers ignore such a message.
"""

import os
import select
import stat
from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import Any, Final

from ipcq.backend import (
    Attributes,
    Capabilities,
    Channel,
    Notice,
    Received,
    Request,
    Stats,
    belongs,
    explained,
    no_fork,
    opened,
    reraise_from_handler,
)
from ipcq.errors import MessageQueueError, PermissionDenied, QueueGone, QueueShutDown
from ipcq_mqueue import _limits, _notice
from ipcq_mqueue._kernel import BLIND_SECONDS, DROPPED, SHUT_DOWN
from ipcq_mqueue._library import library

posix_ipc: Final = library()

# How long a wait polls before it sleeps: sleeping and waking up takes longer than the other side needs for its next
# message. With one processor the other side could not run meanwhile.
_SPIN_SECONDS: Final = 20e-6 if (os.cpu_count() or 1) > 1 else 0.0

# A put that began before a shutdown ends within this time, unless its process is stopped or starved.
_LINGER_SECONDS: Final = 5 * BLIND_SECONDS


class MqueueChannel(Channel):
    def __init__(self, queue: Any, request: Request, capabilities: Capabilities) -> None:
        queue.block = False
        self.capabilities = capabilities
        self.attributes = Attributes(
            mode=stat.S_IMODE(os.fstat(queue.mqd).st_mode) & 0o777,
            max_messages=queue.max_messages,
            max_message_size=queue.max_message_size,
            priorities=True,
        )
        self._queue = queue
        self._send: Callable[[bytes, None, int], None] = queue.send
        self._receive: Callable[[], Received] = queue.receive
        self._mqd: int = queue.mqd
        self._readable = request.read
        self._raises = request.after_unlink == "raise"
        self._next_look = 0.0
        self._lingered = False
        self._dropped = False
        self._is_open = True
        belongs(self, queue.mqd)

    def try_put(self, data: bytes, priority: int, /) -> bool:
        if monotonic() >= self._next_look and self._look():
            raise QueueShutDown
        try:
            self._send(data, None, priority)
        except posix_ipc.BusyError:
            self._look_to_put()
            return False
        except (posix_ipc.Error, MemoryError, OSError) as error:
            raise explained(error) from error
        return True

    def try_put_many(self, batch: Sequence[bytes], priority: int = 0, /) -> int:
        if not batch:  # an empty batch asks whether the queue accepts messages
            self._look_to_put()
        return super().try_put_many(batch, priority)

    def try_get(self) -> Received | None:
        if monotonic() >= self._next_look:
            self._look()
            if self._dropped:
                raise QueueShutDown
        try:
            received = self._receive()
        except posix_ipc.BusyError:
            return self._last_get() if self._look() else None
        except (posix_ipc.Error, MemoryError, OSError) as error:
            raise explained(error) from error
        try:  # as in `_copied`, without the cost of a call
            return b"%b" % received[0], received[1]
        except MemoryError:
            return received

    def _look(self) -> bool:
        """Return whether the queue is shut down.

        Raises:
            QueueGone: The queue was unlinked, and this handle does not continue.
        """
        now = monotonic()
        try:  # not in `_status`: after a pause the processor's caches are cold, and each call delays the message
            found = os.fstat(self._mqd)
        except OSError as error:
            raise explained(error) from error
        gone = self._raises and not found.st_nlink
        down = bool(found.st_mode & SHUT_DOWN)
        # Both are permanent: every later call checks, and raises again.
        self._next_look = 0.0 if gone or down else now + BLIND_SECONDS
        self._dropped = bool(found.st_mode & DROPPED)
        if gone:
            raise QueueGone
        return down

    def _status(self) -> os.stat_result:
        try:
            return os.fstat(self._mqd)
        except OSError as error:
            raise explained(error) from error

    def _look_to_put(self) -> None:
        if self._look():
            raise QueueShutDown

    def _last_get(self) -> Received:
        """Get from a queue that is shut down and was found empty."""
        if not self._lingered:
            sleep(_LINGER_SECONDS)
            self._lingered = True
            self._look()
        if self._dropped:
            raise QueueShutDown
        try:
            received = self._receive()
        except posix_ipc.BusyError:
            raise QueueShutDown from None
        except (posix_ipc.Error, MemoryError, OSError) as error:
            raise explained(error) from error
        return _copied(received)

    def wait_readable(self, since: float, until: float, /) -> None:
        self._poll(select.POLLIN, since, until)

    def wait_writable(self, size: int, since: float, until: float, /) -> None:
        self._poll(select.POLLOUT, since, until)

    def _poll(self, event: int, since: float, until: float) -> None:
        poll = select.poll()
        poll.register(self._mqd, event)
        while monotonic() < since + _SPIN_SECONDS:
            os.sched_yield()  # the other side may wait for this processor
            if poll.poll(0):
                return
        poll.poll(max(0.0, until - monotonic()) * 1000)

    def qsize(self) -> int:
        self._look()
        messages: int = 0 if self._dropped else self._queue.current_messages
        return messages

    def stats(self) -> Stats:
        depth = self.qsize()
        if self._dropped:
            return Stats(depth=depth, bytes=0)
        if not self._readable:
            return Stats(depth=depth)
        # The descriptor reads as a line such as "QSIZE:129 NOTIFY:0 SIGNO:0 NOTIFY_PID:0" (mq_overview(7)).
        fields = dict(field.split(b":") for field in os.pread(self._mqd, 256, 0).split())
        return Stats(depth=depth, bytes=int(fields[b"QSIZE"]))

    def linked(self) -> bool:
        return self._status().st_nlink > 0

    def shutdown(self, immediate: bool, /) -> None:
        self._look()
        mode = stat.S_IMODE(self._status().st_mode)
        try:
            os.fchmod(self._mqd, mode | SHUT_DOWN | (DROPPED if immediate else 0))
        except PermissionError as error:
            raise PermissionDenied(
                f"only the queue's owner (user {self._status().st_uid}) or root can shut it down",
                errno=error.errno,
            ) from error
        except OSError as error:
            raise explained(error) from error
        sleep(BLIND_SECONDS)
        if immediate:
            self._drop()

    def _drop(self) -> None:
        """Discard the messages that no consumer can get any more, so that the kernel frees their memory."""
        try:
            while True:
                self._receive()
        except posix_ipc.BusyError:
            pass
        except (posix_ipc.Error, MemoryError, OSError) as error:
            raise explained(error) from error

    def fileno(self) -> int:
        return self._mqd

    def space_fileno(self) -> int:
        return self._mqd

    def notify(self, notice: Notice | None, /) -> None:
        self._look()
        if notice is None:
            _notice.cancel(self._queue)
        else:
            _notice.request(self._queue, notice)

    def close(self) -> None:
        _notice.close(self._mqd, self._let_go, self._queue)

    def _let_go(self) -> None:
        with no_fork:
            self._is_open = False
            self._queue.close()

    def abandon(self) -> None:
        if self._is_open:
            self._let_go()


def _copied(received: Received) -> Received:
    # posix_ipc returns its receive buffer, which is as large as the largest message. This is the fastest way to copy.
    try:
        return b"%b" % received[0], received[1]
    except MemoryError:
        return received  # the message was taken, so it must be returned


def attached(name: str, request: Request) -> Any:
    """Open the queue with posix_ipc.

    Raises:
        FileNotFoundError: There is no such queue.
        PermissionError: Its mode denies access to this user.
        MessageQueueError: posix_ipc failed for another reason.
    """
    try:
        return _noted(name, request)
    except posix_ipc.ExistentialError as error:
        raise FileNotFoundError(2, str(error)) from error
    except posix_ipc.PermissionsError as error:
        raise PermissionError(13, str(error)) from error
    except MemoryError as error:
        raise explained(error) from error
    except (OSError, ValueError, posix_ipc.Error) as error:
        reraise_from_handler(error)
        raise _limits.descriptors() or MessageQueueError(f"posix_ipc cannot open it: {error}") from error


def _noted(name: str, request: Request) -> Any:
    with no_fork:
        queue = posix_ipc.MessageQueue(name, read=request.read, write=request.write)
        opened(lambda: int(queue.mqd))
    return queue
