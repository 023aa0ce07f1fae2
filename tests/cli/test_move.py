"""``ipcq move`` and ``ipcq copy``: messages from one queue into another."""

import json
from collections.abc import Callable
from typing import Any

import pytest

import ipcq
from cli import moving
from cli.moving import VERBS, Queue, Run, take_all
from ipcq._cli._putter import Putter

directory, make, source, target, free = moving.directory, moving.make, moving.source, moving.target, moving.free


def test_move_takes_all_messages_from_one_queue_to_the_other(run: Run, source: Queue, target: Queue) -> None:
    """In order."""
    run("move", source.name, target.name)
    assert (take_all(source), take_all(target)) == ([], ["a", "b", "c"])


def test_copy_leaves_them_where_they_were(run: Run, source: Queue, target: Queue) -> None:
    """In order, too."""
    run("copy", source.name, target.name)
    assert (take_all(source), take_all(target)) == (["a", "b", "c"], ["a", "b", "c"])


@pytest.mark.parametrize("verb", VERBS)
def test_bytes_of_a_message_are_unchanged(run: Run, source: Queue, target: Queue, verb: str) -> None:
    """Their meaning does not matter."""
    source.clear()
    with ipcq.open(source.name, serializer="raw") as raw:
        raw.put(b"\xff\0")
        run(verb, source.name, target.name)
    with ipcq.open(target.name, serializer="raw") as raw:
        assert raw.get(timeout=0) == b"\xff\0"


@pytest.mark.parametrize("verb", VERBS)
def test_it_prints_the_number_of_messages(run: Run, source: Queue, target: Queue, verb: str) -> None:
    """On stdout, because it is the result."""
    done = {"move": "moved", "copy": "copied"}[verb]
    assert run(verb, source.name, target.name).stdout == f"3 messages {done} from {source.name} to {target.name}\n"


def test_json_describes_the_move(run: Run, source: Queue, target: Queue) -> None:
    """One object."""
    assert json.loads(run("move", source.name, target.name, "--json").stdout) == {
        "source": {"name": source.name, "backend": "memory"},
        "target": {"name": target.name, "backend": "memory"},
        "messages": 3,
    }


def test_quiet_prints_nothing(run: Run, source: Queue, target: Queue) -> None:
    """With --quiet."""
    assert run("move", source.name, target.name, "--quiet").output == ""


def test_at_most_the_given_number_is_moved(run: Run, source: Queue, target: Queue) -> None:
    """With -n."""
    run("move", source.name, target.name, "-n", "2")
    assert (take_all(source), take_all(target)) == (["c"], ["a", "b"])


def test_at_most_the_given_number_is_copied(run: Run, source: Queue, target: Queue) -> None:
    """The order stays the same."""
    run("copy", source.name, target.name, "-n", "2")
    assert (take_all(source), take_all(target)) == (["a", "b", "c"], ["a", "b"])


@pytest.mark.parametrize("verb", VERBS)
def test_empty_queue_is_3_and_creates_nothing(run: Run, make: Callable[..., Queue], free: str, verb: str) -> None:
    """There is no message to move."""
    assert (run(verb, make("-empty").name, free).exit_code, ipcq.exists(free)) == (3, False)


def test_queue_that_is_emptied_meanwhile_is_3(
    run: Run, source: Queue, target: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another consumer."""
    monkeypatch.setattr(Putter, "wait_for_space", lambda *_: source.clear())
    assert run("move", source.name, target.name).exit_code == 3


@pytest.mark.parametrize("verb", VERBS)
def test_the_same_queue_at_both_ends_is_a_usage_error(run: Run, source: Queue, verb: str) -> None:
    """Messages would go round in circles."""
    result = run(verb, source.name, f"memory://{source.name}")
    assert (result.exit_code, "are the same queue" in result.stderr, source.qsize()) == (2, True, 3)


def test_missing_source_is_5(run: Run, name: str, target: Queue) -> None:
    """As everywhere."""
    assert run("move", name, target.name).exit_code == 5


def test_queue_that_is_shut_down_can_be_moved_from(run: Run, source: Queue, target: Queue) -> None:
    """Its messages can still be taken."""
    source.shutdown()
    assert (run("move", source.name, target.name).exit_code, target.qsize()) == (0, 3)


@pytest.mark.parametrize("verb", VERBS)
def test_bar_is_shown_after_a_while(
    terminal: Callable[..., Any], source: Queue, target: Queue, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """On a terminal."""
    monkeypatch.setattr("ipcq._cli._progress.DELAY_SECONDS", 0.0)
    monkeypatch.setattr("ipcq._cli._progress.UPDATE_SECONDS", 0.0)
    done = {"move": "moved", "copy": "copied"}[verb]
    assert f"] 100%   3 messages {done}" in terminal(verb, source.name, target.name).text


BACKENDS = ("mqueue", "pyshm", "shm")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("old", BACKENDS)
@pytest.mark.parametrize("new", BACKENDS)
def test_messages_go_between_all_backends(
    run: Run, make: Callable[..., Queue], free: str, old: str, new: str, verb: str
) -> None:
    """Into a queue that is created."""
    source = make("-source", "abc", old, max_messages=4)
    assert run(verb, f"{old}://{source.name}", f"{new}://{free}").exit_code == 0
    with ipcq.open(free, new, create=False) as made:
        assert (take_all(made), take_all(source)) == (["a", "b", "c"], ["a", "b", "c"] if verb == "copy" else [])


@pytest.mark.needs("socketpair")
@pytest.mark.parametrize("verb", VERBS)
def test_messages_come_from_a_queue_that_lives_by_its_holders(
    program: Callable[..., Any], make: Callable[..., Queue], free: str, verb: str
) -> None:
    """Such as socketpair's, which lives as long as its holders."""
    source = make("-source", "abc", "socketpair")
    program(verb, source.name, free, "--max-messages", "8")
    with ipcq.open(free, create=False) as made:
        assert (take_all(made), take_all(source)) == (["a", "b", "c"], ["a", "b", "c"] if verb == "copy" else [])
