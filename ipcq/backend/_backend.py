"""The descriptor of one mechanism."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from ipcq.backend._availability import Availability
from ipcq.backend._capabilities import Capabilities
from ipcq.backend._channel import Channel
from ipcq.backend._finding import Finding
from ipcq.backend._request import Request
from ipcq.errors import Unsupported


@runtime_checkable
class Backend(Protocol):
    """Describes one mechanism. Subclass it: what is not abstract has a default."""

    name: str
    """What users call it; the entry point's name."""
    capabilities: Capabilities
    """What its queues can do at best."""
    rank: int | None = None
    """Place in the order in which `auto` creates, highest first; None: `auto` never creates on it."""
    options: Mapping[str, type] = {}
    """Name and type of each option of its own that `open` passes on."""
    platforms: tuple[str, ...] | None = None
    """Beginnings of `sys.platform` where the mechanism exists; None: everywhere. Elsewhere `probe` is not asked."""

    @abstractmethod
    def create(self, name: str, request: Request) -> Channel:
        """Create the queue and return a channel to it (clauses 1, 6, 7).

        Raises:
            QueueExists: The name is taken.
            LimitExceeded: A limit of the system stands against it.
            NoSpace: The memory is full.
            Unsupported: The request cannot be honoured.
            PermissionDenied: This user may not.
        """
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def attach(self, name: str, request: Request) -> Channel:
        """Return a channel to the queue that exists (clauses 2, 7).

        Raises:
            QueueNotFound: There is none.
            PermissionDenied: This user may not, or the queue belongs to somebody else.
        """
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Tell whether the name is taken on this backend (clause 3)."""
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def unlink(self, name: str) -> None:
        """Remove the queue (clause 4).

        Raises:
            QueueNotFound: There is none.
            PermissionDenied: This user may not.
        """
        raise NotImplementedError  # pragma: no cover - abstract

    def create_nameless(self, request: Request) -> Channel:
        """Create a queue that has no name and return a channel to it (clause 22); exceptions are those of `create`."""
        raise Unsupported

    def adopt(self, descriptors: Sequence[int], request: Request) -> Channel:
        """Return a channel to the nameless queue whose descriptors these are (clause 22).

        They are the channel's from now on, and closed if this fails.
        """
        raise Unsupported

    def probe(self) -> Availability:
        """Tell whether the backend can be used here (clause 19)."""
        return Availability.yes()

    def names(self) -> list[str]:
        """List the queues that exist.

        Raises:
            Unsupported: They cannot be listed here; the text says what would change that.
        """
        raise Unsupported("queues of this backend cannot be listed")

    def findings(self) -> list[Finding]:
        """List what a user of this backend should know about this machine."""
        return []
