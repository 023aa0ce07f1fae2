"""``ipcq tail``."""

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result

import ipcq
from ipcq._cli import _signals
from ipcq._cli.verbs import tail as verb
from ipcq._process.deadline import SLICE

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that says what happens between the looks, one step each; the last one interrupts."""

    def between(*steps: Callable[[], object]) -> None:
        waiting: Iterator[Callable[[], object]] = iter(steps)

        def rest(_: float) -> None:
            step = next(waiting, None)
            if step is None:
                raise KeyboardInterrupt
            step()

        monkeypatch.setattr(verb, "sleep_in_slices", rest)

    return between


def test_no_sleep_between_looks_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C that comes just before the system call does not interrupt it."""
    clock = 0.0
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal clock
        slept.append(seconds)
        clock += seconds

    monkeypatch.setattr(_signals, "monotonic", lambda: clock)
    monkeypatch.setattr(_signals, "sleep", sleep)
    _signals.sleep_in_slices(60)
    assert (sum(slept), max(slept)) == (pytest.approx(60), SLICE)


def test_next_item_is_printed_and_stays(run: Run, queue: Queue) -> None:
    """Nothing is taken."""
    queue.put_many(["a", "b"])
    result = run("tail", queue.name, "-n", "1")
    assert (result.stdout, queue.qsize()) == ("a\n", 2)


def test_item_is_printed_once(run: Run, queue: Queue, between: Callable[..., None]) -> None:
    """However often it is looked at."""
    queue.put("a")
    between(lambda: None, lambda: None)
    assert run("tail", queue.name).stdout == "a\n"


def test_item_is_printed_when_those_before_it_are_taken(run: Run, queue: Queue, between: Callable[..., None]) -> None:
    """That is when it can be seen."""
    queue.put_many(["a", "b"])
    between(queue.get)
    assert run("tail", queue.name).stdout == "a\nb\n"


def test_equal_items_are_told_apart(run: Run, queue: Queue, between: Callable[..., None]) -> None:
    """By the count of what was taken before."""
    queue.put_many(["a", "a"])
    between(queue.get)
    assert run("tail", queue.name).stdout == "a\na\n"


