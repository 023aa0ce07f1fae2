"""The compatibility module for faster-fifo: its documented example, the cases of its tests, and improvements."""

import multiprocessing
import os
import pickle
import re
import signal
import sys
import threading
import time
from queue import Empty, Full
from typing import Any

import pytest

import ipcq
from ipcq.compat import faster_fifo
from ipcq.compat.faster_fifo import Queue, QueueError
from processes.needs import usable

sources = pytest.importorskip("compat.sources", reason="could not import 'fcntl', which only POSIX has")

pytestmark = [
    pytest.mark.needs("shm"),
    # Python 3.12 and later warn; the tests show that it works.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

#: The archive of a release on the package index, which contains no tests.
VERSION, DIGEST = "1.5.2", "a2a544fef4d6e31ebd4bb4c7bbfced315d741c3b7ccad23fe0a359d7b408527e"

#: Timeout of anything that may hang, in seconds.
HANG = 20.0

ITEM = {"a": 42, "b": 33, "c": (1, 2, 3), "d": [1, 2, 3], "e": "123", "f": b"kkk"}


@pytest.fixture(autouse=True)
def works() -> None:
    """Skip if the extension was not built."""
    usable("shm")


@pytest.fixture(autouse=True, scope="module")
def heap() -> Any:
    """Let the standard library create the heap for shared values, which it keeps."""
    return multiprocessing.RawValue("b")


def put_numbers(queue: Any, producer: int, count: int) -> None:
    number = 0
    while number < count:
        try:
            queue.put((producer, number), timeout=0.01)
            number += 1
        except Full:
            pass


def take_until_closed(queue: Any, told: Any) -> None:
    count = 0
    while True:
        try:
            count += len(queue.get_many(timeout=0.01, max_messages_to_get=100))
        except Empty:
            if queue.is_closed():
                break
    told.put(count)


def put_batches_forever(queue: Any) -> None:
    while True:
        queue.put_many([bytes(500)] * 3)
        queue.get_many(max_messages_to_get=3)


def pass_on(queue: Any, other: Any) -> None:
    other.put(queue.get())


def end(process: Any) -> None:
    process.join(HANG)
    process.kill()
    process.join()
    process.close()


# Its documented example


def test_the_example_of_its_documentation_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the import and the name of its logger are changed."""
    page = (sources.source("faster_fifo", VERSION, DIGEST) / "README.md").read_text()
    (example,) = re.findall(r"## Usage example\n\n```Python\n(.*?)```", page, re.DOTALL)
    monkeypatch.setitem(sys.modules, "faster_fifo", faster_fifo)
    names: dict[str, Any] = {"log": multiprocessing.get_logger()}
    exec(example, names)
    assert names["num_received"] == 100


# The cases of its tests


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_producers_and_consumers_in_processes_move_everything(method: str) -> None:
    """Five producers put one by one, and three consumers take batches until the queue is closed."""
    context = multiprocessing.get_context(method)
    queue, told = Queue[Any](), Queue[Any]()
    producers = [context.Process(target=put_numbers, args=(queue, number, 2000)) for number in range(5)]
    consumers = [context.Process(target=take_until_closed, args=(queue, told)) for _ in range(3)]
    for process in (*producers, *consumers):
        process.start()
    for process in producers:
        end(process)
    queue.close()
    counts = [told.get(timeout=HANG) for _ in consumers]
    for process in consumers:
        end(process)
    assert sum(counts) == 5 * 2000


def test_an_object_comes_back_as_it_was() -> None:
    """The calls do not wait, and the queue has 1,000 bytes."""
    queue = Queue[Any](max_size_bytes=1000)
    queue.put_nowait(ITEM)
    assert queue.get_nowait() == ITEM


def test_qsize_is_the_number_of_messages() -> None:
    """It is right after a put and after a get."""
    queue = Queue[Any](max_size_bytes=1000)
    queue.put_many([{"a": 10, "b": 20}, {"a": 30, "b": 40}])
    sizes = [queue.qsize()]
    queue.get_many()
    sizes.append(queue.qsize())
    assert sizes == [2, 0]


def test_empty_tells_whether_the_queue_is_empty() -> None:
    """It is right before and after a put."""
    queue = Queue[Any](max_size_bytes=1000)
    empty = [queue.empty()]
    queue.put_nowait(ITEM)
    empty.append(queue.empty())
    assert empty == [True, False]


def test_full_tells_whether_the_queue_is_full() -> None:
    """A queue is full if no further message fits into its size in bytes."""
    queue = Queue[Any](max_size_bytes=90)
    full = [queue.full()]
    queue.put_nowait(ITEM)
    full.append(queue.full())
    assert full == [False, True]


# Its other methods


def test_data_size_counts_as_in_faster_fifo() -> None:
    """Each message counts with its bytes and 8 more."""
    queue = Queue[bytes](dumps=bytes, loads=bytes)
    queue.put_many([bytes(10), bytes(20)])
    assert queue.data_size() == 10 + 20 + 2 * 8


def test_a_queue_holds_as_many_bytes_as_requested() -> None:
    """This is exact for messages of 64 bytes or more."""
    queue = Queue[bytes](100_000, dumps=bytes, loads=bytes)
    for _ in range(100_000 // (64 + 8)):
        queue.put_nowait(bytes(64))
    assert queue.data_size() > 100_000 - (64 + 8)


def test_a_message_as_large_as_the_queue_fits() -> None:
    """It fits alone, as in faster-fifo."""
    queue = Queue[bytes](100_000, dumps=bytes, loads=bytes)
    queue.put_nowait(bytes(100_000))
    assert len(queue.get_nowait()) == 100_000


def test_a_queue_holds_no_more_messages_than_maxsize() -> None:
    """`maxsize` is a number of messages."""
    queue = Queue[int](maxsize=2)
    queue.put_many([1, 2])
    with pytest.raises(Full):
        queue.put_nowait(3)


def test_a_queue_with_maxsize_messages_is_full() -> None:
    """`full` returns True."""
    queue = Queue[int](maxsize=2)
    queue.put_many([1, 2])
    assert queue.full()


@pytest.mark.parametrize("timeout", [0.05, -1.0])
def test_getting_from_an_empty_queue_raises_at_the_timeout(timeout: float) -> None:
    """A negative timeout does not wait."""
    with pytest.raises(Empty):
        Queue[Any]().get(timeout=timeout)


@pytest.mark.parametrize("call", ["put_many", "put_many_nowait"])
def test_a_batch_that_does_not_fit_leaves_nothing(call: str) -> None:
    """A batch is put whole or not at all."""
    queue = Queue[int](maxsize=3)
    queue.put_many([1, 2])
    arguments = {} if call.endswith("nowait") else {"timeout": 0.05}
    with pytest.raises(Full):
        getattr(queue, call)([3, 4], **arguments)
    assert queue.get_many_nowait() == [1, 2]


def test_a_batch_waits_for_space() -> None:
    """It waits until the whole batch fits."""
    queue = Queue[int](maxsize=3)
    queue.put_many([1, 2])
    late = threading.Timer(0.1, queue.get_many_nowait)
    late.start()
    queue.put_many([3, 4, 5], timeout=None)
    late.join()
    assert queue.get_many_nowait(max_messages_to_get=2) == [3, 4]


def test_an_empty_batch_puts_nothing() -> None:
    """It is no error, as in faster-fifo."""
    queue = Queue[int]()
    queue.put_many([])
    assert queue.empty()


@pytest.mark.parametrize("batch", [[1, 2, 3], [bytes(2000)]])
def test_a_batch_that_can_never_fit_is_refused_at_once(batch: list[Any]) -> None:
    """C7: faster-fifo raises Full after ten seconds, each time."""
    with pytest.raises(ipcq.MessageTooLarge):
        Queue[Any](1000, maxsize=2).put_many(batch)


def test_an_object_that_can_never_fit_is_refused_at_once() -> None:
    """C7: the same holds for a single object."""
    with pytest.raises(ipcq.MessageTooLarge, match=r"max_size_bytes=20\d\d"):
        Queue[bytes](1000).put(bytes(2000))


@pytest.mark.parametrize("sizes", [(0, 1), (-1, 1), (1000, 0), (1000, -5)])
def test_a_queue_without_space_is_refused(sizes: tuple[int, int]) -> None:
    """faster-fifo creates it, but every put fails."""
    with pytest.raises(ipcq.InvalidArgument, match="1 or more"):
        Queue[Any](*sizes)


def test_a_batch_without_space_raises_the_error_of_a_put() -> None:
    """It is an error of ipcq with a text."""
    queue = Queue[int](maxsize=1)
    queue.put(1)
    with pytest.raises(ipcq.QueueFull, match="no space"):
        queue.put_many([2], timeout=0)


def test_a_queue_can_only_be_passed_to_a_new_process() -> None:
    """Pickling raises the error of multiprocessing, as in faster-fifo."""
    with pytest.raises(RuntimeError, match="inheritance"):
        pickle.dumps(Queue[int]())


def test_a_batch_must_be_a_list_or_a_tuple() -> None:
    """It raises the exception of faster-fifo."""
    with pytest.raises(QueueError, match="expects a list or tuple"):
        Queue[int]().put_many(iter([1]))


def test_the_last_error_is_kept() -> None:
    """The attribute is the same as in faster-fifo."""
    queue = Queue[int]()
    with pytest.raises(QueueError):
        queue.put_many({1})
    assert "put_many" in str(queue.last_error)


def test_a_subclass_can_define_serializers() -> None:
    """They are methods, as in faster-fifo."""

    class Texts(Queue[str]):
        def dumps(self, obj: str) -> bytes:
            return obj.encode()

        def loads(self, msg_bytes: bytes) -> str:
            return msg_bytes.decode()

    queue = Texts()
    queue.put("ü")
    assert queue.data_size() == 2 + 8 and queue.get() == "ü"


def test_a_closed_queue_still_works() -> None:
    """`close` only sets a flag, as in faster-fifo."""
    queue = Queue[int]()
    queue.close()
    queue.put(1)
    assert queue.is_closed() and queue.get() == 1


def test_there_is_no_thread_to_join() -> None:
    """Both methods do nothing, as in faster-fifo."""
    queue = Queue[int]()
    assert (queue.join_thread(), queue.cancel_join_thread()) == (None, None)


# Improvements


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_queue_can_be_passed_to_a_process(method: str) -> None:
    """This works with each start method, without importing a reducer."""
    context = multiprocessing.get_context(method)
    queue, other = Queue[Any](), Queue[Any]()
    process = context.Process(target=pass_on, args=(queue, other))
    process.start()
    queue.put(ITEM)
    came = other.get(timeout=HANG)
    end(process)
    assert came == ITEM


def storm() -> Queue[Any]:
    """Return a queue in which 50 processes were killed."""
    queue = Queue[Any](max_size_bytes=10_000)
    for _ in range(10):
        processes = [
            multiprocessing.get_context("fork").Process(target=put_batches_forever, args=(queue,)) for _ in range(5)
        ]
        for process in processes:
            process.start()
        time.sleep(0.02)
        for process in processes:
            os.kill(process.pid or 0, signal.SIGKILL)
        for process in processes:
            end(process)
    return queue


@pytest.mark.storm
def test_killed_processes_do_not_block_others() -> None:
    """C15: in faster-fifo, its mutex stays locked."""
    queue = storm()
    while not queue.empty():
        queue.get_many()
    queue.put("whole")
    assert queue.get() == "whole"


@pytest.mark.storm
def test_killed_processes_leave_whole_batches() -> None:
    """C9: the queue contains no part of a batch."""
    queue = storm()
    assert all(item == bytes(500) for item in (queue.get_many_nowait() if queue.qsize() else []))
