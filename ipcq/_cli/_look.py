"""What can be seen of a queue without touching it."""

from typing import Any

import ipcq


def look(name: str, backend: str, *, other_users: bool) -> dict[str, Any]:
    """Return what is known of a queue, in figures that JSON can say.

    Raises:
        MessageQueueError: The queue is not there or not to be opened.
    """
    with ipcq.open(name, backend, create=False, write=False, other_users=other_users) as queue:
        return {
            "name": queue.name,
            "backend": queue.backend,
            "messages": queue.qsize(),
            "max_messages": queue.max_messages,
            "max_message_size": queue.max_message_size,
            "mode": f"{queue.mode:04o}",
        }
