"""``ipcq demo``: its checks, its display, and its cleanup."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

import ipcq
from ipcq._cli import _demo_progress, _demo_worker
from ipcq._cli._demo_outcome import Outcome
from ipcq._cli.verbs import demo as verb
from ipcq.testing.processes import Peer, Peers
from ipcq.testing.tally import Tally, judge_tallies

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]

WATCHDOG_SECONDS = 60.0
PAYLOADS = _demo_worker.Payloads(16)
SHORT = ("demo", "--messages", "40", "--size", "16")


# The verdict


def taken(*tags: tuple[int, int]) -> dict[str, Any]:
    """Return the report of a consumer that took these messages: producer and number of each."""
    tally = Tally()
    for tag in tags:
        tally.took(*tag)
    return tally.report()


def test_each_object_once_is_ok() -> None:
    """Whichever consumer took it."""
    assert Outcome(judge_tallies([2, 1], [taken((0, 0), (1, 0)), taken((0, 1))])).ok


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (taken((0, 1)), "FAIL: 1 lost (no. 0 of producer 0)"),
        (taken((0, 0), (0, 1), (0, 0)), "FAIL: 1 received more than once"),
        (taken((0, 1), (0, 0)), "FAIL: 1 out of order"),
        (taken((0, 0), (0, 1), (0, 2)), "FAIL: 1 damaged, or put by another program"),
    ],
    ids=["lost", "repeated", "out of order", "strange"],
)
def test_each_fault_has_its_sentence(report: dict[str, Any], sentence: str) -> None:
    """For two objects."""
    assert Outcome(judge_tallies([2], [report])).sentence() == sentence


def test_trouble_fails_the_run() -> None:
    """A worker died, although every object arrived."""
    outcome = Outcome(judge_tallies([1], [taken((0, 0))]), ["consumer 0 died"])
    assert outcome.sentence() == "FAIL: consumer 0 died"


# A worker


class Demo(SimpleNamespace):
    """The demo's side of the line to a worker that runs in this process."""

    def news(self) -> list[dict[str, Any]]:
        """Listen to the worker until it reports, dismiss it, and return all its messages."""
        said: list[dict[str, Any]] = []
        while not said or "report" not in said[-1]:
            said.append(self.said.get(timeout=WATCHDOG_SECONDS))
            assert "died" not in said[-1], said
        self.words.put("go")
        self.thread.join(WATCHDOG_SECONDS)
        return said


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Demo]:
    """Return a function that starts a worker in a thread and tells it to begin."""

    def start(program: Callable[..., None], name: str, *task: Any) -> Demo:
        said: Any = SimpleQueue()
        words: Any = SimpleQueue()
        monkeypatch.setattr(_demo_worker, "say", said.put)
        monkeypatch.setattr(_demo_worker, "hear", lambda: words.get(timeout=WATCHDOG_SECONDS))

        def work() -> None:
            try:
                program(name, "memory", 16, *task)
            except BaseException as error:
                said.put({"died": repr(error)})

        thread = threading.Thread(target=work)
        thread.start()
        words.put("go")
        return Demo(thread=thread, said=said, words=words)

    return start


def test_producer_puts_numbered_objects(demo: Callable[..., Demo], queue: Queue) -> None:
    """From 0 on, as many as requested."""
    demo(_demo_worker.produce, queue.name, 1, float("inf"), 2).news()
    assert [queue.get(timeout=0) for _ in range(2)] == [PAYLOADS.make(1, 0), PAYLOADS.make(1, 1)]


def test_producer_stops_at_its_time_limit(demo: Callable[..., Demo], queue: Queue) -> None:
    """With no time it puts nothing."""
    worker = demo(_demo_worker.produce, queue.name, 0, 0.0, None)
    assert worker.news()[-1] == {"count": 0, "report": {}}


def test_consumer_reports_what_it_took(demo: Callable[..., Demo], queue: Queue) -> None:
    """Each object once."""
    queue.put_many([PAYLOADS.make(0, 0), PAYLOADS.make(1, 0), PAYLOADS.make(0, 1)])
    queue.shutdown()
    told = demo(_demo_worker.consume, queue.name).news()[-1]
    assert (told["count"], judge_tallies([2, 1], [told["report"]["seen"]]).faults) == (3, [])


