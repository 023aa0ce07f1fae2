"""The queues of this process by name. A forked child starts with none: its copies would be other queues."""

from ipcq.backend import NativeRLock, hold_over_forks
from ipcq_memory._queue import MemoryQueue

queues: dict[str, MemoryQueue] = {}
lock = NativeRLock()


def remove(name: str, queue: MemoryQueue, *, unless_held: bool = False) -> bool:
    """Remove a queue's name, and return whether it was still that queue's."""
    with lock:
        if queues.get(name) is not queue or (unless_held and queue.holders):
            return False
        del queues[name]
    queue.linked = False
    queue.alone(queue.wake_all)
    return True


hold_over_forks(lock, in_child=queues.clear)
