"""The face of faster-fifo: what its documentation shows and its own tests try, and what ours promises beyond it."""

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
    # From Python 3.12 on; that it works all the same is what is tested.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

#: The archive of its release on the package index, which has no tests in it.
VERSION, DIGEST = "1.5.2", "a2a544fef4d6e31ebd4bb4c7bbfced315d741c3b7ccad23fe0a359d7b408527e"

#: Seconds after which what hangs has failed.
HANG = 20.0

ITEM = {"a": 42, "b": 33, "c": (1, 2, 3), "d": [1, 2, 3], "e": "123", "f": b"kkk"}


@pytest.fixture(autouse=True)
def works() -> None:
    """Skip where the extension was not built."""
    usable("shm")


@pytest.fixture(autouse=True, scope="module")
def heap() -> Any:
    """Let the standard library make what it makes once, for shared values, and keeps."""
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


def put_batches_for_ever(queue: Any) -> None:
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


# What its documentation shows


def test_the_example_of_its_documentation_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs as it stands, but for the import and the name of its logger."""
    page = (sources.source("faster_fifo", VERSION, DIGEST) / "README.md").read_text()
    (example,) = re.findall(r"## Usage example\n\n```Python\n(.*?)```", page, re.DOTALL)
    monkeypatch.setitem(sys.modules, "faster_fifo", faster_fifo)
    names: dict[str, Any] = {"log": multiprocessing.get_logger()}
    exec(example, names)
    assert names["num_received"] == 100


# What its own tests try


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_producers_and_consumers_in_processes_move_everything(method: str) -> None:
    """Five that put one by one and three that take what is there, until it is closed."""
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
    """Without waiting, in a queue of 1,000 bytes."""
    queue = Queue[Any](max_size_bytes=1000)
    queue.put_nowait(ITEM)
    assert queue.get_nowait() == ITEM


def test_it_knows_how_many_there_are() -> None:
    """Before and after."""
    queue = Queue[Any](max_size_bytes=1000)
    queue.put_many([{"a": 10, "b": 20}, {"a": 30, "b": 40}])
    sizes = [queue.qsize()]
    queue.get_many()
    sizes.append(queue.qsize())
    assert sizes == [2, 0]


def test_it_knows_whether_it_is_empty() -> None:
    """Before and after."""
    queue = Queue[Any](max_size_bytes=1000)
    empty = [queue.empty()]
    queue.put_nowait(ITEM)
    empty.append(queue.empty())
    assert empty == [True, False]


def test_it_knows_whether_it_is_full() -> None:
    """Where no message finds space within the bytes that it was made for."""
    queue = Queue[Any](max_size_bytes=90)
    full = [queue.full()]
    queue.put_nowait(ITEM)
    full.append(queue.full())
    assert full == [False, True]


# Its other methods


def test_the_size_of_what_is_in_it_counts_as_there() -> None:
    """8 bytes for each message beside its own."""
    queue = Queue[bytes](dumps=bytes, loads=bytes)
    queue.put_many([bytes(10), bytes(20)])
    assert queue.data_size() == 10 + 20 + 2 * 8


def test_as_many_bytes_fit_as_it_was_made_for() -> None:
    """Of messages of 64 bytes and more."""
    queue = Queue[bytes](100_000, dumps=bytes, loads=bytes)
    for _ in range(100_000 // (64 + 8)):
        queue.put_nowait(bytes(64))
    assert queue.data_size() > 100_000 - (64 + 8)


def test_a_message_as_large_as_the_queue_fits() -> None:
    """As there, alone."""
    queue = Queue[bytes](100_000, dumps=bytes, loads=bytes)
    queue.put_nowait(bytes(100_000))
    assert len(queue.get_nowait()) == 100_000


def test_no_more_fit_than_it_was_made_for() -> None:
    """Counted in messages."""
    queue = Queue[int](maxsize=2)
    queue.put_many([1, 2])
    with pytest.raises(Full):
        queue.put_nowait(3)


def test_a_queue_of_so_many_is_full_with_them() -> None:
    """It says so."""
    queue = Queue[int](maxsize=2)
    queue.put_many([1, 2])
    assert queue.full()


@pytest.mark.parametrize("timeout", [0.05, -1.0])
def test_an_empty_queue_says_so_in_time(timeout: float) -> None:
    """A negative timeout is none at all."""
    with pytest.raises(Empty):
        Queue[Any]().get(timeout=timeout)


@pytest.mark.parametrize("call", ["put_many", "put_many_nowait"])
def test_a_batch_that_does_not_fit_leaves_nothing(call: str) -> None:
    """It is put whole or not at all."""
    queue = Queue[int](maxsize=3)
    queue.put_many([1, 2])
    arguments = {} if call.endswith("nowait") else {"timeout": 0.05}
    with pytest.raises(Full):
        getattr(queue, call)([3, 4], **arguments)
    assert queue.get_many_nowait() == [1, 2]


def test_a_batch_waits_for_space() -> None:
    """For all of it."""
    queue = Queue[int](maxsize=3)
    queue.put_many([1, 2])
    late = threading.Timer(0.1, queue.get_many_nowait)
    late.start()
    queue.put_many([3, 4, 5], timeout=None)
    late.join()
    assert queue.get_many_nowait(max_messages_to_get=2) == [3, 4]


def test_an_empty_batch_is_nothing() -> None:
    """As there."""
    queue = Queue[int]()
    queue.put_many([])
    assert queue.empty()


@pytest.mark.parametrize("batch", [[1, 2, 3], [bytes(2000)]])
def test_a_batch_that_can_never_fit_is_refused_at_once(batch: list[Any]) -> None:
    """C7: where faster-fifo says Full after ten seconds, each time."""
    with pytest.raises(ipcq.MessageTooLarge):
        Queue[Any](1000, maxsize=2).put_many(batch)


def test_an_object_that_can_never_fit_is_refused_at_once() -> None:
    """C7: as above."""
    with pytest.raises(ipcq.MessageTooLarge, match=r"max_size_bytes=20\d\d"):
        Queue[bytes](1000).put(bytes(2000))


@pytest.mark.parametrize("sizes", [(0, 1), (-1, 1), (1000, 0), (1000, -5)])
def test_a_queue_for_nothing_is_refused(sizes: tuple[int, int]) -> None:
    """There it is made, and takes nothing."""
    with pytest.raises(ipcq.InvalidArgument, match="1 or more"):
        Queue[Any](*sizes)


def test_a_batch_that_found_no_space_is_told_as_a_put_is() -> None:
    """By an error of ipcq, which says something."""
    queue = Queue[int](maxsize=1)
    queue.put(1)
    with pytest.raises(ipcq.QueueFull, match="no space"):
        queue.put_many([2], timeout=0)


def test_a_queue_is_passed_to_processes_alone() -> None:
    """As there, with the words of multiprocessing."""
    with pytest.raises(RuntimeError, match="inheritance"):
        pickle.dumps(Queue[int]())


def test_a_batch_is_a_list_or_a_tuple() -> None:
    """As there, with its exception."""
    with pytest.raises(QueueError, match="expects a list or tuple"):
        Queue[int]().put_many(iter([1]))  # type: ignore[arg-type]


def test_the_last_error_is_kept() -> None:
    """As there."""
    queue = Queue[int]()
    with pytest.raises(QueueError):
        queue.put_many({1})  # type: ignore[arg-type]
    assert "put_many" in str(queue.last_error)


def test_a_subclass_has_serializers_of_its_own() -> None:
    """As methods, as there."""

    class Texts(Queue[str]):
        def dumps(self, obj: str) -> bytes:  # type: ignore[override]
            return obj.encode()

        def loads(self, msg_bytes: bytes) -> str:  # type: ignore[override]
            return msg_bytes.decode()

    queue = Texts()
    queue.put("ü")
    assert queue.data_size() == 2 + 8 and queue.get() == "ü"


def test_a_closed_queue_says_so_and_works_on() -> None:
    """As there."""
    queue = Queue[int]()
    queue.close()
    queue.put(1)
    assert queue.is_closed() and queue.get() == 1


def test_there_is_no_thread_to_wait_for() -> None:
    """As there."""
    queue = Queue[int]()
    assert (queue.join_thread(), queue.cancel_join_thread()) == (None, None)  # type: ignore[func-returns-value]


# What it has beyond


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_queue_is_passed_to_a_process(method: str) -> None:
    """Under each start method, without importing anything for it."""
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
            multiprocessing.get_context("fork").Process(target=put_batches_for_ever, args=(queue,)) for _ in range(5)
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
def test_killed_processes_keep_nobody_from_going_on() -> None:
    """C15: its mutex stays locked there."""
    queue = storm()
    while not queue.empty():
        queue.get_many()
    queue.put("whole")
    assert queue.get() == "whole"


@pytest.mark.storm
def test_killed_processes_leave_whole_batches() -> None:
    """C9: what is in the queue was put as it was meant."""
    queue = storm()
    assert all(item == bytes(500) for item in (queue.get_many_nowait() if queue.qsize() else []))
