"""The directory of existing queues: look up a name, remove it, list all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Final

from ipcq._opening.address import AUTO, Where, parse_bare, parse_where
from ipcq._opening.choose import ambiguous
from ipcq._opening.options import DEFAULTS, check_bool
from ipcq._opening.rendezvous import backends, backends_with, located, name_lock_for
from ipcq._opening.rivals import retry_during_race
from ipcq._process.deadline import NEVER
from ipcq._process.imports import shortage_reported
from ipcq._process.operation import Asking
from ipcq._process.signals import reraise_from_handler
from ipcq._redaction import redacted
from ipcq.backend import Backend
from ipcq.errors import BackendUnavailable, MessageQueueError, QueueNotFound

#: Seconds that `unlink` waits for the name lock: the default of `open`.
OPEN_TIMEOUT: Final[float] = DEFAULTS["open_timeout"]


def exists(name: str, backend: str = AUTO) -> bool:
    """Return whether a queue of this name exists.

    Args:
        name: A name or a URL.
        backend: Name of the backend, or URL of the place, to search; ``"auto"`` searches all backends.

    Raises:
        BackendUnknown: No installed distribution provides the backend.
        BackendUnavailable: The backend's plugin cannot be loaded, or lacks a library.
        InvalidName: The name is invalid.
    """
    name, where = parse_bare(name, backend)
    return bool(backends_with(name, where))


def unlink(name: str, backend: str = AUTO, *, missing_ok: bool = False) -> None:
    """Remove a queue's name; calls on open handles raise `QueueGone`.

    Args:
        name: A name or a URL.
        backend: Name of the backend, or URL of the place; ``"auto"`` finds the backend.
        missing_ok: Do nothing if no such queue exists, as `pathlib.Path.unlink` does.

    Raises:
        QueueNotFound: No such queue exists, and `missing_ok` is False.
        QueueMismatch: The name exists on several backends.
        PermissionDenied: This user lacks the permission.
        TimedOutError: Other processes held the name lock for 10 seconds.
        BackendUnknown: No installed distribution provides the backend.
        BackendUnavailable: The backend's plugin cannot be loaded, or lacks a library.
        InvalidName: The name is invalid.
        InvalidArgument: `missing_ok` is not a bool.
    """
    name, where = parse_bare(name, backend)
    check_bool("missing_ok", missing_ok)
    try:
        remove(name, where, lambda: True)
    except QueueNotFound:
        if not missing_ok:
            raise


def remove(name: str, where: Where | Backend, condition: Callable[[], bool], incarnation: str = "") -> None:
    """Take the name lock, and remove the name as `unlink` does if `condition` then returns True.

    With an incarnation, the condition does not count: remove the name if it leads to that queue.
    """
    searched = [where] if isinstance(where, Backend) else backends(where)
    deadline = monotonic() + OPEN_TIMEOUT

    def remove_locked() -> None:
        with name_lock_for(name, searched, deadline):
            if not (incarnation or condition()):
                return
            # The unlink of a named backend raises if there is no such queue.
            found = searched[0] if where != AUTO else retry_during_race(partial(_backend_with, name), NEVER)
            with located(name, found.name):
                try:
                    if incarnation:
                        found.unlink_incarnation(name, incarnation)
                    else:
                        found.unlink(name)
                except QueueNotFound as error:
                    raise _not_found() from error

    with located(name, searched[0].name if where != AUTO else AUTO):
        Asking(deadline).run(remove_locked)


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
    """Name of the queue's backend, or URL of its place; `open` and `unlink` take it as `backend`."""


class Listing(list[QueueInfo]):
    """The existing queues, sorted by name.

    Attributes:
        unlisted: For each backend that cannot list its queues now, the reason and the way out.
    """

    unlisted: Mapping[str, str]


def queues(backend: str = AUTO) -> Listing:
    """List the existing queues.

    Args:
        backend: Name of the backend, or URL of the place; ``"auto"`` lists the queues on all backends, each in its
            default place.

    Raises:
        BackendUnknown: No installed distribution provides the backend.
        BackendUnavailable: The named backend cannot be loaded, or every backend is unusable.
        Unsupported: The queues of the named backend cannot be listed.
        InvalidArgument: `backend` is not a str, or not the URL of a place.
        MessageQueueError: The queues of the named backend cannot be listed now.
    """
    where = parse_where(backend)
    listing = Listing()
    listing.unlisted = unlisted = {}
    for each in backends(where):
        try:
            with shortage_reported():
                listing.extend(QueueInfo(name, each.name) for name in each.names())
        except MessageQueueError as error:
            if where != AUTO:
                error.backend = error.backend or each.name
                raise
            unlisted[each.name] = error.detail or str(error)
        except Exception as error:  # a faulty plugin must not hide the queues of other backends
            reraise_from_handler(error)
            reason = f"it cannot list its queues: {type(error).__name__}: {error}"
            if where != AUTO:
                raise BackendUnavailable(reason, reasons={each.name: reason}, backend=each.name) from error
            unlisted[each.name] = redacted(reason)
    listing.sort(key=lambda info: (info.name, info.backend))
    return listing
