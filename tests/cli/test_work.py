"""``ipcq work``, on a queue of this process."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

import ipcq
from ipcq._cli import _progress, _worker
from ipcq._cli._work_report import Report
from ipcq._cli._worker import Plan

if sys.platform == "win32":
    pytest.skip("Windows has neither fork nor process groups", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]

#: Appends standard input to the file "$1".
COPY = ("sh", "-c", 'cat >> "$1"', "sh")
#: Appends the other arguments to the file "$1", one on each line.
WRITE = ("sh", "-c", 'file=$1; shift; printf "%s\\n" "$@" >> "$file"', "sh")
#: Fails.
FAIL = ("sh", "-c", "exit 3")


@pytest.fixture
def jobs(name: str, memory: str) -> Iterator[Queue]:
    """Return a queue with leases inside this process, which the command line finds when it runs here."""
    with ipcq.open(name, memory, leases=True, max_messages=20, max_message_size=300_000) as queue:
        yield queue


@pytest.fixture
def work(run: Run, jobs: Queue) -> Run:
    """Return a function that works on the queue until all is done."""

    def work(*options: object, command: tuple[object, ...] = ("true",), **others: Any) -> Result:
        return run("work", jobs.name, "--all", *map(str, options), "--", *map(str, command), **others)

    return work


def letters(queue: Queue) -> list[tuple[Any, int, str]]:
    return [(letter.item, letter.deliveries, letter.reason) for letter in queue.dead().peek_all()]


def is_empty(queue: Queue) -> bool:
    figures = queue.stats()
    return not any((figures.depth, figures.leased, figures.delayed, figures.dead))


# What the command gets


def test_message_is_standard_input(work: Run, jobs: Queue, tmp_path: Path) -> None:
    """As `ipcq get` prints it."""
    jobs.put_many(["a b", b"c\0d", {"id": 1}])
    work(command=(*COPY, tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == b'a b\nc\0d\n{"id": 1}\n'


def test_message_can_be_json(work: Run, jobs: Queue, tmp_path: Path) -> None:
    """Any item, as `ipcq get --json` prints it."""
    jobs.put_many(["a", b"b"])
    work("--input", "json", command=(*COPY, tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == b'"a"\n{"$base64": "Yg=="}\n'


def test_message_can_be_raw(run: Run, name: str, memory: str, tmp_path: Path) -> None:
    """The exact bytes, whatever they are."""
    with ipcq.open(name, memory, leases=True, serializer="raw") as queue:
        queue.put(b"\xc1\x00")
        run("work", name, "--all", "--input", "raw", "--", *COPY, str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == b"\xc1\x00"


def test_arguments_have_the_message_and_its_parts(work: Run, jobs: Queue, tmp_path: Path) -> None:
    """The message cannot become more than one argument."""
    jobs.put({"id": "a b", "n": 2})
    work(command=(*WRITE, tmp_path / "file", "{id}", "n={n}", "{}"))
    assert (tmp_path / "file").read_text() == 'a b\nn=2\n{"id": "a b", "n": 2}\n'


def test_environment_has_the_number_of_the_delivery(work: Run, jobs: Queue, tmp_path: Path) -> None:
    """Above 1, an earlier delivery may have done something."""
    jobs.put("a")
    work(
        "--delay",
        0,
        "--retries",
        1,
        command=("sh", "-c", 'echo "$IPCQ_DELIVERY" >> "$1"; exit 1', "sh", tmp_path / "f"),
    )
    assert (tmp_path / "f").read_text() == "1\n2\n"


def test_pickles_need_permission(run: Run, name: str, memory: str, tmp_path: Path) -> None:
    """As for `ipcq get`."""
    with ipcq.open(name, memory, leases=True, serializer="pickle", allow_pickle=True) as queue:
        queue.put({1, 2})
        run("work", name, "--all", "--allow-pickle", "--", *COPY, str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_text() == "[1, 2]\n"


# What becomes of the message


def test_exit_code_0_acknowledges(work: Run, jobs: Queue) -> None:
    """The message leaves the queue."""
    jobs.put_many(["a", "b"])
    result = work()
    assert (result.exit_code, is_empty(jobs)) == (0, True)


def test_failure_is_retried(work: Run, jobs: Queue, tmp_path: Path) -> None:
    """And mended by a success."""
    jobs.put("a")
    script = 'echo >> "$1"; test "$(wc -l < "$1")" -eq 3'
    result = work("--delay", 0, command=("sh", "-c", script, "sh", tmp_path / "tries"))
    assert (result.exit_code, is_empty(jobs)) == (0, True)


def test_failure_after_the_last_retry_is_a_dead_letter(work: Run, jobs: Queue) -> None:
    """With the exit code as the reason."""
    jobs.put("a")
    work("--delay", 0, "--retries", 2, command=FAIL)
    assert letters(jobs) == [("a", 3, "exit 3")]


def test_dead_letter_is_1(work: Run, jobs: Queue) -> None:
    """A script notices."""
    jobs.put("a")
    assert work("--retries", 0, command=FAIL).exit_code == 1


def test_killed_command_has_failed(work: Run, jobs: Queue) -> None:
    """As by the kernel, if memory runs out."""
    jobs.put("a")
    work("--retries", 0, command=("sh", "-c", "kill -KILL $$"))
    assert letters(jobs) == [("a", 1, "killed by signal 9")]


def test_five_retries_are_the_default(work: Run, jobs: Queue) -> None:
    """On a queue that does not limit failures itself."""
    jobs.put("a")
    work("--delay", 0, command=FAIL)
    assert letters(jobs) == [("a", 6, "exit 3")]


def test_limit_of_the_queue_is_the_default(run: Run, name: str, memory: str) -> None:
    """It may allow more than five retries."""
    with ipcq.open(name, memory, max_deliveries=8) as queue:
        queue.put("a")
        queue.lease().release()  # no failure
        run("work", name, "--all", "--delay", "0", "--", *FAIL)
        assert letters(queue) == [("a", 9, "exit 3")]


def test_failed_message_is_delayed(jobs: Queue, run: Run) -> None:
    """Others are not held up."""
    jobs.put_many(["a", "b"])
    jobs.shutdown()
    script = 'test "$1" = b || { kill -TERM $PPID; exit 1; }'
    run("work", jobs.name, "--delay", "1000", "--", "sh", "-c", script, "sh", "{}")
    figures = jobs.stats()
    assert (figures.depth, figures.delayed) == (1, 1)


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 2.0), (2, 4.0), (3, 8.0), (11, 2048.0), (12, 3600.0), (10**9, 3600.0)]
)
def test_delay_grows(failures: int, seconds: float) -> None:
    """It doubles up to an hour."""
    assert Plan(words=(), text_of=bytes, delay=2.0).delay_after(failures) == seconds


def test_long_delay_does_not_shrink() -> None:
    """An hour is not the limit of what the user gives."""
    assert Plan(words=(), text_of=bytes, delay=7200.0).delay_after(2) == 7200.0


def test_fewer_retries_than_the_queue_allows_count(run: Run, name: str, memory: str) -> None:
    """And more do not."""
    with ipcq.open(name, memory, max_deliveries=3) as queue:
        queue.put_many(["a", "b"])
        run("work", name, "--all", "--delay", "0", "--retries", "1", "--", *FAIL)
        run("dead", name, "--requeue", "--count", "1")
        run("work", name, "--all", "--delay", "0", "--retries", "9", "--", *FAIL)
        assert [deliveries for _, deliveries, _ in letters(queue)] == [5, 2]


def test_dead_letter_by_the_limit_of_the_queue_is_1(run: Run, name: str, memory: str) -> None:
    """It is reported like any other."""
    with ipcq.open(name, memory, max_deliveries=1) as queue:
        queue.put("a")
        result = run("work", name, "--all", "--", *FAIL)
    assert (result.exit_code, "it is a dead letter now" in result.stderr) == (1, True)


def test_message_that_was_given_back_has_not_failed(work: Run, jobs: Queue, tmp_path: Path) -> None:
    """No number of deployments makes a dead letter of it."""
    jobs.put("a")
    for _ in range(9):
        jobs.lease().release()
    assert (work("--retries", 0).exit_code, is_empty(jobs)) == (0, True)


def test_requeued_message_is_run_again(work: Run, run: Run, jobs: Queue) -> None:
    """As often as a new one."""
    jobs.put("a")
    work("--retries", 1, "--delay", 0, command=FAIL)
    run("dead", jobs.name, "--requeue")
    assert (work("--retries", 1).exit_code, is_empty(jobs)) == (0, True)


def test_message_that_has_failed_too_often_is_not_run(work: Run, jobs: Queue, tmp_path: Path) -> None:
    """It may have killed its workers."""
    jobs.put("a")
    for _ in range(2):
        jobs.lease().fail()
    work("--retries", 1, command=(*WRITE, tmp_path / "file"))
    assert (letters(jobs), os.listdir(tmp_path)) == ([("a", 3, "2 failures before")], [])


def test_message_without_a_part_is_a_dead_letter(work: Run, jobs: Queue) -> None:
    """A retry would not add it."""
    jobs.put({"name": "a"})
    work(command=("echo", "{id}"))
    assert letters(jobs) == [({"name": "a"}, 1, "it has no {id}")]


def test_message_that_is_too_long_for_an_argument_is_a_dead_letter(work: Run, jobs: Queue) -> None:
    """A retry would not shorten it."""
    jobs.put("a" * 200_000)
    work(command=("echo", "{}"))
    assert [reason for _, _, reason in letters(jobs)] == ["its arguments are too long"]


def test_undecodable_message_is_reported(work: Run, jobs: Queue) -> None:
    """With its bytes; no command is run."""
    with ipcq.open(jobs.name, "memory", serializer="raw") as other:
        other.put(b"\xc1")
    result = work()
    assert (result.exit_code, "no command was run; its 1 bytes in base64: wQ==" in result.stderr) == (1, True)


# When it ends


def test_end_of_the_queue_ends_it(run: Run, jobs: Queue) -> None:
    """It is shut down, and nothing is left."""
    jobs.put("a")
    jobs.shutdown()
    result = run("work", jobs.name, "--", "true")
    assert (result.exit_code, is_empty(jobs)) == (0, True)


def test_all_waits_for_what_others_hold(work: Run, jobs: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their messages may come back."""
    jobs.put("a")
    lease = jobs.lease()
    ask, answers = ipcq.Queue.join, []

    def join(queue: Queue, timeout: float) -> None:
        try:
            ask(queue, timeout)
        except ipcq.TimedOutError:
            answers.append("not yet")
            lease.release()
            raise

    monkeypatch.setattr(ipcq.Queue, "join", join)
    work()
    assert (answers, is_empty(jobs)) == (["not yet"], True)


