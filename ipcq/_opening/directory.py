"""The directory of existing queues: look up a name, remove it, list all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Final

from ipcq._opening.address import parse_place
from ipcq._opening.choose import ambiguous
from ipcq._opening.options import DEFAULTS
from ipcq._opening.rendezvous import AUTO, backends, backends_with, located, name_lock_for
from ipcq._opening.rivals import retry_during_race
from ipcq._process.deadline import NEVER
from ipcq._process.imports import shortage_reported
from ipcq._process.signals import reraise_from_handler
from ipcq.backend import Backend
from ipcq.errors import MessageQueueError, QueueNotFound

#: Seconds that `unlink` waits for the name lock: the default of `open`.
OPEN_TIMEOUT: Final[float] = DEFAULTS["open_timeout"]


def exists(name: str, backend: str = AUTO) -> bool:
    """Return whether a queue of this name exists.

    Args:
        name: A name or a URL.
        backend: Name of the backend to search; ``"auto"`` searches all.

    Raises:
        BackendUnknown: No installed distribution provides the backend.
        BackendUnavailable: The backend's plugin cannot be loaded.
        InvalidName: The name is invalid.
    """
    name, backend = parse_place(name, backend)
    return bool(backends_with(name, backend))


def unlink(name: str, backend: str = AUTO) -> None:
    """Remove a queue's name; calls on open handles raise `QueueGone`.

    Args:
        name: A name or a URL.
        backend: Name of the backend; ``"auto"`` finds it.

    Raises:
        QueueNotFound: No such queue exists.
        QueueMismatch: The name exists on several backends.
        PermissionDenied: This user lacks the permission.
        TimedOutError: Other processes held the name lock for 10 seconds.
        BackendUnknown: No installed distribution provides the backend.
        BackendUnavailable: The backend's plugin cannot be loaded.
        InvalidName: The name is invalid.
    """
    name, backend = parse_place(name, backend)
    remove(name, backend, lambda: True)


def remove(name: str, backend: str, condition: Callable[[], bool]) -> None:
    """Take the name lock, and remove the name as `unlink` does if `condition` then returns True."""
    searched = backends(backend)
    with located(name, backend), name_lock_for(name, searched, monotonic() + OPEN_TIMEOUT):
        if not condition():
            return
        # The unlink of a named backend raises if there is no such queue.
        found = searched[0] if backend != AUTO else retry_during_race(partial(_backend_with, name), NEVER)
        with located(name, found.name):
            try:
                found.unlink(name)
            except QueueNotFound as error:
                raise _not_found() from error


def _not_found() -> QueueNotFound:
    return QueueNotFound("no such queue: list the existing queues with ipcq.queues()")


def _backend_with(name: str) -> Backend:
    found = backends_with(name, AUTO)
    if not found:
        raise _not_found()
    if len(found) > 1:
        raise ambiguous([each.name for each in found])
    return found[0]


@dataclass(frozen=True)
class QueueInfo:
    """An existing queue."""

    name: str
    """The queue's name."""
    backend: str
    """Name of the queue's backend."""


class Listing(list[QueueInfo]):
    """The existing queues, sorted by name.

    Attributes:
        unlisted: For each backend that cannot list its queues now, the reason and the way out.
    """

    unlisted: Mapping[str, str]


def queues() -> Listing:
    """List the existing queues on all backends."""
    listing = Listing()
    listing.unlisted = unlisted = {}
    for each in backends(AUTO):
        try:
            with shortage_reported():
                listing.extend(QueueInfo(name, each.name) for name in each.names())
        except MessageQueueError as error:
            unlisted[each.name] = error.detail or str(error)
        except Exception as error:  # a faulty plugin must not hide the queues of other backends
            reraise_from_handler(error)
            unlisted[each.name] = f"it cannot list its queues: {type(error).__name__}: {error}"
    listing.sort(key=lambda info: (info.name, info.backend))
    return listing