@pytest.mark.parametrize(
    ("items", "fault"),
    [
        ([PAYLOADS.make(0, 0), PAYLOADS.make(0, 0)], "duplicated"),
        ([PAYLOADS.make(0, 1), PAYLOADS.make(0, 0)], "reordered"),
        ([{**PAYLOADS.make(0, 0), "payload": b""}], "torn"),
        ([PAYLOADS.make(0, -1)], "invented"),
        ([PAYLOADS.make(7, 0)], "invented"),
        (["from somebody else"], "torn"),
        ([{}], "torn"),
    ],
)
def test_consumer_counts_each_fault(demo: Callable[..., Demo], queue: Queue, items: list[Any], fault: str) -> None:
    """Each fault is counted as its kind."""
    queue.put_many(items)
    queue.shutdown()
    report = demo(_demo_worker.consume, queue.name).news()[-1]["report"]
    assert judge_tallies([2], [report["seen"]]).wrong[fault] == 1


def test_consumer_counts_a_message_that_cannot_be_decoded(demo: Callable[..., Demo], queue: Queue) -> None:
    """As damaged, and continues."""
    with ipcq.open(queue.name, serializer="raw") as raw:
        raw.put(b"\xc1")
    queue.shutdown()
    report = demo(_demo_worker.consume, queue.name).news()[-1]["report"]
    assert judge_tallies([0], [report["seen"]]).wrong["torn"] == 1


def test_consumer_ends_at_its_mark(demo: Callable[..., Demo], queue: Queue) -> None:
    """The items behind its mark are left for the others."""
    queue.put_many([PAYLOADS.make(0, 0), _demo_worker.END_MARKER, _demo_worker.END_MARKER])
    report = demo(_demo_worker.consume, queue.name).news()[-1]["report"]
    assert (judge_tallies([1], [report["seen"]]).faults, queue.qsize()) == ([], 1)


def test_a_backend_without_a_shutdown_works(
    program: Callable[..., "subprocess.CompletedProcess[str]"], wrong: dict[str, str]
) -> None:
    """A mark ends each consumer, even if not all marks fit into the queue at a time."""
    result = program(*SHORT, "--consumers", "3", "--backend", "endless", env=wrong)
    assert result.returncode == 0, result.stdout + result.stderr