def test_several_commands_run_at_a_time(work: Run, jobs: Queue, tmp_path: Path) -> None:
    """Each of them waits for the other here."""
    jobs.put_many(["a", "b"])
    script = 'touch "$1/$2"; until test -e "$1/a" -a -e "$1/b"; do sleep 0.01; done'
    work("--jobs", 2, command=("sh", "-c", script, "sh", tmp_path, "{}"))
    assert is_empty(jobs)


def test_one_command_runs_at_a_time_by_default(work: Run, jobs: Queue, tmp_path: Path) -> None:
    """The directory would exist."""
    jobs.put_many(["a", "b"])
    work("--retries", 0, command=("sh", "-c", 'mkdir "$1" && sleep 0.05 && rmdir "$1"', "sh", tmp_path / "busy"))
    assert is_empty(jobs)


def test_signal_lets_the_running_command_end(run: Run, jobs: Queue, tmp_path: Path) -> None:
    """Its message is acknowledged, and no other is taken."""
    jobs.put_many(["a", "b"])
    script = 'kill -TERM $PPID; sleep 0.05; echo "$2" >> "$1"'
    run("work", jobs.name, "--", "sh", "-c", script, "sh", str(tmp_path / "done"), "{}")
    assert ((tmp_path / "done").read_text(), jobs.get(timeout=0), is_empty(jobs)) == ("a\n", "b", True)


