"""From a name to a handle: where address, arguments, codec and channel come together."""

import sys
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar, overload

from ipcq._handle.handle import NOT_PREPARED, Origin
from ipcq._handle.queue import Queue
from ipcq._handle.shortcut import class_for
from ipcq._opening import registry
from ipcq._opening.address import convert, one_backend, parse
from ipcq._opening.directory import OPEN_TIMEOUT, remove
from ipcq._opening.open_request import OpenRequest, flag
from ipcq._opening.rendezvous import AUTO, compare, located, meet
from ipcq._process.forks import Opening, unsafe
from ipcq.backend import AfterUnlink, Lifetime, Persistence, Scope
from ipcq.errors import InvalidArgument, MessageQueueError, PermissionDenied, QueueClosed
from ipcq.serializers import codec_for

T = TypeVar("T")

#: What `require` takes: names of `Capabilities`, or a mapping of names to the least value that will do.
Require: TypeAlias = Iterable[str] | Mapping[str, bool | int | str | Persistence | Scope]


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
    require: Require = ...,
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
    require: Require = ...,
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
    require: Require = (),
    other_users: bool = False,
    after_unlink: AfterUnlink = "raise",
    open_timeout: float | None = OPEN_TIMEOUT,
    **backend_options: Any,
) -> Queue[Any]:
    """Open the queue of a name, and create it if there is none.

    Whoever opens the same name meets on the same queue. Its limits, mode and lifetime are those it was created with; a
    limit that is asked for here has to be equal.

    Args:
        name: ``"/"`` and then 1 to 254 bytes of UTF-8 without ``"/"`` and NUL, and neither ``"/."`` nor ``"/.."``; or a
            URL such as ``"mqueue:///jobs?max_messages=4"``, which names the backend and may carry these options.
        backend: Name of the backend; ``"auto"`` attaches where the queue exists, and creates on the best that can
            honour the request. Naming one skips the search.
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
        lifetime: ``"persistent"`` until it is unlinked or the machine restarts, or ``"last-close"`` until the last
            handle to it goes.
        serializer: ``"msgpack"``, ``"msgspec"``, ``"raw"`` (bytes alone), ``"pickle"``, or a registered one.
        allow_pickle: Let this handle write and read pickles, which run code that the writer chose.
        type: Decode every message as this type (a dataclass, a ``TypedDict``, a ``msgspec.Struct`` …); needs msgspec.
        require: Names of `Capabilities` that the queue must have, or a mapping of them to minima:
            ``{"peek": True, "persistence": Persistence.KERNEL, "max_message_size": 1 << 20}``. In a URL a minimum
            follows a colon: ``require=peek,persistence:kernel``. A new queue takes messages of at least that size.
        other_users: Trust a queue that belongs to another user than this one and root.
        after_unlink: Once somebody unlinked the queue, ``"raise"`` `QueueGone` or ``"continue"`` with the nameless
            queue.
        open_timeout: Seconds to wait for other processes that are creating or unlinking the name, counted from the
            first wait; None waits without limit.
        **backend_options: Options of the backend's own.

    Returns:
        A handle; close it, or use it in a ``with`` statement.

    Raises:
        QueueNotFound: There is none, and ``create=False``.
        QueueExists: There is one, and ``exclusive=True``.
        QueueMismatch: The queue has other limits than those asked for, or the name exists on several backends.
        LimitExceeded: A limit of the system stands against creating it; no other backend is tried then.
        NoSpace: The memory is full; no other backend is tried then.
        Unsupported: The backend that was named cannot honour the request, or a library is missing.
        BackendUnknown: No installed distribution offers the backend.
        BackendUnavailable: The backend cannot be used here, or none can; the error's `reasons` tell why for each.
        PermissionDenied: This user may not, the queue belongs to somebody else, or pickles would come from others.
        TimedOutError: Somebody else created or unlinked the name all the while.
        QueueClosed: This process was forked during a call on the queue, and the backend's state must not cross a fork.
        InvalidName: The name breaks the rule.
        InvalidArgument: An argument or option has a wrong type or value, or is unknown.

    Warns:
        PersistenceWarning: The queue is meant to stay, but no backend that keeps queues can be used here. Nothing has
            been created yet, so if you turn the warning into an error, nothing is left behind.
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
    backend = one_backend(address, backend)
    with located(address.name, backend):
        _merge(address.options, given, backend_options)
        serializer = given.pop("serializer")
        asked = OpenRequest.of(address.name, backend, options=backend_options, **given)
        codec = codec_for(serializer, allow_pickle=flag("allow_pickle", allow_pickle), type=type)
        if allow_pickle and (asked.request.other_users or asked.request.mode & 0o022):
            raise _foreign_pickles()
        if asked.name in unsafe:
            raise QueueClosed(NOT_PREPARED)
        with Opening(asked.name):
            found, channel, passed_over = meet(asked, _DEFAULTS)
        try:
            compare(asked, channel)
            if allow_pickle and channel.attributes.mode & 0o022:
                raise _foreign_pickles()
        except MessageQueueError as error:
            channel.close()
            raise error.at(asked.name, found.name)
    again = {
        "read": asked.request.read,
        "write": asked.request.write,
        "serializer": serializer,
        "allow_pickle": allow_pickle,
        "type": type,
        "other_users": asked.request.other_users,
        "after_unlink": asked.request.after_unlink,
    }
    queue = class_for(channel)(
        channel,
        codec,
        Origin(
            name=asked.name,
            backend=found,
            request=asked.request,
            remove=partial(remove, asked.name, found.name),
            reopen=lambda: (partial(open, asked.name, found.name, create=False, **again), ()),
            alternatives=registry.able,
        ),
    )
    if passed_over:
        try:
            _log(queue, passed_over)
        except BaseException:  # of a handler, which may do anything
            queue.close()
            raise
    return queue


def _log(queue: Queue[Any], passed_over: str) -> None:
    """Log that the request ruled out the best backend."""
    logging = sys.modules.get("logging")  # if nobody has imported it, nobody listens
    if logging is not None:
        logging.getLogger("ipcq").info(
            "queue %r was created on backend %r, with %s; better backends were passed over: %s",
            queue.name,
            queue.backend,
            limits_of(queue),
            passed_over,
        )


def limits_of(queue: Queue[Any]) -> str:
    """Say how much a queue takes."""
    most = "any number of" if queue.max_messages is None else f"at most {queue.max_messages}"
    room = "" if queue.buffer_size is None else f", {queue.buffer_size} bytes in all"
    return f"{most} messages of at most {queue.max_message_size} bytes{room}"


_DEFAULTS: Final[Mapping[str, Any]] = dict(open.__kwdefaults__ or {})


def _merge(url: Mapping[str, Any], given: dict[str, Any], backend_options: dict[str, Any]) -> None:
    """Add the options of a URL to the arguments; what both say has to be the same."""
    for option, value in url.items():
        of_open = option in given
        said = given[option] if of_open else backend_options.get(option, value)
        if isinstance(value, str) and isinstance(said, bool | int | float):
            value = convert(option, value, type(said))
        if said != value and not (of_open and said == _DEFAULTS[option]):
            raise InvalidArgument(f"{option} is {value!r} in the URL and {said!r} as an argument")
        (given if of_open else backend_options)[option] = value


def _foreign_pickles() -> PermissionDenied:
    return PermissionDenied(
        "allow_pickle=True on a queue that other users can write to would run their code: use another serializer, "
        "or a queue that only this user can write to"
    )
