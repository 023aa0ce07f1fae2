"""What is measured: the workloads, each with the unit of its figure."""

from dataclasses import dataclass
from enum import Enum

#: Bytes of a small message.
SMALL = 64

KIB = 1 << 10
MIB = 1 << 20

#: Up to so many bytes every backend takes a message without being asked.
USUAL = 8 * KIB

#: Seconds without a message before each one whose wake-up is measured.
PAUSE = 0.005


class Kind(Enum):
    """What the processes do."""

    STREAM = "stream"
    """Producers put and consumers get as fast as they can."""
    TRIP = "trip"
    """One message goes there and back, by two queues."""
    WAKE = "wake"
    """Each message comes when the consumer has been waiting for a while."""
    IDLE = "idle"
    """The consumer waits, and its processor time is counted."""


@dataclass(frozen=True)
class Workload:
    """One thing to do."""

    name: str
    """What the command line calls it."""
    title: str
    kind: Kind = Kind.STREAM
    size: int = SMALL
    """Bytes of a message."""
    producers: int = 1
    consumers: int = 1
    batch: int = 0
    """How many messages are put and taken at a time; 0: one by one."""
    objects: bool = False
    """Small dicts instead of bytes."""
    typed: bool = False
    """The queue has a type, where it can have one; the others move dicts."""
    lasts: float | None = None
    """Seconds that a sample lasts, where that is not a matter of choice."""

    @property
    def unit(self) -> str:
        """Return the unit of its figures."""
        return {Kind.STREAM: "messages/s", Kind.IDLE: "ms"}.get(self.kind, "µs")

    @property
    def rising(self) -> bool:
        """Whether more is better."""
        return self.kind is Kind.STREAM

    @property
    def queues(self) -> int:
        """How many queues it needs."""
        return 2 if self.kind is Kind.TRIP else 1

    @property
    def room(self) -> int:
        """How many bytes a queue holds where that can be chosen, so that each contestant has as much."""
        return MIB if self.size <= USUAL else 4 * MIB

    @property
    def depth(self) -> int:
        """How many messages a queue holds whose bound can be given in messages alone."""
        return max(4, min(1000, self.room // self.size))


WORKLOADS = {
    each.name: each
    for each in (
        Workload("64B", "64 B"),
        Workload("1KiB", "1 KiB", size=KIB),
        Workload("64KiB", "64 KiB", size=64 * KIB),
        Workload("1MiB", "1 MiB", size=MIB),
        Workload("batch", "64 B in batches of 100", batch=100),
        Workload("dict", "small dict", objects=True),
        Workload("typed", "small dict, typed", objects=True, typed=True),
        Workload("4P1C", "64 B, 4 producers", producers=4),
        Workload("2P2C", "64 B, 2 producers, 2 consumers", producers=2, consumers=2),
        Workload("ping-pong", "ping-pong, 64 B, round trip", Kind.TRIP),
        Workload("wake-up", "wake-up after 5 ms idle", Kind.WAKE),
        Workload("idle", "CPU while blocked 2 s in get", Kind.IDLE, lasts=2.0),
    )
}
