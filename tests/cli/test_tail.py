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
    """Return a function that takes one step for each pause between polls; after the last step comes an interrupt."""

    def between(*steps: Callable[[], object]) -> None:
        waiting: Iterator[Callable[[], object]] = iter(steps)

        def rest(_: float) -> None:
            step = next(waiting, None)
            if step is None:
                raise KeyboardInterrupt
            step()

        monkeypatch.setattr(verb, "sleep_in_slices", rest)

    return between


def test_no_sleep_between_polls_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C that arrives just before the system call does not interrupt it."""
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
    """No item is taken."""
    queue.put_many(["a", "b"])
    result = run("tail", queue.name, "-n", "1")
    assert (result.stdout, queue.qsize()) == ("a\n", 2)


def test_item_is_printed_once(run: Run, queue: Queue, between: Callable[..., None]) -> None:
    """However often it is polled."""
    queue.put("a")
    between(lambda: None, lambda: None)
    assert run("tail", queue.name).stdout == "a\n"


def test_item_is_printed_when_the_items_before_it_are_taken(
    run: Run, queue: Queue, between: Callable[..., None]
) -> None:
    """Only then can it be seen."""
    queue.put_many(["a", "b"])
    between(queue.get)
    assert run("tail", queue.name).stdout == "a\nb\n"


def test_equal_items_are_distinguished(run: Run, queue: Queue, between: Callable[..., None]) -> None:
    """By the number of items that were taken before."""
    queue.put_many(["a", "a"])
    between(queue.get)
    assert run("tail", queue.name).stdout == "a\na\n"


def test_equal_items_are_one_without_a_count_of_gets(
    run: Run, queue: Queue, between: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They look the same; after an empty queue, an item counts as new."""
    monkeypatch.setattr(ipcq.Queue, "stats", lambda self: ipcq.Stats())
    queue.put_many(["a", "a"])
    between(queue.get, queue.get, lambda: queue.put("a"))
    assert run("tail", queue.name).stdout == "a\na\n"


def test_missed_items_are_counted(run: Run, queue: Queue, between: Callable[..., None]) -> None:
    """Items that were not shown are not skipped silently."""
    queue.put_many(["a", "b", "c", "d"])
    between(lambda: queue.get_many(3))
    assert run("tail", queue.name).stderr == "ipcq: missed 2 items between two polls\n"


def test_missed_item_is_counted(run: Run, queue: Queue, between: Callable[..., None]) -> None:
    """It was put and taken while the queue was empty at each poll."""
    between(lambda: (queue.put("a"), queue.get()))
    assert run("tail", queue.name).stderr == "ipcq: missed 1 item between two polls\n"


def test_missed_items_are_not_reported_with_quiet(run: Run, queue: Queue, between: Callable[..., None]) -> None:
    """With --quiet."""
    between(lambda: (queue.put("a"), queue.get()))
    assert run("tail", queue.name, "--quiet").stderr == ""


def test_poll_that_was_overtaken_prints_nothing(
    run: Run, queue: Queue, between: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item taken during the poll may be the one before or after it: the next poll shows which."""
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
    """Once, and the exit code is 1."""
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


def test_timeout_ends_it(run: Run, queue: Queue) -> None:
    """With --wait, after an item was printed."""
    queue.put("a")
    assert run("tail", queue.name, "--wait", "0.1", "--interval", "0.02").exit_code == 0


def test_no_item_before_the_timeout_is_3(run: Run, queue: Queue) -> None:
    """As for get --follow."""
    assert run("tail", queue.name, "--wait", "0.1").exit_code == 3


def test_it_ends_once_the_queue_is_shut_down_and_empty(run: Run, queue: Queue, between: Callable[..., None]) -> None:
    """After the remaining items, without an error."""
    queue.put("left")
    queue.shutdown()
    between(queue.get)
    result = run("tail", queue.name)
    assert (result.stdout, result.exit_code) == ("left\n", 0)


def test_removed_queue_is_1(run: Run, queue: Queue, between: Callable[..., None]) -> None:
    """There is no queue to follow any more."""
    between(queue.unlink)
    assert run("tail", queue.name).exit_code == 1


def test_missing_queue_is_5(run: Run, name: str) -> None:
    """tail creates nothing."""
    assert run("tail", name).exit_code == 5


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf"])
def test_odd_interval_is_2(run: Run, queue: Queue, interval: str) -> None:
    """Polling without a pause would take the whole processor."""
    assert run("tail", queue.name, "--interval", interval).exit_code == 2


def test_consuming_takes_what_it_prints(run: Run, queue: Queue) -> None:
    """Only with --consume."""
    queue.put_many(["a", "b", "c"])
    result = run("tail", queue.name, "--consume", "-n", "2")
    assert (result.stdout, queue.qsize()) == ("a\nb\n", 1)


def test_consuming_ends_with_the_shutdown(run: Run, queue: Queue) -> None:
    """As for get --follow."""
    queue.put("a")
    queue.shutdown()
    result = run("tail", queue.name, "--consume")
    assert (result.exit_code, result.stdout) == (0, "a\n")


def test_error_of_a_backend_without_peek_names_the_ways_out(program: Callable[..., Any], opaque: Queue) -> None:
    """A backend with peek, and the option that consumes; on a real queue of the kernel."""
    opaque.put("a")
    result = program("tail", opaque.name)
    assert (result.returncode, "use --backend" in result.stderr, "--consume" in result.stderr) == (1, True, True)


def test_error_names_the_option_that_consumes(run: Run, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """In addition to the backends with peek."""

    def refuse(self: Queue) -> None:
        raise ipcq.Unsupported("use backend='other'")

    monkeypatch.setattr(ipcq.Queue, "peek", refuse)
    assert run("tail", queue.name).stderr.endswith("; or pass --consume to take each printed item\n")


def test_backend_without_peek_loses_nothing(program: Callable[..., Any], opaque: Queue) -> None:
    """No item is consumed silently."""
    opaque.put("a")
    program("tail", opaque.name)
    assert opaque.qsize() == 1


def test_program_follows_until_it_is_interrupted(start: Callable[..., Any], shared: Queue) -> None:
    """A real SIGINT, as for get --follow; it may strike while a line is being printed, which is then reported."""
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
