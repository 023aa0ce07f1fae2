"""From a name to a handle: the one place where address, backend, choice, lock, channel and codec come together.

Opening looks first and takes the name's lock only to create: an attacher never waits for anybody. Under the lock it looks
again, so that whichever of several racing processes comes second attaches to what the first one made.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from ipcq._choose import Attach, Candidate, Create, ambiguous, choose, shortcoming
from ipcq._deadline import NEVER, pause, seconds_of
from ipcq._queue import Origin, Queue
from ipcq._url import Address, convert, parse, unknown_option
from ipcq.backend import (
    AFTER_UNLINK,
    LIFETIMES,
    AfterUnlink,
    Availability,
    Backend,
    Capabilities,
    Channel,
    Lifetime,
    Request,
    Scope,
)
from ipcq.errors import (
    BackendUnavailable,
    InvalidArgument,
    LimitExceeded,
    MessageQueueError,
    NoSpace,
    PermissionDenied,
    QueueExists,
    QueueMismatch,
    QueueNotFound,
    TimedOutError,
    Unsupported,
)
from ipcq.serializers import codec_for

if TYPE_CHECKING:
    from ipcq._registry import BackendInfo

T = TypeVar("T")

AUTO: Final = "auto"
OPEN_TIMEOUT: Final = 10.0
#: Names the one backend on which `auto` creates.
PREFERENCE: Final = "IPCQ_BACKEND"

_ABILITIES: Final = frozenset(field.name for field in fields(Capabilities) if field.type in ("bool", bool))


@overload
def open(
    name: str,
    backend: str = ...,
    *,
    type: type[T],
    create: bool = ...,
    exclusive: bool = ...,
    wait: float | None = ...,
    read: bool = ...,
    write: bool = ...,
    mode: int = ...,
    max_messages: int | None = ...,
    max_message_size: int | None = ...,
    buffer_size: int | None = ...,
    priorities: bool = ...,
    lifetime: Lifetime = ...,
    serializer: str = ...,
    allow_pickle: bool = ...,
    require: Iterable[str] = ...,
    other_users: bool = ...,
    after_unlink: AfterUnlink = ...,
    open_timeout: float | None = ...,
    **backend_options: Any,
) -> Queue[T]: ...


@overload
def open(
    name: str,
    backend: str = ...,
    *,
    type: Any = ...,
    create: bool = ...,
    exclusive: bool = ...,
    wait: float | None = ...,
    read: bool = ...,
    write: bool = ...,
    mode: int = ...,
    max_messages: int | None = ...,
    max_message_size: int | None = ...,
    buffer_size: int | None = ...,
    priorities: bool = ...,
    lifetime: Lifetime = ...,
    serializer: str = ...,
    allow_pickle: bool = ...,
    require: Iterable[str] = ...,
    other_users: bool = ...,
    after_unlink: AfterUnlink = ...,
    open_timeout: float | None = ...,
    **backend_options: Any,
) -> Queue[Any]: ...


def open(
    name: str,
    backend: str = AUTO,
    *,
    create: bool = True,
    exclusive: bool = False,
    wait: float | None = None,
    read: bool = True,
    write: bool = True,
    mode: int = 0o600,
    max_messages: int | None = None,
    max_message_size: int | None = None,
    buffer_size: int | None = None,
    priorities: bool = False,
    lifetime: Lifetime = "persistent",
    serializer: str = "msgpack",
    allow_pickle: bool = False,
    type: Any = None,
    require: Iterable[str] = (),
    other_users: bool = False,
    after_unlink: AfterUnlink = "raise",
    open_timeout: float | None = OPEN_TIMEOUT,
    **backend_options: Any,
) -> Queue[Any]:
    """Open the queue of a name, and create it if there is none.

    Whoever opens the same name meets on the same queue. Its limits, mode and lifetime are those it was created with; a
    limit that is asked for here has to be equal.

    Args:
        name: ``"/"`` and then 1 to 254 bytes of UTF-8 without ``"/"`` and NUL, and neither ``"/."`` nor ``"/.."``; or a URL
            such as ``"mqueue:///jobs?max_messages=4"``, which names the backend and may carry these options.
        backend: Name of the backend; ``"auto"`` attaches where the queue exists, and creates on the best that can honour
            the request. Naming one skips the search.
        create: Create the queue if there is none.
        exclusive: Create it or fail.
        wait: With ``create=False``, seconds to wait for the queue to appear; None does not wait.
        read: The handle gets messages.
        write: The handle puts messages.
        mode: Permission bits of a queue that is created, exactly, whatever the umask. Reading is consuming.
        max_messages: Capacity in messages; None: as the backend has it.
        max_message_size: Largest encoded message, in bytes; None: as the backend has it.
        buffer_size: Capacity in bytes; None: as the backend has it.
        priorities: Messages have priorities.
        lifetime: ``"persistent"`` until it is unlinked or the machine restarts, or ``"last-close"`` until the last handle
            to it goes.
        serializer: ``"msgpack"``, ``"msgspec"``, ``"raw"`` (bytes alone), ``"pickle"``, or a registered one.
        allow_pickle: Let this handle write and read pickles, which run code that the writer chose.
        type: Decode every message as this type (a dataclass, a ``TypedDict``, a ``msgspec.Struct`` …); needs msgspec.
        require: Names of `Capabilities` that the queue must have.
        other_users: Trust a queue that belongs to another user than this one and root.
        after_unlink: Once somebody unlinked the queue, ``"raise"`` `QueueGone` or ``"continue"`` with the nameless queue.
        open_timeout: Seconds to wait at the most for others who are creating or unlinking the name; None waits for ever.
        **backend_options: Options of the backend's own.

    Returns:
        A handle; close it, or use it in a ``with`` statement.

    Raises:
        QueueNotFound: There is none, and ``create=False``.
        QueueExists: There is one, and ``exclusive=True``.
        QueueMismatch: The queue has other limits than those asked for, or the name exists on several backends.
        LimitExceeded: A limit of the system stands against creating it on the backend that was named.
        NoSpace: The memory is full, on the backend that was named.
        Unsupported: The backend that was named cannot honour the request, or a library is missing.
        BackendUnknown: No installed distribution offers the backend.
        BackendUnavailable: The backend cannot be used here, or none can; the error's `reasons` tell why for each.
        PermissionDenied: This user may not, the queue belongs to somebody else, or pickles would come from others.
        TimedOutError: Somebody else created or unlinked the name all the while.
        InvalidName: The name breaks the rule.
        InvalidArgument: An argument or option has a wrong type or value, or is unknown.
    """
    given: dict[str, Any] = {
        "create": create,
        "exclusive": exclusive,
        "wait": wait,
        "read": read,
        "write": write,
        "mode": mode,
        "max_messages": max_messages,
        "max_message_size": max_message_size,
        "buffer_size": buffer_size,
        "priorities": priorities,
        "lifetime": lifetime,
        "serializer": serializer,
        "require": require,
        "other_users": other_users,
        "after_unlink": after_unlink,
        "open_timeout": open_timeout,
    }
    address = parse(name)
    backend = _backend_of(address, backend)
    for option, value in address.options.items():
        if option in given:
            if given[option] != _DEFAULTS[option] and given[option] != value:
                raise InvalidArgument(f"{option} is {value!r} in the URL and {given[option]!r} as an argument")
            given[option] = value
        elif backend_options.setdefault(option, value) != value:
            raise InvalidArgument(f"{option} is {value!r} in the URL and {backend_options[option]!r} as an argument")
    asked = _Asked.of(address.name, backend, options=backend_options, **given)
    codec = codec_for(given["serializer"], allow_pickle=_flag("allow_pickle", allow_pickle), type=type)
    if allow_pickle and (asked.request.other_users or asked.request.mode & 0o022):
        raise _foreign_pickles(asked.name)
    found, channel = _meet(asked)
    try:
        _compare(asked, channel)
        if allow_pickle and channel.attributes.mode & 0o022:
            raise _foreign_pickles(asked.name)
    except MessageQueueError as error:
        channel.close()
        raise error.at(asked.name, found.name)
    again = {
        "read": asked.request.read,
        "write": asked.request.write,
        "serializer": given["serializer"],
        "allow_pickle": allow_pickle,
        "type": type,
        "other_users": asked.request.other_users,
        "after_unlink": asked.request.after_unlink,
    }
    return Queue(
        channel,
        codec,
        Origin(
            name=asked.name,
            backend=found,
            request=asked.request,
            remove=partial(unlink, asked.name, found.name),
            reopen=lambda: (partial(open, asked.name, found.name, create=False, **again), ()),
            alternatives=_alternatives,
        ),
    )


_DEFAULTS: Final[Mapping[str, Any]] = dict(open.__kwdefaults__ or {})


def exists(name: str, backend: str = AUTO) -> bool:
    """Tell whether a queue of this name exists.

    Args:
        name: A name or a URL.
        backend: Name of the backend to ask; ``"auto"`` asks all.

    Raises:
        BackendUnknown: No installed distribution offers the backend.
        BackendUnavailable: The backend's plugin cannot be loaded.
        InvalidName: The name breaks the rule.
    """
    address, backend = _place(name, backend)
    return any(each.exists(address.name) for each in _backends(backend))


def unlink(name: str, backend: str = AUTO) -> None:
    """Remove a queue's name; whoever has it open is told with `QueueGone`.

    Args:
        name: A name or a URL.
        backend: Name of the backend; ``"auto"`` finds it.

    Raises:
        QueueNotFound: There is none.
        QueueMismatch: The name exists on several backends.
        PermissionDenied: This user may not.
        TimedOutError: Somebody else created or unlinked the name for 10 seconds.
        BackendUnknown: No installed distribution offers the backend.
        BackendUnavailable: The backend's plugin cannot be loaded.
        InvalidName: The name breaks the rule.
    """
    address, backend = _place(name, backend)
    candidates = _backends(backend)
    with _serialised(address.name, candidates, monotonic() + OPEN_TIMEOUT):
        found = [each for each in candidates if each.exists(address.name)]
        if not found:
            where = None if backend == AUTO else backend
            raise QueueNotFound("no such queue: see what there is with ipcq.queues()", queue=address.name, backend=where)
        if len(found) > 1:
            raise ambiguous([each.name for each in found]).at(address.name, AUTO)
        with _located(address.name, found[0].name):
            found[0].unlink(address.name)


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """One queue that exists."""

    name: str
    """The queue's name."""
    backend: str
    """Name of the backend that serves it."""