def test_marks_wait_for_space(memory: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are put as space becomes free, and the demo watches its workers meanwhile."""
    demo = verb.Demo(memory, 16, _demo_progress.DemoProgress(silent=True))
    peers: list[Any] = ["one", "other"]
    demo._consumers = [verb.Worker(peer, peer) for peer in peers]
    taken: list[Any] = []
    with ipcq.open(name, memory, max_messages=1, max_message_size=512) as queue:
        ended: Any = SimpleNamespace(
            capabilities=SimpleNamespace(shutdown=False), put_nowait=queue.put_nowait, qsize=queue.qsize
        )

        def listen(heard: list[Any], timeout: float) -> list[Any]:
            assert heard == peers
            taken.append(queue.get(timeout=WATCHDOG_SECONDS))
            return []

        monkeypatch.setattr(verb, "listen", listen)
        demo._end(ended)
        taken.append(queue.get(timeout=WATCHDOG_SECONDS))
    assert taken == [_demo_worker.END_MARKER, _demo_worker.END_MARKER]


def test_worker_reports_its_progress(demo: Callable[..., Demo], queue: Queue) -> None:
    """While it waits."""
    worker = demo(_demo_worker.consume, queue.name)
    beats = [worker.said.get(timeout=WATCHDOG_SECONDS) for _ in range(2)]
    queue.shutdown()
    worker.news()
    assert beats == [{"ready": True}, {"count": 0}]


# A run


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Check that a run leaves no process, whatever the test did to it."""
    before = set(children(os.getpid()))  # other tests' helpers live as long as the interpreter
    yield
    assert set(children(os.getpid())) <= before


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and not yet waited for."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has just ended
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def workers(pid: int) -> list[int]:
    """Return the workers of a demo, in the order in which they were forked."""
    return sorted(worker for child in children(pid) for worker in children(child))


@pytest.fixture
def created(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that collects the name of each queue that is created."""
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


def test_good_run_prints_pass(run: Run) -> None:
    """In its last line."""
    assert run(*SHORT).stdout.splitlines()[-1].startswith("verdict  PASS: every object arrived exactly once")


def test_run_removes_its_queue(run: Run, created: list[str]) -> None:
    """The name is free again."""
    run(*SHORT)
    assert not ipcq.exists(created[0])


def test_quiet_run_prints_only_the_result(run: Run) -> None:
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
    """All of them are put, even if they do not divide evenly."""
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
    """At once, with the signal that killed it."""
    monkeypatch.setattr(verb.Worker, "release", lambda self: self.peer.kill())
    assert "was killed by SIGKILL" in run(*SHORT).stdout


def test_worker_that_dies_fails_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever arrived."""
    monkeypatch.setattr(verb.Worker, "release", lambda self: self.peer.kill())
    assert run(*SHORT).exit_code == 1


def test_worker_that_dies_before_it_begins_is_noticed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing to it fails, and reading from it gives the reason."""
    tell = verb.Worker.release

    def late(worker: verb.Worker) -> None:
        worker.peer.kill()
        tell(worker)

    monkeypatch.setattr(verb.Worker, "release", late)
    assert "was killed by SIGKILL" in run(*SHORT).stdout


def test_error_of_a_worker_is_printed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exit code and the last line that it wrote."""
    monkeypatch.setattr(verb, "consume", _demo_worker.produce)  # needs more arguments
    died = r"FAIL: consumer [01] \(pid \d+\) ended with exit code 1: TypeError: produce\(\) missing 3"
    assert re.search(died, run(*SHORT).stdout)


def test_worker_that_ends_badly_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although it has reported everything."""
    wait = Peer.wait

    def kill(peer: Peer, timeout: float | None = None) -> int:
        peer.send(signal.SIGKILL)
        return wait(peer, timeout)

    monkeypatch.setattr(Peer, "wait", kill)
    monkeypatch.setattr(verb.Worker, "release", begin_only(verb.Worker.release))
    assert "was killed by SIGKILL" in run(*SHORT).stdout


def test_death_of_the_process_that_starts_the_workers_is_printed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is none of the workers."""
    fork = Peers.fork

    def late(self: Peers, *program: Any) -> Peer:
        peer = fork(self, *program)
        assert self._nursery is not None
        self._nursery.kill()
        return peer

    monkeypatch.setattr(Peers, "fork", late)
    assert "FAIL: the process that starts them (pid " in run(*SHORT).stdout


def begin_only(tell: Callable[[verb.Worker], None]) -> Callable[[verb.Worker], None]:
    """Return a function that tells each worker to begin, but not to exit."""
    told = []

    def once(worker: verb.Worker) -> None:
        if worker not in told:
            told.append(worker)
            tell(worker)

    return once


def test_worker_that_does_not_end_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not dismissed, so it stays."""
    monkeypatch.setattr(verb.Worker, "release", begin_only(verb.Worker.release))
    monkeypatch.setattr(verb, "EXIT_SECONDS", 0.01)
    assert "did not exit within 0 s" in run(*SHORT).stdout


def test_run_in_which_nothing_moves_ends(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped worker must not block the demo; the stack of each worker is printed."""
    monkeypatch.setattr(verb, "HANG_SECONDS", -1.0)
    monkeypatch.setattr(verb.Worker, "release", lambda _: None)  # so the workers do not begin
    told = run(*SHORT).stdout
    assert "FAIL: no progress" in told and told.count("--- <Peer ") == 4


def test_signal_handlers_are_restored(run: Run) -> None:
    """A signal that was ignored stays ignored."""
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
    """So that cleaning up begins."""
    with pytest.raises(raised), verb.stopped_by_signals():
        signal.raise_signal(signal.Signals[number])


def test_second_signal_does_not_interrupt_cleaning_up() -> None:
    """The first signal has already begun it."""
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
    """Return the clock that the meter uses."""
    clock = Clock()
    monkeypatch.setattr(_demo_progress, "monotonic", clock)
    return clock


def test_progress_has_one_line_each_second(clock: Clock, capsys: Any) -> None:
    """If stdout is no terminal."""
    meter = _demo_progress.DemoProgress(silent=False)
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
    meter = _demo_progress.DemoProgress(silent=True)
    meter.start()
    clock.now = 10.0
    meter.show(1, 1, 1)
    assert capsys.readouterr().out == ""


def test_terminal_has_a_live_line(terminal: Callable[..., Any]) -> None:
    """With the rate of the last seconds as a curve."""
    assert any(block in terminal("demo", "--seconds", "1").text for block in _demo_progress.BLOCKS)


def test_live_line_needs_no_rich(terminal: Callable[..., Any], no_rich: None) -> None:
    """A carriage return overwrites it."""
    assert "\r\x1b[K" in terminal("demo", "--seconds", "1").output


def test_live_line_is_cleared_at_the_end(terminal: Callable[..., Any], no_rich: None) -> None:
    """Only the result stays."""
    told = terminal("demo", "--seconds", "1").output
    assert told.rpartition("\x1b[K")[2].startswith("moved ")


# The program


def begin(start: Callable[..., Any], *options: str) -> tuple[Any, str]:
    """Start the demo as a program; return it and its queue's name once objects move."""
    process = start("demo", "--seconds", "30", *options, start_new_session=True)
    name = process.stdout.readline().split()[1]
    process.stdout.readline()
    return process, name


def wait_until_gone(name: str, pids: list[int]) -> bool:
    """Return whether the queue and the processes disappear before the watchdog's time is over."""
    end = monotonic() + WATCHDOG_SECONDS
    while monotonic() < end:
        if not ipcq.exists(name) and not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        sleep(0.01)
    return False


def test_stolen_object_fails_the_run(start: Callable[..., Any]) -> None:
    """Another process takes one object, and the check notices."""
    process = start("demo", "--seconds", "2")
    name = process.stdout.readline().split()[1]
    with ipcq.open(name, create=False, write=False) as queue:
        stolen = queue.get(timeout=WATCHDOG_SECONDS)
    told, _ = process.communicate(timeout=WATCHDOG_SECONDS)
    lost = f"FAIL: 1 lost (no. {stolen['number']} of producer {stolen['producer']})"
    assert (process.returncode, told.splitlines()[-1]) == (1, f"verdict  {lost}")


def test_injected_object_fails_the_run(start: Callable[..., Any]) -> None:
    """Another process puts one object."""
    process = start("demo", "--seconds", "2")
    name = process.stdout.readline().split()[1]
    with ipcq.open(name, create=False, read=False) as queue:
        queue.put("who is this?", timeout=WATCHDOG_SECONDS)
    told, _ = process.communicate(timeout=WATCHDOG_SECONDS)
    assert told.splitlines()[-1] == "verdict  FAIL: 1 damaged, or put by another program"


def test_killed_worker_fails_the_run(start: Callable[..., Any]) -> None:
    """With its name and pid."""
    process, _ = begin(start)
    victim = workers(process.pid)[-1]
    os.kill(victim, signal.SIGKILL)
    told, _ = process.communicate(timeout=WATCHDOG_SECONDS)
    assert (process.returncode, told.splitlines()[-1]) == (
        1,
        f"verdict  FAIL: consumer 1 (pid {victim}) was killed by SIGKILL",
    )


def test_removed_queue_ends_the_run(start: Callable[..., Any]) -> None:
    """Another process unlinks it while it runs."""
    process, name = begin(start)
    ipcq.unlink(name)
    process.communicate(timeout=WATCHDOG_SECONDS)
    assert process.returncode == 1


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_stopped_run_has_the_exit_code_of_the_signal(start: Callable[..., Any], number: str, code: int) -> None:
    """Like any program that a signal ends."""
    process, _ = begin(start)
    process.send_signal(signal.Signals[number])
    _, complaint = process.communicate(timeout=WATCHDOG_SECONDS)
    assert (process.returncode, complaint) == (code, "")


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_stopped_run_leaves_nothing_behind(start: Callable[..., Any], number: str) -> None:
    """No queue and no process, even if the demo itself was killed."""
    process, name = begin(start)
    pids = [*children(process.pid), *workers(process.pid)]
    process.send_signal(signal.Signals[number])
    process.communicate(timeout=WATCHDOG_SECONDS)
    assert wait_until_gone(name, pids)


def test_files_of_the_working_directory_do_not_matter(program: Callable[..., Any], tmp_path: Path) -> None:
    """A json.py in it is not the json module of the workers."""
    (tmp_path / "json.py").write_text("raise SystemExit('wrong module')")
    script = Path(sys.executable).with_name("ipcq")
    if not script.exists():
        pytest.skip("the script is not installed beside this Python")
    import subprocess

    result = subprocess.run([script, *SHORT], cwd=tmp_path, capture_output=True, timeout=WATCHDOG_SECONDS, check=False)
    assert result.returncode == 0
