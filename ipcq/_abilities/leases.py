"""The methods of a handle that lease messages.

`lease` takes the next serial number and calls the channel's `try_lease` with it, as `get` calls `try_get`. If an
exception of a signal handler arrives before the caller has the `Lease`, the message is recalled by that number.
"""

import sys
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import starmap
from time import monotonic
from typing import TYPE_CHECKING, Final, Generic, NoReturn, Self, TypeVar, cast

from ipcq._abilities.dead_letters import DeadLetters
from ipcq._abilities.lease import Lease, acknowledge, described, hold_of, lost_of_batch
from ipcq._abilities.session import RENEWED_SECONDS, Session
from ipcq._process.deadline import deadline_of, pause
from ipcq._process.finaliser import quiet_at_exit
from ipcq._process.native import in_c
from ipcq.backend import MOST_LEASES, Channel, LeaseChannel, Leased, Verdict
from ipcq.errors import (
    DecodeError,
    InvalidArgument,
    LeaseLost,
    MessageQueueError,
    QueueShutDown,
    TimedOutError,
    Unsupported,
)

T = TypeVar("T")
R = TypeVar("R")

_UNDECODABLE: Final = b"it cannot be decoded"
_LEFT: Final = b"the loop was left"


class Leasing(Generic[T]):
    """The methods of `ipcq.Queue` for queues with leases."""

    __slots__ = ()

    if TYPE_CHECKING:
        _session: Session | None
        _channel: Channel
        _decode: Callable[[bytes], T]

        @property
        @abstractmethod
        def name(self) -> str: ...
        @property
        @abstractmethod
        def backend(self) -> str: ...
        @property
        @abstractmethod
        def closed(self) -> bool: ...
        @abstractmethod
        def _check_open(self) -> None: ...
        @abstractmethod
        def _require_read(self) -> None: ...
        @abstractmethod
        def _require_write(self) -> None: ...
        @abstractmethod
        def _with_channel(self, operation: Callable[[Channel], R]) -> R: ...
        @abstractmethod
        def _wait_take(self, attempt: Callable[[], R | None], deadline: float) -> R: ...
        @abstractmethod
        def _unsupported(self, ability: str, phrase: str, remedy: str = "") -> Unsupported: ...

    @in_c
    def lease(self, block: bool = True, timeout: float | None = None, *, hold: float | None = None) -> Lease[T]:
        """Take the next message on loan: it stays in the queue until it is acknowledged, and returns if it is not.

        Args:
            block: Wait for a message; False tries once.
            timeout: Seconds to wait at most, on the monotonic clock; None waits without a limit, 0 tries once.
            hold: Seconds until the lease ends; None: it lasts as long as this process has the handle open.

        Raises:
            QueueEmpty: No message arrived in time.
            QueueShutDown: The queue was shut down, and nothing in it is ready, leased or delayed.
            DecodeError: This handle cannot decode the message. It was given back as a failure, or rejected on a queue
                without `max_deliveries`. The error has its bytes.
            Unsupported: The queue has no leases.
            PermissionDenied: The handle was opened with ``read=False``.
            InvalidArgument: `block` is not a bool, `timeout` is negative or not a number, or `hold` is not above 0.
            MemoryError: The item did not fit into memory; the message is still in the queue.
        """
        return self._lease(block, timeout, hold)

    def _lease(
        self,
        block: bool,
        timeout: float | None,
        hold: float | None,
        check: Callable[[], object] = lambda: None,
        decode: Callable[[bytes], T] | None = None,
    ) -> Lease[T]:
        def lease_one(channel: LeaseChannel) -> Lease[T]:
            self._require_read()
            deadline, seconds, serial = (
                deadline_of(block, timeout),
                self._hold(channel, hold),
                self._own_session().serial(1),
            )

            def attempt() -> Leased | None:
                check()
                self._check_open()
                return channel.try_lease(serial, seconds)

            try:
                leased = attempt() or self._wait_take(attempt, deadline)
                return self._lent(channel, [leased], seconds, hold, decode)[0]
            except MessageQueueError:
                raise  # nothing was leased, or it was given back
            except BaseException:
                self._recall(channel, serial, 1)
                raise

        return self._on_leases(lease_one)

    @in_c
    def lease_many(
        self, max_items: int, block: bool = True, timeout: float | None = None, *, hold: float | None = None
    ) -> list[Lease[T]]:
        """Wait for one message, then take all that are ready on loan, in one step.

        Take few: if this process dies, all of them come back with a failure, so one bad message takes its neighbours
        with it.

        Args:
            max_items: The number of messages to lease at most, 1 or more.
            block: Wait for the first message; False tries once.
            timeout: Seconds to wait for the first message at most; None waits without a limit.
            hold: As for `lease`, for each.

        Returns:
            The leases, in the order of `lease`. Messages that cannot be decoded are given back as `lease` does, and
            left out.

        Raises:
            QueueEmpty: No message arrived in time.
            QueueShutDown: The queue was shut down, and nothing in it is ready, leased or delayed.
            DecodeError: This handle can decode none of the messages.
            Unsupported: The queue has no leases.
            PermissionDenied: The handle was opened with ``read=False``.
            InvalidArgument: As for `lease`, or `max_items` is not an int of 1 or more.
        """

        def lease_all(channel: LeaseChannel) -> list[Lease[T]]:
            self._require_read()
            deadline, seconds = deadline_of(block, timeout), self._hold(channel, hold)
            if isinstance(max_items, bool) or not isinstance(max_items, int) or max_items < 1:
                raise InvalidArgument(f"max_items must be an int of 1 or more, not {max_items!r}")
            limit = min(max_items, MOST_LEASES)
            serial = self._own_session().serial(limit)

            def attempt() -> list[Leased] | None:
                self._check_open()
                return channel.try_lease_many(serial, limit, seconds) or None

            try:
                return self._lent(channel, attempt() or self._wait_take(attempt, deadline), seconds, hold)
            except MessageQueueError:
                raise
            except BaseException:
                self._recall(channel, serial, limit)
                raise

        return self._on_leases(lease_all)

    @in_c
    def ack_many(self, leases: Iterable[Lease[T]]) -> None:
        """Acknowledge any number of leases of this handle in one step.

        Raises:
            LeaseLost: Some of the leases are over: their `lost` is True. All others are acknowledged.
            QueueGone: The queue was unlinked.
            InvalidArgument: `leases` has something else than leases of this handle.
        """
        given = list(leases) if isinstance(leases, Iterable) else [leases]
        for each in given:
            if not isinstance(each, Lease) or each._lessor is not self:
                raise InvalidArgument(f"ack_many takes leases of this handle, not {each!r}")
        try:
            acknowledge(self, given)
        except MessageQueueError as error:
            raise error.at(self.name, self.backend)

    def leases(self, *, hold: float | None = None) -> "Leases[T]":
        """Iterate over leases until the queue is shut down and nothing in it is ready, leased or delayed.

        The end of the loop's body acknowledges the message. To leave the body early gives it back as a failure: Python
        does not tell an iterator whether an exception was the reason. ``with job:`` in the loop knows the exception.

        A message that cannot be decoded is given back as `lease` does, and the loop continues. So it does if a lease is
        lost at the end of its body. Both are logged (logger ``ipcq``).

        Args:
            hold: As for `lease`, for each.
        """
        self._require_leases()
        return Leases(self, hold)

    def join(self, timeout: float | None = None) -> None:
        """Wait until nothing in the queue is ready, leased or delayed: all work is done. Dead letters do not count.

        Raises:
            TimedOutError: Something was left when the time was over.
            Unsupported: The queue has no leases.
            InvalidArgument: `timeout` is negative or not a number.
        """
        since = monotonic()
        deadline = self._on_leases(lambda _: deadline_of(True, timeout))
        while any((counts := self._on_leases(lambda channel: channel.counts()))[:3]):
            if monotonic() >= deadline:
                raise TimedOutError(f"not all work is done: {described(counts)}", queue=self.name, backend=self.backend)
            pause(since, deadline)

    def dead(self) -> DeadLetters[T]:
        """Return the dead letters: messages that failed `max_deliveries` times, or were rejected.

        Raises:
            Unsupported: The queue has no leases.
        """
        self._require_leases()
        return DeadLetters(self)

    # Steps

    def _require_leases(self) -> None:
        if not self._channel.capabilities.leases:
            raise self._unsupported("leases", "has no leases", "create it with leases=True")

    def _on_leases(self, operation: Callable[[LeaseChannel], R]) -> R:
        self._require_leases()
        return self._with_channel(cast("Callable[[Channel], R]", operation))

    def _own_session(self) -> Session:
        assert self._session is not None  # noqa: S101  # for the type checker: the queue has leases
        return self._session

    def _hold(self, channel: LeaseChannel, hold: float | None) -> float | None:
        if hold is not None:
            return hold_of(hold, "hold")
        if channel.capabilities.death_notice:
            return None
        self._own_session().keep_up(weakref.ref(self))  # before anything is leased, because it may fail
        return RENEWED_SECONDS

    def _lent(
        self,
        channel: LeaseChannel,
        batch: Sequence[Leased],
        seconds: float | None,
        hold: float | None,
        decode: Callable[[bytes], T] | None = None,
    ) -> list[Lease[T]]:
        """Make the leases of what was leased, except what cannot be decoded."""
        items: list[tuple[Leased, T]] = []
        errors: list[tuple[Leased, DecodeError]] = []
        try:
            for leased in batch:
                try:
                    items.append((leased, (decode or self._decode)(leased.data)))
                except DecodeError as error:
                    errors.append((leased, error))
        except MemoryError:
            if not items:
                raise
            channel.settle([each.token for each in batch[len(items) + len(errors) :]], Verdict.RELEASE, 0.0, b"")
        if errors:
            verdict = Verdict.REJECT if channel.attributes.max_deliveries is None else Verdict.FAIL
            channel.settle([leased.token for leased, _ in errors], verdict, 0.0, _UNDECODABLE)
            if not items:
                raise errors[0][1]
        session = self._own_session()
        if hold is None and seconds is not None:
            session.renewed.update(leased.token for leased, _ in items)
        return [Lease(self, session, leased, item) for leased, item in items]

    def _recall(self, channel: LeaseChannel, serial: int, count: int) -> None:
        try:
            channel.recall(serial, count)
        except (MessageQueueError, MemoryError):
            pass  # the queue has ended, or the close of the handle gives the message back

    # Fallbacks of the calls in C

    def _lent_rest(self, begun: list[Lease[T]], rest: list[tuple[bytes, int, int, int, int]]) -> list[Lease[T]]:
        """Return a batch that C has leased: `begun`, then the leases of the messages that C could not decode.

        If this raises, C releases all of them; that changes nothing for those that were given back here.
        """

        def complete(channel: LeaseChannel) -> list[Lease[T]]:
            try:
                return begun + self._lent(channel, list(starmap(Leased, rest)), None, None)
            except DecodeError:
                if not begun:
                    raise
            except MemoryError:
                if not begun:
                    raise
                channel.settle([each[3] for each in rest], Verdict.RELEASE, 0.0, b"")
            return begun

        return self._on_leases(complete)

    def _recall_batch(self, serial: int, count: int) -> None:
        """Release what C has leased, after an error."""
        self._on_leases(lambda channel: channel.recall(serial, count))

    def _raise_lost(self, over: int, count: int) -> NoReturn:
        """Raise the error of a batch that C has acknowledged, except leases that were over."""
        raise lost_of_batch(over, count).at(self.name, self.backend)