@pytest.mark.parametrize(("name_of_signal", "code"), [("INT", 130), ("TERM", 143), ("HUP", 129)])
def test_signal_has_its_exit_code(run: Run, jobs: Queue, name_of_signal: str, code: int) -> None:
    """After the running command has ended."""
    jobs.put("a")
    assert run("work", jobs.name, "--", "sh", "-c", f"kill -{name_of_signal} $PPID").exit_code == code


def test_signal_tells_what_is_waited_for(run: Run, jobs: Queue) -> None:
    """And that a second one does not wait."""
    jobs.put("a")
    result = run("work", jobs.name, "--", "sh", "-c", "kill -TERM $PPID; sleep 0.05")
    assert "ipcq: waiting for 1 running command; a second signal kills\n" in result.stderr


def test_second_signal_kills_the_command(run: Run, jobs: Queue) -> None:
    """Its message is given back."""
    jobs.put("a")
    result = run("work", jobs.name, "--", "sh", "-c", "kill -INT $PPID; kill -TERM $PPID; sleep 1000")
    assert (result.exit_code, jobs.qsize()) == (143, 1)


def test_second_signal_is_no_failure(run: Run, name: str, memory: str) -> None:
    """The message does not become a dead letter for it."""
    with ipcq.open(name, memory, max_deliveries=1) as queue:
        queue.put("a")
        run("work", name, "--", "sh", "-c", "kill -INT $PPID; kill -TERM $PPID; sleep 1000")
        assert queue.qsize() == 1


