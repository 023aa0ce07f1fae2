"""``ipcq demo``: what it checks, what it shows, and that it leaves nothing behind."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

import ipcq
from ipcq._cli import _meter, _worker
from ipcq._cli._verdict import judge
from ipcq._cli.verbs import demo as verb

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]

WATCHDOG = 60.0
GOODS = _worker.Goods(16)
SHORT = ("demo", "--messages", "40", "--size", "16")


# The verdict


def bitmap(*numbers: int) -> str:
    """Return the bits of these numbers as a report has them."""
    return b64encode(sum(1 << number for number in numbers).to_bytes(4, "little")).decode()


def report(*seen: str, **wrong: int) -> dict[str, Any]:
    """Return the report of one consumer."""
    return {"damaged": 0, "repeated": 0, "reordered": 0, "seen": seen, **wrong}


def test_each_object_once_is_ok() -> None:
    """Whoever of the consumers took it."""
    reports = [report(bitmap(0, 2), bitmap(0, 1)), report(bitmap(1), bitmap())]
    assert judge([3, 2], reports, 5).ok


def test_lost_object_is_named() -> None:
    """With its producer."""
    reports = [report(bitmap(0, 1), bitmap(0)), report(bitmap(2), bitmap(2))]
    assert judge([3, 3], reports, 5).sentence() == "FAILED: 1 lost (no. 1 of producer 1)"


def test_lost_objects_are_counted() -> None:
    """And the first of them named."""
    verdict = judge([9], [report(bitmap(0))], 1)
    assert verdict.sentence().startswith("FAILED: 8 lost (no. 1 of producer 0, no. 2")


def test_object_that_two_consumers_took_is_repeated() -> None:
    """Though each of them saw it once."""
    assert judge([2], [report(bitmap(0, 1)), report(bitmap(1))], 3).sentence() == ("FAILED: 1 came out more than once")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"repeated": 2}, "FAILED: 2 came out more than once"),
        ({"reordered": 1}, "FAILED: 1 out of order"),
        ({"damaged": 1}, "FAILED: 1 damaged, or put by somebody else"),
    ],
)
def test_what_one_consumer_saw_counts(wrong: dict[str, int], sentence: str) -> None:
    """Each kind has its words."""
    assert judge([1], [report(bitmap(0), **wrong)], 1).sentence() == sentence


def test_trouble_is_no_success() -> None:
    """A worker died, though all is there."""
    verdict = judge([1], [report(bitmap(0))], 1)
    verdict.troubles.append("consumer 0 died")
    assert verdict.sentence() == "FAILED: consumer 0 died"


# A worker


class Demo(SimpleNamespace):
    """The demo's ends of the pipes to a worker that runs in this process."""

    def news(self, *, dismiss: bool = True) -> list[dict[str, Any]]:
        """Listen to the worker until it reports, dismiss it or die, and return all that it said."""
        said = []
        with os.fdopen(self.hears, "rb", buffering=0) as lines:
            while not said or "report" not in said[-1]:
                while not select.select([lines], [], [], 0.1)[0]:
                    assert self.thread.is_alive(), f"the worker ended with {self.results!r} after {said}"
                said.append(json.loads(lines.readline()))
        if dismiss:
            os.write(self.says, b".")
        os.close(self.says)
        self.wait()
        return said

    def wait(self) -> None:
        """Wait until the worker has ended."""
        self.thread.join(WATCHDOG)
        os.close(self.told)


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch, run: Run) -> Iterator[Callable[..., Demo]]:
    """Return a function that starts a worker in a thread, and says the first word to it."""
    inlet, says = os.pipe()
    hears, told = os.pipe()
    monkeypatch.setattr(_worker, "INLET", inlet)
    monkeypatch.setattr(_worker, "OUTLET", told)
    results: list[BaseException | None] = []

    def start(queue: Queue, *task: str) -> Demo:
        arguments = ["demo-worker", queue.name, "memory", "16", *task]

        def work() -> None:
            from ipcq._cli import cli

            try:
                cli.main(arguments, standalone_mode=False)
                results.append(None)
            except BaseException as error:
                results.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        os.write(says, b".")
        return Demo(thread=thread, says=says, hears=hears, told=told, results=results)

    yield start
    os.close(inlet)


