"""The rescue file of ``ipcq move`` and ``ipcq copy``: it has each message that is in no queue."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ipcq
from cli import moving
from cli.moving import VERBS, Queue, Run, list_files, messages_in, on_put, raising, take_all

directory, make, source, target = moving.directory, moving.make, moving.source, moving.target
without_peek = moving.without_peek


@pytest.mark.parametrize("verb", VERBS)
def test_no_file_is_left_after_success(run: Run, source: Queue, target: Queue, directory: Path, verb: str) -> None:
    """Every message is in a queue."""
    run(verb, source.name, target.name)
    assert list_files(directory) == []


def test_rescue_file_is_named_before_anything_is_taken(run: Run, source: Queue, target: Queue, directory: Path) -> None:
    """A process that is killed cannot print it any more."""
    told = run("move", source.name, target.name, "--rescue", "mine").stderr
    loading = f"`ipcq load {target.name} {directory / 'mine'}`"
    assert told == f"ipcq: if this process is killed, {loading} recovers the messages that it held\n"


def test_message_that_the_target_refuses_is_kept(
    run: Run, source: Queue, target: Queue, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the suggested command puts it, once."""
    with monkeypatch.context() as patch:
        on_put(patch, target.name, raising(ipcq.NoSpace("no memory")))
        run("move", source.name, target.name, "--rescue", "mine")
    run("load", target.name, "mine")
    assert (take_all(target), take_all(source), list_files(directory)) == (["a"], ["b", "c"], [])


def test_source_that_is_shut_down_meanwhile_leaves_a_file(
    run: Run, source: Queue, target: Queue, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No message can be put back."""
    on_put(monkeypatch, target.name, lambda _: source.shutdown())
    result = run("copy", source.name, target.name, "--rescue", "mine")
    assert (result.exit_code, messages_in(directory / "mine"), take_all(source)) == (1, ["oWE="], ["b", "c"])


def test_message_is_in_the_file_before_it_is_taken(
    run: Run, source: Queue, target: Queue, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With peek, no kill can lose it."""
    get = ipcq.Queue.get_message
    seen = []

    def take(self: Queue, **options: Any) -> Any:
        seen.append(b'"oWE="' in (directory / "mine").read_bytes())
        return get(self, **options)

    monkeypatch.setattr(ipcq.Queue, "get_message", take)
    run("move", source.name, target.name, "-n", "1", "--rescue", "mine")
    assert seen == [True]


def test_full_disk_is_noticed_before_anything_is_taken(
    run: Run, source: Queue, target: Queue, directory: Path, monkeypatch: pytest.MonkeyPatch, without_peek: None
) -> None:
    """Blocks are reserved while the message is still in the queue."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    result = run("move", source.name, target.name)
    assert (result.exit_code, source.qsize(), list_files(directory)) == (1, 3, [])


def test_rescue_file_that_exists_is_not_touched(run: Run, source: Queue, target: Queue, directory: Path) -> None:
    """And no message is taken."""
    (directory / "mine").write_text("precious")
    result = run("move", source.name, target.name, "--rescue", "mine")
    assert (result.exit_code, (directory / "mine").read_text(), source.qsize()) == (1, "precious", 3)


def test_write_that_fails_after_the_get_prints_the_message(
    run: Run, source: Queue, target: Queue, fail_write: Callable[[bytes, int], None], without_peek: None
) -> None:
    """Neither queue nor file has it."""
    fail_write(b"oWE=", errno.EIO)
    told = run("move", source.name, target.name).stderr
    assert '`ipcq load` accepts its line: {"priority": 0, "base64": "oWE="}' in told
