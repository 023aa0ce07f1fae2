"""The protocol of channels with leases, behind `capabilities.leases` (clauses 23 to 34)."""

from abc import abstractmethod
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple, Protocol, runtime_checkable

from ipcq.backend._channel import STEP, Channel
from ipcq.errors import MessageQueueError

#: Largest reason of a failure or a rejection, in bytes of UTF-8; its room is reserved when a message is put.
REASON_SIZE: Final = 64

#: The reason of a failure whose holder died.
HOLDER_DIED: Final = b"its holder died"
#: The reason of a failure whose hold ended.
HOLD_ENDED: Final = b"its hold ended"

#: Longest hold and delay, in seconds: almost a hundred years, and in nanoseconds less than 2**63.
LONGEST: Final = 3e9

#: The most leases of one `LeaseChannel.try_lease_many`, and so of consecutive serial numbers.
MOST_LEASES: Final = 1 << 16


class Verdict(IntEnum):
    """What becomes of a leased message."""

    ACK = 0
    """It is done, and leaves the queue."""
    RELEASE = 1
    """It becomes ready again, and its failures do not change."""
    FAIL = 2
    """It becomes ready again with one more failure, or a dead letter if that makes `max_deliveries`."""
    REJECT = 3
    """It becomes a dead letter at once."""


class Leased(NamedTuple):
    """A message on loan."""

    data: bytes
    """The message."""
    priority: int
    """Its priority."""
    deliveries: int
    """How many leases it has had, including this one."""
    token: int
    """What `settle` takes, at least 1. It identifies this delivery, on this channel only."""
    failures: int
    """How many of its leases have failed since it was put or requeued."""


class DeadRecord(NamedTuple):
    """A dead letter."""

    data: bytes
    """The message."""
    priority: int
    """Its priority."""
    deliveries: int
    """How many leases it has had."""
    reason: bytes
    """Why it is dead, in at most `REASON_SIZE` bytes of UTF-8."""
    number: int
    """Its place in the order of putting, at least 1."""


class Counts(NamedTuple):
    """Number of messages in each state; each message of the queue is in exactly one."""

    ready: int
    """Messages that a get or a lease can take now."""
    leased: int
    """Messages on loan."""
    delayed: int
    """Messages that become ready at a given time."""
    dead: int
    """Dead letters."""


class Held(NamedTuple):
    """A lease that is out."""

    pid: int | None
    """Process that holds it; None if unknown."""
    seconds: float
    """How long it has been held."""
    deliveries: int
    """How many leases the message has had, including this one."""


@runtime_checkable
class LeaseChannel(Channel, Protocol):
    """A channel of a queue with leases. Subclass it: all that is not abstract has a correct default.

    No method waits. Each raises `QueueGone` after the queue was unlinked, as clause 4 says.
    """

    @abstractmethod
    def try_put_delayed(self, data: bytes, priority: int, delay: float, /) -> bool:
        """Store one message as `try_put` does; it becomes ready `delay` seconds later (clause 26).

        Raises:
            QueueShutDown: The queue is shut down.
        """
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def try_lease(self, serial: int, hold: float | None, /) -> Leased | None:
        """Lease the next message if there is one now (clause 24).

        Args:
            serial: Identifies this delivery among those of this channel, from 1 to 2**63 - 1; the caller never uses it
                again.
            hold: Seconds until the lease ends; None: it ends with this channel only.

        Raises:
            QueueShutDown: The queue is shut down and has ended (clause 33).
        """
        raise NotImplementedError  # pragma: no cover - abstract

    def try_lease_many(self, serial: int, limit: int, hold: float | None, /) -> list[Leased]:
        """Lease up to `limit` messages that are ready now, in order; stop once they have `STEP` bytes.

        The messages get the serial numbers from `serial` on; `limit` is at most `MOST_LEASES`. Raises as `try_lease`.
        """
        batch: list[Leased] = []
        size = 0
        try:
            while len(batch) < limit and size < STEP:
                leased = self.try_lease(serial + len(batch), hold)
                if leased is None:
                    break
                batch.append(leased)
                size += len(leased.data)
        except MessageQueueError:
            if not batch:
                raise
        return batch

    @abstractmethod
    def recall(self, serial: int, count: int, /) -> None:
        """Release what this channel leased with `count` serial numbers from `serial` on, if it did (clause 25)."""
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
        """End leases of this channel in one step, and return the tokens that were lost (clauses 27, 28).

        Args:
            tokens: What `try_lease` returned.
            verdict: What becomes of the messages.
            delay: Seconds until a message becomes ready again; for `Verdict.RELEASE` and `Verdict.FAIL`.
            reason: For `Verdict.FAIL` and `Verdict.REJECT`, at most `REASON_SIZE` bytes of UTF-8.
        """
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def extend(self, tokens: Sequence[int], hold: float, /) -> list[int]:
        """Let leases of this channel end `hold` seconds from now, and return the tokens that were lost."""
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def find_lost(self, tokens: Sequence[int], /) -> list[int]:
        """Return those tokens whose lease is over."""
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def tend(self) -> float | None:
        """Return to the queue what is over, and update what waits and polls (clauses 29, 30).

        Returns:
            Seconds until the next call may have something to do, `LONGEST` if that is unknown; None if nothing is
            leased or delayed.
        """
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def counts(self) -> Counts:
        """Count the messages in each state."""
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def held(self, limit: int, /) -> list[Held]:
        """Return up to `limit` leases that are out, those of all processes, the longest held first."""
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def try_get_dead(self) -> DeadRecord | None:
        """Take the dead letter that was put first, or return None (clause 32)."""
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def peek_dead(self, after: int, limit: int, /) -> list[DeadRecord]:
        """Return up to `limit` dead letters with greater numbers than `after`, those put first, without taking them."""
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def requeue(self, limit: int, /) -> int:
        """Make up to `limit` dead letters ready, those that were put first, and return their number (clause 32).

        Raises:
            QueueShutDown: The queue is shut down.
        """
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def clear_dead(self) -> int:
        """Drop the dead letters and return their number."""
        raise NotImplementedError  # pragma: no cover - abstract
