"""The rendezvous: find the queue of a name or create it, so that all processes that open the name get the same queue.

A process looks first, and takes the name lock only to create, so that attaching never waits. Under the lock it takes a
second look: of several racing processes, the first creates the queue and the others attach to it. After the creation it
looks again, for a queue of a process that does not take the same lock (rivals.py).

With ``fresh=True`` a process decides as if the name were free. Under the lock it removes what has the name, and creates
its own queue. If a process that does not take the lock creates one in between, it starts again.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any

from ipcq._opening import registry
from ipcq._opening.address import AUTO, PREFERENCE, Where, convert, unknown_option
from ipcq._opening.choose import CANNOT_CONTINUE, Attach, Candidate, Create, choose, missing_capability, shortcoming
from ipcq._opening.name_lock import name_lock
from ipcq._opening.open_request import OpenRequest
from ipcq._opening.options import COMPARED, DEFAULTS
from ipcq._opening.rivals import Withdrawals, retry_during_race
from ipcq._process.call_site import warn
from ipcq._process.deadline import pause
from ipcq._process.imports import shortage_behind
from ipcq._process.operation import Asking
from ipcq._process.signals import reraise_from_handler
from ipcq._redaction import Secret
from ipcq.backend import Availability, Backend, Channel, Request, Scope
from ipcq.errors import (
    BackendUnavailable,
    BackendUnknown,
    InvalidArgument,
    LimitExceeded,
    MessageQueueError,
    NoSpace,
    PersistenceWarning,
    QueueExists,
    QueueMismatch,
    QueueNotFound,
    TimedOutError,
    Unsupported,
)


def attach_or_create(open_request: OpenRequest, known: Iterable[str]) -> tuple[Backend, Channel, str]:
    """Attach to the queue or create it, and return its backend, a channel, and why it is not on a better backend.

    The reason is empty if there is no better backend, or if the queue already existed. `known` are the options of
    `open`, for the suggestion if an option is unknown.
    """
    candidates = {each.name: each for each in backends(open_request.backend)}
    if open_request.request.options:
        options = _checked_options(open_request.request.options, candidates.values(), known)
        open_request = replace(open_request, request=replace(open_request.request, options=options))
        candidates = {name: each.with_options(options) for name, each in candidates.items()}
    with Withdrawals(open_request.name, open_request.request) as withdrawals:
        if all(registry.is_local(each) for each in candidates.values()):
            # The deadline counts from the first wait, and has not been read yet.
            return _retry_until_deadline(open_request, candidates, withdrawals)
        asking = Asking(max(open_request.deadline, open_request.appear_deadline))
        return asking.run(_retry_until_deadline, open_request, candidates, withdrawals)


def _retry_until_deadline(
    open_request: OpenRequest, candidates: Mapping[str, Backend], withdrawals: Withdrawals
) -> tuple[Backend, Channel, str]:
    since = monotonic()
    reason = ""
    warned = False
    while True:
        decision: Attach | Create | None = _decide_unlocked(open_request, candidates)
        if isinstance(decision, Create):
            if open_request.create:
                # Not under the lock, because the program can replace the function that shows warnings.
                warned = warned or _warn_if_weaker(open_request, decision)
                found = _create_locked(open_request, candidates, withdrawals, decision, warned=warned)
                if isinstance(found, tuple):
                    return found
                decision = found
            elif monotonic() >= open_request.appear_deadline:
                raise QueueNotFound
            else:
                pause(since, open_request.appear_deadline)
                continue
        if isinstance(decision, Attach):
            backend = candidates[decision.name]
            if open_request.exclusive:
                raise QueueExists(backend=backend.name)
            try:
                with located(open_request.name, backend.name):
                    channel = backend.attach(open_request.name, open_request.request)
                return backend, withdrawals.hand_over(backend, channel, open_request.deadline), ""
            except QueueNotFound as error:
                reason = error.detail  # unlinked since the look, unless the backend has another reason: look again
        if monotonic() >= open_request.deadline:
            raise TimedOutError(reason or "other processes created and unlinked it again and again: try again")
        pause(since, open_request.deadline)


def _create_locked(
    open_request: OpenRequest,
    candidates: Mapping[str, Backend],
    withdrawals: Withdrawals,
    decided: Create,
    *,
    warned: bool,
) -> tuple[Backend, Channel, str] | Attach | None:
    """Create the queue under the name lock; or return where it exists now, or None if the caller must look again."""
    with name_lock_for(open_request.name, candidates.values(), open_request.deadline):
        decision = retry_during_race(partial(_decide_again, open_request, candidates, decided), open_request.deadline)
        if isinstance(decision, Attach):
            return decision
        if decision.weaker and not warned:
            return None  # a better backend has become unusable meanwhile, and the warning must come first
        if open_request.fresh and decision.order:
            _remove_existing(open_request.name, candidates.values())
        created = _create(open_request, candidates, decision)
        if created is not None and withdrawals.withdraw_if_rival(
            *created[:2], partial(_is_elsewhere, open_request, candidates, created[0])
        ):
            created = None
    if created is not None:
        withdrawals.hand_over(*created[:2], open_request.deadline)
    return created


def _remove_existing(name: str, searched: Iterable[Backend]) -> None:
    for each in _search(name, searched)[0]:
        with located(name, each.name), suppress(QueueNotFound):
            each.unlink(name)


def _decide_unlocked(open_request: OpenRequest, candidates: Mapping[str, Backend]) -> Attach | Create:
    """Look without the lock; if the name seems to exist on two backends, look again under the lock.

    The backends are searched one after the other. So if a queue is unlinked and created on another backend during the
    search, both may be found.
    """
    try:
        return _decide(open_request, candidates)
    except QueueMismatch:
        with name_lock_for(open_request.name, candidates.values(), open_request.deadline):
            return retry_during_race(partial(_decide, open_request, candidates), open_request.deadline)


def _is_elsewhere(open_request: OpenRequest, candidates: Mapping[str, Backend], here: Backend) -> bool:
    """Return whether a process that does not take the same lock has created the name on another backend."""
    return bool(_search(open_request.name, [each for each in candidates.values() if each is not here])[0])


def _decide(open_request: OpenRequest, candidates: Mapping[str, Backend]) -> Attach | Create:
    """Decide where to attach or create."""
    if open_request.backend != AUTO:
        return _decide_on_named(open_request, *candidates.values())
    found, failures = _search(open_request.name, candidates.values())
    if open_request.fresh:
        found = []
    # If the queue exists, there is no choice, so the other backends are not probed.
    candidates_seen = [
        _candidate(each, bool(found), failures.get(each.name, "")) for each in found or candidates.values()
    ]
    preferred = os.environ.get(PREFERENCE) or None
    decision = choose(candidates_seen, open_request.request, open_request.require, preferred)
    if isinstance(decision, Create):
        if preferred is not None and open_request.create:
            try:
                registry.plugin(preferred)
            except BackendUnknown as error:
                error.add_way_out(f"or unset the environment variable {PREFERENCE}, which names it")
                raise
        broken = {each.name: each.failure for each in registry.plugins() if each.backend is None}
        if broken:
            decision = replace(decision, passed_over={**decision.passed_over, **broken})
    return decision


def _decide_again(open_request: OpenRequest, candidates: Mapping[str, Backend], decided: Create) -> Attach | Create:
    """Decide again under the lock: the name may exist by now, or the chosen backend may have become unusable.

    Otherwise the decision stands, and the other backends are not probed a second time.
    """
    there, failures = _search(open_request.name, candidates.values())
    if not (there or failures) and decided.order and registry.probe(candidates[decided.order[0]]).usable:
        return decided
    return _decide(open_request, candidates)


def _decide_on_named(open_request: OpenRequest, backend: Backend) -> Attach | Create:
    """Decide whether to attach or create on the named backend."""
    named = _candidate(backend)
    if not named.availability.usable:
        reason = named.availability.reason
        raise BackendUnavailable(reason, reasons={named.name: reason}, backend=named.name)
    if not open_request.fresh and exists_on(backend, open_request.name):
        return Attach(named.name)
    reason = shortcoming(named, open_request.request, open_request.require)
    if reason and open_request.create:
        others, condition = _other_backends(open_request, [named.name]), ""
        if not others:
            others, condition = _private_backends(open_request), " if one process is enough"
        hint = f": use backend={others[0]!r}{condition}" if others else ""
        raise Unsupported(reason + hint, alternatives=others)
    return Create((named.name,), {})


def _warn_if_weaker(open_request: OpenRequest, decision: Create) -> bool:
    if decision.weaker:
        name, backend = open_request.name, decision.order[0]
        warn(
            PersistenceWarning(
                f"queue {name!r} on backend {backend!r} lives only as long as some process has it open: no backend "
                f"that keeps queues can be used here ({_listed(decision.passed_over)}); make one usable, "
                "or pass lifetime='last-close' if that is enough"
            )
        )
    return decision.weaker


def _listed(reasons: Mapping[str, str]) -> str:
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(same)}: {reason}" for reason, same in names.items())


def _create(
    open_request: OpenRequest, candidates: Mapping[str, Backend], decision: Create
) -> tuple[Backend, Channel, str] | None:
    """Create the queue on the first backend that can fulfil the request; return None if another process was faster.

    A backend without space is an error and not skipped: another process may find space there and create the queue.
    """
    reasons = dict(decision.passed_over)
    cause: MessageQueueError | None = None
    tried = []
    for name in decision.order:
        tried.append(name)
        backend = candidates[name]
        try:
            with located(open_request.name, name):
                channel = _create_on(open_request, backend)
            return backend, channel, _listed({each: reasons[each] for each in decision.better(name)})
        except QueueExists:
            if open_request.exclusive:
                raise
            return None  # created by a program that does not take the lock
        except (LimitExceeded, NoSpace, Unsupported) as error:
            if open_request.backend == AUTO and isinstance(error, Unsupported):
                reasons[name] = error.detail or str(error)
                cause = error
                continue
            with suppress(MessageQueueError, MemoryError):  # what ran out may keep other backends from being loaded
                for alternative in _alternatives(open_request, tried):
                    error.add_way_out(alternative)
            raise
    raise BackendUnavailable(f"no backend can create it ({_listed(reasons)})", reasons=reasons) from cause


def _create_on(open_request: OpenRequest, backend: Backend) -> Channel:
    channel = backend.create(open_request.name, open_request.to_create())
    missing = _missing_capability(open_request, channel)
    if missing:  # the backend has the capability in general, but not for this request
        channel.close()
        backend.unlink(open_request.name)
        raise Unsupported(f"for this request {missing}: require less, or name another backend")
    return channel


def _missing_capability(open_request: OpenRequest, channel: Channel) -> str:
    attributes = channel.attributes
    return missing_capability(
        open_request.require, channel.capabilities, attributes.max_message_size, attributes.lifetime
    )


def _other_backends(open_request: OpenRequest, tried: Collection[str]) -> list[str]:
    """Return the other backends on which `auto` would create an equally strong queue, the best first."""
    decision = _without(tried, open_request, open_request.request)
    return [] if decision.weaker else list(decision.order)


def _private_backends(open_request: OpenRequest) -> list[str]:
    """Return the backends that can fulfil the request, but only within one process."""
    request, require = open_request.request, open_request.require
    private = [each for each in map(_candidate, backends(AUTO)) if each.capabilities.scope < Scope.HOST]
    return [each.name for each in private if not shortcoming(each, request, require)]


def _alternatives(open_request: OpenRequest, tried: Collection[str]) -> Iterator[str]:
    """Suggest another backend: one that keeps queues or, failing that, one that does not."""
    for other in _other_backends(open_request, tried)[:1]:
        yield f"or try backend={other!r}"
        return
    if open_request.request.lifetime == "persistent":
        decision = _without(tried, open_request, replace(open_request.request, lifetime="last-close"))
        for other in decision.order[:1]:
            yield f"or try backend={other!r} with lifetime='last-close', if the queue need not outlive its last handle"


def _without(tried: Collection[str], open_request: OpenRequest, request: Request) -> Create:
    decision = choose(
        [_candidate(each) for each in backends(AUTO) if each.name not in tried], request, open_request.require
    )
    assert isinstance(decision, Create)  # noqa: S101  # for the type checker: no candidate was searched for the name
    return decision


def compare(open_request: OpenRequest, channel: Channel) -> None:
    """Raise if an existing queue differs from the request."""
    request, attributes = open_request.request, channel.attributes
    wanted = {name: value for name in COMPARED if (value := getattr(request, name)) != DEFAULTS[name]}
    differences = [
        f"{name} is {getattr(attributes, name)!r}, asked for {value!r}"
        for name, value in wanted.items()
        if getattr(attributes, name) != value
    ]
    for option, value in request.options.items():
        actual = attributes.options.get(option)
        if actual is not None and actual != (convert(option, value, type(actual)) if isinstance(value, str) else value):
            differences.append(f"{option} is {actual!r}, asked for {value!r}")
    if differences:
        raise QueueMismatch(f"{'; '.join(differences)}: leave that out to use the existing queue, or unlink it first")
    missing = _missing_capability(open_request, channel)
    if missing:
        raise QueueMismatch(f"{missing}: require less, or unlink it and create it on another backend")
    if request.after_unlink == "continue" and not channel.capabilities.after_unlink:
        raise Unsupported(f"{CANNOT_CONTINUE}: leave after_unlink out")


def _candidate(backend: Backend, exists: bool = False, failure: str = "") -> Candidate:
    return Candidate(
        name=backend.name,
        capabilities=backend.capabilities,
        rank=backend.rank,
        options=backend.options,
        availability=Availability.no(failure) if failure else registry.probe(backend),
        exists=exists,
    )


def _search(name: str, searched: Iterable[Backend]) -> tuple[list[Backend], Mapping[str, str]]:
    """Search each backend for a name; return the backends where it exists, and the reasons of those that failed."""
    found = []
    failures = {}
    for each in searched:
        try:
            if exists_on(each, name):
                found.append(each)
        except BackendUnavailable as error:
            # A faulty plugin must not prevent opening a queue on another backend.
            failures[each.name] = error.detail
    return found, failures


def exists_on(backend: Backend, name: str) -> bool:
    """Return whether a name exists on a backend.

    Raises:
        BackendUnavailable: The backend raised an error that the contract does not allow.
    """
    # Not inside `located`, because each open searches several backends, and few searches fail.
    try:
        return backend.exists(name)
    except MessageQueueError as error:
        raise error.at(name, backend.name)
    except Exception as error:
        if (short := shortage_behind(error)) is not None:
            raise short.at(name, backend.name) from error
        reraise_from_handler(error)
        reason = f"its search for the queue failed: {type(error).__name__}: {error}"
        raise BackendUnavailable(reason, reasons={backend.name: reason}, queue=name, backend=backend.name) from error


def backends_with(name: str, backend: Where) -> list[Backend]:
    """Return the backends on which a name exists, among all or the named one."""
    if backend != AUTO:
        return [each for each in backends(backend) if exists_on(each, name)]
    return _search(name, backends(AUTO))[0]


def backends(where: Where) -> list[Backend]:
    """Return the named backend, bound to the place if there is one, or for ``"auto"`` all local ones.

    Nothing asks a server that was not named: the server may be away, and then each call would wait for it.
    """
    if where != AUTO:
        return [registry.backend(where)]
    if (remote := _preferred_remote()) is not None:
        return [remote]
    return [each.backend for each in registry.known() if each.backend is not None and registry.is_local(each.backend)]


def _preferred_remote() -> Backend | None:
    """Return the backend of the scope `NETWORK` that IPCQ_BACKEND names, or None."""
    preferred = os.environ.get(PREFERENCE)
    if not preferred:
        return None
    try:
        found = registry.plugin(preferred).backend
    except BackendUnknown:
        return None  # an error only where a queue is created
    return None if found is None or registry.is_local(found) else found


def name_lock_for(name: str, candidates: Iterable[Backend], deadline: float) -> AbstractContextManager[None]:
    """Return the name lock as a context manager; one that does nothing if it would exclude no other process.

    A process on another machine does not see this machine's locks, and one without a place to share needs none.
    """
    if all(each.capabilities.scope != Scope.HOST for each in candidates):
        return nullcontext()
    return name_lock(name, deadline)


class _Located:
    # A class, because `contextlib` is several times slower, and every search of a backend uses one.
    __slots__ = ("_backend", "_name")

    def __init__(self, name: str, backend: Where) -> None:
        self._name = name
        self._backend = backend

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, MessageQueueError):
            error.at(self._name, str(self._backend))
        elif (shortage := shortage_behind(error)) is not None:
            raise shortage.at(self._name, str(self._backend)) from error


def located(name: str, backend: Where) -> AbstractContextManager[None]:
    """Add queue and backend to our errors, and replace shortages as `shortage_reported` does."""
    return _Located(name, backend)


def _checked_options(
    options: Mapping[str, Any], candidates: Iterable[Backend], known: Iterable[str]
) -> Mapping[str, Any]:
    """Check backend options against the backends' declarations, and convert text from URLs to their types."""
    declared = {option: kind for each in candidates for option, kind in each.options.items()}
    checked = {}
    for option, value in options.items():
        if option not in declared:
            raise unknown_option(option, {*known, *declared})
        kind = declared[option]
        if isinstance(value, str) and kind is not str:
            value = convert(option, value, kind)
        if not isinstance(value, kind):
            given = type(value).__name__ if kind is Secret else repr(value)
            raise InvalidArgument(f"option {option} must be a {kind.__name__}, not {given}")
        checked[option] = value
    return checked
