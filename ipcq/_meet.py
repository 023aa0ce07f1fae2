"""Finding the queue of a name or making it, so that everybody who opens the name ends on the same one.

An opener looks first and takes the name's lock only to create, so that attaching never waits for anybody. Under the
lock it looks again: whichever of several racing processes comes second attaches to what the first one made.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic
from typing import Any, Final

from ipcq import _registry
from ipcq._asked import Asked
from ipcq._choose import Attach, Candidate, Create, choose, shortcoming
from ipcq._deadline import pause
from ipcq._foreign import let_through
from ipcq._namelock import name_lock
from ipcq._url import convert, unknown_option
from ipcq.backend import Availability, Backend, Channel, Scope
from ipcq.errors import (
    BackendUnavailable,
    BackendUnknown,
    InvalidArgument,
    LimitExceeded,
    MessageQueueError,
    NoSpace,
    QueueExists,
    QueueMismatch,
    QueueNotFound,
    TimedOutError,
    Unsupported,
)

AUTO: Final = "auto"
#: Names the one backend on which `auto` creates.
PREFERENCE: Final = "IPCQ_BACKEND"


def meet(asked: Asked, known: Iterable[str]) -> tuple[Backend, Channel]:
    """Attach to the queue or create it, and return its backend and a channel.

    `known` are the options of `open` itself, for the hint where an option is unknown.
    """
    candidates = {each.name: each for each in _usable(asked.backend)}
    options = _options(asked.request.options, candidates.values(), known)
    asked = replace(asked, request=replace(asked.request, options=options))
    since = monotonic()
    why = ""
    while True:
        decision = _look_twice(asked, candidates)
        if isinstance(decision, Create):
            if asked.create:
                with serialised(asked.name, candidates.values(), asked.patience):
                    decision = _look(asked, candidates)
                    made = None if isinstance(decision, Attach) else _create(asked, candidates, decision)
                if made is not None:
                    return made
            elif monotonic() >= asked.appears:
                raise QueueNotFound
            else:
                pause(since, asked.appears)
                continue
        if isinstance(decision, Attach):
            backend = candidates[decision.name]
            if asked.exclusive:
                raise QueueExists(backend=backend.name)
            try:
                with located(asked.name, backend.name):
                    return backend, backend.attach(asked.name, asked.request)
            except QueueNotFound as error:
                why = error.detail  # unlinked since it was seen, unless the backend knows more: look again
        if monotonic() >= asked.patience:
            raise TimedOutError(why or "it was created and unlinked by others all the while")
        pause(since, asked.patience)


def _look_twice(asked: Asked, candidates: Mapping[str, Backend]) -> Attach | Create:
    """Look without the lock, and under it before saying that the name is on two backends.

    They are asked one after the other, so a queue that is unlinked meanwhile and its successor look like two.
    """
    try:
        return _look(asked, candidates)
    except QueueMismatch:
        with serialised(asked.name, candidates.values(), asked.patience):
            return _look(asked, candidates)


def _look(asked: Asked, candidates: Mapping[str, Backend]) -> Attach | Create:
    """Decide where the queue is or is to be."""
    seen = [_candidate(each, asked.name) for each in candidates.values()]
    if asked.backend != AUTO:
        (named,) = seen
        if not named.availability.usable:
            reason = named.availability.reason
            raise BackendUnavailable(reason, reasons={named.name: reason}, backend=named.name)
        if named.exists:
            return Attach(named.name)
        reason = shortcoming(named, asked.request, asked.require)
        if reason and asked.create:
            others = _others(asked, named.name)
            hint = f": use backend={others[0]!r}" if others else ""
            raise Unsupported(reason + hint, alternatives=others)
        return Create((named.name,), {})
    preferred = os.environ.get(PREFERENCE) or None
    decision = choose(seen, asked.request, asked.require, preferred)
    if isinstance(decision, Create):
        if preferred is not None and asked.create:
            try:
                _registry.plugin(preferred)
            except BackendUnknown as error:
                error.add_way_out(f"or unset {PREFERENCE}, which names it")
                raise
        broken = {each.name: each.failure for each in _registry.plugins() if each.backend is None}
        decision = Create(decision.order, {**decision.passed_over, **broken})
    return decision


def _create(asked: Asked, candidates: Mapping[str, Backend], decision: Create) -> tuple[Backend, Channel] | None:
    """Create the queue on the first backend that manages to; None if somebody else just did."""
    reasons = dict(decision.passed_over)
    cause: MessageQueueError | None = None
    for name in decision.order:
        backend = candidates[name]
        try:
            with located(asked.name, name):
                return backend, _made(asked, backend)
        except QueueExists:
            if asked.exclusive:
                raise
            return None  # by a program that does not take the lock
        except (LimitExceeded, NoSpace, Unsupported) as error:
            if asked.backend != AUTO:
                for other in _others(asked, name)[:1]:
                    error.add_way_out(f"or use backend={other!r}")
                raise
            reasons[name] = error.detail or str(error)
            cause = error
    told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise BackendUnavailable(f"no backend can create it ({told})", reasons=reasons) from cause


def _made(asked: Asked, backend: Backend) -> Channel:
    channel = backend.create(asked.name, asked.request)
    lacking = [ability for ability in asked.require if not getattr(channel.capabilities, ability)]
    if lacking:  # the backend can in general, but not for this request
        channel.close()
        backend.unlink(asked.name)
        raise Unsupported(f"the queue it makes for this request lacks {', '.join(lacking)}: ask for less, or elsewhere")
    return channel


def _others(asked: Asked, name: str) -> list[str]:
    """Name the other backends that `auto` would create such a queue on, the best first."""
    decision = choose([_candidate(each) for each in backends(AUTO) if each.name != name], asked.request, asked.require)
    return list(decision.order) if isinstance(decision, Create) else []


def compare(asked: Asked, channel: Channel) -> None:
    """Refuse a queue that is not what was explicitly asked for."""
    request, is_ = asked.request, channel.attributes
    wanted = {name: getattr(request, name) for name in ("max_messages", "max_message_size", "buffer_size")}
    wanted["priorities"] = request.priorities or None
    wanted["lifetime"] = None if request.lifetime == "persistent" else request.lifetime
    differ = [
        f"{name} is {getattr(is_, name)!r}, asked for {value!r}"
        for name, value in wanted.items()
        if value is not None and getattr(is_, name) != value
    ]
    if differ:
        raise QueueMismatch(f"{'; '.join(differ)}: leave that out to take the queue as it is, or unlink it first")
    for ability in asked.require:
        if not getattr(channel.capabilities, ability):
            raise QueueMismatch(f"it lacks the required capability {ability!r}: unlink it to create it anew elsewhere")


def _candidate(backend: Backend, name: str = "") -> Candidate:
    availability = _registry.probe(backend)
    there = False
    if name:
        try:
            there = taken(backend, name)
        except BackendUnavailable as error:
            # A stranger's plugin must not keep anybody from opening a queue elsewhere.
            availability = Availability.no(error.detail)
    return Candidate(
        name=backend.name,
        capabilities=backend.capabilities,
        rank=backend.rank,
        options=backend.options,
        availability=availability,
        exists=there,
    )


def taken(backend: Backend, name: str) -> bool:
    """Ask a backend whether a name is taken there.

    Raises:
        BackendUnavailable: It fails to answer in a way that backends must not.
    """
    with located(name, backend.name):
        try:
            return backend.exists(name)
        except MessageQueueError:
            raise
        except Exception as error:
            let_through(error)
            reason = f"it cannot say whether the queue exists: {type(error).__name__}: {error}"
            raise BackendUnavailable(reason, reasons={backend.name: reason}) from error


def holders(name: str, backend: str) -> list[Backend]:
    """Return the backends on which a name is taken, among all or of the one that is named."""
    if backend != AUTO:
        return [each for each in backends(backend) if taken(each, name)]
    return [each for each in backends(AUTO) if _candidate(each, name).exists]


def backends(name: str) -> list[Backend]:
    """Return the one backend of that name, or all that could be loaded."""
    if name != AUTO:
        return [_registry.backend(name)]
    return [each.backend for each in _registry.plugins() if each.backend is not None]


def _usable(name: str) -> list[Backend]:
    return backends(AUTO) if name == AUTO else [_registry.usable(name)]


@contextmanager
def serialised(name: str, candidates: Iterable[Backend], deadline: float) -> Iterator[None]:
    """Keep others from creating and unlinking the name meanwhile, where others can at all."""
    if all(each.capabilities.scope < Scope.HOST for each in candidates):
        yield
    else:
        with name_lock(name, deadline):
            yield


@contextmanager
def located(name: str, backend: str) -> Iterator[None]:
    try:
        yield
    except MessageQueueError as error:
        raise error.at(name, backend)


def _options(options: Mapping[str, Any], candidates: Iterable[Backend], known: Iterable[str]) -> Mapping[str, Any]:
    """Check backend options against what the backends declare, and give text from URLs its type."""
    declared = {option: kind for each in candidates for option, kind in each.options.items()}
    checked = {}
    for option, value in options.items():
        if option not in declared:
            raise unknown_option(option, {*known, *declared})
        kind = declared[option]
        if isinstance(value, str) and kind is not str:
            value = convert(option, value, kind)
        if not isinstance(value, kind):
            raise InvalidArgument(f"option {option} is a {kind.__name__}, not {value!r}")
        checked[option] = value
    return checked
