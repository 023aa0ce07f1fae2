"""C21: threads that share a handle lose, repeat and reorder nothing, with the global interpreter lock and without."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest

import ipcq
from processes.sizes import size

#: Half of the threads put and half get.
THREADS = 8
#: The number of messages that each thread puts or gets.
MESSAGES = size(250, 25_000)
HANG = size(60, 4000)

Taken = list[list[int]]


def put_all(queue: "ipcq.Queue[Any]", thread: int) -> None:
    for number in range(MESSAGES):
        queue.put([thread, number], timeout=HANG)


def get_all(queue: "ipcq.Queue[Any]") -> Taken:
    """Take the share of one thread."""
    return [queue.get(timeout=HANG) for _ in range(MESSAGES)]


def get_batches(queue: "ipcq.Queue[Any]") -> Taken:
    """Take the share of one thread in batches."""
    taken: Taken = []
    while len(taken) < MESSAGES:
        taken += queue.get_many(MESSAGES - len(taken), timeout=HANG)
    return taken


@contextmanager
def looking_at(queue: "ipcq.Queue[Any]") -> Iterator[None]:
    """Let one more thread look at the queue all the time; each message that it peeks at is whole."""
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            queue.qsize()
            queue.full()
            queue.stats()
            with suppress(ipcq.Unsupported, ipcq.QueueEmpty):
                assert len(queue.peek()) == 2

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            yield
        finally:
            done.set()
        looking.result()


@pytest.fixture(params=[get_all, get_batches])
def taken(request: pytest.FixtureRequest, queue: "ipcq.Queue[Any]") -> list[Taken]:
    """Return what each of four threads took while four others put, all through one handle."""
    with looking_at(queue), ThreadPoolExecutor(THREADS) as pool:
        consumers: list[Future[Taken]] = [pool.submit(request.param, queue) for _ in range(THREADS // 2)]
        for producer in [pool.submit(put_all, queue, thread) for thread in range(THREADS // 2)]:
            producer.result()
        return [consumer.result() for consumer in consumers]


def test_each_message_of_each_thread_is_taken_once(taken: list[Taken]) -> None:
    """C2, C21: four threads put and four get, while a ninth one looks."""
    expected = [[thread, number] for thread in range(THREADS // 2) for number in range(MESSAGES)]
    assert sorted(message for each in taken for message in each) == expected


def test_each_thread_takes_the_messages_of_another_in_order(taken: list[Taken]) -> None:
    """C8, C21: the messages that one thread took from another come in the order in which they were put."""
    mixed = [
        (consumer, producer)
        for consumer, each in enumerate(taken)
        for producer in range(THREADS // 2)
        if (numbers := [number for thread, number in each if thread == producer]) != sorted(numbers)
    ]
    assert not mixed