def test_producer_puts_numbered_objects(demo: Callable[..., Demo], queue: Queue) -> None:
    """From 0 on, as many as it is told to."""
    worker = demo(queue, "--produce", "1", "--messages", "2")
    worker.news()
    assert [queue.get(timeout=0) for _ in range(2)] == [GOODS.make(1, 0), GOODS.make(1, 1)]


def test_producer_stops_when_its_time_is_over(demo: Callable[..., Demo], queue: Queue) -> None:
    """With no time it puts nothing."""
    worker = demo(queue, "--produce", "0", "--seconds", "0")
    assert worker.news()[-1] == {"count": 0, "report": {}}


def test_consumer_reports_what_it_saw(demo: Callable[..., Demo], queue: Queue) -> None:
    """One bit for each object."""
    queue.put_many([GOODS.make(0, 0), GOODS.make(1, 0), GOODS.make(0, 1)])
    queue.shutdown()
    worker = demo(queue, "--consume", "2")
    assert judge([2, 1], [worker.news()[-1]["report"]], 3).ok


@pytest.mark.parametrize(
    ("items", "fault"),
    [
        ([GOODS.make(0, 0), GOODS.make(0, 0)], "repeated"),
        ([GOODS.make(0, 1), GOODS.make(0, 0)], "reordered"),
        ([{**GOODS.make(0, 0), "payload": b""}], "damaged"),
        ([GOODS.make(0, -1)], "damaged"),
        ([GOODS.make(7, 0)], "damaged"),
        (["from somebody else"], "damaged"),
        ([{}], "damaged"),
    ],
)
def test_consumer_sees_what_is_wrong(demo: Callable[..., Demo], queue: Queue, items: list[Any], fault: str) -> None:
    """Each fault is counted as what it is."""
    queue.put_many(items)
    queue.shutdown()
    worker = demo(queue, "--consume", "1")
    assert worker.news()[-1]["report"][fault] == 1


def test_consumer_counts_a_message_that_cannot_be_decoded(demo: Callable[..., Demo], queue: Queue) -> None:
    """As damage, and goes on."""
    with ipcq.open(queue.name, serializer="raw") as raw:
        raw.put(b"\xc1")
    queue.shutdown()
    worker = demo(queue, "--consume", "1")
    assert worker.news()[-1]["report"]["damaged"] == 1


def test_consumer_ends_at_its_mark(demo: Callable[..., Demo], queue: Queue) -> None:
    """What is behind that is for the others."""
    queue.put_many([GOODS.make(0, 0), _worker.END, _worker.END])
    worker = demo(queue, "--consume", "1")
    told = worker.news()[-1]["report"]
    assert (judge([1], [told], 1).ok, queue.qsize()) == (True, 1)


def test_a_backend_without_a_shutdown_will_do(
    program: Callable[..., "subprocess.CompletedProcess[str]"], wrong: dict[str, str]
) -> None:
    """A mark for each consumer ends it, also where not all marks fit into the queue at a time."""
    result = program(*SHORT, "--consumers", "3", "--backend", "endless", env=wrong)
    assert result.returncode == 0, result.stdout + result.stderr


def test_marks_wait_for_space(memory: str, name: str) -> None:
    """They are put as there is space, and the demo goes on looking after its workers meanwhile."""
    there, here = os.pipe()
    demo = verb.Demo(memory, 16, _meter.Meter(silent=True))
    taken: list[Any] = []
    consumer: Any = SimpleNamespace(fileno=lambda: there, count=0)
    demo._consumers = [consumer, consumer]
    with ipcq.open(name, memory, max_messages=1, max_message_size=512) as queue:
        ended: Any = SimpleNamespace(
            capabilities=SimpleNamespace(shutdown=False), put_nowait=queue.put_nowait, qsize=queue.qsize
        )
        os.write(here, b".")
        consumer.listen = lambda: taken or taken.append(queue.get(timeout=WATCHDOG))
        demo._end(ended)
        taken.append(queue.get(timeout=WATCHDOG))
    os.close(there)
    os.close(here)
    assert taken == [_worker.END, _worker.END]


