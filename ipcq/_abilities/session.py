"""What a handle keeps for its leases in one process."""

from collections.abc import Callable
from typing import Final, Protocol

from ipcq._process.deadline import SLICE
from ipcq._process.gevent import NativeThread, original
from ipcq._process.limits import check_daemon_threads, too_many_threads
from ipcq._process.native import Serials
from ipcq._process.operation import Asking
from ipcq._process.signals import reraise_from_handler
from ipcq.backend import Channel, LeaseChannel
from ipcq.errors import MessageQueueError, QueueClosed, QueueGone

#: The hold of a lease without one where the death of its holder is not noticed, in seconds. It is renewed in time.
RENEWED_SECONDS: Final = 12.0

#: Seconds between two renewals: two may fail.
_RENEWAL_SECONDS: Final = RENEWED_SECONDS / 4


class Session(Serials):
    """What a handle keeps for its leases in one process; in a forked child the handle gets a new one.

    Nothing here matters to other processes: if it is lost with its process, the backend still knows all leases.
    """

    def __init__(self) -> None:
        super().__init__()
        self.renewed: set[int] = set()
        """Tokens of leases whose hold has to be renewed."""
        self._upkeep: NativeThread | None = None
        self._next_renewal = 0.0

    def keep_up(self, handle: Callable[[], "Tended | None"]) -> None:
        """Start a thread that tends the queue and renews leases, until the handle is closed.

        Args:
            handle: Returns the handle, or None if it has been collected.

        Raises:
            LimitExceeded: The system cannot start a thread.
            Unsupported: This interpreter cannot have daemon threads.
        """
        if self._upkeep is not None:
            return
        check_daemon_threads()
        thread = NativeThread(target=self._run, args=(handle,), name="ipcq-leases", daemon=True)
        self._upkeep = thread
        try:
            thread.start()
        except RuntimeError as error:
            self._upkeep = None
            reraise_from_handler(error)
            raise too_many_threads() from error

    def _run(self, find: Callable[[], "Tended | None"]) -> None:
        clock, sleep = original("time", "monotonic"), original("time", "sleep")
        seconds = 0.0
        while seconds >= 0:
            seconds = self._tend(find(), clock)
            if seconds >= 0:
                sleep(seconds)

    def _tend(self, handle: "Tended | None", clock: Callable[[], float]) -> float:
        """Do what is due, and return the seconds until the next time; less than 0 ends the thread."""
        if handle is None or handle.closed:
            return -1
        try:
            asking = Asking(clock() + _RENEWAL_SECONDS)
            return asking.run(handle._with_channel, lambda channel: self._step(channel, clock))
        except (QueueClosed, QueueGone):
            return -1
        except (MessageQueueError, MemoryError):
            return SLICE  # a waiting call reports the reason; this thread tries again

    def _step(self, channel: Channel, clock: Callable[[], float]) -> float:
        assert isinstance(channel, LeaseChannel)  # noqa: S101  # for the type checker: only such handles have a session
        now = clock()
        if self.renewed and now >= self._next_renewal:
            self.renewed.difference_update(channel.extend(list(self.renewed), RENEWED_SECONDS))
            self._next_renewal = now + _RENEWAL_SECONDS
        if channel.remote:
            return SLICE  # the server returns by itself what is over, and is not asked while nothing is leased
        seconds = channel.tend()
        return SLICE if seconds is None else min(SLICE, max(0.001, seconds))


class Tended(Protocol):
    """What the thread needs of a handle."""

    @property
    def closed(self) -> bool: ...

    def _with_channel(self, operation: Callable[[Channel], float]) -> float: ...