def test_equal_items_are_one_where_nobody_counts(
    run: Run, queue: Queue, between: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They look the same; after an empty queue an item is a new one."""
    monkeypatch.setattr(ipcq.Queue, "stats", lambda self: ipcq.Stats())
    queue.put_many(["a", "a"])
    between(queue.get, queue.get, lambda: queue.put("a"))
    assert run("tail", queue.name).stdout == "a\na\n"


def test_items_that_went_by_are_counted(run: Run, queue: Queue, between: Callable[..., None]) -> None:
    """What was not shown is not passed over in silence."""
    queue.put_many(["a", "b", "c", "d"])
    between(lambda: queue.get_many(3))
    assert run("tail", queue.name).stderr == "ipcq: missed 2 items between two polls\n"


def test_item_that_went_by_is_counted(run: Run, queue: Queue, between: Callable[..., None]) -> None:
    """Put and taken while the queue was empty at each look."""
    between(lambda: (queue.put("a"), queue.get()))
    assert run("tail", queue.name).stderr == "ipcq: missed 1 item between two polls\n"


def test_counting_can_be_left_out(run: Run, queue: Queue, between: Callable[..., None]) -> None:
    """With --quiet."""
    between(lambda: (queue.put("a"), queue.get()))
    assert run("tail", queue.name, "--quiet").stderr == ""


def test_look_that_was_overtaken_shows_nothing(
    run: Run, queue: Queue, between: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was taken during the look may be before it or after it: the next look knows."""
    queue.put_many(["a", "b"])
    look = ipcq.Queue.peek

    def peek(self: Queue) -> Any:
        item = look(self)
        if item == "a":
            queue.get()
        return item

    monkeypatch.setattr(ipcq.Queue, "peek", peek)
    between(lambda: None)
    assert run("tail", queue.name).stdout == "b\n"


def test_undecodable_message_is_shown_in_base64(run: Run, queue: Queue) -> None:
    """Once, and the exit code tells."""
    with ipcq.open(queue.name, serializer="raw") as raw:
        raw.put(b"\xc1")
    result = run("tail", queue.name, "-n", "1")
    assert (
        result.exit_code,
        result.stderr.endswith("the message stays in the queue; its 1 bytes in base64: wQ==\n"),
    ) == (
        1,
        True,
    )


def test_time_ends_it(run: Run, queue: Queue) -> None:
    """With --wait, having seen something."""
    queue.put("a")
    assert run("tail", queue.name, "--wait", "0.1", "--interval", "0.02").exit_code == 0


def test_nothing_in_time_is_3(run: Run, queue: Queue) -> None:
    """As for get --follow."""
    assert run("tail", queue.name, "--wait", "0.1").exit_code == 3


def test_it_ends_once_the_queue_is_shut_down_and_empty(run: Run, queue: Queue, between: Callable[..., None]) -> None:
    """With what was left, and without an error."""
    queue.put("left")
    queue.shutdown()
    between(queue.get)
    result = run("tail", queue.name)
    assert (result.stdout, result.exit_code) == ("left\n", 0)


def test_removed_queue_is_1(run: Run, queue: Queue, between: Callable[..., None]) -> None:
    """There is nothing to follow any more."""
    between(queue.unlink)
    assert run("tail", queue.name).exit_code == 1


def test_missing_queue_is_5(run: Run, name: str) -> None:
    """Following creates nothing."""
    assert run("tail", name).exit_code == 5


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf"])
def test_odd_interval_is_2(run: Run, queue: Queue, interval: str) -> None:
    """Looking without a pause would be all that the machine does."""
    assert run("tail", queue.name, "--interval", interval).exit_code == 2


def test_consuming_takes_what_it_prints(run: Run, queue: Queue) -> None:
    """Only if it is asked to."""
    queue.put_many(["a", "b", "c"])
    result = run("tail", queue.name, "--consume", "-n", "2")
    assert (result.stdout, queue.qsize()) == ("a\nb\n", 1)


def test_consuming_ends_with_the_shutdown(run: Run, queue: Queue) -> None:
    """As get --follow does."""
    queue.put("a")
    queue.shutdown()
    result = run("tail", queue.name, "--consume")
    assert (result.exit_code, result.stdout) == (0, "a\n")


def test_backend_that_cannot_look_names_the_ways_out(program: Callable[..., Any], opaque: Queue) -> None:
    """One that can, and the option that consumes; on a real queue of the kernel."""
    opaque.put("a")
    result = program("tail", opaque.name)
    assert (result.returncode, "use --backend" in result.stderr, "--consume" in result.stderr) == (1, True, True)


def test_way_out_by_consuming_is_named(run: Run, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the backends that can."""

    def refuse(self: Queue) -> None:
        raise ipcq.Unsupported("use backend='other'")

    monkeypatch.setattr(ipcq.Queue, "peek", refuse)
    assert run("tail", queue.name).stderr.endswith("; or pass --consume to take each printed item\n")


def test_backend_that_cannot_look_loses_nothing(program: Callable[..., Any], opaque: Queue) -> None:
    """Nothing is consumed without a word."""
    opaque.put("a")
    program("tail", opaque.name)
    assert opaque.qsize() == 1


def test_program_follows_until_it_is_interrupted(start: Callable[..., Any], shared: Queue) -> None:
    """A real SIGINT, as for get --follow; it may strike while the item's line is under way, and then says so."""
    process = start("tail", shared.name, "--consume")
    shared.put("first")
    assert process.stdout.readline() == "first\n"
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in complaint) == (130, False)


def test_items_of_another_thread_are_followed(run: Run, queue: Queue) -> None:
    """With the real clock."""
    thread = threading.Timer(0.1, queue.put, ["late"])
    thread.start()
    result = run("tail", queue.name, "-n", "1", "--interval", "0.02")
    thread.join()
    assert result.stdout == "late\n"
