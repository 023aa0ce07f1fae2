"""The compatibility module for multiprocessing: CPython's tests of its queues, and improvements."""

import functools
import math
import multiprocessing
import os
import pickle
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import resource_sharer
from multiprocessing.connection import wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ipcq
from compat import queue_programs as programs
from compat.conftest import HANG, Crew
from ipcq._process import forks as _forks
from ipcq.compat import _messages, _nameless, _pickling
from ipcq.compat import multiprocessing as face
from ipcq.compat._messages import FileQueue
from ipcq.compat.multiprocessing import JoinableQueue, Queue, SimpleQueue
from ipcq.testing.processes import until

pytest.importorskip("fcntl", reason="could not import 'fcntl', which only POSIX has")

pytestmark = [
    pytest.mark.needs("shm"),
    pytest.mark.usefixtures("works"),
    # Python 3.12 and later warn; the tests show that it works.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

METHODS = ("fork", "spawn", "forkserver")

#: The smallest number of tests of its queues that CPython has.
THEIRS = 13


@pytest.fixture
def sharer() -> Iterator[None]:
    """Stop the thread that hands descriptors to other processes after the test."""
    yield
    resource_sharer.stop(HANG)


@pytest.fixture(params=METHODS)
def context(request: pytest.FixtureRequest) -> Any:
    """Return the context of each start method."""
    return face.get_context(request.param)


# CPython's own tests


@pytest.mark.parametrize("method", METHODS)
def test_the_tests_of_cpython_pass(method: str, tmp_path: Path) -> None:
    """These are all of `_TestQueue` and `TestSimpleQueue` of this Python."""
    command = [sys.executable, Path(__file__).with_name("cpython_queues.py"), method]
    # One of them creates a directory with a fixed name in the working directory.
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    ran = re.search(r"Ran (\d+) tests in .*\n\nOK\n", run.stderr)
    assert ran is not None and int(ran[1]) >= THEIRS, run.stderr


# Passing queues to processes


@pytest.mark.parametrize("make", [Queue, JoinableQueue, SimpleQueue])
def test_a_queue_can_be_passed_to_a_process(make: Any, kind: str, context: Any, crew: Crew) -> None:
    """This works with each start method, for items put before and after the start."""
    source, target = make(), make()
    crew.start(context, programs.pass_on, source, target)
    source.put({"a": (1, 2)})
    assert target.get() == {"a": (1, 2)}


def test_a_queue_can_be_passed_through_a_queue(context: Any, crew: Crew, sharer: None) -> None:
    """A connection can, too, while the process that put it lives."""
    through, travelling = Queue(), Queue()
    crew.start(context, programs.answer_through, through)
    through.put(travelling)
    assert travelling.get(timeout=HANG) == "answer"


def test_a_parent_may_close_its_queues(context: Any, crew: Crew) -> None:
    """Its children go on, even if they have not attached to the queues yet."""
    source, target, told = Queue(), Queue(), Queue()
    source.put("kept")
    crew.start(context, programs.pass_on, source, target)
    crew.start(context, programs.pass_on, target, told)
    source.close()
    target.close()
    del source, target
    assert told.get(timeout=HANG) == "kept"


@pytest.mark.parametrize("method", METHODS)
def test_a_parent_may_die_at_once(method: str, tmp_path: Path) -> None:
    """The child keeps the queue, even if it attaches later."""
    note = tmp_path / "note"
    program = str(programs.__file__)
    subprocess.run([sys.executable, program, str(note), method], check=False, timeout=HANG)
    until(note.exists, HANG)
    assert note.read_text() == "left"


def test_a_queue_is_not_visible() -> None:
    """It has no name in /dev/shm that could be left behind by a killed process."""
    before = set(os.listdir("/dev/shm"))
    one, other = Queue(), Queue(3)
    one.put(bytes(10**6))
    other.put(bytes(10**6))
    one._reader.fileno()
    assert set(os.listdir("/dev/shm")) == before


@pytest.mark.parametrize("make", [Queue, JoinableQueue, SimpleQueue])
def test_a_queue_that_was_sent_is_the_same_queue(make: Any, kind: str, sharer: None) -> None:
    """This holds even in the process that sent it."""
    shared = make()
    again = pickle.loads(pickle.dumps(shared))
    shared.put("one")
    assert again.get() == "one"


def test_the_descriptors_of_a_received_queue_are_not_closed_in_a_child(sharer: None) -> None:
    """C20: it could otherwise close another file that has got one of their numbers."""
    before = set(_forks._descriptors)
    sent = pickle.loads(pickle.dumps(Queue()))
    assert _forks._descriptors == before
    sent.close()


# Ends


def test_a_process_exits_even_if_its_items_are_not_taken(kind: str, context: Any, crew: Crew) -> None:
    """Joining before reading would hang if a feeder thread had to write 10 MB into a pipe."""
    shared = Queue()
    process = crew.start(context, programs.put_much, shared, 100, 100_000)
    process.join(HANG)
    assert [shared.get()[0] for _ in range(100)] == list(range(100))


def test_an_item_outlives_the_process_that_put_it(kind: str, context: Any, crew: Crew) -> None:
    """It is in the queue when `put` returns, even if the process dies immediately."""
    shared = Queue()
    crew.start(context, programs.put_and_die, shared, "stored").join(HANG)
    assert shared.get_nowait() == "stored"


def test_any_number_of_items_can_be_put_before_one_is_taken(kind: str) -> None:
    """Without a bound, a put never waits for a get."""
    shared = Queue()
    for number in range(20_000):
        shared.put(number)
    assert [shared.get() for _ in range(20_000)] == list(range(20_000))


@pytest.mark.parametrize("bound", [0, 1, 2000, 200_000])
def test_objects_of_any_size_can_be_put(bound: int, kind: str) -> None:
    """Any bound allows that, and the order with small objects is kept."""
    shared = Queue(bound)
    worker = threading.Thread(target=programs.put_all, args=(shared, ["a", bytes(20 << 20), "b"]))
    worker.start()
    taken = [shared.get() for _ in range(3)]
    worker.join()
    assert taken == ["a", bytes(20 << 20), "b"]


def test_a_bound_counts_objects(kind: str) -> None:
    """Their size does not matter."""
    shared = Queue(50)
    programs.put_much(shared, 50, 50_000)
    assert shared.full()


def test_a_get_waits_for_messages_in_the_overflow_file(kind: str) -> None:
    """It has no timeout and waits longer than its polling interval."""
    shared = Queue()
    late = threading.Timer(0.6, shared.put, ["late"])
    late.start()
    assert shared.get() == "late"
    late.join()


def test_a_wait_ends_at_its_timeout(kind: str) -> None:
    """C10: never before it."""
    shared = Queue()
    began = time.monotonic()
    with pytest.raises(queue.Empty):
        shared.get(timeout=0.3)
    assert 0.3 <= time.monotonic() - began < 0.3 + 0.5


@pytest.mark.parametrize("bound", [0, 1])
def test_get_nowait_raises_at_once(bound: int, kind: str) -> None:
    """put_nowait and get_nowait do not wait."""
    shared = Queue(bound)
    shared.put_nowait(1)
    shared.get_nowait()
    with pytest.raises(queue.Empty):
        shared.get_nowait()


def test_a_negative_timeout_does_not_wait(kind: str) -> None:
    """The standard library does the same: the rest of a deadline may be negative."""
    shared = Queue(1)
    with pytest.raises(queue.Empty):
        shared.get(timeout=-1)
    shared.put(1, timeout=-1)
    with pytest.raises(queue.Full):
        shared.put(2, timeout=-1)


def test_a_timeout_of_nan_is_refused(kind: str) -> None:
    """It raises ValueError, as in the standard library: no clock would ever reach it."""
    with pytest.raises(ValueError, match="not nan"):
        Queue().get(timeout=math.nan)


def test_a_put_on_a_full_queue_ends_when_an_item_is_taken(kind: str) -> None:
    """The waiting put succeeds."""
    shared = Queue(1)
    shared.put("first")
    late = threading.Timer(0.1, shared.get)
    late.start()
    shared.put("second", timeout=HANG)
    late.join()
    assert shared.get_nowait() == "second"


# Kills


@pytest.mark.storm
def test_killed_children_do_not_block_others(kind: str, crew: Crew) -> None:
    """200 are killed while they put and get; afterwards the queue is intact."""
    context = multiprocessing.get_context("fork")
    shared = Queue()
    for _ in range(40):
        processes = [crew.start(context, programs.put_and_get_forever, shared) for _ in range(5)]
        time.sleep(0.02)
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
    while shared.qsize():
        shared.get(timeout=HANG)
    shared.put("whole")
    assert shared.get(timeout=HANG) == "whole"


@pytest.mark.storm
def test_killing_a_consumer_loses_at_most_one_message(kind: str, crew: Crew, tmp_path: Path) -> None:
    """C2: no message is duplicated, each producer's order is kept, and each kill loses at most one message."""
    context = multiprocessing.get_context("fork")
    shared, count, kills = Queue(), 4000, 30
    producers = [crew.start(context, programs.produce, shared, number, count) for number in range(3)]
    ledgers = [str(tmp_path / str(number)) for number in range(kills + 2)]
    consumers = [crew.start(context, programs.consume, shared, ledger) for ledger in ledgers[:2]]
    for ledger in ledgers[2:]:
        time.sleep(0.01)
        consumers.pop(0).kill()
        consumers.append(crew.start(context, programs.consume, shared, ledger))
    for producer in producers:
        producer.join(2 * HANG)
    for _ in consumers:
        shared.put(None)
    for consumer in consumers:
        consumer.join(2 * HANG)
    seen: dict[int, list[int]] = defaultdict(list)
    for ledger in ledgers:
        notes = (
            [tuple(map(int, line.split())) for line in Path(ledger).read_text().splitlines()]
            if os.path.exists(ledger)
            else []
        )
        for producer in range(3):
            numbers = [number for who, number in notes if who == producer]
            assert numbers == sorted(numbers)
            seen[producer] += numbers
    everything = [number for numbers in seen.values() for number in numbers]
    assert len(everything) >= 3 * count - kills and all(len(set(each)) == len(each) for each in seen.values())


# JoinableQueue


def test_join_waits_for_all_that_was_put(kind: str, context: Any, crew: Crew) -> None:
    """Work in other processes is done when `join` returns."""
    tasks = JoinableQueue()
    worker = crew.start(context, programs.work, tasks)
    for number in range(100):
        tasks.put((number, bytes(number * 500)))
    tasks.put(None)
    tasks.join()
    worker.join(HANG)
    assert tasks.empty()


def test_task_done_is_refused_if_no_task_is_left(kind: str) -> None:
    """The error has the text of the standard library."""
    tasks = JoinableQueue()
    tasks.put(1)
    tasks.task_done()
    with pytest.raises(ValueError, match="called too many times"):
        tasks.task_done()


def test_a_killed_worker_leaves_the_count_as_it_is(kind: str, crew: Crew) -> None:
    """Its task counts as unfinished, and another process can call `task_done` for it."""
    tasks, told = JoinableQueue(), Queue()
    tasks.put("given up")
    tasks.put("done")
    crew.start(multiprocessing.get_context("fork"), programs.get_and_die, tasks, told).join(HANG)
    tasks.get()
    tasks.task_done()
    joining = threading.Thread(target=tasks.join)
    joining.start()
    assert joining.is_alive()
    tasks.task_done()
    joining.join(HANG)
    assert not joining.is_alive()


# Pickling


def test_an_object_that_cannot_be_pickled_raises_in_put(kind: str) -> None:
    """The error is not raised in a feeder thread."""
    with pytest.raises((pickle.PicklingError, AttributeError)):  # AttributeError before Python 3.14
        Queue().put(lambda: None)


@pytest.mark.parametrize("make", [Queue, JoinableQueue, SimpleQueue])
def test_an_object_that_cannot_be_pickled_does_not_change_the_queue(make: Any, kind: str) -> None:
    """Nothing is put, and the next put works."""
    shared = make()
    with pytest.raises(pickle.PicklingError):
        shared.put(programs.Unwilling())
    shared.put("fine")
    assert shared.get() == "fine"


@pytest.mark.parametrize(
    "item",
    [
        *(bytes(length) for length in (0, 1, 3, 4, 64, 255, 256, 65_535, 65_536, 70_000)),
        {"id": 5, "name": "sensor-17", "value": 21.5, "valid": True, "tags": ["north", "roof"]},
        [bytearray(100_000), "ü" * 70_000, 2**100],
        functools.partial(int, base=2),
        "".join,
        [].append,
    ],
    ids=lambda item: type(item).__name__,
)
def test_the_pickle_is_what_multiprocessing_writes(item: Any) -> None:
    """The bytes are the same."""
    assert bytes(_pickling.dumps(item, _pickling.Parts)) == _pickling.dumps(item) == bytes(ForkingPickler.dumps(item))


def test_reducers_registered_at_any_time_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reducer that is registered with ForkingPickler is used from then on."""
    _pickling.dumps(programs.Point(1))
    monkeypatch.setitem(ForkingPickler._extra_reducers, programs.Point, lambda point: (int, (point.x,)))
    assert pickle.loads(_pickling.dumps(programs.Point(17))) == 17


def test_a_failed_pickle_does_not_affect_the_next() -> None:
    """The failed one had already written something."""
    with pytest.raises(pickle.PicklingError):
        _pickling.dumps([bytes(100_000), programs.Unwilling()])
    assert pickle.loads(_pickling.dumps(["next"])) == ["next"]


def test_an_object_may_put_another_while_it_is_pickled() -> None:
    """The inner object is put first."""
    shared = Queue()
    shared.put(programs.Putting(shared))
    assert [shared.get(), shared.get()] == ["inner", "outer"]


def test_a_socket_can_be_put(sharer: None) -> None:
    """The reducer of the standard library is used."""
    shared = Queue()
    one, other = socket.socketpair()
    with one, other:
        shared.put(other)
        with shared.get() as passed:
            passed.send(b"x")
            assert one.recv(1) == b"x"


def test_a_subclass_can_handle_objects_that_cannot_be_pickled() -> None:
    """It overrides the same hook as in the standard library."""
    refused = []

    class Forgiving(Queue[Any]):
        @staticmethod
        def _on_queue_feeder_error(e: Exception, obj: Any) -> None:
            refused.append(obj)

    item = programs.Unwilling()
    Forgiving().put(item)
    assert refused == [item]


# Waiting for several queues


def test_a_queue_can_be_waited_for_with_others(kind: str, context: Any, crew: Crew) -> None:
    """`multiprocessing.connection.wait` takes its reader, also in a child."""
    shared, told = Queue(), Queue()
    crew.start(context, programs.wait_for_one, shared, told)
    assert told.get(timeout=HANG) == "waiting"
    shared.put("came")
    assert told.get(timeout=HANG) == (True, "came")


def test_a_reader_is_ready_until_the_last_message_is_taken(kind: str) -> None:
    """Messages may be in the ring or in the overflow file."""
    shared = Queue()
    programs.put_much(shared, 200, 1000)
    for _ in range(200):
        assert wait([shared._reader], 0) == [shared._reader]
        shared.get()
    assert not wait([shared._reader], 0)


def test_a_forked_child_can_wait_too(crew: Crew) -> None:
    """Its parent has waited before."""
    shared, told = Queue(), Queue()
    shared._reader.fileno()
    crew.start(multiprocessing.get_context("fork"), programs.wait_for_one, shared, told)
    assert told.get(timeout=HANG) == "waiting"
    shared.put("came")
    assert told.get(timeout=HANG) == (True, "came")


def test_a_reader_can_be_polled() -> None:
    """A connection can be polled, too."""
    shared = Queue()
    assert not shared._reader.poll(0.01)
    late = threading.Timer(0.05, shared.put, [1])
    late.start()
    assert shared._reader.poll(None)
    late.join()


# Threads, forks and signals


def test_threads_share_a_queue(kind: str) -> None:
    """Four threads put and four take: each item is taken once."""
    shared = Queue()
    taken: list[Any] = []
    takers = [threading.Thread(target=lambda: taken.extend(shared.get() for _ in range(500))) for _ in range(4)]
    putters = [
        threading.Thread(target=programs.put_all, args=(shared, [(number, index) for index in range(500)]))
        for number in range(4)
    ]
    for thread in (*putters, *takers):
        thread.start()
    for thread in (*putters, *takers):
        thread.join(HANG)
    assert sorted(taken) == [(number, index) for number in range(4) for index in range(500)]


def test_an_exception_of_a_signal_handler_leaves_no_lock_taken(kind: str, crew: Crew) -> None:
    """C12: other processes can go on, wherever in a put or a get the handler has run.

    The handler runs in another process because coverage's tracer does not survive this.
    """
    shared, told = Queue(), Queue()
    interrupted = crew.start(multiprocessing.get_context("spawn"), programs.be_interrupted, shared, told)
    while told.empty() and interrupted.is_alive():  # so that each process finds the lock taken at times
        shared.put(bytes(3000))
        shared.get(timeout=HANG)
    assert told.get(timeout=HANG) == 1000
    while shared.qsize():
        shared.get(timeout=HANG)
    shared.put("whole")
    assert shared.get(timeout=HANG) == "whole"


def test_a_signal_ends_a_wait(kind: str) -> None:
    """C12: an exception of the handler leaves `get`."""
    shared = Queue()

    def interrupt(*_: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(InterruptedError):
            shared.get()
    finally:
        signal.signal(signal.SIGALRM, before)


# Closing


@pytest.mark.parametrize("make", [Queue, JoinableQueue, SimpleQueue])
def test_closing_closes_every_descriptor(make: Any, kind: str) -> None:
    """C17: including those for waiting. A second close does nothing."""
    make().close()  # opens the descriptors that all queues share
    before = os.listdir("/proc/self/fd")
    shared = make()
    shared.put(bytes(100_000))
    shared._reader.fileno()
    shared.close()
    shared.close()
    assert os.listdir("/proc/self/fd") == before


def test_a_close_while_an_object_is_taken_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: a get that has taken the ticket of a large object returns the object."""
    shared = Queue()
    shared.put(bytes(1 << 20))
    messages = shared._messages

    def get_and_close(*given: Any) -> Any:
        ticket = messages._ring.get(*given)
        shared.close()
        return ticket

    monkeypatch.setattr(messages, "_get", get_and_close)
    assert len(shared.get()) == 1 << 20


@pytest.mark.parametrize("call", ["join", "task_done", "qsize", "full", "empty"])
def test_a_closed_joinable_queue_raises(call: str, kind: str) -> None:
    """It has no access to the tasks any more."""
    tasks = JoinableQueue()
    tasks.put(1)
    tasks.close()
    with pytest.raises(OSError, match="is closed"):
        getattr(tasks, call)()


def test_a_thread_that_joins_a_queue_is_woken_by_its_close(kind: str) -> None:
    """C14: `join` raises the error of a closed queue."""
    tasks, raised = JoinableQueue(), []
    tasks.put(1)

    def join() -> None:
        try:
            tasks.join()
        except (ipcq.QueueClosed, OSError) as error:
            raised.append(error)

    thread = threading.Thread(target=join)
    thread.start()
    time.sleep(0.05)
    tasks.close()
    thread.join(HANG)
    assert raised


def test_threads_that_use_a_queue_during_its_close_raise_that_it_is_closed(kind: str) -> None:
    """C14: in any call, and without an internal error."""
    raised: list[Exception] = []

    def work(call: Callable[[], object]) -> None:
        try:
            while True:
                call()
        except Exception as error:
            raised.append(error)

    for _ in range(4):
        shared = JoinableQueue()
        calls = (
            shared.get,
            shared.join,
            shared.qsize,
            shared.empty,
            lambda shared=shared: shared.put(bytes(100)),
            lambda shared=shared: shared.put(bytes(100_000)),
        )
        threads = [threading.Thread(target=work, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        time.sleep(0.01)
        shared.close()
        for thread in threads:
            thread.join(HANG)
    assert len(raised) == 24 and all("is closed" in str(error) for error in raised)


@pytest.mark.parametrize("make", [Queue, SimpleQueue])
def test_a_closed_queue_refuses(make: Any) -> None:
    """It raises as a closed pipe does in the standard library: ValueError, or OSError for a SimpleQueue."""
    shared = make()
    shared.close()
    for call in (shared.get, lambda: shared.put(1)):
        with pytest.raises((ValueError, OSError), match="is closed"):
            call()


def test_a_closed_queue_cannot_be_pickled() -> None:
    """It has no descriptors to pass."""
    shared = Queue()
    shared.close()
    with pytest.raises(OSError, match="is closed"):
        pickle.dumps(shared)


def test_a_thread_that_waits_in_a_queue_is_woken_by_its_close(kind: str) -> None:
    """C14: it raises QueueClosed."""
    shared, raised = Queue(), []

    def get() -> None:
        try:
            shared.get()
        except ipcq.QueueClosed as error:
            raised.append(error)

    thread = threading.Thread(target=get)
    thread.start()
    time.sleep(0.05)
    shared.close()
    thread.join(HANG)
    assert raised


def test_there_is_no_thread_to_join() -> None:
    """They do nothing, and `join_thread` requires a closed queue, as in the standard library."""
    shared = Queue()
    shared.cancel_join_thread()
    with pytest.raises(AssertionError, match="not closed"):
        shared.join_thread()
    shared.close()
    shared.join_thread()


# The module


def test_every_other_name_is_the_standard_librarys() -> None:
    """A program only has to change one import."""
    assert face.Process is multiprocessing.Process


@pytest.mark.parametrize("name", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_a_context_creates_queues_of_ipcq(name: str) -> None:
    """Everything else is that of the standard library's context."""
    context = face.get_context("spawn")
    made = getattr(context, name)()
    assert type(made) is getattr(face, name) and context.get_start_method() == "spawn"


def test_a_context_of_a_context_creates_queues_of_ipcq_too() -> None:
    """Contexts of the standard library create others, too."""
    assert type(face.get_context("spawn").get_context("fork").Queue()) is Queue


def test_a_context_can_be_passed_to_a_process() -> None:
    """A context of the standard library can be passed, too."""
    again = pickle.loads(pickle.dumps(face.get_context("spawn")))
    assert again.Queue is Queue and again.get_start_method() == "spawn"


@pytest.mark.parametrize("method", METHODS)
def test_an_executor_takes_a_context(method: str) -> None:
    """Its results come through a SimpleQueue that the context creates."""
    with ProcessPoolExecutor(1, mp_context=face.get_context(method)) as executor:
        assert list(executor.map(abs, [-1, -2])) == [1, 2]


@pytest.mark.parametrize(
    "made", [lambda: Queue(1), lambda: JoinableQueue(1), lambda: face.get_context("spawn").Queue(1)]
)
def test_the_standard_librarys_empty_and_full_are_caught(made: Callable[[], Any]) -> None:
    """Many programs catch them by these names."""
    queue = made()
    with pytest.raises(face.queues.Empty):
        queue.get(timeout=0)
    queue.put(1)
    with pytest.raises(face.queues.Full):
        queue.put(2, timeout=0)


@pytest.mark.parametrize("module", ["queues", "pool", "connection", "managers", "shared_memory", "synchronize"])
def test_modules_of_the_standard_library_are_there_in_a_new_process(module: str) -> None:
    """They need no import before."""
    code = f"import ipcq.compat.multiprocessing as m; print(m.{module}.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"multiprocessing.{module}\n", "")


@pytest.mark.parametrize("name", ["nonesuch", "_nonesuch", "popen_spawn_win32", "not a name"])
def test_a_name_that_the_standard_library_lacks_is_an_attribute_error(name: str) -> None:
    """The standard library does the same."""
    with pytest.raises(AttributeError):
        getattr(face, name)


def test_a_star_import_has_the_names_of_the_standard_library() -> None:
    """Such programs need `Process` and the like."""
    names: dict[str, Any] = {}
    exec("from ipcq.compat.multiprocessing import *", names)  # a function cannot contain a star import
    assert set(multiprocessing.__all__) <= set(names) and names["Queue"] is Queue


def test_a_pool_with_such_a_context_is_unsupported() -> None:
    """The text names the pool that works."""
    with pytest.raises(ipcq.Unsupported, match=r"use the context's Pool\(\)"):
        face.pool.Pool(1, context=face.get_context("fork"))


@pytest.mark.parametrize("name", ["recv_bytes", "send", "nonesuch"])
def test_a_reader_lacks_the_methods_of_a_pipe(name: str) -> None:
    """Programs can find out with `hasattr` that it is not a pipe."""
    assert not hasattr(SimpleQueue()._reader, name)


@pytest.mark.parametrize("spawning", [None, object()], ids=["between processes", "while one is started"])
def test_a_queue_is_passed_to_a_process_of_multiprocess_with_its_own_descriptors(
    spawning: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """multiprocess, the fork that pickles with dill, has other authkeys than the standard library's descriptors."""
    given: list[int] = []

    def duplicate(descriptor: int) -> int:
        given.append(descriptor)
        return descriptor

    monkeypatch.setitem(sys.modules, "multiprocess.context", SimpleNamespace(get_spawning_popen=lambda: spawning))
    monkeypatch.setitem(sys.modules, "multiprocess.reduction", SimpleNamespace(DupFd=duplicate))
    monkeypatch.setattr(_nameless, "DupFd", lambda descriptor: None)
    ForkingPickler.dumps(Queue(1))
    assert bool(given) == (spawning is not None)


def test_a_queue_with_a_huge_bound_has_no_ring() -> None:
    """A bound of millions must not take hundreds of megabytes."""
    assert type(_messages.make(10**7)) is FileQueue


def test_without_memfd_create_there_is_no_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names Linux."""
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(ipcq.Unsupported, match="Linux"):
        Queue()
