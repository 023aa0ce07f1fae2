"""``ipcq ls``."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

import ipcq
from ipcq._cli.verbs import ls as verb

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]


def only(*queues: ipcq.QueueInfo, **unlisted: str) -> Callable[..., ipcq.Listing]:
    """Return a replacement for `ipcq.queues`, so that other queues on this machine do not matter."""
    listing = ipcq.Listing(queues)
    listing.unlisted = unlisted
    return lambda: listing


@pytest.fixture
def alone(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """Return a queue that is the only one in the listing."""
    monkeypatch.setattr(ipcq, "queues", only(ipcq.QueueInfo(queue.name, "memory")))
    return queue


def test_pipe_has_tabs_and_no_headings(run: Run, alone: Queue) -> None:
    """For cut and awk."""
    alone.put("x")
    assert run("ls").stdout == f"{alone.name}\tmemory\t1\t4\t512\t0600\n"


def test_terminal_has_a_table(terminal: Callable[..., Any], alone: Queue) -> None:
    """With headings."""
    assert terminal("ls").text.split()[:2] == ["name", "backend"]


def test_table_needs_no_rich(terminal: Callable[..., Any], alone: Queue, no_rich: None) -> None:
    """rich is an extra."""
    assert terminal("ls").text.splitlines()[1].split() == [alone.name, "memory", "0", "4", "512", "0600"]


def test_narrow_terminal_has_whole_lines(terminal: Callable[..., Any], alone: Queue, monkeypatch: Any) -> None:
    """If the columns do not fit, the terminal wraps the lines."""
    monkeypatch.setenv("COLUMNS", "20")
    assert terminal("ls").text.splitlines()[1].split() == [alone.name, "memory", "0", "4", "512", "0600"]


def test_json_has_stable_keys(run: Run, alone: Queue) -> None:
    """One object on each line."""
    assert json.loads(run("ls", "--json").stdout) == {
        "error": None,
        "name": alone.name,
        "backend": "memory",
        "messages": 0,
        "max_messages": 4,
        "max_message_size": 512,
        "mode": "0600",
    }


def test_no_queue_is_no_output(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no error."""
    monkeypatch.setattr(ipcq, "queues", only())
    result = run("ls")
    assert (result.exit_code, result.output) == (0, "")


def test_capacity_without_a_bound_is_a_dash(run: Run, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue has only a limit in bytes."""
    monkeypatch.setattr(ipcq, "queues", only(ipcq.QueueInfo(name, "memory")))
    with ipcq.open(name, "memory"):
        assert run("ls").stdout.split("\t")[3] == "-"


def test_name_cannot_control_the_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control characters are escaped."""
    name = "/tab\tline\nescape\x1b[31m\\[red]"
    monkeypatch.setattr(ipcq, "queues", only(ipcq.QueueInfo(name, "memory")))
    with ipcq.open(name, "memory") as queue:
        told = run("ls").stdout
        queue.unlink()
    assert told.startswith("/tab\\tline\\nescape\\x1b[31m\\\\[red]\tmemory\t")


def test_name_is_no_markup(terminal: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """rich must not read a colour in it."""
    monkeypatch.setattr(ipcq, "queues", only(ipcq.QueueInfo("/[red]", "memory")))
    with ipcq.open("/[red]", "memory") as queue:
        told = terminal("ls").text
        queue.unlink()
    assert "/[red]" in told


def test_no_color_means_no_color(terminal: Callable[..., Any], alone: Queue, monkeypatch: Any) -> None:
    """The convention of no-color.org."""
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in terminal("ls").output


def test_backend_that_cannot_be_listed_is_noted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On stderr, with the way out."""
    monkeypatch.setattr(ipcq, "queues", only(some="not mounted: mount it"))
    assert run("ls").stderr == "ipcq: backend 'some': not mounted: mount it\n"


def test_notes_can_be_left_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --quiet."""
    monkeypatch.setattr(ipcq, "queues", only(some="not mounted: mount it"))
    assert run("ls", "-q").stderr == ""


def test_one_backend_can_be_asked_for(run: Run, queue: Queue) -> None:
    """With --backend."""
    other = ipcq.backends()[0].name
    listed = run("ls", "--backend", other).stdout.splitlines()
    assert [line for line in listed if line.split("\t")[1] != other] == []


def test_unknown_backend_is_2(run: Run) -> None:
    """It is a typing error, not an empty list."""
    assert run("ls", "--backend", "nonsense").exit_code == 2


def test_queue_that_is_removed_meanwhile_is_left_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the listing and the look."""
    monkeypatch.setattr(ipcq, "queues", only(ipcq.QueueInfo("/gone", "memory")))
    assert run("ls").output == ""


def test_queue_that_cannot_be_opened_is_listed(run: Run, alone: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its name, which is known."""

    def refuse(*_: Any, **__: Any) -> None:
        raise ipcq.PermissionDenied(queue=alone.name)

    monkeypatch.setattr(verb, "facts_about", refuse)
    assert run("ls").stdout == f"{alone.name}\tmemory\t-\t-\t-\t-\n"


def test_queue_that_cannot_be_opened_has_the_reason(run: Run, alone: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """In JSON, as a key."""

    def refuse(*_: Any, **__: Any) -> None:
        raise ipcq.PermissionDenied(queue=alone.name)

    monkeypatch.setattr(verb, "facts_about", refuse)
    assert json.loads(run("ls", "--json").stdout)["error"] == str(ipcq.PermissionDenied(queue=alone.name))


def test_looking_takes_nothing(run: Run, queue: Queue) -> None:
    """Neither a message nor space."""
    queue.put("x")
    run("ls")
    assert queue.get(timeout=0) == "x"
