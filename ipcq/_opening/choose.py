"""The choice of a backend for `auto`: one pure function, tested with a table.

`auto` must never split one name into two queues. So it attaches to an existing queue on any backend, and uses the rank
only if none exists. The choice must be the same in every process, and a queue must not be weaker than requested. So it
depends on the request and on the backends that are installed and permitted, but never on how full the machine is.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from ipcq._redaction import shown
from ipcq.backend import Availability, Capabilities, Lifetime, Persistence, Request, Scope
from ipcq.errors import BackendUnavailable, QueueMismatch

#: The required minimum of a capability: True, a member of its enumeration, or a number.
Minimum: TypeAlias = bool | int | Scope | Persistence

CANNOT_CONTINUE: Final = "its handles cannot continue after an unlink (after_unlink='continue')"


class Candidate(NamedTuple):
    """The facts about one backend that the choice depends on."""

    name: str
    capabilities: Capabilities = Capabilities()
    rank: int | None = None
    options: Collection[str] = ()
    availability: Availability = Availability.yes()
    exists: bool = False


@dataclass(frozen=True)
class Attach:
    """Attach to the queue that exists on this backend."""

    name: str


@dataclass(frozen=True)
class Create:
    """No queue exists: create it on the first of these backends that can fulfil the request."""

    order: tuple[str, ...]
    passed_over: Mapping[str, str]
    """For each other backend, the reason why it is not in `order`."""
    ranked: tuple[str, ...] = ()
    """All usable backends on which `auto` creates, the best first."""
    weaker: bool = False
    """The request is persistent, but every backend in `order` keeps a queue only while some process has it open."""

    def better(self, name: str) -> Sequence[str]:
        """Return the backends that rank above this one."""
        return self.ranked[: self.ranked.index(name)] if name in self.ranked else self.ranked


def choose(
    candidates: Sequence[Candidate],
    request: Request,
    require: Mapping[str, Minimum] | None = None,
    preferred: str | None = None,
) -> Attach | Create:
    """Choose a backend for ``backend="auto"``.

    Args:
        candidates: Every loaded backend.
        request: The request to fulfil.
        require: The minimum of each required capability.
        preferred: The only backend on which to create; an existing queue is attached to on any backend.

    Raises:
        QueueMismatch: The name exists on more than one backend.
        BackendUnavailable: The name exists on a backend that is unusable here.
    """
    found = [candidate for candidate in candidates if candidate.exists]
    if len(found) > 1:
        raise ambiguous([candidate.name for candidate in found])
    if found:
        (found_on,) = found
        if not found_on.availability.usable:
            raise BackendUnavailable(
                f"the queue exists on this backend, which is unusable here: {found_on.availability.reason}",
                reasons={found_on.name: found_on.availability.reason},
                backend=found_on.name,
            )
        return Attach(found_on.name)
    best_first = sorted(candidates, key=lambda candidate: (-(candidate.rank or 0), candidate.name))
    excluded = {candidate.name: _excluded_from_auto(candidate, preferred) for candidate in best_first}
    # A backend that cannot fulfil the request still counts: a weaker backend must not replace it.
    usable = [each for each in best_first if each.availability.usable]
    any_persistent = any(not (_is_transient(each.capabilities) or excluded[each.name]) for each in usable)
    persistent = request.lifetime == "persistent"
    passed_over = {}
    order = []
    for candidate in best_first:
        reason = excluded[candidate.name] or shortcoming(candidate, request, require)
        if not reason and persistent and any_persistent and _is_transient(candidate.capabilities):
            reason = _transience(candidate)
        if reason:
            passed_over[candidate.name] = reason
        else:
            order.append(candidate.name)
    unranked = excluded if preferred is None else {each.name: _excluded_from_auto(each, None) for each in usable}
    ranked = [each.name for each in usable if not unranked[each.name]]
    return Create(tuple(order), passed_over, tuple(ranked), weaker=persistent and not any_persistent and bool(order))


def ambiguous(names: Sequence[str]) -> QueueMismatch:
    """Make the error for a name that exists on several backends."""
    listed = " and ".join(repr(name) for name in sorted(names))
    return QueueMismatch(f"it exists on {listed}: choose one with backend=…, or unlink the other")


def _excluded_from_auto(candidate: Candidate, preferred: str | None) -> str:
    if preferred is not None and candidate.name != preferred:
        return f"IPCQ_BACKEND names {shown(preferred)}"
    if candidate.capabilities.scope < Scope.HOST:
        return f"its queues are private to one process: pass backend={candidate.name!r} if that is enough"
    if candidate.rank is None and preferred is None:
        return f"it has no rank, so a queue is created on it only with backend={candidate.name!r}"
    return ""


def _is_transient(capabilities: Capabilities) -> bool:
    return capabilities.persistence < Persistence.KERNEL


def _transience(candidate: Candidate) -> str:
    advice = "lifetime='last-close'" if candidate.capabilities.last_close else f"backend={candidate.name!r}"
    return f"its queues live only as long as some process has them open: pass {advice} if that is enough"


def shortcoming(candidate: Candidate, request: Request, require: Mapping[str, Minimum] | None = None) -> str:
    """Return why a backend cannot fulfil a request; empty if nothing is known against it."""
    capabilities = candidate.capabilities
    if not candidate.availability.usable:
        return candidate.availability.reason
    if request.priorities and not capabilities.priorities:
        return "it has no priorities"
    if request.leases and not capabilities.leases:
        return "it has no leases"
    if request.lifetime == "last-close" and not capabilities.last_close:
        return "it cannot remove a queue with its last handle (lifetime='last-close')"
    if refused := _refused_access(capabilities, request):
        return refused
    if capabilities.max_message_size is not None and (request.max_message_size or 0) > capabilities.max_message_size:
        limit = capabilities.max_message_size
        return f"its messages have at most {limit} bytes, but {request.max_message_size} were requested"
    if require and (missing := missing_capability(require, capabilities, capabilities.max_message_size)):
        return missing
    for option in request.options:
        if option not in candidate.options:
            return f"it has no option {option!r}"
    return ""


def _refused_access(capabilities: Capabilities, request: Request) -> str:
    if request.mode & 0o077 and not capabilities.other_users:
        return f"its queues cannot be accessible to other users (mode={request.mode:#o})"
    if request.mode != 0o600 and not (capabilities.modes or capabilities.other_users):
        return f"its queues always have mode 0o600 (mode={request.mode:#o})"
    if request.after_unlink == "continue" and not capabilities.after_unlink:
        return CANNOT_CONTINUE
    return ""


def missing_capability(
    require: Mapping[str, Minimum],
    capabilities: Capabilities,
    max_message_size: int | None,
    lifetime: Lifetime = "persistent",
) -> str:
    """Describe the first required capability that a backend or queue lacks, with both values; empty if it lacks none.

    Args:
        require: The minimum of each required capability.
        capabilities: The capabilities of the backend or the queue.
        max_message_size: Its largest message, in bytes; None means no limit.
        lifetime: The lifetime of the queue.
    """
    facts = {ability: getattr(capabilities, ability) for ability in require}
    if "max_message_size" in require:
        facts["max_message_size"] = max_message_size
    if "persistence" in require and lifetime == "last-close":
        facts["persistence"] = min(capabilities.persistence, Persistence.HOLDERS)  # on any backend
    for ability, minimum in require.items():
        actual = facts[ability]
        if actual is None or actual >= minimum:
            continue
        if isinstance(minimum, bool):
            return f"it lacks the required capability {ability!r}"
        return f"its {ability} is {_value_text(actual)}, but at least {_value_text(minimum)} is required"
    return ""


def _value_text(value: int) -> str:
    return repr(value.name.lower()) if isinstance(value, Enum) else str(value)