def test_command_does_not_get_the_terminals_interrupt(run: Run, jobs: Queue, tmp_path: Path) -> None:
    """It has a process group of its own."""
    jobs.put("a")
    jobs.shutdown()
    run("work", jobs.name, "--", "sh", "-c", 'ps -o pgid= -p $$ > "$1"', "sh", str(tmp_path / "group"))
    assert int((tmp_path / "group").read_text()) != os.getpgrp()


def test_message_that_arrives_with_a_signal_is_given_back(
    run: Run, jobs: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No command is started any more."""
    jobs.put("a")
    lease = ipcq.Queue.lease

    def interrupted(*arguments: Any, **options: Any) -> Any:
        leased = lease(*arguments, **options)
        signal.raise_signal(signal.SIGTERM)
        return leased

    monkeypatch.setattr(ipcq.Queue, "lease", interrupted)
    run("work", jobs.name, "--", "true")
    assert jobs.qsize() == 1


def test_unlinked_queue_ends_the_commands(run: Run, jobs: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error, and nothing runs any more: the second place for a command finds it."""
    jobs.put("a")
    monkeypatch.setattr(Report, "started", lambda *_: jobs.unlink())
    result = run("work", jobs.name, "--jobs", "2", "--", "sleep", "1000")
    assert (result.exit_code, "the queue was unlinked" in result.stderr) == (1, True)


def test_error_gives_back_what_runs(run: Run, jobs: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the command was killed."""

    def fail(*_: object) -> None:
        raise OSError("no more")

    jobs.put("a")
    monkeypatch.setattr(Report, "started", fail)
    result = run("work", jobs.name, "--", "sleep", "1000")
    assert (result.exit_code, jobs.qsize()) == (1, 1)


# The lease


@pytest.fixture
def extensions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """Extend holds at each step, and return the extensions. After the third, a file tells the command to end."""
    extend, extensions = ipcq.Lease.extend, []

    def noted(lease: ipcq.Lease[Any], seconds: float) -> None:
        extend(lease, seconds)
        extensions.append(seconds)
        if len(extensions) == 3:
            (tmp_path / "go").touch()

    monkeypatch.setattr(_worker, "_EXTENDED_AFTER", 0.0)
    monkeypatch.setattr(ipcq.Lease, "extend", noted)
    return extensions


#: Waits for the file.
UNTIL_EXTENDED = 'until test -e "$1/go"; do sleep 0.01; done'


def test_hold_is_extended_while_a_command_runs(work: Run, jobs: Queue, extensions: list[float], tmp_path: Path) -> None:
    """By the whole hold from then on."""
    jobs.put("a")
    work("--hold", 600, command=("sh", "-c", UNTIL_EXTENDED, "sh", tmp_path))
    assert (set(extensions), is_empty(jobs)) == ({600.0}, True)


def test_hold_is_extended_after_a_signal(run: Run, jobs: Queue, extensions: list[float], tmp_path: Path) -> None:
    """The command may still run for long."""
    jobs.put("a")
    script = f"kill -TERM $PPID; {UNTIL_EXTENDED}"
    run("work", jobs.name, "--hold", "600", "--", "sh", "-c", script, "sh", str(tmp_path))
    assert is_empty(jobs)


def test_command_whose_lease_was_lost_is_killed(run: Run, jobs: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker may have the message."""
    jobs.put("a")
    monkeypatch.setattr(Report, "started", lambda *_: jobs.shutdown(immediate=True))
    result = run("work", jobs.name, "--hold", "1", "--", "sleep", "1000")
    assert "its lease ended before its command" in result.stderr


def test_command_whose_lease_was_lost_may_end(run: Run, jobs: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is acknowledged then, and it is no error of this worker."""
    jobs.put("a")
    monkeypatch.setattr(Report, "started", lambda *_: jobs.shutdown(immediate=True))
    result = run("work", jobs.name, "--", "true")
    assert (result.exit_code, "its lease ended before its command" in result.stderr) == (0, True)


# What is refused


def test_missing_command_is_2(work: Run, jobs: Queue) -> None:
    """Before a message is taken."""
    result = work(command=("no-such-command",))
    assert (result.exit_code, "There is no command 'no-such-command'." in result.stderr) == (2, True)


def test_command_that_cannot_be_started_is_1(work: Run, jobs: Queue) -> None:
    """The message is given back; it is not to blame."""
    jobs.put("no-such-command")
    result = work(command=("{}",))
    assert (result.exit_code, jobs.qsize(), "cannot run {}, the message was given back" in result.stderr) == (
        1,
        1,
        True,
    )


def test_queue_without_leases_is_refused(run: Run, queue: Queue) -> None:
    """With the way out."""
    result = run("work", queue.name, "--", "true")
    assert (result.exit_code, "has no leases: create it with --leases" in result.stderr) == (1, True)


def test_missing_queue_is_5(run: Run, name: str) -> None:
    """It is not created."""
    assert run("work", name, "--", "true").exit_code == 5


def test_raw_bytes_are_not_unpickled(run: Run, jobs: Queue) -> None:
    """The options exclude each other."""
    assert run("work", jobs.name, "--input", "raw", "--allow-pickle", "--", "true").exit_code == 2


@pytest.mark.parametrize("hold", ["0", "0.5", "-1", "nan"])
def test_hold_is_at_least_a_second(run: Run, jobs: Queue, hold: str) -> None:
    """It has to be extended in time."""
    assert run("work", jobs.name, "--hold", hold, "--", "true").exit_code == 2


# What is printed


def test_summary_counts(work: Run, jobs: Queue) -> None:
    """What was done, and what was not."""
    jobs.put_many([0, 1])
    result = work("--delay", 0, "--retries", 1, command=("sh", "-c", "exit $1", "sh", "{}"))
    assert result.stderr.splitlines()[-1] == "ipcq: 1 done, 1 failure, 1 dead letter"


def test_failures_are_noted(work: Run, jobs: Queue) -> None:
    """With the delay, and at last the command that shows the dead letters."""
    jobs.put("a")
    lines = work("--delay", 0.01, "--retries", 1, command=FAIL).stderr.splitlines()
    assert lines[:2] == [
        "ipcq: job 1 (delivery 1): exit 3; given back for 0.01 s",
        f"ipcq: job 2 (delivery 2): exit 3; it is a dead letter now: `ipcq dead {jobs.name}`",
    ]


def test_quiet_prints_errors_only(work: Run, jobs: Queue) -> None:
    """Dead letters are errors."""
    jobs.put("a")
    lines = work("--delay", 0, "--retries", 1, "--quiet", command=FAIL).stderr.splitlines()
    assert [line.partition(";")[0] for line in lines] == ["ipcq: job 2 (delivery 2): exit 3"]


def test_quiet_says_nothing_of_signals(run: Run, jobs: Queue) -> None:
    """Neither of the first nor of the second."""
    jobs.put("a")
    result = run("work", jobs.name, "-q", "--", "sh", "-c", "kill -INT $PPID; kill -TERM $PPID; sleep 1000")
    assert result.stderr == ""


def test_output_of_the_command_is_passed_through(work: Run, jobs: Queue, capfd: pytest.CaptureFixture[str]) -> None:
    """To stdout and stderr of this process."""
    jobs.put("a")
    work(command=("sh", "-c", "echo out; echo err >&2"))
    assert capfd.readouterr() == ("out\n", "err\n")


def test_output_of_the_command_goes_to_stderr_beside_events(
    work: Run, jobs: Queue, capfd: pytest.CaptureFixture[str]
) -> None:
    """Stdout has the events alone."""
    jobs.put("a")
    work("--json", command=("sh", "-c", "echo out; echo err >&2"))
    assert capfd.readouterr() == ("", "out\nerr\n")


def events(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


KEYS = ["time", "event", "job", "delivery", "pid", "status", "seconds", "delay", "reason", "item"]


def test_events_have_stable_keys(work: Run, jobs: Queue) -> None:
    """All of them, null where one does not apply."""
    jobs.put("a")
    assert [list(event) for event in events(work("--json"))] == [KEYS, KEYS]


def told(event: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(event[key] for key in ("event", "job", "delivery", "status", "delay", "reason", "item"))


def test_events_tell_what_happens_to_a_message(work: Run, jobs: Queue) -> None:
    """Each start with its item, and each end."""
    jobs.put({"id": 1})
    seen = events(work("--json", "--delay", 0.01, "--retries", 1, command=FAIL))
    assert [told(event) for event in seen] == [
        ("started", 1, 1, None, None, None, {"id": 1}),
        ("failed", 1, 1, 3, 0.01, "exit 3", None),
        ("started", 2, 2, None, None, None, {"id": 1}),
        ("dead", 2, 2, 3, None, "exit 3", None),
    ]


def test_each_retry_waits_twice_as_long_as_the_one_before(work: Run, jobs: Queue) -> None:
    """In seconds."""
    jobs.put("a")
    seen = events(work("--json", "--delay", 0.01, "--retries", 3, command=FAIL))
    assert [event["delay"] for event in seen if event["event"] == "failed"] == [0.01, 0.02, 0.04]


def test_events_of_one_job_have_the_same_process(work: Run, jobs: Queue) -> None:
    """That of the command."""
    jobs.put("a")
    first, last = events(work("--json"))
    assert (first["pid"], first["seconds"]) == (last["pid"], None) != (None, last["seconds"])


def test_event_without_a_command_has_no_process(work: Run, jobs: Queue) -> None:
    """It was not started."""
    jobs.put("a")
    (event,) = events(work("--json", command=("echo", "{id}")))
    assert (event["event"], event["pid"], event["status"], event["seconds"]) == ("dead", None, None, None)


def test_undecodable_message_is_an_event(work: Run, jobs: Queue) -> None:
    """With its bytes."""
    with ipcq.open(jobs.name, "memory", serializer="raw") as other:
        other.put(b"\xc1")
    (event,) = events(work("--json"))
    assert (event["event"], event["job"], event["item"]) == ("undecodable", None, {"$base64": "wQ=="})


def test_second_signal_is_an_event(run: Run, jobs: Queue) -> None:
    """The message was returned."""
    jobs.put("a")
    result = run("work", jobs.name, "--json", "--", "sh", "-c", "kill -INT $PPID; kill -TERM $PPID; sleep 1000")
    assert [event["event"] for event in events(result)] == ["started", "returned"]


def test_terminal_has_progress(
    terminal: Callable[..., SimpleNamespace], jobs: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counts, and what runs now."""
    monkeypatch.setattr(_progress, "DELAY_SECONDS", 0.0)
    jobs.put("a")
    shown = terminal("work", jobs.name, "--all", "--", "sh", "-c", "sleep 0.2")
    assert "0 done, 0 failures, 0 dead letters, 1 running" in shown.text


def test_progress_is_cleared_before_a_note(
    terminal: Callable[..., SimpleNamespace], jobs: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would share a line."""
    monkeypatch.setattr(_progress, "DELAY_SECONDS", 0.0)
    jobs.put("a")
    shown = terminal("work", jobs.name, "--all", "--retries", "0", "--", "sh", "-c", "sleep 0.2; exit 1")
    assert "\r\x1b[Kipcq: job 1 (delivery 1): exit 1; it is a dead letter now" in shown.output
