"""The workloads, each with the unit of its figure."""

from dataclasses import dataclass
from enum import Enum

#: Bytes of a small message.
SMALL = 64

KIB = 1 << 10
MIB = 1 << 20

#: Every backend supports messages of this size by default, in bytes.
USUAL = 8 * KIB

#: Idle seconds before each message whose wake-up is measured.
PAUSE = 0.005


class Kind(Enum):
    """The pattern of a workload."""

    STREAM = "stream"
    """Producers put and consumers get as fast as they can."""
    TRIP = "trip"
    """One message goes back and forth through two queues."""
    WAKE = "wake"
    """Each message arrives after the consumer has been blocked for a while."""
    IDLE = "idle"
    """The consumer blocks, and its CPU time is measured."""


@dataclass(frozen=True)
class Workload:
    """One workload."""

    name: str
    """The name on the command line."""
    title: str
    kind: Kind = Kind.STREAM
    size: int = SMALL
    """Bytes of a message."""
    producers: int = 1
    consumers: int = 1
    batch: int = 0
    """Messages to put and get at a time; 0: one by one."""
    objects: bool = False
    """Small dicts instead of bytes."""
    typed: bool = False
    """Use a typed queue if supported; other contestants move dicts."""
    lasts: float | None = None
    """Fixed duration of a sample in seconds, if any."""

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
        """Number of queues."""
        return 2 if self.kind is Kind.TRIP else 1

    @property
    def room(self) -> int:
        """Capacity of a queue in bytes, if configurable: the same for all contestants."""
        return MIB if self.size <= USUAL else 4 * MIB

    @property
    def depth(self) -> int:
        """Capacity of a queue in messages, for a contestant whose capacity is in messages."""
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
