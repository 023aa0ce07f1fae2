"""Makes one memory request after another fail: ``python shortage.py BACKEND NAME SIZE VERB...``.

It prints each difference between the queue and the results that its handle reported.
"""

import _testcapi
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import ipcq

#: After this many calls in a row without a failure, every memory request of a call has failed once.
CALLS_WITHOUT_FAILURE = 12
ITEMS = 3


def items_of(size: int) -> list[Any]:
    """Return distinct items: bytes of a size, or mappings if the size is 0."""
    numbers = range(2 * ITEMS)
    return (
        [{"number": number, "text": "x" * 300} for number in numbers]
        if not size
        else [bytes([number]) * size for number in numbers]
    )


VERBS: dict[str, Callable[[Any, list[Any]], object]] = {
    "put": lambda queue, new: queue.put(new[0], timeout=0),
    "put_many": lambda queue, new: queue.put_many(new, block=False),
    "get": lambda queue, new: queue.get(timeout=0),
    "get_message": lambda queue, new: queue.get_message(timeout=0).item,
    "get_many": lambda queue, new: queue.get_many(block=False),
    "peek": lambda queue, new: queue.peek(),
}


def expected(verb: str, there: list[Any], new: list[Any], result: Any) -> list[Any]:
    """Return the items that must be in the queue after a call that returned."""
    if verb == "put":
        return [*there, new[0]]
    if verb == "put_many":
        return [*there, *new[:result]]
    if verb == "peek":
        return there if result == there[0] else ["peek", result]
    got = result if verb == "get_many" else [result]
    return there[len(got) :] if got == there[: len(got)] else ["got", got]


def shortages(queue: "ipcq.Queue[Any]", act: str, items: list[Any]) -> Iterator[str]:
    """Make each memory request of a call fail, and yield each difference between the queue and the call's result."""
    there, new = items[:ITEMS], items[ITEMS:]
    with suppress(ipcq.MessageQueueError):
        VERBS[act](queue, new)  # allocations of the first call only
    quiet = number = 0
    while quiet < CALLS_WITHOUT_FAILURE:
        queue.clear()
        assert queue.put_many(there) == ITEMS
        try:
            _testcapi.set_nomemory(number, number + 1)
            try:
                result = VERBS[act](queue, new)
            finally:
                _testcapi.remove_mem_hooks()
        except (MemoryError, ipcq.MessageQueueError):
            wanted, quiet = there, 0
        else:
            wanted, quiet = expected(act, there, new, result), quiet + 1
        left = []
        with suppress(ipcq.QueueEmpty):
            while True:
                left.append(queue.get(timeout=0))
        if left != wanted:
            yield f"{act}, request {number}: {len(left)} left, {len(wanted)} wanted"
        number += 1


def main(backend: str, name: str, size: int, acts: list[str]) -> None:
    limits = {} if size > 10000 else {"max_messages": 6, "max_message_size": 1000}
    with ipcq.open(name, backend, **limits) as queue:
        for act in acts:
            for difference in shortages(queue, act, items_of(size)):
                print(difference)
        queue.unlink()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
