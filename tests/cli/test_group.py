"""Rules for every verb: imports, exit codes, and the single line on stderr."""

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

import ipcq
from ipcq import _cli
from ipcq._cli import _exits, _options, _streams
from ipcq._cli._exits import Failure, code_of, line_of
from ipcq.testing.processes import state_of

Run = Callable[..., Result]


def test_version_is_printed(run: Run) -> None:
    """It is that of the installed distribution."""
    assert run("--version").output.startswith("ipcq ")


def test_version_loads_no_verb() -> None:
    """A verb is imported when it is called, not before."""
    code = "import sys, ipcq._cli; print([m for m in sys.modules if m.startswith('ipcq._cli.') and '._' not in m[5:]])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_help_lists_each_verb(run: Run) -> None:
    """In the order in which a newcomer meets them."""
    assert [line.split()[0] for line in run("--help").output.partition("Commands:\n")[2].splitlines()] == list(
        _cli.VERBS
    )


@pytest.mark.parametrize("verb", _cli.VERBS)
def test_each_verb_has_help(run: Run, verb: str) -> None:
    """A request for help is no error."""
    assert run(verb, "-h").exit_code == 0


def test_misspelt_verb_is_a_usage_error(run: Run) -> None:
    """The exit code for usage is 2."""
    assert run("lss").exit_code == 2


def test_error_for_a_misspelt_verb_suggests_the_nearest(run: Run) -> None:
    """The error suggests it."""
    assert "ls" in run("lss").stderr.rpartition("lss")[2]


def test_module_is_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """``python -m ipcq`` runs the same group."""
    monkeypatch.setattr(sys, "argv", ["ipcq", "--version"])
    with pytest.raises(SystemExit) as exit:
        runpy.run_module("ipcq", run_name="__main__")
    assert exit.value.code == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ipcq.MessageQueueError(), 1),
        (ipcq.InvalidArgument(), 2),
        (ipcq.InvalidName(), 2),
        (ipcq.BackendUnknown(), 2),
        (ipcq.QueueEmpty(), 3),
        (ipcq.TimedOutError(), 3),
        (ipcq.QueueFull(), 4),
        (ipcq.QueueNotFound(), 5),
        (ipcq.PermissionDenied(), 1),
        (Failure("x", 4), 4),
        (OSError("x"), 1),
    ],
)
def test_exit_code_follows_the_class(error: Exception, code: int) -> None:
    """One table decides."""
    assert code_of(error) == code


def test_line_names_options_instead_of_arguments() -> None:
    """An argument of the core is an option of the shell."""
    error = ipcq.Unsupported("use backend='x' with max_messages=3, or other_users=True")
    assert line_of(error) == "use --backend 'x' with --max-messages 3, or --other-users"


def test_line_omits_a_way_out_that_would_end_with_the_command() -> None:
    """A queue that ends with its last handle is no way out for a command, which exits."""
    way = "or try backend='x' with lifetime='last-close', if the queue need not outlive its last handle"
    error = ipcq.NoSpace("it is full: free some")
    error.add_way_out(way)
    assert line_of(error) == "it is full: free some"


def test_line_leaves_the_name_of_the_queue_alone() -> None:
    """A queue's name may look like an argument."""
    assert line_of(ipcq.QueueFull("full", queue="/backend=1")) == "queue '/backend=1': full"


def test_line_of_a_lost_connection_says_once_what_happened_and_then_its_outcome() -> None:
    """The outcome comes after the detail."""
    error = ipcq.ConnectionLost("no answer", queue="/x", outcome="not done")
    assert line_of(error) == "queue '/x': no answer; nothing was done: try again when the server answers"


def test_line_of_a_missing_queue_names_the_way_out() -> None:
    """The core suggests Python; the command line suggests a command."""
    error = ipcq.QueueNotFound(queue="/x")
    assert line_of(error) == "queue '/x': no such queue: `ipcq ls` lists existing queues"


def test_line_has_the_notes_of_the_verb() -> None:
    """The verb appends what it knows beyond the error."""
    error = Failure("bad")
    error.add_note("2 items before it")
    assert line_of(error) == "bad; 2 items before it"


def test_error_is_one_line_without_a_traceback(run: Run) -> None:
    """A user sees what is wrong, without Python's internals."""
    assert run("get", "/no-such-queue").stderr.count("\n") == 1


