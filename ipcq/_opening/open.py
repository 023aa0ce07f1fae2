"""`ipcq.open`: from address and options to a handle with channel and codec."""

import sys
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from ipcq._handle.lifecycle import NOT_PREPARED
from ipcq._handle.origin import Origin
from ipcq._handle.queue import Queue
from ipcq._handle.remote import queue_over
from ipcq._opening import registry
from ipcq._opening.address import AUTO, parse
from ipcq._opening.directory import remove
from ipcq._opening.open_request import OpenRequest
from ipcq._opening.options import OPTIONS, Options, documented
from ipcq._opening.rendezvous import attach_or_create, compare, located
from ipcq._process.forks import Opening, unsafe
from ipcq._redaction import Secret
from ipcq.errors import MessageQueueError, PermissionDenied, QueueClosed
from ipcq.serializers import codec_for

T = TypeVar("T")

if TYPE_CHECKING:
    from typing_extensions import TypeForm  # bundled with the type checker


@overload
def open(name: str, backend: str = ..., *, type: type[T], **options: Unpack[Options]) -> Queue[T]: ...


@overload  # for unions and other types that are not classes
def open(name: str, backend: str = ..., *, type: "TypeForm[T]", **options: Unpack[Options]) -> Queue[T]: ...


@overload
def open(name: str, backend: str = ..., *, type: Any = ..., **options: Unpack[Options]) -> Queue[Any]: ...


def open(name: str, backend: str = AUTO, **options: Any) -> Queue[Any]:
    """Open the queue of a name, and create it if it does not exist.

    All processes that open a name get the same queue. An existing queue keeps the limits, mode and lifetime of its
    creation; a limit that is passed here must be equal.

    Args:
        name: ``"/"`` and 1 to 254 bytes of UTF-8 without ``"/"`` and NUL, but not ``"/."`` or ``"/.."``; or a URL such
            as ``"mqueue:///jobs?max_messages=4"``, which names the backend and may set these options. On backends with
            places, the URL may also name one: a server, a directory.
        backend: Name of the backend, or URL of the place. ``"auto"`` attaches to an existing queue on any backend, and
            creates a new one on the best backend that can fulfil the request. A named backend saves the search.
        **options: Options of the backend. They are unknown to a type checker: put them into a URL, or pass a
            ``dict[str, Any]``.

    Returns:
        A handle; close it, or use it in a ``with`` statement.

    Raises:
        QueueNotFound: The queue does not exist, and ``create=False``.
        QueueExists: The queue exists, and ``exclusive=True``.
        QueueMismatch: The queue has other limits than requested, or the name exists on several backends.
        LimitExceeded: A limit of the system prevents the creation; no other backend is tried.
        NoSpace: The memory is full; no other backend is tried.
        Unsupported: The named backend cannot fulfil the request, or a library is missing.
        BackendUnknown: No installed distribution provides the backend.
        BackendUnavailable: The named backend, or every backend, is unusable here; the error's `reasons` say why.
        PermissionDenied: This user lacks the permission, the queue belongs to another user, or
            ``allow_pickle=True`` and other users can write to the queue.
        TimedOutError: Other processes created or unlinked the name until `open_timeout` was over.
        QueueClosed: This process was forked during a call on the queue, and the backend's state must not cross a fork.
        InvalidName: The name is invalid.
        InvalidArgument: An argument or option is unknown, or has a wrong type or value.

    Warns:
        PersistenceWarning: The queue is persistent, but every backend that keeps queues is unusable here. Nothing has
            been created yet, so if you turn the warning into an error, nothing is left behind.
    """
    address = parse(name, backend)
    with located(address.name, address.backend):
        open_request = OpenRequest.of(address, options)
        handle = open_request.handle
        codec = codec_for(handle["serializer"], allow_pickle=handle["allow_pickle"], type=handle["type"])
        if handle["allow_pickle"] and (open_request.request.other_users or open_request.request.mode & 0o022):
            raise _untrusted_pickles()
        if open_request.name in unsafe:
            raise QueueClosed(NOT_PREPARED)
        with Opening(open_request.name):
            found, channel, passed_over = attach_or_create(open_request, OPTIONS)
        given = open_request.request.options
        kept = {option: value for option, value in given.items() if found.options.get(option) is not Secret}
        try:
            compare(open_request, channel)
            if handle["allow_pickle"] and channel.attributes.mode & 0o022:
                raise _untrusted_pickles()
        except MessageQueueError as error:
            channel.close()
            raise error.at(open_request.name, found.name)
    queue: Queue[Any] = queue_over(
        channel,
        codec,
        Origin(
            name=open_request.name,
            backend=found,
            request=open_request.request,
            remove=partial(remove, open_request.name, found),
            reopen=lambda: (partial(open, open_request.name, found.name, create=False, **handle, **kept), ()),
            alternatives=registry.able,
        ),
    )
    if passed_over:
        try:
            _log(queue, passed_over)
        except BaseException:  # from a logging handler, which may raise anything
            queue.close()
            raise
    return queue


def _log(queue: Queue[Any], passed_over: str) -> None:
    """Log that the queue is not on the best backend, and why."""
    logging = sys.modules.get("logging")  # if it was never imported, there is no handler
    if logging is not None:
        logging.getLogger("ipcq").info(
            "queue %r was created on backend %r, with %s; better backends were skipped: %s",
            queue.name,
            queue.backend,
            limits_of(queue),
            passed_over,
        )


def limits_of(queue: Queue[Any]) -> str:
    """Describe a queue's limits."""
    messages = "any number of" if queue.max_messages is None else f"at most {queue.max_messages}"
    total = "" if queue.buffer_size is None else f", {queue.buffer_size} bytes in total"
    return f"{messages} messages of at most {queue.max_message_size} bytes{total}"


open.__doc__ = documented(open.__doc__)


def _untrusted_pickles() -> PermissionDenied:
    return PermissionDenied(
        "other users can write to this queue, and with allow_pickle=True their pickles would run code: use another "
        "serializer, or a queue that only this user can write to"
    )