class Listing(list[QueueInfo]):
    """The queues that exist, by name.

    Attributes:
        unlisted: For each backend that cannot list its queues here and now, why, and what would change that.
    """

    unlisted: Mapping[str, str]


def queues() -> Listing:
    """List the queues that exist on all backends."""
    listing = Listing()
    listing.unlisted = unlisted = {}
    for each in _backends(AUTO):
        try:
            listing.extend(QueueInfo(name, each.name) for name in each.names())
        except MessageQueueError as error:
            unlisted[each.name] = error.detail or str(error)
    listing.sort(key=lambda info: (info.name, info.backend))
    return listing


def backends() -> "list[BackendInfo]":
    """Describe every backend that is installed, the best first, with the reason where one cannot be used."""
    from ipcq import _registry

    return _registry.describe()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """The checked arguments of one `open`."""

    name: str
    backend: str
    create: bool
    exclusive: bool
    appears: float
    """Until when to wait for the queue to appear, on `time.monotonic`."""
    patience: float
    """Until when to wait for others, on `time.monotonic`."""
    require: tuple[str, ...]
    request: Request

    @classmethod
    def of(
        cls,
        name: str,
        backend: str,
        *,
        create: object,
        exclusive: object,
        wait: object,
        require: Any,
        open_timeout: object,
        serializer: str,
        options: Mapping[str, Any],
        **request: Any,
    ) -> "_Asked":
        for option in ("read", "write", "priorities", "other_users"):
            _flag(option, request[option])
        for option in ("max_messages", "max_message_size", "buffer_size"):
            _count(option, request[option])
        mode = request["mode"]
        if isinstance(mode, bool) or not isinstance(mode, int) or not 0 <= mode <= 0o777:
            raise InvalidArgument(f"mode is permission bits from 0 to 0o777, not {mode!r}")
        _one_of("lifetime", request["lifetime"], LIFETIMES)
        _one_of("after_unlink", request["after_unlink"], AFTER_UNLINK)
        if not (request["read"] or request["write"]):
            raise InvalidArgument("read=False and write=False leave nothing that the handle could do")
        if _flag("exclusive", exclusive) and not _flag("create", create):
            raise InvalidArgument("exclusive=True creates the queue, create=False forbids it")
        if create and wait is not None:
            raise InvalidArgument("wait= is for create=False: there is nothing to wait for where the queue is created")
        now = monotonic()
        return cls(
            name=name,
            backend=backend,
            create=bool(create),
            exclusive=bool(exclusive),
            appears=now + (0.0 if wait is None else seconds_of(wait, "wait")),
            patience=NEVER if open_timeout is None else now + seconds_of(open_timeout, "open_timeout"),
            require=_abilities(require),
            request=Request(options=options, **request),
        )


