"""Read-only facts about queues."""

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ipcq
from ipcq._cli._exits import line_of
from ipcq._opening.address import AUTO, PREFERENCE
from ipcq._opening.choose import Candidate, shortcoming
from ipcq.backend import Request
from ipcq.errors import MessageQueueError, QueueNotFound


class QueueAt(NamedTuple):
    """What a command passes to `ipcq.open` for a queue."""

    name: str
    backend: str


def opened_by(queue: ipcq.QueueInfo, searched: str) -> str:
    """Return the argument `backend` that opens a queue listed by `searched`.

    A listing has no credentials. The URL of a place may have them, so that URL is returned as it is.
    """
    named = os.environ.get(PREFERENCE, "") if searched == AUTO else searched
    return searched if "://" in named else queue.backend


def facts_about(name: str, backend: str, *, other_users: bool) -> dict[str, Any]:
    """Return the facts about a queue as JSON values.

    Raises:
        MessageQueueError: The queue does not exist or cannot be opened.
    """
    with ipcq.open(name, backend, create=False, write=False, other_users=other_users) as queue:
        return facts_of(queue)


def facts_of(queue: ipcq.Queue[Any]) -> dict[str, Any]:
    """Return the facts about an open queue as JSON values."""
    return {
        "name": queue.name,
        "backend": queue.backend,
        "messages": queue.qsize(),
        "max_messages": queue.max_messages,
        "max_message_size": queue.max_message_size,
        "mode": f"{queue.mode:04o}",
    }


def notes_on(queue: ipcq.Queue[Any]) -> Iterator[str]:
    """Yield notes: why the queue is not on the best backend, if known, and whether `ls` can list it."""
    ranked = [each for each in ipcq.backends() if each.rank is not None and _is_local(each)]
    usable = [each for each in ranked if each.usable or each.name == queue.backend]
    if usable and usable[0].name != queue.backend and queue.backend in {each.name for each in usable}:
        best = usable[0]
        reason = _reason_against(best, queue)
        yield f"queue {queue.name!r} on backend {queue.backend!r}: not on the better backend {best.name!r}: {reason}"
    yield from unlisted(queue)


def _is_local(info: ipcq.BackendInfo) -> bool:
    # `auto` creates on no other, whatever its rank.
    return info.capabilities is not None and info.capabilities.scope < ipcq.Scope.NETWORK


def _reason_against(best: ipcq.BackendInfo, queue: ipcq.Queue[Any]) -> str:
    request = Request(
        mode=queue.mode,
        max_message_size=queue.max_message_size,
        priorities=queue.priorities,
        leases=queue.capabilities.leases,
        lifetime=queue.lifetime,
    )
    able = best.capabilities or ipcq.Capabilities()
    reason = shortcoming(Candidate(name=best.name, capabilities=able), request)
    if reason:
        return reason
    if queue.mode & 0o077:
        return (
            f"the mode {queue.mode:04o} grants access to other users, and a backend on which they could damage the "
            "queue needs --other-users for that"
        )
    return "its creator named a backend, by an option or by IPCQ_BACKEND, or could not use the better one"


def unlisted(queue: ipcq.Queue[Any]) -> Iterator[str]:
    """Yield a note if `ipcq ls` cannot list the queue, with the way out."""
    reason = ipcq.queues().unlisted.get(queue.backend)
    if reason is not None:
        yield f"`ipcq ls` cannot show the queues of backend {queue.backend!r}: {reason}"


def facts_about_all(backend: str, facts: Callable[[QueueAt], dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Call `facts` for each queue of a backend or place, or of all backends for ``"auto"``.

    Returns:
        The results of `facts`, with name, backend and error for each queue that cannot be opened; and a note for
        everything that could not be listed or opened.

    Raises:
        MessageQueueError: The backend or place was named, and its queues cannot be listed.
    """
    queues = ipcq.queues() if backend == AUTO else ipcq.queues(backend)
    rows = []
    notes = [f"backend {each!r}: {reason}" for each, reason in queues.unlisted.items()]
    for each in queues:
        try:
            row = facts(QueueAt(each.name, opened_by(each, backend)))
        except QueueNotFound:
            continue  # unlinked since it was listed
        except MessageQueueError as error:
            row = {"name": each.name, "backend": each.backend, "error": line_of(error)}
            notes.append(line_of(error))
        rows.append(row)
    return rows, notes
