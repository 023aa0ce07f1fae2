"""One message on loan."""

import warnings
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Generic, NoReturn, Protocol, Self, TypeVar

from ipcq._abilities.session import Session
from ipcq._process.deadline import seconds_of
from ipcq._process.finaliser import quiet_at_exit
from ipcq._process.native import LeaseBase, in_c
from ipcq._redaction import redacted
from ipcq.backend import LONGEST, REASON_SIZE, Counts, LeaseChannel, Leased, Verdict
from ipcq.errors import InvalidArgument, LeaseLost, MessageQueueError, QueueClosed, QueueGone

T = TypeVar("T")
R = TypeVar("R")

_ENDS: Final = {
    Verdict.ACK: "acknowledged",
    Verdict.RELEASE: "released",
    Verdict.FAIL: "given back",
    Verdict.REJECT: "rejected",
}
_LOST: Final = "lost"


class Lessor(Protocol):
    """What a lease needs of its handle."""

    _session: Session | None

    @property
    def name(self) -> str: ...

    @property
    def backend(self) -> str: ...

    def _on_leases(self, operation: Callable[[LeaseChannel], R]) -> R: ...


class Lease(LeaseBase, Generic[T]):
    """A message on loan, from `Queue.lease`. It stays in the queue until it is settled.

    In a ``with`` statement, the end of the block acknowledges it, and an exception gives it back: as a failure, unless
    it is KeyboardInterrupt, SystemExit or the cancellation of a task. Settle it yourself in the block to decide
    otherwise. Any thread or task of the process may do that. A lease that is dropped unsettled is given back, with a
    `ResourceWarning`.

    Each method that settles raises `LeaseLost` if the lease is over, and then changes nothing.
    """

    __slots__ = ("__weakref__",)

    item: T
    """The item that was put."""
    priority: int
    """Its priority, from 0 to 32767."""
    deliveries: int
    """How many times the message has been leased, including this time."""
    failures: int
    """How many of these times have failed: `max_deliveries` bounds them, and `DeadLetters.requeue` forgets them."""

    _lessor: Lessor
    _session: Session

    # If the channel leases in C, C sets the same fields.
    def __init__(self, lessor: Lessor, session: Session, leased: Leased, item: T) -> None:
        self._end = ""  # how it ended; empty while it is held
        self._token = leased.token
        self._session = session
        self.item = item
        self.priority = leased.priority
        self.deliveries = leased.deliveries
        self.failures = leased.failures
        self._lessor = lessor

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._lessor.name

    @in_c
    def ack(self) -> None:
        """Acknowledge the message: it is done, and leaves the queue.

        Raises:
            LeaseLost: The lease is over.
            QueueGone: The queue was unlinked.
        """
        self._settle(Verdict.ACK)

    @in_c
    def release(self, delay: float = 0) -> None:
        """Give the message back, without counting a failure. It returns to its old place in the order.

        Args:
            delay: Seconds until it can be taken again.

        Raises:
            LeaseLost: The lease is over.
            QueueGone: The queue was unlinked.
            InvalidArgument: `delay` is negative or not a number.
        """
        self._settle(Verdict.RELEASE, duration(delay, "delay"))

    def fail(self, reason: str = "", delay: float = 0) -> None:
        """Give the message back as a failure, as an exception in the ``with`` block does.

        After `max_deliveries` failures it becomes a dead letter, with this reason.

        Args:
            reason: Why, cut to 64 bytes of UTF-8.
            delay: Seconds until it can be taken again.

        Raises:
            LeaseLost: The lease is over.
            QueueGone: The queue was unlinked.
            InvalidArgument: `reason` is not a str, or `delay` is negative or not a number.
        """
        self._settle(Verdict.FAIL, duration(delay, "delay"), _encoded(reason))

    def reject(self, reason: str = "") -> None:
        """Make the message a dead letter at once.

        Args:
            reason: Why, cut to 64 bytes of UTF-8.

        Raises:
            LeaseLost: The lease is over.
            QueueGone: The queue was unlinked.
            InvalidArgument: `reason` is not a str.
        """
        self._settle(Verdict.REJECT, reason=_encoded(reason))

    def extend(self, seconds: float) -> None:
        """Let the lease end that many seconds from now, whatever its hold was.

        Raises:
            LeaseLost: The lease is over.
            QueueGone: The queue was unlinked.
            InvalidArgument: `seconds` is not a number above 0.
        """
        hold = hold_of(seconds, "seconds")
        self._on_own(lambda channel, tokens: channel.extend(tokens, hold))
        self._session.renewed.discard(self._token)  # it has an end of its own now

    @property
    def lost(self) -> bool:
        """Whether the lease has ended without being settled here, so that another consumer may have the message.

        Asks the queue, and is True as well if the queue was unlinked or the handle is closed.
        """
        if not self._end:
            try:
                self._on_own(lambda channel, tokens: channel.find_lost(tokens))
            except (LeaseLost, QueueGone):
                return True
        return self._end == _LOST

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._end:
            return
        if error is None:
            self.ack()
            return
        if isinstance(error, Exception):
            self._leave(reason_of(error))  # raises nothing: the exception of the block must not be replaced
        else:
            self._leave(b"", Verdict.RELEASE)

    @quiet_at_exit
    def _dropped(self) -> None:
        """Give the message back, as the finaliser of a lease."""
        lessor = getattr(self, "_lessor", None)
        if lessor is None or self._end or lessor._session is not self._session:
            return  # unfinished, settled, or inherited
        if self._leave(b"", Verdict.RELEASE):
            warnings.warn(f"unsettled {self!r} was given back", ResourceWarning, source=self, stacklevel=3)

    def _leave(self, reason: bytes, verdict: Verdict = Verdict.FAIL) -> bool:
        """Give the message back if this process still has it, and return whether it had."""
        try:
            self._settle(verdict, reason=reason)
        except (MessageQueueError, MemoryError):
            return False  # it was settled, is over or inherited, or ends with its handle
        return True

    def _settle(self, verdict: Verdict, delay: float = 0.0, reason: bytes = b"") -> None:
        self._on_own(lambda channel, tokens: channel.settle(tokens, verdict, delay, reason))
        self._ended(_ENDS[verdict])

    def _on_own(self, operation: Callable[[LeaseChannel, Sequence[int]], Sequence[int]]) -> None:
        """Run one operation on the channel with the token of this lease.

        Raises:
            LeaseLost: The lease is over.
        """
        self._check_held()
        try:
            lost = self._lessor._on_leases(lambda channel: operation(channel, (self._token,)))
        except QueueClosed as error:
            self._ended(_LOST)
            raise self._at(LeaseLost("its handle is closed, which gave the message back: let it go")) from error
        except QueueGone:
            self._ended(_LOST)
            raise
        if lost:
            if not self._end:  # otherwise another thread has just settled it
                self._ended(_LOST)
            self._check_held()

    def _check_held(self) -> None:
        if self._end == _LOST:
            raise self._at(LeaseLost())
        if self._end:
            raise self._at(LeaseLost(f"this message was already {self._end}: settle each lease once"))
        if self._lessor._session is not self._session:
            raise self._at(LeaseLost("the parent process holds this lease: a forked child inherits none"))

    def _ended(self, end: str) -> None:
        self._end = end
        self._session.renewed.discard(self._token)

    def _at(self, error: LeaseLost) -> LeaseLost:
        return error.at(self._lessor.name, self._lessor.backend)

    def __repr__(self) -> str:
        return f"<ipcq.Lease on {self.name!r}, {self._end or 'held'}, delivery {self.deliveries}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a lease belongs to the process that holds it: settle it here, or send its item")