def _meet(asked: _Asked) -> tuple[Backend, Channel]:
    """Attach to the queue or create it, and return its backend and a channel."""
    candidates = {each.name: each for each in _usable(asked.backend)}
    asked = replace(asked, request=replace(asked.request, options=_options(asked.request.options, candidates.values())))
    since = monotonic()
    while True:
        decision = _look(asked, candidates)
        if isinstance(decision, Create):
            if asked.create:
                with _serialised(asked.name, candidates.values(), asked.patience):
                    decision = _look(asked, candidates)
                    made = None if isinstance(decision, Attach) else _create(asked, candidates, decision)
                if made is not None:
                    return made
            elif monotonic() >= asked.appears:
                raise QueueNotFound(queue=asked.name, backend=None if asked.backend == AUTO else asked.backend)
            else:
                pause(since, asked.appears)
                continue
        if isinstance(decision, Attach):
            backend = candidates[decision.name]
            if asked.exclusive:
                raise QueueExists(queue=asked.name, backend=backend.name)
            try:
                with _located(asked.name, backend.name):
                    return backend, backend.attach(asked.name, asked.request)
            except QueueNotFound:
                pass  # unlinked since it was seen: look again
        if monotonic() >= asked.patience:
            raise TimedOutError("it was created and unlinked by others all the while", queue=asked.name)
        pause(since, asked.patience)


