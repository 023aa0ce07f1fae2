"""``ipcq top``."""

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from click.testing import Result

import ipcq
from ipcq._cli import _keyboard
from ipcq._cli._keyboard import Keyboard
from ipcq._cli.verbs import top as verb
from ipcq._process.deadline import SLICE

pty = pytest.importorskip("pty", reason="could not import 'pty', which only POSIX has")

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]


@pytest.fixture
def alone(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """Return a queue that is the only one in the listing."""
    show(monkeypatch, ipcq.QueueInfo(queue.name, "memory"))
    return queue


def show(monkeypatch: pytest.MonkeyPatch, *infos: ipcq.QueueInfo, **unlisted: str) -> None:
    listing = ipcq.Listing(infos)
    listing.unlisted = unlisted
    monkeypatch.setattr(ipcq, "queues", lambda: listing)


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that takes one step in each interval; in the interval after the last one, q is pressed."""

    def between(*steps: Callable[[], object]) -> None:
        waiting = iter(steps)

        def pressed(self: Keyboard, key: bytes, seconds: float) -> bool:
            step = next(waiting, None)
            if step is not None:
                step()
            return step is None

        monkeypatch.setattr(Keyboard, "pressed", pressed)

    return between


def test_once_is_one_line_for_each_queue(run: Run, alone: Queue) -> None:
    """Time, name, backend, depth, capacity, rates, and counts that a queue without leases lacks, tab-separated."""
    alone.put("a")
    line = run("top", "--once", "--interval", "0.02").stdout
    assert re.fullmatch(rf"\d\d:\d\d:\d\d\t{alone.name}\tmemory\t1\t4\t0\t0\t0\t0\t-\t-\t-\n", line)


def test_messages_that_are_not_ready_are_counted(
    run: Run, name: str, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leased, delayed and dead."""
    show(monkeypatch, ipcq.QueueInfo(name, memory))
    with ipcq.open(name, memory, leases=True) as queue:
        queue.put_many(range(7))
        for lease in queue.lease_many(1):
            lease.reject()
        for lease in queue.lease_many(2):
            lease.release(delay=1000)
        with queue.lease(), queue.lease(), queue.lease():
            told = json.loads(run("top", "--once", "--json", "--interval", "0.02").stdout)
    assert [told[key] for key in ("messages", "leased", "delayed", "dead")] == [1, 3, 2, 1]


def test_rates_are_those_of_the_interval(
    run: Run, alone: Queue, between: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The difference divided by the time that passed."""
    alone.put_many(["a", "b"])
    times = iter((100.0, 102.0))
    monkeypatch.setattr(verb, "monotonic", lambda: next(times))
    between(lambda: (alone.put("c"), alone.get_many()))
    told = json.loads(run("top", "--once", "--json").stdout)
    rates = [told[f"{what}_per_second"] for what in ("puts", "gets", "change", "waits")]
    assert rates == [0.5, 1.5, -1.0, 0.0]


def test_rates_are_unknown_without_counts(run: Run, alone: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the change of the depth is known then."""
    monkeypatch.setattr(ipcq.Queue, "stats", lambda self: ipcq.Stats())
    told = json.loads(run("top", "--once", "--json", "--interval", "0.02").stdout)
    rates = [told[f"{what}_per_second"] for what in ("puts", "gets", "change", "waits")]
    assert rates == [None, None, 0.0, None]


def test_rates_of_another_queue_of_that_name_are_unknown(run: Run, alone: Queue, between: Callable[..., None]) -> None:
    """Its counts started again."""

    def recreate() -> None:
        alone.unlink()
        ipcq.open(alone.name, "memory").close()

    alone.put("a")
    between(recreate)
    told = json.loads(run("top", "--once", "--json").stdout)
    assert (told["messages"], told["puts_per_second"], told["change_per_second"]) == (0, None, None)


def test_json_has_the_keys_of_ls_and_the_time(run: Run, alone: Queue) -> None:
    """The keys are stable."""
    told = json.loads(run("top", "--once", "--json", "--interval", "0.02").stdout)
    assert sorted(told) == sorted(["time", "error", "max_message_size", "mode", *verb.KEYS])


def test_lines_come_until_q_is_pressed(run: Run, alone: Queue, between: Callable[..., None]) -> None:
    """And the exit code is 0."""
    between(lambda: None, lambda: None)
    result = run("top")
    assert (result.exit_code, result.stdout.count("\n")) == (0, 2)


def test_interruption_ends_it_as_q_does(run: Run, alone: Queue, between: Callable[..., None]) -> None:
    """It is a normal way to end it."""
    between(lambda: signal.raise_signal(signal.SIGINT))
    result = run("top")
    assert (result.exit_code, result.output) == (0, "")


def test_termination_has_its_exit_code(run: Run, alone: Queue, between: Callable[..., None]) -> None:
    """And the terminal is restored."""
    between(lambda: signal.raise_signal(signal.SIGTERM))
    assert run("top").exit_code == 143


def test_no_queue_is_no_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue may be created later."""
    show(monkeypatch)
    assert run("top", "--once", "--interval", "0.02").output == ""


def test_backend_that_cannot_be_listed_is_noted_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, between: Callable[..., None]
) -> None:
    """Not at each poll."""
    show(monkeypatch, some="not mounted: mount it")
    between(lambda: None, lambda: None)
    assert run("top").stderr == "ipcq: backend 'some': not mounted: mount it\n"


def test_queue_that_cannot_be_opened_has_its_line(run: Run, alone: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its name, which is known."""

    def refuse(queue: Queue) -> None:
        raise ipcq.PermissionDenied(queue=alone.name)

    monkeypatch.setattr(ipcq.Queue, "qsize", refuse)
    assert f"\t{alone.name}\tmemory\t-\t-\t-" in run("top", "--once", "--interval", "0.02").stdout


def test_unknown_backend_is_2(run: Run) -> None:
    """It is a typing error."""
    assert run("top", "--once", "--backend", "nonsense").exit_code == 2


def test_terminal_has_a_live_table(terminal: Callable[..., Any], alone: Queue, between: Callable[..., None]) -> None:
    """On the alternate screen, which is gone at the end."""
    between(lambda: None)
    told = terminal("top")
    assert ("\x1b[?1049h" in told.output, "\x1b[?1049l" in told.output, alone.name in told.text) == (True, True, True)


def test_live_table_has_the_notes(
    terminal: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, between: Callable[..., None]
) -> None:
    """On the screen, where the user looks."""
    show(monkeypatch, some="not mounted: mount it")
    between()
    assert "not mounted: mount it" in terminal("top").text


def test_terminal_without_rich_has_lines(
    terminal: Callable[..., Any], alone: Queue, between: Callable[..., None], no_rich: None
) -> None:
    """A table for each interval."""
    between(lambda: None)
    told = terminal("top")
    assert ("\x1b[" in told.output, "capacity" in told.text) == (False, True)


def test_once_on_a_terminal_stays_on_its_screen(terminal: Callable[..., Any], alone: Queue) -> None:
    """It does not use the alternate screen."""
    assert "\x1b[?1049h" not in terminal("top", "--once", "--interval", "0.02").output


def test_key_ends_it(terminal: Callable[..., Any], alone: Queue) -> None:
    """A real key on a real terminal, without Enter."""
    assert terminal("top", "--interval", "60", typed="xQ").code == 0


def test_terminal_is_restored_afterwards(alone: Queue, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line editing and echo are on again."""
    import termios

    master, slave = pty.openpty()
    try:
        before = termios.tcgetattr(slave)
        with open(slave, closefd=False) as keyboard:
            monkeypatch.setattr(sys, "stdin", keyboard)
            with Keyboard():
                during = termios.tcgetattr(slave)
        assert (during != before, termios.tcgetattr(slave) == before) == (True, True)
    finally:
        os.close(master)
        os.close(slave)


def test_closed_terminal_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is there to look."""
    keyboard = Keyboard()
    reading, writing = os.pipe()
    os.close(writing)
    monkeypatch.setattr(keyboard, "_descriptor", reading)
    assert keyboard.pressed(b"q", 60)
    os.close(reading)


@pytest.mark.parametrize("terminal", [True, False])
def test_no_wait_for_a_key_is_long(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    """A Ctrl-C that arrives just before the system call does not interrupt it."""
    waits: list[float] = []
    monkeypatch.setattr(_keyboard, "sleep", waits.append)
    monkeypatch.setattr(_keyboard.select, "select", lambda *args: waits.append(args[3]) or ([], [], []))
    keyboard = Keyboard()
    if terminal:
        monkeypatch.setattr(keyboard, "_descriptor", 0)
    keyboard.pressed(b"q", 0.2)
    assert 0 < max(waits) <= SLICE


def test_other_keys_do_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only q does."""
    keyboard = Keyboard()
    reading, writing = os.pipe()
    os.write(writing, b"x")
    monkeypatch.setattr(keyboard, "_descriptor", reading)
    assert not keyboard.pressed(b"q", 0.05)
    os.close(reading)
    os.close(writing)


def test_program_ends_with_its_reader(start: Callable[..., Any], shared: Queue) -> None:
    """``ipcq top | head -1``. Listing needs the kernel's file system, so the test expects a line only with it."""
    reading, writing = os.pipe()
    process = start("top", "--interval", "0.05", "--json", "--backend", shared.backend, stdout=writing)
    os.close(writing)
    if any(each.name == shared.name for each in ipcq.queues()):
        with os.fdopen(reading) as lines:
            assert json.loads(lines.readline())["backend"] == shared.backend
        assert process.wait(60) == 1
    else:
        os.close(reading)


def test_program_is_interrupted_cleanly(start: Callable[..., Any]) -> None:
    """A real SIGINT."""
    master, slave = pty.openpty()
    process = start(
        "top", "--interval", "60", stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm"}
    )
    os.close(slave)
    seen = bytearray()
    ready = threading.Event()

    def read() -> None:
        with suppress(OSError):  # EIO: the other end is closed
            while data := os.read(master, 4096):
                seen.extend(data)
                if b"queues" in seen or b"not mounted" in seen:
                    ready.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert ready.wait(60)
    process.send_signal(signal.SIGINT)
    code = process.wait(60)
    reader.join()
    os.close(master)
    assert (code, b"Traceback" in seen) == (0, False)