class Stopped(Exception):
    """Ends the wait of a loop over leases."""


class Leases(Generic[T]):
    """An iterator over leases, from `Queue.leases`."""

    #: What ends the loop.
    ENDS: Final = (QueueShutDown, Stopped)

    def __init__(self, queue: Leasing[T], hold: float | None) -> None:
        self._queue = queue
        self._hold = hold
        self._job: Lease[T] | None = None
        self._stopped = False

    def stop(self) -> None:
        """End the loop after the message in hand; call it from a signal handler or another thread.

        The body ends as usual, and its message is acknowledged. A loop that waits ends within a tenth of a second.
        """
        self._stopped = True

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Lease[T]:
        self._finish()
        while True:
            try:
                return self._attempt(block=True)
            except DecodeError as error:
                self._skip(error)
            except self.ENDS:
                raise StopIteration from None

    def _finish(self) -> None:
        """Acknowledge the message of the body that has ended."""
        job, self._job = self._job, None
        if job is not None and not job._end:
            try:
                job.ack()
            except LeaseLost as error:
                _log("a message was not acknowledged, because its lease ended before the loop's body: %s", error)

    def _attempt(self, block: bool = False) -> Lease[T]:
        self._job = self._queue._lease(block, None, self._hold, self._check)
        return self._job

    def _skip(self, error: DecodeError) -> None:
        _log("a message was skipped: %s", error)

    def _check(self) -> None:
        if self._stopped:
            raise Stopped

    @quiet_at_exit
    def __del__(self) -> None:
        job = getattr(self, "_job", None)
        if job is not None:
            job._leave(_LEFT)


def _log(text: str, error: MessageQueueError) -> None:
    logging = sys.modules.get("logging")  # if it was never imported, there is no handler
    if logging is not None:
        logging.getLogger("ipcq").warning(text, error)