def _look(asked: _Asked, candidates: Mapping[str, Backend]) -> Attach | Create:
    """Decide where the queue is or is to be."""
    from ipcq import _registry

    seen = [_candidate(each, asked.name) for each in candidates.values()]
    if asked.backend != AUTO:
        (named,) = seen
        if named.exists:
            return Attach(named.name)
        reason = shortcoming(named, asked.request, asked.require)
        if reason and asked.create:
            others = _others(asked, named.name)
            hint = f": use backend={others[0]!r}" if others else ""
            raise Unsupported(reason + hint, alternatives=others, queue=asked.name, backend=named.name)
        return Create((named.name,), {})
    preferred = _environment(PREFERENCE)
    if preferred is not None:
        _registry.plugin(preferred)  # raises if there is none
    try:
        decision = choose(seen, asked.request, asked.require, preferred)
    except MessageQueueError as error:
        raise error.at(asked.name, AUTO)
    if isinstance(decision, Create):
        broken = {each.name: each.failure for each in _registry.plugins() if each.backend is None}
        decision = Create(decision.order, {**decision.passed_over, **broken})
    return decision


def _create(asked: _Asked, candidates: Mapping[str, Backend], decision: Create) -> tuple[Backend, Channel] | None:
    """Create the queue on the first backend that manages to; None if somebody else just did."""
    reasons = dict(decision.passed_over)
    cause: MessageQueueError | None = None
    for name in decision.order:
        backend = candidates[name]
        try:
            with _located(asked.name, name):
                return backend, backend.create(asked.name, asked.request)
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
    raise BackendUnavailable(f"no backend can create it ({told})", reasons=reasons, queue=asked.name) from cause


def _others(asked: _Asked, name: str) -> list[str]:
    """Name the other backends that `auto` would create such a queue on, the best first."""
    decision = choose([_candidate(each) for each in _backends(AUTO) if each.name != name], asked.request, asked.require)
    return list(decision.order) if isinstance(decision, Create) else []