def acknowledge(lessor: Lessor, leases: Sequence[Lease[Any]]) -> None:
    """Acknowledge the leases of one handle in one step.

    Raises:
        LeaseLost: Some are over; the others are acknowledged.
    """
    held = [each for each in dict.fromkeys(leases) if not each._end and each._session is lessor._session]
    try:
        lost = lessor._on_leases(lambda channel: channel.settle([each._token for each in held], Verdict.ACK, 0.0, b""))
    except (QueueClosed, QueueGone):
        for each in held:
            each._ended(_LOST)
        raise
    for each in held:
        each._ended(_LOST if each._token in lost else _ENDS[Verdict.ACK])
    over = len(leases) - len(held) + len(lost)
    if over:
        raise lost_of_batch(over, len(leases))


def lost_of_batch(over: int, count: int) -> LeaseLost:
    """Make the error of a batch that was acknowledged, except leases that were over."""
    return LeaseLost(f"{over} of {count} leases are over, the others are acknowledged: let them go")


def duration(value: float, argument: str) -> float:
    """Check a duration that may be 0."""
    return min(seconds_of(value, argument), LONGEST)


def hold_of(value: float, argument: str) -> float:
    """Check the length of a hold."""
    if isinstance(value, int | float) and not value > 0:
        raise InvalidArgument(f"{argument} must be more than 0 seconds, not {value!r}")
    return duration(value, argument)


def reason_of(error: BaseException) -> bytes:
    """Describe an exception, as the reason of a failure."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # its __str__ may raise anything
        text = type(error).__name__
    return _encoded(text)


def _encoded(reason: str) -> bytes:
    if not isinstance(reason, str):
        raise InvalidArgument(f"reason must be a str, not {reason!r}")
    data = redacted(reason).encode(errors="replace")[:REASON_SIZE]
    return data.decode(errors="ignore").encode()  # without half a character at the end


def described(counts: Counts) -> str:
    """Describe how many messages are in which state."""
    return f"{counts.ready} ready, {counts.leased} leased, {counts.delayed} delayed, {counts.dead} dead"
