"""The descriptor of one mechanism."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from ipcq.backend._availability import Availability
from ipcq.backend._capabilities import Capabilities
from ipcq.backend._channel import Channel
from ipcq.backend._finding import Finding
from ipcq.backend._place import Place
from ipcq.backend._request import Request
from ipcq.errors import InvalidArgument, Unsupported


@runtime_checkable
class Backend(Protocol):
    """Describes one mechanism. Subclass it: all methods that are not abstract have defaults."""

    name: str
    """Name of the backend and of its entry point; on a descriptor that `at` has returned, the text of its place."""
    capabilities: Capabilities
    """The most that its queues can do."""
    rank: int | None = None
    """Rank in the choice of `auto`, highest first; None: `auto` never creates queues on this backend."""
    options: Mapping[str, type] = {}
    """Name and type of each backend-specific option that `open` passes on; `Secret` for a password."""
    schemes: tuple[str, ...] = ()
    """Schemes of URLs that lead to this backend, beside its name."""
    platforms: tuple[str, ...] | None = None
    """Prefixes of `sys.platform` where the mechanism exists; None: everywhere. Elsewhere `probe` is not called."""

    @abstractmethod
    def create(self, name: str, request: Request) -> Channel:
        """Create the queue and return a channel to it (clauses 1, 6, 7).

        Raises:
            QueueExists: The name is taken.
            LimitExceeded: A limit of the system is too low.
            NoSpace: Memory or the file system is full.
            Unsupported: The backend cannot honour the request.
            PermissionDenied: This user lacks the permission.
        """
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def attach(self, name: str, request: Request) -> Channel:
        """Return a channel to an existing queue (clauses 2, 7).

        Raises:
            QueueNotFound: No queue has this name.
            PermissionDenied: This user lacks the permission, or another user owns the queue.
        """
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Return whether the name is taken on this backend (clause 3)."""
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def unlink(self, name: str) -> None:
        """Remove the queue (clause 4).

        Raises:
            QueueNotFound: No queue has this name.
            PermissionDenied: This user lacks the permission.
        """
        raise NotImplementedError  # pragma: no cover - abstract

    def at(self, place: Place) -> "Backend":
        """Return a descriptor of this backend that is bound to a place (clause 35).

        Raises:
            InvalidArgument: The backend has no such place; the text gives the way out.
        """
        raise InvalidArgument(
            f"backend {self.name!r} has no places, so a URL of it has neither host nor directory: write it as "
            f"{self.name}:///name?option=value"
        )

    def with_options(self, options: Mapping[str, Any]) -> "Backend":
        """Return the descriptor to use for an `open` with these options; its `exists` may depend on them (clause 36).

        The handle keeps it, so that its `unlink` may depend on them as well.
        """
        return self

    def unlink_incarnation(self, name: str, incarnation: str) -> None:
        """Remove the queue if the name leads to this incarnation, in one step (clause 41).

        Raises:
            QueueNotFound: No queue has this name, or another one has it.
            PermissionDenied: This user lacks the permission.
        """
        raise Unsupported

    def create_nameless(self, request: Request) -> Channel:
        """Create a queue without a name and return a channel to it (clause 22). Raises as `create` does."""
        raise Unsupported

    def adopt(self, descriptors: Sequence[int], request: Request) -> Channel:
        """Return a channel to the nameless queue that has these descriptors (clause 22).

        The channel owns them from now on. If this fails, they are closed.
        """
        raise Unsupported

    def probe(self) -> Availability:
        """Return whether the backend can be used here (clause 19)."""
        return Availability.yes()

    def names(self) -> list[str]:
        """Return the names of the queues that exist.

        Raises:
            Unsupported: Queues cannot be listed here; the text gives the way out.
        """
        raise Unsupported("queues of this backend cannot be listed")

    def findings(self) -> list[Finding]:
        """Return what a user of this backend should know about this machine."""
        return []