def _compare(asked: _Asked, channel: Channel) -> None:
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
    from ipcq import _registry

    availability = _registry.probe(backend)
    there = False
    if name:
        try:
            there = backend.exists(name)
        except MessageQueueError as error:
            raise error.at(name, backend.name)
        except Exception as error:
            # A stranger's plugin must not keep anybody from opening a queue elsewhere.
            availability = Availability.no(f"it cannot say whether the queue exists: {type(error).__name__}: {error}")
    return Candidate(
        name=backend.name,
        capabilities=backend.capabilities,
        rank=backend.rank,
        options=backend.options,
        availability=availability,
        exists=there,
    )


def _backends(name: str) -> list[Backend]:
    """Return the one backend of that name, or all that could be loaded."""
    from ipcq import _registry

    if name != AUTO:
        return [_registry.backend(name)]
    return [each.backend for each in _registry.plugins() if each.backend is not None]


def _usable(name: str) -> list[Backend]:
    from ipcq import _registry

    return _backends(AUTO) if name == AUTO else [_registry.usable(name)]


def _alternatives(ability: str) -> list[str]:
    from ipcq import _registry

    return _registry.able(ability)


@contextmanager
def _serialised(name: str, candidates: Iterable[Backend], deadline: float) -> Iterator[None]:
    """Keep others from creating and unlinking the name meanwhile, where others can at all."""
    if all(each.capabilities.scope < Scope.HOST for each in candidates):
        with nullcontext():
            yield
        return
    from ipcq._namelock import name_lock

    with name_lock(name, deadline):
        yield


@contextmanager
def _located(name: str, backend: str) -> Iterator[None]:
    try:
        yield
    except MessageQueueError as error:
        raise error.at(name, backend)


def _place(name: str, backend: str) -> tuple[Address, str]:
    address = parse(name)
    if address.options:
        raise InvalidArgument(f"options of a URL are for ipcq.open: leave out {', '.join(address.options)}")
    return address, _backend_of(address, backend)


def _backend_of(address: Address, backend: str) -> str:
    if not isinstance(backend, str):
        raise InvalidArgument(f"backend is a str such as 'auto', not {backend!r}")
    if address.backend is not None and backend not in (AUTO, address.backend):
        raise InvalidArgument(f"the URL names backend {address.backend!r} and the argument {backend!r}")
    return address.backend or backend


def _options(options: Mapping[str, Any], backends: Iterable[Backend]) -> Mapping[str, Any]:
    """Check backend options against what the backends declare, and give text from URLs its type."""
    declared = {option: kind for each in backends for option, kind in each.options.items()}
    checked = {}
    for option, value in options.items():
        if option not in declared:
            raise unknown_option(option, {*_DEFAULTS, *declared})
        kind = declared[option]
        if isinstance(value, str) and kind is not str:
            value = convert(option, value, kind)
        if not isinstance(value, kind):
            raise InvalidArgument(f"option {option} is a {kind.__name__}, not {value!r}")
        checked[option] = value
    return checked


def _environment(variable: str) -> str | None:
    import os

    return os.environ.get(variable) or None


def _flag(option: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgument(f"{option} is True or False, not {value!r}")
    return value


def _count(option: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InvalidArgument(f"{option} is an int from 1 on or None, not {value!r}")


def _one_of(option: str, value: object, values: tuple[str, ...]) -> None:
    if value not in values:
        raise InvalidArgument(f"{option} is {' or '.join(map(repr, values))}, not {value!r}")


def _abilities(require: Any) -> tuple[str, ...]:
    try:
        abilities = (require,) if isinstance(require, str) else tuple(require)
    except TypeError:
        raise InvalidArgument(f"require is names of capabilities, not {require!r}") from None
    for ability in abilities:
        if ability not in _ABILITIES:
            raise InvalidArgument(f"no capability {ability!r}: there are {', '.join(sorted(_ABILITIES))}")
    return abilities


def _foreign_pickles(name: str) -> PermissionDenied:
    return PermissionDenied(
        "allow_pickle=True on a queue that other users can write to would run their code: use another serializer, "
        "or a queue that only this user can write to",
        queue=name,
    )
