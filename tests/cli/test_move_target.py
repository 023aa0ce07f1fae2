"""The queue that ``ipcq move`` puts into: it is created with limits, or refused before a message is taken."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ipcq
from cli import moving
from cli.moving import VERBS, Queue, Run, list_files, messages_in, take_all

directory, make, source, target = moving.directory, moving.make, moving.source, moving.target
free, without_peek = moving.free, moving.without_peek


def test_missing_target_is_created_with_the_limits_of_the_source(
    run: Run, make: Callable[..., Queue], free: str
) -> None:
    """A queue between processes, so that it outlives the command."""
    run("move", make("-source", "a", max_messages=5, max_message_size=100).name, free)
    with ipcq.open(free, create=False) as made:
        assert (made.max_messages, made.max_message_size, take_all(made)) == (5, 100, ["a"])


def test_missing_target_is_5_where_it_must_exist(run: Run, source: Queue, free: str) -> None:
    """With --no-create."""
    assert (run("move", source.name, free, "--no-create").exit_code, source.qsize()) == (5, 3)


def test_limits_of_the_target_can_be_given(run: Run, source: Queue, free: str) -> None:
    """As for create."""
    run("move", source.name, free, "--max-messages", "7")
    with ipcq.open(free, create=False) as made:
        assert made.max_messages == 7


def test_target_that_would_not_outlive_the_command_is_refused(run: Run, source: Queue, name: str) -> None:
    """And no message is taken."""
    result = run("move", source.name, f"memory://{name}")
    assert ("this one exits" in result.stderr, source.qsize()) == (True, 3)


def test_unknown_backend_is_refused(run: Run, source: Queue, name: str) -> None:
    """And no message is taken."""
    assert (run("move", source.name, f"no-such://{name}").exit_code, source.qsize()) == (2, 3)


def test_errors_name_urls_instead_of_a_missing_option(run: Run, name: str, memory: str, shared: Queue) -> None:
    """Each end is a name or a URL."""
    with ipcq.open(name, memory):
        told = run("move", name, name + "-target").stderr
    assert f"choose one with a URL such as BACKEND://{name}, or" in told


def test_reason_for_an_omitted_limit_names_urls(
    run: Run, source: Queue, shared: Queue, free: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no --backend."""
    real = ipcq.open

    def refuse(*arguments: Any, **options: Any) -> Queue:
        if options.get("exclusive") and "max_messages" in options:
            raise ipcq.Unsupported("too many: try backend='other'")
        return real(*arguments, **options)

    monkeypatch.setattr(ipcq, "open", refuse)
    told = run("move", source.name, f"{shared.backend}://{free}").stderr
    assert f"is created without --max-messages 8: too many: try a URL such as other://{free}\n" in told


def test_target_for_smaller_messages_is_refused(run: Run, source: Queue, make: Callable[..., Queue]) -> None:
    """Before a message is taken."""
    result = run("move", source.name, make("-target", max_message_size=100).name)
    assert ("but some may have 512" in result.stderr, source.qsize()) == (True, 3)


def test_messages_smaller_than_the_limit_can_be_moved(run: Run, source: Queue, make: Callable[..., Queue]) -> None:
    """With --max-message-size, the user vouches for it."""
    target = make("-target", max_message_size=100)
    run("move", source.name, target.name, "--max-message-size", "100")
    assert target.qsize() == 3


@pytest.mark.parametrize("verb", VERBS)
def test_message_that_is_too_large_stays(run: Run, make: Callable[..., Queue], directory: Path, verb: str) -> None:
    """With peek, it is seen before it is taken; the messages before it have arrived."""
    source, target = make("-source", ["a", "b" * 200, "c"]), make("-target", max_message_size=100)
    result = run(verb, source.name, target.name, "--max-message-size", "100")
    order = ["b" * 200, "c"] if verb == "move" else ["a", "b" * 200, "c"]
    assert (result.exit_code, take_all(target), take_all(source), list_files(directory)) == (1, ["a"], order, [])


def test_message_that_is_too_large_is_kept(
    run: Run, make: Callable[..., Queue], directory: Path, without_peek: None
) -> None:
    """Without peek, it is seen when it has been taken."""
    source, target = make("-source", ["b" * 200]), make("-target", max_message_size=100)
    result = run("move", source.name, target.name, "--max-message-size", "100", "--rescue", "mine")
    told = (
        f"0 messages moved; 1 message in no queue, kept in {directory / 'mine'}: resume with `ipcq load {target.name} "
    )
    assert (result.exit_code, told in result.stderr, len(messages_in(directory / "mine"))) == (1, True, 1)


@pytest.mark.parametrize("backend", ["mqueue", "pyshm", "shm"])
@pytest.mark.parametrize("end", ["source", "target"])
def test_queue_that_is_shut_down_is_refused_before_anything_is_taken(
    run: Run, make: Callable[..., Queue], backend: str, end: str
) -> None:
    """It accepts no message, so none could be put there, or put back."""
    source, target = make("-source", "a", backend), make("-target", (), backend)
    (source if end == "source" else target).shutdown()
    assert (run("copy", source.name, target.name).exit_code, source.qsize()) == (1, 1)


@pytest.mark.needs("socketpair")
@pytest.mark.needs("shm")  # without it the source is on mqueue and has priorities, which is refused first
def test_new_queue_without_a_holder_is_refused(program: Callable[..., Any], shared: Queue, free: str) -> None:
    """And no message is taken."""
    shared.put("a")
    result = program("move", shared.name, f"socketpair://{free}")
    assert ("start the consumer first" in result.stderr, shared.qsize()) == (True, 1)
