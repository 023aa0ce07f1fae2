"""From a name to a handle: where address, arguments, codec and channel come together."""

import sys
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from ipcq._handle.handle import NOT_PREPARED, Origin
from ipcq._handle.queue import Queue
from ipcq._handle.shortcut import class_for
from ipcq._opening import registry
from ipcq._opening.address import parse
from ipcq._opening.directory import remove
from ipcq._opening.open_request import OpenRequest
from ipcq._opening.options import OPTIONS, Options, documented
from ipcq._opening.rendezvous import AUTO, compare, located, meet
from ipcq._process.forks import Opening, unsafe
from ipcq.errors import MessageQueueError, PermissionDenied, QueueClosed
from ipcq.serializers import codec_for

T = TypeVar("T")

if TYPE_CHECKING:
    from typing_extensions import TypeForm  # the type checker's own


@overload
def open(name: str, backend: str = ..., *, type: type[T], **options: Unpack[Options]) -> Queue[T]: ...


@overload  # for a union and other types that are no classes
def open(name: str, backend: str = ..., *, type: "TypeForm[T]", **options: Unpack[Options]) -> Queue[T]: ...


@overload
def open(name: str, backend: str = ..., *, type: Any = ..., **options: Unpack[Options]) -> Queue[Any]: ...


def open(name: str, backend: str = AUTO, **options: Any) -> Queue[Any]:
    """Open the queue of a name, and create it if there is none.

    Whoever opens the same name meets on the same queue. Its limits, mode and lifetime are those it was created with; a
    limit that is asked for here has to be equal.

    Args:
        name: ``"/"`` and then 1 to 254 bytes of UTF-8 without ``"/"`` and NUL, and neither ``"/."`` nor ``"/.."``; or a
            URL such as ``"mqueue:///jobs?max_messages=4"``, which names the backend and may carry these options.
        backend: Name of the backend; ``"auto"`` attaches where the queue exists, and creates on the best that can
            honour the request. Naming one skips the search.
        **options: Options of the backend's own. A type checker does not know them: put them into a URL, or pass a
            ``dict[str, Any]``.

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
    address = parse(name, backend)
    with located(address.name, address.backend):
        asked = OpenRequest.of(address, options)
        handle = asked.handle
        codec = codec_for(handle["serializer"], allow_pickle=handle["allow_pickle"], type=handle["type"])
        if handle["allow_pickle"] and (asked.request.other_users or asked.request.mode & 0o022):
            raise _foreign_pickles()
        if asked.name in unsafe:
            raise QueueClosed(NOT_PREPARED)
        with Opening(asked.name):
            found, channel, passed_over = meet(asked, OPTIONS)
        try:
            compare(asked, channel)
            if handle["allow_pickle"] and channel.attributes.mode & 0o022:
                raise _foreign_pickles()
        except MessageQueueError as error:
            channel.close()
            raise error.at(asked.name, found.name)
    queue = class_for(channel)(
        channel,
        codec,
        Origin(
            name=asked.name,
            backend=found,
            request=asked.request,
            remove=partial(remove, asked.name, found.name),
            reopen=lambda: (partial(open, asked.name, found.name, create=False, **handle), ()),
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


open.__doc__ = documented(open.__doc__)


def _foreign_pickles() -> PermissionDenied:
    return PermissionDenied(
        "allow_pickle=True on a queue that other users can write to would run their code: use another serializer, "
        "or a queue that only this user can write to"
    )
