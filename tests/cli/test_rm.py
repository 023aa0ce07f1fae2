"""``ipcq rm``."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

import ipcq
from ipcq._cli.verbs import rm as verb

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]


def test_queue_is_removed(run: Run, queue: Queue) -> None:
    """With --yes, without a question."""
    run("rm", "-y", queue.name)
    assert not ipcq.exists(queue.name)


def test_removal_is_printed(run: Run, queue: Queue) -> None:
    """One line for each queue."""
    assert run("rm", "--yes", queue.name).stdout == f"removed {queue.name}\n"


def test_quiet_prints_nothing(run: Run, queue: Queue) -> None:
    """With --quiet."""
    assert run("rm", "--yes", "-q", queue.name).output == ""


def test_without_a_terminal_nothing_is_asked(run: Run, queue: Queue) -> None:
    """Nothing is removed: it is a usage error."""
    assert (run("rm", queue.name).exit_code, ipcq.exists(queue.name)) == (2, True)


def test_without_a_terminal_the_way_out_is_printed(run: Run, queue: Queue) -> None:
    """It is the option --yes."""
    assert "--yes" in run("rm", queue.name).stderr


def test_question_names_the_backend_and_the_messages(terminal: Callable[..., Any], queue: Queue) -> None:
    """Backend and number of messages."""
    queue.put("x")
    told = terminal("rm", queue.name, typed="n\n").text
    assert f"Remove queue {queue.name} on memory with 1 message?" in told


def test_question_counts_messages_that_are_not_ready(terminal: Callable[..., Any], name: str, memory: str) -> None:
    """They would be lost as well."""
    with ipcq.open(name, memory, leases=True) as queue:
        queue.put_many(["a", "b"])
        queue.put("c", delay=1000)
        with queue.lease(), queue.lease() as dead:
            dead.reject()
            assert "on memory with 3 messages?" in terminal("rm", name, typed="n\n").text


def test_yes_removes(terminal: Callable[..., Any], queue: Queue) -> None:
    """Typed at the question."""
    terminal("rm", queue.name, typed="y\n")
    assert not ipcq.exists(queue.name)


@pytest.mark.parametrize("answer", ["n", ""])
def test_anything_else_removes_nothing(terminal: Callable[..., Any], queue: Queue, answer: str) -> None:
    """An empty answer means no, and is no error."""
    result = terminal("rm", queue.name, typed=answer + "\n")
    assert (result.code, ipcq.exists(queue.name)) == (0, True)


def test_messages_that_cannot_be_counted_are_left_out(
    terminal: Callable[..., Any], queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who may not read may still remove."""

    def refuse(*_: Any, **__: Any) -> None:
        raise ipcq.PermissionDenied

    monkeypatch.setattr(verb.ipcq, "open", refuse)
    assert f"Remove queue {queue.name}?" in terminal("rm", queue.name, typed="n\n").text


def test_missing_queue_is_5(run: Run, name: str) -> None:
    """With --yes."""
    assert run("rm", "-y", name).exit_code == 5


def test_missing_queue_is_not_asked_about(terminal: Callable[..., Any], name: str) -> None:
    """On a terminal."""
    assert terminal("rm", name).code == 5


def test_others_are_removed_when_one_fails(run: Run, queue: Queue, name: str) -> None:
    """One failure does not stop the rest."""
    run("rm", "-y", f"{name}-missing", queue.name)
    assert not ipcq.exists(queue.name)


def test_failures_of_several_kinds_are_1(run: Run, name: str) -> None:
    """No single code fits."""
    assert run("rm", "-y", name, "no-name").exit_code == 1


def test_json_has_each_outcome(run: Run, queue: Queue, name: str) -> None:
    """One object for each NAME."""
    lines = run("rm", "-y", "--json", queue.name, f"{name}-missing").stdout.splitlines()
    assert [json.loads(line)["removed"] for line in lines] == [True, False]


def test_no_name_is_2(run: Run) -> None:
    """Without arguments there is nothing to do."""
    assert run("rm", "-y").exit_code == 2
