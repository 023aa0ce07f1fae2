"""Which backend serves a name: one pure function, so that the rule can be read, and tested by a table.

`auto` must never split one name into two queues. So whatever exists is attached to, wherever it is; only where nothing
exists does rank decide.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ipcq._redaction import shown
from ipcq.backend import Availability, Capabilities, Request, Scope
from ipcq.errors import BackendUnavailable, QueueMismatch


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What the choice has to know of one backend."""

    name: str
    capabilities: Capabilities = field(default_factory=Capabilities)
    rank: int | None = None
    options: Collection[str] = ()
    availability: Availability = field(default_factory=Availability.yes)
    exists: bool = False


@dataclass(frozen=True)
class Attach:
    """Attach to the queue that exists on this backend."""

    name: str


@dataclass(frozen=True)
class Create:
    """Nothing exists: create on the first of these backends that manages to."""

    order: tuple[str, ...]
    passed_over: Mapping[str, str]
    """For each other backend, why it is not in the order."""


def choose(
    candidates: Sequence[Candidate], request: Request, require: Collection[str] = (), preferred: str | None = None
) -> Attach | Create:
    """Decide for ``backend="auto"``.

    Args:
        candidates: Every backend that could be loaded.
        request: What was asked for.
        require: Names of capabilities that must be there.
        preferred: Create on this one or not at all; what exists is attached to all the same.

    Raises:
        QueueMismatch: The name exists on more than one backend.
        BackendUnavailable: The name exists on a backend that cannot be used here.
    """
    found = [candidate for candidate in candidates if candidate.exists]
    if len(found) > 1:
        raise ambiguous([candidate.name for candidate in found])
    if found:
        (there,) = found
        if not there.availability.usable:
            raise BackendUnavailable(
                f"the queue exists there, but this backend cannot be used here: {there.availability.reason}",
                reasons={there.name: there.availability.reason},
                backend=there.name,
            )
        return Attach(there.name)
    passed_over = {}
    order = []
    for candidate in sorted(candidates, key=lambda candidate: (-(candidate.rank or 0), candidate.name)):
        reason = _not_by_auto(candidate, preferred) or shortcoming(candidate, request, require)
        if reason:
            passed_over[candidate.name] = reason
        else:
            order.append(candidate.name)
    return Create(tuple(order), passed_over)


def ambiguous(names: Sequence[str]) -> QueueMismatch:
    """Make the error for a name that exists on several backends."""
    listed = " and ".join(repr(name) for name in sorted(names))
    return QueueMismatch(f"it exists on {listed}: name one with backend=…, or unlink the one that is not meant")


def _not_by_auto(candidate: Candidate, preferred: str | None) -> str:
    if preferred is not None and candidate.name != preferred:
        return f"IPCQ_BACKEND names {shown(preferred)}"
    if candidate.capabilities.scope < Scope.HOST:
        return f"its queues do not reach other processes: name it with backend={candidate.name!r} if that is meant"
    if candidate.rank is None and preferred is None:
        return f"it has no rank, so only backend={candidate.name!r} creates on it"
    return ""


def shortcoming(candidate: Candidate, request: Request, require: Collection[str] = ()) -> str:
    """Say why a backend cannot honour a request; empty where it can, as far as is known before it is tried."""
    able = candidate.capabilities
    if not candidate.availability.usable:
        return candidate.availability.reason
    if request.priorities and not able.priorities:
        return "it has no priorities"
    if request.lifetime == "last-close" and not able.last_close:
        return "its queues cannot go with their last handle (lifetime='last-close')"
    if request.mode & 0o077 and not able.other_users:
        return f"its queues cannot be opened to other users (mode={request.mode:#o})"
    if able.max_message_size is not None and (request.max_message_size or 0) > able.max_message_size:
        return f"its messages have at most {able.max_message_size} bytes, asked for {request.max_message_size}"
    for ability in require:
        if not getattr(able, ability):
            return f"it lacks the required capability {ability!r}"
    for option in request.options:
        if option not in candidate.options:
            return f"it has no option {option!r}"
    return ""