def test_traceback_is_shown_on_request(run: Run) -> None:
    """It helps to find a bug."""
    assert "Traceback (most recent call last)" in run("--traceback", "get", "/no-such-queue").stderr


def test_system_error_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the system that is none of ours has the same form."""

    def fail() -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(ipcq, "queues", fail)
    assert run("ls").stderr == "ipcq: [Errno 13] Permission denied\n"


def test_interruption_is_130_and_quiet(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is not reported as an error."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ipcq, "queues", interrupt)
    result = run("ls")
    assert (result.exit_code, result.output) == (130, "")


def test_interruption_of_a_program_is_130_and_quiet(start: Callable[..., Any], shared: ipcq.Queue[Any]) -> None:
    """A real SIGINT while it waits for an item."""
    process = start("get", shared.name, "-n", "2", "--wait", "inf")
    shared.put("first")
    assert process.stdout.readline() == "first\n"
    while state_of(process.pid) == "R":
        pass  # not yet waiting for the second item
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (130, "")


def test_reader_that_has_gone_causes_no_traceback(start: Callable[..., Any]) -> None:
    """``ipcq backends | true``."""
    reading, writing = os.pipe()
    os.close(reading)
    process = start("backends", stdout=writing)
    os.close(writing)
    assert process.communicate(timeout=60)[1] == ""


def test_closed_stdin_is_an_error(program: Callable[..., Any], shared: ipcq.Queue[Any]) -> None:
    """``ipcq put /x - <&-``."""
    result = program("put", shared.name, "-", preexec_fn=lambda: os.close(0))
    assert result.stderr == "ipcq: stdin is closed; the input was not put; 0 items put before it\n"


def test_closed_stdout_is_an_error_before_anything_is_taken(run: Run, queue: ipcq.Queue[Any], monkeypatch: Any) -> None:
    """``ipcq get /x >&-`` must not take an item that it cannot print."""
    queue.put("kept")
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(Failure, match="stdout is closed"):
        _streams.stdout()
    assert queue.qsize() == 1


def test_closed_stdin_is_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has None for a stream that was closed before it started."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(Failure, match="stdin is closed"):
        _streams.stdin()


@pytest.mark.parametrize("seconds", ["-1", "nan", "soon"])
def test_odd_seconds_are_a_usage_error(run: Run, seconds: str) -> None:
    """A timeout is a number from 0 on."""
    assert run("get", "/x", f"--wait={seconds}").exit_code == 2


def test_names_are_completed(queue: ipcq.Queue[Any]) -> None:
    """The shell offers the existing queues."""
    assert _options.complete_name(None, None, queue.name[:-1]).count(queue.name) == 1


def test_completion_stays_silent_on_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nowhere to print one."""

    def fail() -> None:
        raise ipcq.MessageQueueError

    monkeypatch.setattr(ipcq, "queues", fail)
    assert _options.complete_name(None, None, "") == []


def test_a_shell_completes_names(program: Callable[..., Any], shared: ipcq.Queue[Any]) -> None:
    """The protocol of bash, end to end. Listing needs the kernel's file system; without it the answer is empty."""
    environment = {**os.environ, "_IPCQ_COMPLETE": "bash_complete", "COMP_WORDS": "ipcq get /", "COMP_CWORD": "2"}
    told = program(env=environment).stdout
    assert (f"plain,{shared.name}" in told) is any(each.name == shared.name for each in ipcq.queues())


def test_exit_codes_are_those_of_the_documentation() -> None:
    """Scripts rely on them."""
    assert list(range(6)) == [_exits.OK, _exits.ERROR, _exits.USAGE, _exits.EMPTY, _exits.FULL, _exits.NOT_FOUND]


def test_every_verb_that_prints_facts_has_json(run: Run) -> None:
    """``put`` reads JSON, the other verbs write it; a completion script is no JSON."""
    assert {verb for verb in _cli.VERBS if "--json" not in run(verb, "--help").output} == {"completion"}


def test_json_passes_between_two_programs(program: Callable[..., Any], name: str) -> None:
    """The first example of the README."""
    limits = ["--max-messages", "4", "--max-message-size", "512"]
    program("put", name, "--json", *limits, "-", input='{"id": 1}\n')
    assert json.loads(program("get", name, "--json", "--wait", "3").stdout) == {"id": 1}


def test_line_does_not_call_auto_a_backend() -> None:
    """It stands for all backends."""
    assert line_of(ipcq.QueueFull(queue="/x", backend="auto")).startswith("queue '/x': ")
