"""Who takes part: what a contestant has to be able to do."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from ipcq._bench.payloads import Payloads
from ipcq._bench.workload import Workload

#: Roles in a comparison: the plot tells them apart, and only a peer can be the best peer.
OURS, CONTROL, PEER, FLOOR = "ours", "control", "peer", "floor"


class Declined(Exception):
    """A contestant cannot do a workload here, by its nature or by a limit of the system; the text says why."""


class Failed(Exception):
    """A contestant died, stalled, or did not deliver what was put."""


@dataclass(frozen=True)
class Sample:
    """What one contestant did once."""

    value: float
    """In the unit of the workload."""
    messages: int = 0
    cpu: float | None = None
    """Processor time of all processes for each message, in microseconds."""
    tail: float | None = None
    """The 99th percentile, where the value is a median."""


class Contestant(Protocol):
    """Whatever can be measured."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def version(self) -> str: ...

    def sample(self, workload: Workload, seconds: float) -> Sample:
        """Do it once.

        Raises:
            Declined: It cannot do this.
            Failed: It tried.
        """
        ...


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class WriteEnd:
    """How a worker puts into a queue."""

    put: Callable[[Any], object]
    put_many: Callable[[list[Any]], object] | None = None
    """None: one by one."""
    finish: Callable[[], object] = nothing
    """Returns when all that was put is in the queue, and gives back what belongs to this end."""


@dataclass(frozen=True)
class ReadEnd:
    """How a worker gets out of a queue."""

    get: Callable[[], Any]
    get_many: Callable[[int], list[Any]] | None = None
    """Takes at least one message and at most so many; None: one by one."""
    finish: Callable[[], object] = nothing
    """Gives back what belongs to this end."""


class Plan(Protocol):
    """A queue between processes, as a worker sees it. It travels to the workers, so it has to be picklable."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def version(self) -> str: ...

    @property
    def awaited(self) -> bool:
        """Whether what its ends return is to be awaited; such a plan can do round trips alone."""
        ...

    def queues(self, workload: Workload) -> AbstractContextManager[Sequence[Any]]:
        """Make the queues that a workload needs, and remove them at the end; what it gives travels to the workers.

        Raises:
            Declined: It cannot do this.
        """
        ...

    def writer(self, address: Any, workload: Workload) -> WriteEnd:
        """Return the end to put into, in the worker."""
        ...

    def reader(self, address: Any, workload: Workload) -> ReadEnd:
        """Return the end to get from, in the worker."""
        ...

    def payloads(self, workload: Workload, producer: int) -> Payloads:
        """Return the messages to move."""
        ...