def test_worker_reports_how_far_it_is(demo: Callable[..., Demo], queue: Queue) -> None:
    """While it waits."""
    worker = demo(queue, "--consume", "1")
    with os.fdopen(os.dup(worker.hears)) as lines:
        lines.readline()
        beat = json.loads(lines.readline())
    queue.shutdown()
    worker.news()
    assert beat == {"count": 0}


def test_worker_removes_the_queue_when_the_demo_dies_in_between(demo: Callable[..., Demo], queue: Queue) -> None:
    """It waits for an object that never comes, and its stdin ends."""
    worker = demo(queue, "--consume", "1")
    os.close(worker.says)
    worker.wait()
    os.close(worker.hears)
    assert not ipcq.exists(queue.name)


def test_worker_removes_the_queue_when_the_demo_dies_before_the_end(demo: Callable[..., Demo], queue: Queue) -> None:
    """It is done, and its stdin ends instead of the dismissal."""
    queue.shutdown()
    demo(queue, "--consume", "1").news(dismiss=False)
    assert not ipcq.exists(queue.name)


def test_worker_that_is_not_heard_removes_the_queue(demo: Callable[..., Demo], queue: Queue) -> None:
    """Its stdout has no reader any more."""
    worker = demo(queue, "--consume", "1")
    os.close(worker.hears)
    worker.wait()
    os.close(worker.says)
    assert not ipcq.exists(queue.name)


