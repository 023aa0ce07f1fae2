"""The face of multiprocessing: CPython's own tests of its queues, and what ours promise beyond them."""

import errno
import functools
import gc
import math
import mmap
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
from contextlib import ExitStack
from multiprocessing import resource_sharer
from multiprocessing.connection import wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ipcq
from compat import queue_programs as programs
from ipcq._process import forks as _forks
from ipcq._process.deadline import NEVER
from ipcq.compat import _messages, _nameless, _pickling, _spill
from ipcq.compat import multiprocessing as face
from ipcq.compat._messages import Line
from ipcq.compat.multiprocessing import JoinableQueue, Queue, SimpleQueue
from ipcq.testing.processes import until
from processes.needs import usable

fcntl = pytest.importorskip("fcntl", reason="could not import 'fcntl', which only POSIX has")

pytestmark = [
    pytest.mark.needs("shm"),
    # From Python 3.12 on; that it works all the same is what is tested.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

METHODS = ("fork", "spawn", "forkserver")

#: Seconds after which what hangs has failed.
HANG = 20.0

#: Bytes of a ring in which nothing but small messages find space.
TINY = 8192

#: How many tests of its queues CPython has at least.
THEIRS = 13


class Crew:
    """Processes that end with the test."""

    def __init__(self) -> None:
        self._processes: list[Any] = []

    def start(self, context: Any, program: Callable[..., object], *arguments: Any) -> Any:
        process = context.Process(target=program, args=arguments)
        process.start()
        self._processes.append(process)
        return process

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()
            process.close()


@pytest.fixture(autouse=True)
def works() -> None:
    """Skip where the extension was not built."""
    usable("shm")


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew()
    yield crew
    crew.end()


@pytest.fixture
def sharer() -> Iterator[None]:
    """End what hands descriptors to other processes, and would serve until this one ends."""
    yield
    resource_sharer.stop(HANG)


@pytest.fixture(params=METHODS)
def context(request: pytest.FixtureRequest) -> Any:
    """Return the context of each start method."""
    return face.get_context(request.param)


@pytest.fixture(params=["ring", "tiny ring", "line"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let queues be what they are, or have nearly no ring, or none."""
    if request.param == "tiny ring":
        monkeypatch.setattr(_messages, "_ROOM", TINY)
        monkeypatch.setattr(_messages, "_BOUNDED_ROOM", TINY)
    if request.param == "line":
        monkeypatch.setattr(_messages, "create", no_ring)
    return str(request.param)


def no_ring(request: object) -> None:
    raise ipcq.BackendUnavailable("there is none", reasons={})


# CPython's own tests


@pytest.mark.parametrize("method", METHODS)
def test_the_cases_of_cpython_pass(method: str, tmp_path: Path) -> None:
    """All of `_TestQueue` and `TestSimpleQueue`, on this Python."""
    command = [sys.executable, Path(__file__).with_name("cpython_queues.py"), method]
    # One of them makes a directory, always of the same name, where it runs.
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    ran = re.search(r"Ran (\d+) tests in .*\n\nOK\n", run.stderr)
    assert ran is not None and int(ran[1]) >= THEIRS, run.stderr


# Passing queues to processes


@pytest.mark.parametrize("make", [Queue, JoinableQueue, SimpleQueue])
def test_a_queue_is_passed_to_a_process(make: Any, kind: str, context: Any, crew: Crew) -> None:
    """Under each start method, what was put before and what is put after."""
    source, target = make(), make()
    crew.start(context, programs.pass_on, source, target)
    source.put({"a": (1, 2)})
    assert target.get() == {"a": (1, 2)}


def test_a_queue_travels_through_a_queue(context: Any, crew: Crew, sharer: None) -> None:
    """As a connection does, while the process that put it lives."""
    through, travelling = Queue(), Queue()
    crew.start(context, programs.answer_through, through)
    through.put(travelling)
    assert travelling.get(timeout=HANG) == "answer"


def test_a_starter_may_forget_its_queues(context: Any, crew: Crew) -> None:
    """What it started goes on, whether it has looked at them yet or not."""
    source, target, told = Queue(), Queue(), Queue()
    source.put("kept")
    crew.start(context, programs.pass_on, source, target)
    crew.start(context, programs.pass_on, target, told)
    source.close()
    target.close()
    del source, target
    assert told.get(timeout=HANG) == "kept"


@pytest.mark.parametrize("method", METHODS)
def test_a_starter_may_die_at_once(method: str, tmp_path: Path) -> None:
    """The queue is the child's, though it was the last to hear of it."""
    note = tmp_path / "note"
    program = str(programs.__file__)
    subprocess.run([sys.executable, program, str(note), method], check=False, timeout=HANG)
    until(note.exists, HANG)
    assert note.read_text() == "left"


def test_nobody_can_see_a_queue() -> None:
    """It has no name in /dev/shm, so that no death leaves one there."""
    before = set(os.listdir("/dev/shm"))
    one, other = Queue(), Queue(3)
    one.put(bytes(10**6))
    other.put(bytes(10**6))
    one._reader.fileno()
    assert set(os.listdir("/dev/shm")) == before


@pytest.mark.parametrize("make", [Queue, JoinableQueue, SimpleQueue])
def test_a_queue_that_was_sent_is_the_same_queue(make: Any, kind: str, sharer: None) -> None:
    """Also in the process that sent it."""
    shared = make()
    again = pickle.loads(pickle.dumps(shared))
    shared.put("one")
    assert again.get() == "one"


def test_what_came_with_a_queue_is_nothing_that_a_child_closes(sharer: None) -> None:
    """C20: else it would close whatever has the number of one of these descriptors by then."""
    before = set(_forks._descriptors)
    sent = pickle.loads(pickle.dumps(Queue()))
    assert _forks._descriptors == before
    sent.close()


def fail(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, "as ordered")


# Ends


def test_a_process_ends_though_nobody_takes_what_it_put(kind: str, context: Any, crew: Crew) -> None:
    """Joined first and read then, which hangs where a thread has to write 10 MB into a pipe."""
    shared = Queue()
    process = crew.start(context, programs.put_much, shared, 100, 100_000)
    process.join(HANG)
    assert [shared.get()[0] for _ in range(100)] == list(range(100))


def test_what_was_put_outlives_the_process(kind: str, context: Any, crew: Crew) -> None:
    """It is stored when put returns, also where the next instruction is the last."""
    shared = Queue()
    crew.start(context, programs.put_and_die, shared, "stored").join(HANG)
    assert shared.get_nowait() == "stored"


def test_any_number_is_put_before_anybody_takes_it(kind: str) -> None:
    """Without a bound a put never waits for a get."""
    shared = Queue()
    for number in range(20_000):
        shared.put(number)
    assert [shared.get() for _ in range(20_000)] == list(range(20_000))


def test_a_line_that_came_to_its_end_begins_anew(kind: str) -> None:
    """What is put afterwards is taken in order, too."""
    shared = Queue()
    for _ in range(3):
        programs.put_much(shared, 300, 20_000)
        assert [shared.get()[0] for _ in range(300)] == list(range(300))


def test_memory_comes_back_from_a_line_that_is_never_empty(kind: str) -> None:
    """Of 60 MB that went through, no more than a few stay."""
    shared = Queue()
    for number in range(30):
        shared.put((number, bytes(10_000)))
    for number in range(30, 6000):
        shared.put((number, bytes(10_000)))
        assert shared.get()[0] == number - 30
    assert held(shared) < 8 << 20


def held(shared: Any) -> int:
    """Return the bytes of memory that the spill of a queue takes."""
    return os.fstat(shared._messages._spill.file.number).st_blocks * 512


def test_memory_comes_back_from_what_was_large(kind: str) -> None:
    """Of 32 MB that were taken, nothing stays."""
    shared = Queue(2)
    shared.put(bytes(32 << 20))
    shared.get()
    assert held(shared) < 1 << 20


@pytest.mark.parametrize("bound", [0, 1, 2000, 200_000])
def test_objects_of_any_size_pass(bound: int, kind: str) -> None:
    """Whatever the bound, and in order with small ones."""
    shared = Queue(bound)
    worker = threading.Thread(target=programs.put_all, args=(shared, ["a", bytes(20 << 20), "b"]))
    worker.start()
    taken = [shared.get() for _ in range(3)]
    worker.join()
    assert taken == ["a", bytes(20 << 20), "b"]


def test_so_many_fit_whatever_their_size(kind: str) -> None:
    """The bound counts objects, and not their bytes."""
    shared = Queue(50)
    programs.put_much(shared, 50, 50_000)
    assert shared.full()


def test_an_object_that_found_no_space_leaves_nothing(kind: str) -> None:
    """A refused put of a large object gives its memory back."""
    shared = Queue(1)
    shared.put("first")
    with pytest.raises(queue.Full):
        shared.put(bytes(8 << 20), timeout=0.01)
    assert held(shared) < 1 << 20


@pytest.mark.parametrize("make", [Queue, SimpleQueue])
def test_a_large_object_for_which_there_is_no_memory_raises(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: in put, and nothing is stored."""
    shared = make()
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", fail)
        with pytest.raises(OSError, match="as ordered"):
            shared.put(bytes(1 << 20))
    assert shared.empty()


def test_memory_that_cannot_be_given_back_costs_no_message(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: giving it back takes a descriptor, and the table of descriptors may be full."""
    shared = Queue()
    programs.put_much(shared, 2, 1 << 20)
    monkeypatch.setattr(mmap, "mmap", fail)
    assert [shared.get()[0] for _ in range(2)] == [0, 1]


def test_an_object_for_which_its_taker_has_no_memory_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can take it any more, so its memory is given back."""

    def no_memory(*_: object) -> Any:
        raise MemoryError

    shared = Queue()
    shared.put(bytes(8 << 20))
    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", no_memory)
        with pytest.raises(MemoryError):
            shared.get()
    assert held(shared) < 1 << 20


def test_a_get_waits_for_what_joins_the_line(kind: str) -> None:
    """Without a timeout, longer than it waits before it looks around."""
    shared = Queue()
    late = threading.Timer(0.6, shared.put, ["late"])
    late.start()
    assert shared.get() == "late"
    late.join()


def test_who_waits_for_a_ring_that_others_emptied_sees_the_line() -> None:
    """C13: within 250 ms, though nothing comes through the ring any more."""
    shared = Queue()
    spill = shared._messages._spill

    late = threading.Timer(0.1, spill.locked, [lambda: spill.append(pickle.dumps("in line"))])
    began = time.monotonic()
    late.start()
    assert shared.get(timeout=HANG) == "in line" and time.monotonic() - began < 0.1 + 2.5
    late.join()


def test_a_timeout_ends_in_time(kind: str) -> None:
    """C10: not before its time."""
    shared = Queue()
    began = time.monotonic()
    with pytest.raises(queue.Empty):
        shared.get(timeout=0.3)
    assert 0.3 <= time.monotonic() - began < 0.3 + 0.5


@pytest.mark.parametrize("bound", [0, 1])
def test_what_cannot_wait_says_so_at_once(bound: int, kind: str) -> None:
    """The two calls that do not wait."""
    shared = Queue(bound)
    shared.put_nowait(1)
    shared.get_nowait()
    with pytest.raises(queue.Empty):
        shared.get_nowait()


def test_a_negative_timeout_is_none_at_all(kind: str) -> None:
    """As there: what is left of a deadline may be less than nothing."""
    shared = Queue(1)
    with pytest.raises(queue.Empty):
        shared.get(timeout=-1)
    shared.put(1, timeout=-1)
    with pytest.raises(queue.Full):
        shared.put(2, timeout=-1)


def test_a_timeout_that_is_no_number_is_refused(kind: str) -> None:
    """With a ValueError, as there: no clock would ever reach it."""
    with pytest.raises(ValueError, match="not nan"):
        Queue().get(timeout=math.nan)


def test_a_full_queue_takes_more_when_one_was_taken(kind: str) -> None:
    """A put that waits goes on."""
    shared = Queue(1)
    shared.put("first")
    late = threading.Timer(0.1, shared.get)
    late.start()
    shared.put("second", timeout=HANG)
    late.join()
    assert shared.get_nowait() == "second"


# Kills


@pytest.mark.storm
def test_a_killed_child_keeps_nobody_from_going_on(kind: str, crew: Crew) -> None:
    """200 are killed while they put and get; afterwards the queue is whole."""
    context = multiprocessing.get_context("fork")
    shared = Queue()
    for _ in range(40):
        processes = [crew.start(context, programs.put_and_get_for_ever, shared) for _ in range(5)]
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
def test_no_kill_of_a_consumer_costs_more_than_one_message(kind: str, crew: Crew, tmp_path: Path) -> None:
    """C2: nothing comes twice, in order of each producer, and no more is lost than consumers were killed."""
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
    """Work that other processes do is done when join returns."""
    tasks = JoinableQueue()
    worker = crew.start(context, programs.work, tasks)
    for number in range(100):
        tasks.put((number, bytes(number * 500)))
    tasks.put(None)
    tasks.join()
    worker.join(HANG)
    assert tasks.empty()


def test_task_done_is_refused_where_all_is_done(kind: str) -> None:
    """As there, with its words."""
    tasks = JoinableQueue()
    tasks.put(1)
    tasks.task_done()
    with pytest.raises(ValueError, match="called too many times"):
        tasks.task_done()


def test_a_killed_worker_leaves_the_count_as_it_is(kind: str, crew: Crew) -> None:
    """What it had taken is not done, and somebody else can say that it is."""
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


def test_what_cannot_be_pickled_raises_in_put(kind: str) -> None:
    """Where it was put, and not in a thread."""
    with pytest.raises((pickle.PicklingError, AttributeError)):  # the latter before Python 3.14
        Queue().put(lambda: None)


@pytest.mark.parametrize("make", [Queue, JoinableQueue, SimpleQueue])
def test_what_cannot_be_pickled_leaves_the_queue_as_it_was(make: Any, kind: str) -> None:
    """Nothing is stored, and the next put works."""
    shared = make()
    with pytest.raises(pickle.PicklingError):
        shared.put(programs.Unwilling())
    shared.put("fine")
    assert shared.get() == "fine"


@pytest.mark.parametrize(
    "item",
    [
        *(bytes(length) for length in (0, 1, 3, 4, 64, 255, 256, 70_000)),
        {"id": 5, "name": "sensor-17", "value": 21.5, "valid": True, "tags": ["north", "roof"]},
        [bytearray(100_000), "ü" * 70_000, 2**100],
        functools.partial(int, base=2),
        "".join,
        [].append,
    ],
    ids=lambda item: type(item).__name__,
)
def test_the_pickle_is_what_multiprocessing_writes(item: Any) -> None:
    """Byte for byte."""
    assert _pickling.dumps(item) == bytes(ForkingPickler.dumps(item))


def test_reducers_registered_at_any_time_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody registers with ForkingPickler counts from then on."""
    _pickling.dumps(programs.Point(1))
    monkeypatch.setitem(ForkingPickler._extra_reducers, programs.Point, lambda point: (int, (point.x,)))  # type: ignore[attr-defined]
    assert pickle.loads(_pickling.dumps(programs.Point(17))) == 17


def test_a_pickle_that_failed_leaves_nothing_to_the_next() -> None:
    """Not even where it had written something."""
    with pytest.raises(pickle.PicklingError):
        _pickling.dumps([bytes(100_000), programs.Unwilling()])
    assert pickle.loads(_pickling.dumps(["next"])) == ["next"]


def test_an_object_may_put_another_while_it_is_pickled() -> None:
    """The one inside is stored first."""
    shared = Queue()
    shared.put(programs.Putting(shared))
    assert [shared.get(), shared.get()] == ["inner", "outer"]


def test_a_socket_passes(sharer: None) -> None:
    """By the standard library's own reducer."""
    shared = Queue()
    one, other = socket.socketpair()
    with one, other:
        shared.put(other)
        with shared.get() as passed:
            passed.send(b"x")
            assert one.recv(1) == b"x"


def test_a_subclass_may_do_something_else_with_what_cannot_be_pickled() -> None:
    """By the hook that it overrides there."""
    refused = []

    class Forgiving(Queue[Any]):
        @staticmethod
        def _on_queue_feeder_error(e: Exception, obj: Any) -> None:
            refused.append(obj)

    item = programs.Unwilling()
    Forgiving().put(item)
    assert refused == [item]


# Waiting for several


def test_a_queue_can_be_waited_for_with_others(kind: str, context: Any, crew: Crew) -> None:
    """`multiprocessing.connection.wait` takes its reader, in a child too."""
    shared, told = Queue(), Queue()
    crew.start(context, programs.wait_for_one, shared, told)
    assert told.get(timeout=HANG) == "waiting"
    shared.put("came")
    assert told.get(timeout=HANG) == (True, "came")


def test_a_reader_is_ready_until_the_last_message_is_taken(kind: str) -> None:
    """Wherever the messages are."""
    shared = Queue()
    programs.put_much(shared, 200, 1000)
    for _ in range(200):
        assert wait([shared._reader], 0) == [shared._reader]
        shared.get()
    assert not wait([shared._reader], 0)


def test_a_forked_child_can_wait_too(crew: Crew) -> None:
    """Though its parent has waited before."""
    shared, told = Queue(), Queue()
    shared._reader.fileno()
    crew.start(multiprocessing.get_context("fork"), programs.wait_for_one, shared, told)
    assert told.get(timeout=HANG) == "waiting"
    shared.put("came")
    assert told.get(timeout=HANG) == (True, "came")


def test_a_reader_can_be_polled() -> None:
    """As a connection can."""
    shared = Queue()
    assert not shared._reader.poll(0.01)
    late = threading.Timer(0.05, shared.put, [1])
    late.start()
    assert shared._reader.poll(None)
    late.join()


# Threads, forks and signals


def test_a_stopped_holder_of_the_lock_holds_nobody_past_a_timeout(kind: str) -> None:
    """C11: the lock of the line is waited for until the timeout."""
    shared = Queue()
    programs.put_much(shared, 200, 1000)
    with another_holder(shared), pytest.raises(queue.Empty):
        while True:
            shared.get(timeout=0.2)


class another_holder:  # noqa: N801  # it is used as a function
    """Hold the lock of a queue's line as another process would."""

    def __init__(self, shared: Any) -> None:
        self._path = f"/proc/self/fd/{shared._messages._spill.file.number}"

    def __enter__(self) -> None:
        self._file = os.open(self._path, os.O_RDWR)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def test_a_stopped_holder_of_the_lock_makes_a_full_line_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """C11: a put ends in time, too."""
    monkeypatch.setattr(_messages, "create", no_ring)
    shared = Queue(3)
    with another_holder(shared), pytest.raises(queue.Full):
        shared.put(1, timeout=0.2)


def test_the_lock_is_waited_for(kind: str) -> None:
    """A put without a timeout goes on when its holder does."""
    shared = Queue()
    programs.put_much(shared, 300, 1000)
    holder = another_holder(shared)
    holder.__enter__()
    late = threading.Timer(0.3, holder.__exit__)
    late.start()
    shared.put("behind")
    late.join()
    assert shared.qsize() == 301


def test_threads_share_a_queue(kind: str) -> None:
    """Four that put and four that take: all comes once."""
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


def test_a_fork_while_a_thread_has_the_lock_is_safe(kind: str) -> None:
    """C20: the child's lock is free, and the parent's is not the child's."""
    shared = Queue()
    programs.put_much(shared, 300, 1000)

    def fork_and_close() -> int:
        child = os.fork()
        if not child:
            shared.close()
            os._exit(0)
        return child

    child = shared._messages._spill.locked(fork_and_close)
    assert os.waitpid(child, 0)[1] == 0


class Once:
    """Does something else after a call, the first time."""

    def __init__(self, call: Callable[..., Any], then: Callable[[], object]) -> None:
        self._call = call
        self._then = [then]

    def __call__(self, *arguments: Any) -> Any:
        result = self._call(*arguments)
        while self._then:
            self._then.pop()()
        return result


class Interrupting(bytes):
    """Puts into a queue when its length is read, like a handler that strikes there."""

    then: Callable[[], object]

    def __len__(self) -> int:
        if "then" in vars(self):
            vars(self).pop("then")()
        return super().__len__()


@pytest.fixture
def line() -> Iterator[Any]:
    """Return a queue in whose line 3 objects stand."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_messages, "create", no_ring)
        shared = JoinableQueue[Any]()
    for number in range(3):
        shared.put(number)
    yield shared
    shared.close()


def rest_of(shared: Any) -> list[Any]:
    """Take all that is there."""
    return [shared.get() for _ in range(shared.qsize())]


def test_a_handler_can_put_while_a_put_is_about_to_write(line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """C12: the interrupted put has read an end of the line that is out of date."""
    spill = line._messages._spill
    monkeypatch.setattr(spill, "_line", Once(spill._line, lambda: line.put("inner")))
    line.put("outer")
    assert rest_of(line) == [0, 1, 2, "inner", "outer"]


def test_a_handler_that_finds_nothing_leaves_the_bell_to_the_put_that_it_interrupted(
    line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C13: the handler takes the byte away that the put has written already, so the put writes it again."""
    rest_of(line)

    def find_nothing() -> None:
        with pytest.raises(queue.Empty):
            line.get(False)

    monkeypatch.setattr(_spill.os, "write", Once(os.write, find_nothing))
    line.put("outer")
    assert line._reader.poll(HANG)


@pytest.mark.parametrize("verb", ["put", "get"])
def test_a_handler_can_put_while_a_step_is_about_to_commit(
    line: Any, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """C12: nobody reads what is written by then, and the step starts again."""
    copy = SimpleNamespace(
        pack_into=Once(_spill._COPY.pack_into, lambda: line.put("inner")), unpack_from=_spill._COPY.unpack_from
    )
    monkeypatch.setattr(_spill, "_COPY", copy)
    taken = [line.put("outer")] if verb == "put" else [line.get()]
    want = {"put": [None, 0, 1, 2, "inner", "outer"], "get": [0, 1, 2, "inner"]}
    assert taken + rest_of(line) == want[verb]


def test_a_handler_can_put_a_parcel_while_a_place_for_one_is_sought(line: Any) -> None:
    """C12: each gets a place of its own."""
    spill = line._messages._spill
    tickets: list[bytes] = []
    data = Interrupting(b"outer")
    data.then = lambda: tickets.append(spill.wrap(b"inner", NEVER))
    tickets.append(spill.wrap(data, NEVER))
    assert [spill.file.unwrap(ticket) for ticket in tickets] == [b"inner", b"outer"]


def test_a_handler_can_say_that_work_is_done_in_the_middle_of_saying_so(
    line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C12: both count."""
    count = _spill.Spill.done
    interruptions = iter([lambda: None, line.task_done])  # in the look whether more is to be done, and in counting

    def interrupted(spill: _spill.Spill) -> Any:
        result = count.fget(spill)
        next(interruptions, lambda: None)()
        return result

    monkeypatch.setattr(_spill.Spill, "done", property(interrupted, count.fset))
    line.task_done()
    assert line._messages._spill.done == 2


def test_a_finaliser_can_close_in_the_middle_of_a_put(kind: str) -> None:
    """C34: the put is stored for the others, and closes the descriptors when it ends."""
    shared = Queue()
    spill = shared._messages._spill
    held = spill.locked(lambda: (shared.close(), spill.file.number)[1])
    assert (held >= 0, spill.file.number) == (True, -1)


def test_a_call_in_the_middle_of_one_that_closes_refuses(line: Any) -> None:
    """As after the close."""
    spill = line._messages._spill

    def close_and_use() -> None:
        spill.close()
        spill.locked(lambda: None)

    with pytest.raises(ipcq.QueueClosed):
        spill.locked(close_and_use)


def test_what_finalisers_put_while_the_garbage_collector_strikes_anywhere_is_stored(kind: str) -> None:
    """C12: in the middle of a put or a get of the same thread, each of them."""
    shared, stored = Queue(), 0

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            nonlocal stored
            shared.put("inner")
            stored += 1

    programs.put_much(shared, 100, 3000)
    before = gc.get_threshold()
    try:
        for threshold in range(2, 10):
            gc.set_threshold(threshold, 2, 2)
            for _ in range(20):
                Cycle()
                shared.put(bytes(1000))
                shared.get()
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert stored == 160 and len(rest_of(shared)) == 100 + stored


def another_holds(shared: Any, stack: ExitStack) -> None:
    """Hold the lock of the overflow file, like another process that is stopped there."""
    number = os.open(f"/proc/self/fd/{shared._messages._spill.file.number}", os.O_RDWR)
    stack.callback(os.close, number)
    fcntl.flock(number, fcntl.LOCK_EX)


@pytest.mark.parametrize("size", [10, 1 << 20])
@pytest.mark.parametrize("limits", [{"timeout": 0.2}, {"block": False}])
def test_a_put_ends_in_time_though_another_is_stopped_in_what_is_spilled(
    kind: str, size: int, limits: dict[str, Any]
) -> None:
    """C10: small ones behind a full ring, and those that are too large for it."""
    shared = Queue()
    programs.put_much(shared, 300, 3000)
    with ExitStack() as stack:
        another_holds(shared, stack)
        with pytest.raises(queue.Full, match="another process that is stopped holds the lock"):
            shared.put(bytes(size), **limits)
    assert len(rest_of(shared)) == 300


def test_what_handlers_raise_leaves_nothing_locked(kind: str, crew: Crew) -> None:
    """C12: wherever in a put or a get it strikes, for other processes while that one lives.

    It is another process because the tracer of coverage does not survive this.
    """
    shared, told = Queue(), Queue()
    interrupted = crew.start(multiprocessing.get_context("spawn"), programs.be_interrupted, shared, told)
    while told.empty() and interrupted.is_alive():  # so that each of the two finds the lock taken at times
        shared.put(bytes(3000))
        shared.get(timeout=HANG)
    assert told.get(timeout=HANG) == 1000
    while shared.qsize():
        shared.get(timeout=HANG)
    shared.put("whole")
    assert shared.get(timeout=HANG) == "whole"


def test_a_signal_ends_a_wait(kind: str) -> None:
    """C12: what a handler raises comes out of get."""
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
def test_closing_gives_back_every_descriptor(make: Any, kind: str) -> None:
    """C17: those for waiting included; twice is once."""
    make().close()  # what is opened once for all
    before = os.listdir("/proc/self/fd")
    shared = make()
    shared.put(bytes(100_000))
    shared._reader.fileno()
    shared.close()
    shared.close()
    assert os.listdir("/proc/self/fd") == before


def test_a_close_while_an_object_is_copied_into_the_queue_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """C14: and no other file, which may have got the same descriptor, is written to."""
    before = os.listdir("/proc/self/fd")
    shared, pwrite = Queue(), os.pwrite

    def close_and_write(*given: Any) -> int:
        shared.close()
        return pwrite(*given)

    monkeypatch.setattr(os, "pwrite", close_and_write)
    with pytest.raises(ipcq.QueueClosed):
        shared.put(bytes(1 << 20))
    assert os.listdir("/proc/self/fd") == before


def test_a_close_while_an_object_is_taken_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: whoever has taken the ticket of a large one gets it."""
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
def test_a_closed_queue_of_tasks_says_so(call: str, kind: str) -> None:
    """It knows nothing of the others any more."""
    tasks = JoinableQueue()
    tasks.put(1)
    tasks.close()
    with pytest.raises(OSError, match="is closed"):
        getattr(tasks, call)()


def test_a_thread_that_joins_a_queue_is_woken_by_its_close(kind: str) -> None:
    """C14: with what a closed queue raises."""
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


def test_threads_at_work_in_a_queue_that_is_closed_are_told_so(kind: str) -> None:
    """C14: whatever they are about, and not of something inside that is gone."""
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
    """With what a closed pipe raises there: ValueError, or OSError of a SimpleQueue."""
    shared = make()
    shared.close()
    for call in (shared.get, lambda: shared.put(1)):
        with pytest.raises((ValueError, OSError), match="is closed"):
            call()


def test_a_closed_line_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """C14: a thread that was about to use it while another one closed it."""
    monkeypatch.setattr(_messages, "create", no_ring)
    messages = _messages.make(0)
    messages.close()
    with pytest.raises(ipcq.QueueClosed):
        messages.put(b"late")


def test_a_child_that_can_open_nothing_has_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """C20: it is closed there."""
    monkeypatch.setattr(_messages, "create", no_ring)
    messages = _messages.make(0)
    with monkeypatch.context() as patched:
        patched.setattr(_spill, "_opened_again", fail)
        _spill._after_fork()  # as in a child
        _spill._after_fork()
    with pytest.raises(ipcq.QueueClosed):
        messages.put(b"late")


def test_a_child_goes_on_with_the_line_that_it_inherits(monkeypatch: pytest.MonkeyPatch) -> None:
    """C20: by an open file of its own."""
    monkeypatch.setattr(_messages, "create", no_ring)
    shared = Queue()
    shared.put("one")
    _spill._after_fork()  # as in a child
    assert shared.get() == "one"


def test_what_one_call_of_the_system_cannot_move_is_moved_by_several(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than 2 GiB; here, more than a page."""
    pread, pwrite = os.pread, os.pwrite
    monkeypatch.setattr(os, "pread", lambda file, size, at: pread(file, min(size, 4096), at))
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[:4096], at))
    shared = Queue()
    shared.put(bytes(range(256)) * 1000)
    assert shared.get() == bytes(range(256)) * 1000


def test_a_spill_that_cannot_be_opened_again_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """C17: whichever of the three attempts fails."""
    again, before = _spill._opened_again, os.listdir("/proc/self/fd")
    for works in range(3):
        calls = iter([*[again] * works, fail])
        monkeypatch.setattr(_spill, "_opened_again", lambda *given: next(calls)(*given))  # noqa: B023  # it is used up
        with pytest.raises(OSError, match="as ordered"):
            Queue()
    assert os.listdir("/proc/self/fd") == before


def test_a_full_table_of_descriptors_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: with the limit and the way out."""
    monkeypatch.setattr(os, "memfd_create", no_descriptor)
    with pytest.raises(ipcq.LimitExceeded, match="RLIMIT_NOFILE"):
        Queue()


def no_descriptor(*_: object) -> Any:
    raise OSError(errno.EMFILE, "as ordered")


def test_a_limit_on_the_size_of_files_is_named() -> None:
    """C24: files without a name have a size too."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, before[1]))
    try:
        with pytest.raises(ipcq.LimitExceeded, match="RLIMIT_FSIZE"):
            Queue()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_closed_queue_cannot_be_passed_on() -> None:
    """It has nothing to pass."""
    shared = Queue()
    shared.close()
    with pytest.raises(OSError, match="is closed"):
        pickle.dumps(shared)


def test_a_thread_that_waits_in_a_queue_is_woken_by_its_close(kind: str) -> None:
    """C14: with QueueClosed."""
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


def test_there_is_no_thread_to_wait_for() -> None:
    """join_thread and cancel_join_thread do nothing, and the first one wants a closed queue as there."""
    shared = Queue()
    shared.cancel_join_thread()
    with pytest.raises(AssertionError, match="not closed"):
        shared.join_thread()
    shared.close()
    shared.join_thread()


# The module


def test_every_other_name_is_the_standard_librarys() -> None:
    """So that one import is to be changed."""
    assert face.Process is multiprocessing.Process


@pytest.mark.parametrize("name", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_a_context_makes_these_queues(name: str) -> None:
    """And takes all else from the standard one's."""
    context = face.get_context("spawn")
    made = getattr(context, name)()
    assert type(made) is getattr(face, name) and context.get_start_method() == "spawn"


def test_a_context_of_a_context_makes_these_queues_too() -> None:
    """As each context of the standard library makes others."""
    assert type(face.get_context("spawn").get_context("fork").Queue()) is Queue


def test_a_context_can_be_passed_to_a_process() -> None:
    """As the standard library's can."""
    again = pickle.loads(pickle.dumps(face.get_context("spawn")))
    assert again.Queue is Queue and again.get_start_method() == "spawn"


@pytest.mark.parametrize("method", METHODS)
def test_an_executor_takes_a_context(method: str) -> None:
    """Its results come through a SimpleQueue that the context makes."""
    with ProcessPoolExecutor(1, mp_context=face.get_context(method)) as executor:
        assert list(executor.map(abs, [-1, -2])) == [1, 2]


@pytest.mark.parametrize(
    "made", [lambda: Queue(1), lambda: JoinableQueue(1), lambda: face.get_context("spawn").Queue(1)]
)
def test_the_standard_librarys_empty_and_full_are_caught(made: Callable[[], Any]) -> None:
    """By the name under which very many programs catch them."""
    queue = made()
    with pytest.raises(face.queues.Empty):
        queue.get(timeout=0)
    queue.put(1)
    with pytest.raises(face.queues.Full):
        queue.put(2, timeout=0)


@pytest.mark.parametrize("module", ["queues", "pool", "connection", "managers", "shared_memory", "synchronize"])
def test_modules_of_the_standard_library_are_there_in_a_new_process(module: str) -> None:
    """Whatever was imported before."""
    code = f"import ipcq.compat.multiprocessing as m; print(m.{module}.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"multiprocessing.{module}\n", "")


@pytest.mark.parametrize("name", ["nonesuch", "_nonesuch", "popen_spawn_win32", "not a name"])
def test_what_the_standard_library_has_not_is_an_attribute_error(name: str) -> None:
    """As there."""
    with pytest.raises(AttributeError):
        getattr(face, name)


def test_importing_all_names_brings_those_of_the_standard_library() -> None:
    """`Process` is what every such program starts with."""
    names: dict[str, Any] = {}
    exec("from ipcq.compat.multiprocessing import *", names)  # no other way within a function
    assert set(multiprocessing.__all__) <= set(names) and names["Queue"] is Queue


def test_a_pool_with_such_a_context_is_unsupported() -> None:
    """The text says which pool works."""
    with pytest.raises(ipcq.Unsupported, match=r"take the context's Pool\(\)"):
        face.pool.Pool(1, context=face.get_context("fork"))


@pytest.mark.parametrize("name", ["recv_bytes", "send", "nonesuch"])
def test_an_end_can_be_asked_whether_it_is_a_pipe(name: str) -> None:
    """It is not."""
    assert not hasattr(SimpleQueue()._reader, name)


@pytest.mark.parametrize("spawning", [None, object()], ids=["between processes", "while one is started"])
def test_a_queue_goes_to_a_process_of_multiprocess_by_its_own_means(
    spawning: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy that pickles by dill has authkeys of its own, which the standard library's descriptors do not know."""
    given: list[int] = []

    def duplicate(descriptor: int) -> int:
        given.append(descriptor)
        return descriptor

    monkeypatch.setitem(sys.modules, "multiprocess.context", SimpleNamespace(get_spawning_popen=lambda: spawning))
    monkeypatch.setitem(sys.modules, "multiprocess.reduction", SimpleNamespace(DupFd=duplicate))
    monkeypatch.setattr(_nameless, "DupFd", lambda descriptor: None)
    ForkingPickler.dumps(Queue(1))
    assert bool(given) == (spawning is not None)


def test_a_ring_is_left_out_where_it_would_be_huge() -> None:
    """A bound of millions does not take hundreds of megabytes."""
    assert type(_messages.make(10**7)) is Line


def test_without_files_in_memory_there_is_no_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another system than Linux it says so."""
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(ipcq.Unsupported, match="Linux"):
        Queue()
