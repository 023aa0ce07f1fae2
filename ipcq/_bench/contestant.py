"""The interface of contestants."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from ipcq._bench.payloads import Payloads
from ipcq._bench.workload import Workload

#: Kinds of contestants. The plot distinguishes them, and only a peer can be the best peer.
OURS, CONTROL, PEER, FLOOR = "ours", "control", "peer", "floor"


class Declined(Exception):
    """A contestant cannot run a workload, by design or because of a system limit. The text gives the reason."""


class Failed(Exception):
    """A contestant died, stalled, or did not deliver every message."""


@dataclass(frozen=True)
class Sample:
    """The result of one run."""

    value: float
    """In the unit of the workload."""
    messages: int = 0
    cpu: float | None = None
    """CPU time of all processes per message, in microseconds."""
    tail: float | None = None
    """The 99th percentile, if the value is a median."""


class Contestant(Protocol):
    """An implementation to measure."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def version(self) -> str: ...

    def sample(self, workload: Workload, seconds: float) -> Sample:
        """Run a workload once.

        Raises:
            Declined: The contestant does not support the workload.
            Failed: The run failed.
        """
        ...


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class WriteEnd:
    """The end of a queue that a producer uses."""

    put: Callable[[Any], object]
    put_many: Callable[[list[Any]], object] | None = None
    """None: one by one."""
    finish: Callable[[], object] = nothing
    """Returns when all messages are in the queue, and releases the resources of this end."""


@dataclass(frozen=True)
class ReadEnd:
    """The end of a queue that a consumer uses."""

    get: Callable[[], Any]
    get_many: Callable[[int], list[Any]] | None = None
    """Takes at least one message and at most the given number; None: one by one."""
    finish: Callable[[], object] = nothing
    """Releases the resources of this end."""


class Plan(Protocol):
    """A queue between processes, as seen by a worker. It is sent to the workers, so it must be picklable."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def version(self) -> str: ...

    @property
    def awaited(self) -> bool:
        """Whether results of its ends must be awaited. Such a plan supports only round trips."""
        ...

    def queues(self, workload: Workload) -> AbstractContextManager[Sequence[Any]]:
        """Create the queues of a workload, and remove them on exit. Their addresses are sent to the workers.

        Raises:
            Declined: The contestant does not support the workload.
        """
        ...

    def writer(self, address: Any, workload: Workload) -> WriteEnd:
        """Open the producer's end, in the worker."""
        ...

    def reader(self, address: Any, workload: Workload) -> ReadEnd:
        """Open the consumer's end, in the worker."""
        ...

    def payloads(self, workload: Workload, producer: int) -> Payloads:
        """Return the messages to move."""
        ...