def test_worker_lets_others_have_removed_the_queue(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """All workers of a dead demo do it, and one is the first."""

    def refuse(self: Queue) -> None:
        raise ipcq.QueueClosed

    with monkeypatch.context() as patch:
        patch.setattr(ipcq.Queue, "unlink", refuse)
        _worker.abandon(queue)
    assert queue.closed


# A run


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Whatever a test does to a run, no queue and no process of it is there afterwards."""
    before = set(children(os.getpid()))  # other tests' helpers, which live as long as the interpreter
    yield
    assert set(children(os.getpid())) <= before


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and not yet waited for."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has just ended
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


@pytest.fixture
def created(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that will have the name of each queue that is created."""
    names = []
    original = ipcq.open

    def spy(name: str, *arguments: Any, **options: Any) -> Queue:
        names.append(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(ipcq, "open", spy)
    return names


def test_good_run_is_0(run: Run) -> None:
    """Two producers and two consumers by default."""
    assert run(*SHORT).exit_code == 0


def test_good_run_says_so(run: Run) -> None:
    """In its last line."""
    assert run(*SHORT).stdout.splitlines()[-1].startswith("verdict  ok: every object came out exactly once")


def test_run_removes_its_queue(run: Run, created: list[str]) -> None:
    """The name is free again."""
    run(*SHORT)
    assert not ipcq.exists(created[0])


def test_quiet_run_has_the_result_alone(run: Run) -> None:
    """Three lines: moved, backend, verdict."""
    assert run(*SHORT, "-q").stdout.count("\n") == 3


def test_json_has_stable_keys(run: Run) -> None:
    """One object and nothing else."""
    told = json.loads(run(*SHORT, "--json").stdout)
    assert list(told) == [
        "ok",
        "verdict",
        "backend",
        "queue",
        "producers",
        "consumers",
        "size",
        "seconds",
        "rate",
        "sent",
        "received",
        "lost",
        "repeated",
        "reordered",
        "damaged",
        "troubles",
    ]


def test_messages_are_shared_among_producers(run: Run) -> None:
    """All of them are put, whatever the division leaves over."""
    told = json.loads(run("demo", "--messages", "41", "--producers", "3", "--consumers", "1", "--json").stdout)
    assert (told["sent"], told["received"]) == (41, 41)


def test_run_without_objects_is_a_run(run: Run) -> None:
    """No time, no objects, no rate."""
    assert run("demo", "--seconds", "0").exit_code == 0


def test_run_takes_its_time(run: Run) -> None:
    """With --seconds."""
    assert json.loads(run("demo", "--seconds", "0.3", "--json").stdout)["seconds"] >= 0.25


def test_backend_inside_one_process_is_refused(run: Run) -> None:
    """It could never work."""
    assert "choose another backend" in run("demo", "--backend", "memory").stderr


def test_worker_that_dies_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, with what killed it."""
    monkeypatch.setattr(verb.Worker, "tell", lambda self: self.process.kill())
    assert "was killed by SIGKILL" in run(*SHORT).stdout


def test_worker_that_dies_fails_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever came out."""
    monkeypatch.setattr(verb.Worker, "tell", lambda self: self.process.kill())
    assert run(*SHORT).exit_code == 1


def test_worker_that_dies_before_it_is_told_is_noticed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Telling it fails, and listening says why."""
    tell = verb.Worker.tell

    def late(worker: verb.Worker) -> None:
        worker.process.kill()
        worker.process.wait()
        tell(worker)

    monkeypatch.setattr(verb.Worker, "tell", late)
    assert "was killed by SIGKILL" in run(*SHORT).stdout


def test_complaint_of_a_worker_is_told() -> None:
    """Its exit code and its last line."""
    worker = verb.Worker("consumer", 7, "no-name", "auto", 16, "--consume", 1)
    with pytest.raises(verb.Trouble, match=r"consumer 7 \(pid \d+\) ended with exit code 2: ipcq: 'no-name' does"):
        while True:
            worker.listen()
    worker.end()


def test_worker_that_does_not_end_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not dismissed, so it stays."""
    tell = verb.Worker.tell
    told = []

    def once(worker: verb.Worker) -> None:
        if worker not in told:
            told.append(worker)
            tell(worker)

    monkeypatch.setattr(verb.Worker, "tell", once)
    monkeypatch.setattr(verb, "PARTING", 0.01)
    assert "did not end within 0 s" in run(*SHORT).stdout


def test_run_in_which_nothing_moves_ends(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped worker must not stop the demo."""
    monkeypatch.setattr(verb, "STUCK", -1.0)
    assert "FAILED: nothing moved" in run(*SHORT).stdout


def test_handlers_of_signals_are_put_back(run: Run) -> None:
    """And what was ignored stays ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run(*SHORT)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("number", "raised"),
    [("SIGINT", KeyboardInterrupt), ("SIGTERM", SystemExit), ("SIGHUP", SystemExit)],
)
def test_signal_becomes_an_exception(number: str, raised: type[BaseException]) -> None:
    """So that cleaning up is on its way."""
    with pytest.raises(raised), verb.stopped_by_signals():
        signal.raise_signal(signal.Signals[number])


def test_second_signal_does_not_disturb_cleaning_up() -> None:
    """The first one is on its way out already."""
    with pytest.raises(KeyboardInterrupt), verb.stopped_by_signals():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)


# The display


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock by which the meter goes."""
    clock = Clock()
    monkeypatch.setattr(_meter, "monotonic", clock)
    return clock


def test_progress_has_one_line_each_second(clock: Clock, capsys: Any) -> None:
    """Where no terminal is."""
    meter = _meter.Meter(silent=False)
    with meter.open():
        meter.start()
        for clock.now in (0.5, 1.0, 1.5, 2.0):
            meter.show(1000, int(1000 * clock.now), 3)
    assert capsys.readouterr().out.splitlines() == [
        "  1.0 s   sent 1,000   received 1,000   1,000/s   depth 3",
        "  2.0 s   sent 2,000   received 2,000   1,000/s   depth 3",
    ]


def test_silent_progress_is_silent(clock: Clock, capsys: Any) -> None:
    """With --quiet and --json."""
    meter = _meter.Meter(silent=True)
    meter.start()
    clock.now = 10.0
    meter.show(1, 1, 1)
    assert capsys.readouterr().out == ""


def test_terminal_has_a_live_line(terminal: Callable[..., Any]) -> None:
    """With the rate of the last seconds as a curve."""
    assert any(block in terminal("demo", "--seconds", "1").text for block in _meter.BLOCKS)


def test_live_line_needs_no_rich(terminal: Callable[..., Any], no_rich: None) -> None:
    """It is written over with a carriage return."""
    assert "\r\x1b[K" in terminal("demo", "--seconds", "1").output


def test_live_line_is_gone_at_the_end(terminal: Callable[..., Any], no_rich: None) -> None:
    """What stays is the result."""
    told = terminal("demo", "--seconds", "1").output
    assert told.rpartition("\x1b[K")[2].startswith("moved ")


# The program


def begin(start: Callable[..., Any], *options: str) -> tuple[Any, str]:
    """Start the demo as a program, and return it and its queue's name once objects move."""
    process = start("demo", "--seconds", "30", *options, start_new_session=True)
    name = process.stdout.readline().split()[1]
    process.stdout.readline()
    return process, name


def gone(name: str, pids: list[int]) -> bool:
    """Wait until the queue and the processes are gone; what watches over the test ends it if they stay."""
    end = monotonic() + WATCHDOG
    while monotonic() < end:
        if not ipcq.exists(name) and not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        sleep(0.01)
    return False


def test_stolen_object_fails_the_run(start: Callable[..., Any]) -> None:
    """A stranger takes one out: the check is real."""
    process = start("demo", "--seconds", "2")
    name = process.stdout.readline().split()[1]
    with ipcq.open(name, create=False, write=False) as queue:
        stolen = queue.get(timeout=WATCHDOG)
    told, _ = process.communicate(timeout=WATCHDOG)
    lost = f"FAILED: 1 lost (no. {stolen['number']} of producer {stolen['producer']})"
    assert (process.returncode, told.splitlines()[-1]) == (1, f"verdict  {lost}")


def test_injected_object_fails_the_run(start: Callable[..., Any]) -> None:
    """A stranger puts one in."""
    process = start("demo", "--seconds", "2")
    name = process.stdout.readline().split()[1]
    with ipcq.open(name, create=False, read=False) as queue:
        queue.put("who is this?", timeout=WATCHDOG)
    told, _ = process.communicate(timeout=WATCHDOG)
    assert told.splitlines()[-1] == "verdict  FAILED: 1 damaged, or put by somebody else"


def test_killed_worker_fails_the_run(start: Callable[..., Any]) -> None:
    """With its name and pid."""
    process, _ = begin(start)
    victim = children(process.pid)[-1]
    os.kill(victim, signal.SIGKILL)
    told, _ = process.communicate(timeout=WATCHDOG)
    assert (process.returncode, told.splitlines()[-1]) == (
        1,
        f"verdict  FAILED: consumer 1 (pid {victim}) was killed by SIGKILL",
    )


def test_removed_queue_ends_the_run(start: Callable[..., Any]) -> None:
    """Somebody tidies up while it runs."""
    process, name = begin(start)
    ipcq.unlink(name)
    process.communicate(timeout=WATCHDOG)
    assert process.returncode == 1


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_stopped_run_says_so_by_its_exit_code(start: Callable[..., Any], number: str, code: int) -> None:
    """As every program that a signal ends."""
    process, _ = begin(start)
    process.send_signal(signal.Signals[number])
    _, complaint = process.communicate(timeout=WATCHDOG)
    assert (process.returncode, complaint) == (code, "")


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_stopped_run_leaves_nothing_behind(start: Callable[..., Any], number: str) -> None:
    """No queue and no process, not even where the demo itself was killed."""
    process, name = begin(start)
    pids = children(process.pid)
    process.send_signal(signal.Signals[number])
    process.communicate(timeout=WATCHDOG)
    assert gone(name, pids)


def test_files_of_the_working_directory_do_not_matter(program: Callable[..., Any], tmp_path: Path) -> None:
    """A json.py lying around is not the json module of the workers."""
    (tmp_path / "json.py").write_text("raise SystemExit('wrong module')")
    script = Path(sys.executable).with_name("ipcq")
    if not script.exists():
        pytest.skip("the script is not installed beside this Python")
    import subprocess

    result = subprocess.run([script, *SHORT], cwd=tmp_path, capture_output=True, timeout=WATCHDOG, check=False)
    assert result.returncode == 0
