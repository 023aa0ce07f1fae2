"""``ipcq get``."""

import errno
import io
import json
import os
import sys
import threading
from array import array
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

import ipcq

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]


def test_one_item_is_taken_by_default(run: Run, queue: Queue) -> None:
    """The oldest one."""
    queue.put_many(["a", "b"])
    assert run("get", queue.name).stdout == "a\n"


def test_the_others_stay(run: Run, queue: Queue) -> None:
    """Only the requested number is taken."""
    queue.put_many(["a", "b"])
    run("get", queue.name)
    assert queue.qsize() == 1


def test_count_is_taken(run: Run, queue: Queue) -> None:
    """With -n."""
    queue.put_many(["a", "b", "c"])
    assert run("get", queue.name, "-n", "2").stdout == "a\nb\n"


def test_everything_is_taken(run: Run, queue: Queue) -> None:
    """With --all."""
    queue.put_many(["a", "b", "c"])
    assert run("get", queue.name, "--all").stdout == "a\nb\nc\n"


def test_everything_is_taken_from_a_queue_that_was_shut_down(run: Run, queue: Queue) -> None:
    """A queue that was shut down can be drained."""
    queue.put("a")
    queue.shutdown()
    assert run("get", queue.name, "--all").exit_code == 0


def test_following_ends_with_the_shutdown(run: Run, queue: Queue) -> None:
    """An intended end is no error."""
    queue.put_many(["a", "b"])
    queue.shutdown()
    result = run("get", queue.name, "--follow")
    assert (result.exit_code, result.stdout) == (0, "a\nb\n")


def test_following_ends_with_its_time(run: Run, queue: Queue) -> None:
    """With --wait, after an item was printed."""
    queue.put("a")
    assert run("get", queue.name, "--follow", "--wait", "0.1").exit_code == 0


def test_following_nothing_is_3(run: Run, queue: Queue) -> None:
    """With --wait, if no item was printed."""
    assert run("get", queue.name, "--follow", "--wait", "0.1").exit_code == 3


@pytest.mark.parametrize("options", [(), ("-n", "2"), ("--all",), ("--wait", "0.1")])
def test_empty_queue_is_3(run: Run, queue: Queue, options: tuple[str, ...]) -> None:
    """Whatever the options."""
    assert run("get", queue.name, *options).exit_code == 3


def test_error_for_bytes_that_are_no_messagepack_suggests_raw(run: Run, queue: Queue) -> None:
    """The error suggests --raw and has the bytes."""
    run("put", queue.name, "--raw", "hello")
    assert "--raw" in run("get", queue.name).stderr


def test_too_few_items_are_3_and_printed(run: Run, queue: Queue) -> None:
    """With -n: the items that were there are printed."""
    queue.put("a")
    result = run("get", queue.name, "-n", "2")
    assert (result.exit_code, result.stdout) == (3, "a\n")


def test_too_few_items_are_counted(run: Run, queue: Queue) -> None:
    """The user of a script sees how far it got."""
    queue.put("a")
    assert run("get", queue.name, "-n", "2").stderr.endswith("; got 1 of 2 items\n")


def test_missing_queue_is_5(run: Run, name: str) -> None:
    """Getting creates nothing."""
    assert run("get", name).exit_code == 5


def test_missing_queue_is_still_5_after_waiting(run: Run, name: str) -> None:
    """It was never created."""
    assert run("get", name, "--wait", "0.1").exit_code == 5


def test_queue_that_was_shut_down_and_is_empty_is_1(run: Run, queue: Queue) -> None:
    """No item can come, which differs from an empty queue."""
    queue.shutdown()
    assert run("get", queue.name).exit_code == 1


def test_item_is_waited_for(run: Run, queue: Queue) -> None:
    """With --wait."""
    thread = threading.Timer(0.1, queue.put, ["late"])
    thread.start()
    result = run("get", queue.name, "--wait", "60")
    thread.join()
    assert result.stdout == "late\n"


def test_item_is_waited_for_without_a_limit(run: Run, queue: Queue) -> None:
    """With --wait inf."""
    thread = threading.Timer(0.1, queue.put, ["late"])
    thread.start()
    result = run("get", queue.name, "--wait", "inf")
    thread.join()
    assert result.stdout == "late\n"


def test_queue_is_waited_for(start: Callable[..., Any], name: str) -> None:
    """The program starts before the one that creates the queue."""
    process = start("get", name, "--wait", "60")
    with ipcq.open(name, max_messages=4, max_message_size=512) as queue:
        queue.put("hello")
        assert process.communicate(timeout=60)[0] == "hello\n"


def test_items_of_every_kind_are_json(run: Run, queue: Queue) -> None:
    """With --json, one line each."""
    queue.put_many([{"id": 1}, "text", b"\xff"])
    lines = run("get", queue.name, "--all", "--json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [{"id": 1}, "text", {"$base64": "/w=="}]


def test_bytes_are_printed_as_they_are(run: Run, queue: Queue) -> None:
    """As text, followed by a newline like any item."""
    queue.put(b"\xff\x00")
    assert run("get", queue.name).stdout_bytes == b"\xff\x00\n"


def test_objects_are_printed_as_json(run: Run, queue: Queue) -> None:
    """In text mode, items that are no text."""
    queue.put({"id": 1})
    assert run("get", queue.name).stdout == '{"id": 1}\n'


def test_null_ends_items(run: Run, queue: Queue) -> None:
    """For xargs -0."""
    queue.put_many(["a\n", "b"])
    assert run("get", queue.name, "--all", "--null").stdout_bytes == b"a\n\0b\0"


def test_raw_messages_are_printed_unchanged(run: Run, queue: Queue) -> None:
    """With --raw: exactly the bytes of the messages."""
    with ipcq.open(queue.name, serializer="raw") as raw:
        raw.put(b"\xc1\xff")
        raw.put(b"")
        raw.put(b"a")
    assert run("get", queue.name, "--all", "--raw").stdout_bytes == b"\xc1\xffa"


def test_raw_messages_can_end_with_null(run: Run, queue: Queue) -> None:
    """With --raw and --null."""
    with ipcq.open(queue.name, serializer="raw") as raw:
        raw.put(b"a")
    assert run("get", queue.name, "--raw", "--null").stdout_bytes == b"a\0"


def test_pickles_are_decoded_where_that_is_allowed(run: Run, queue: Queue) -> None:
    """With --allow-pickle."""
    with ipcq.open(queue.name, serializer="pickle", allow_pickle=True) as trusting:
        trusting.put({1})
    assert run("get", queue.name, "--allow-pickle", "--json").stdout == "[1]\n"


@pytest.mark.parametrize(
    "options",
    [("--all", "--follow"), ("-n", "1", "--all"), ("--raw", "--json"), ("--raw", "--allow-pickle"), ("-n", "0")],
)
def test_wrong_use_is_2(run: Run, queue: Queue, options: tuple[str, ...]) -> None:
    """Options that contradict each other."""
    assert run("get", queue.name, *options).exit_code == 2


def put_undecodable(queue: Queue) -> None:
    """Put a message that cannot be decoded between two items."""
    with ipcq.open(queue.name, serializer="raw") as raw:
        queue.put("before")
        raw.put(b"\xc1\x00bad")
        queue.put("behind")


def test_undecodable_message_does_not_block_the_others(run: Run, queue: Queue) -> None:
    """It counts as taken."""
    put_undecodable(queue)
    assert run("get", queue.name, "-n", "3").stdout == "before\nbehind\n"


def test_undecodable_message_is_1(run: Run, queue: Queue) -> None:
    """At the end."""
    put_undecodable(queue)
    assert run("get", queue.name, "--all").exit_code == 1


def test_undecodable_message_is_printed_in_base64(run: Run, queue: Queue) -> None:
    """It was taken, so this line is all that is left of it."""
    put_undecodable(queue)
    assert run("get", queue.name, "--all").stderr.endswith("; the message was taken; its 5 bytes in base64: wQBiYWQ=\n")


def test_message_of_arrays_is_reported(run: Run, queue: Queue) -> None:
    """It is no text, and Python can read it."""
    with ipcq.open(queue.name, serializer="arrays") as arrays:
        arrays.put(array("i", [1]))
    done = run("get", queue.name)
    assert done.exit_code == 1
    assert (
        "it was encoded by serializer 'arrays': get it in Python, or pass --raw; the message was taken" in done.stderr
    )


class ReaderGone(io.TextIOWrapper):
    """A stdout whose reader has gone."""

    def __init__(self) -> None:
        super().__init__(ReaderGone.Raw(), write_through=True)

    class Raw(io.BytesIO):
        def write(self, data: Any) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_item_that_cannot_be_printed_is_on_stderr(queue: Queue, monkeypatch: Any, capsys: Any) -> None:
    """It was taken, so it must not vanish."""
    queue.put({"id": 1})
    monkeypatch.setattr(sys, "stdout", ReaderGone())
    from ipcq._cli import cli

    with pytest.raises(SystemExit):
        cli.main(["get", queue.name])
    line = f'ipcq: an item of {queue.name!r} was taken but not printed: {{"id": 1}}\n'
    assert capsys.readouterr().err == line


def test_reader_that_has_gone_costs_no_item(start: Callable[..., Any], shared: Queue) -> None:
    """A program in a pipe: an item that was taken is either in the pipe or on stderr."""
    reading, writing = os.pipe()
    os.close(reading)
    process = start("get", shared.name, "--follow", stdout=writing)
    os.close(writing)
    shared.put("the one")
    _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (
        1,
        f'ipcq: an item of {shared.name!r} was taken but not printed: "the one"\n',
    )


def test_item_is_printed_before_the_next_one_comes(start: Callable[..., Any], shared: Queue) -> None:
    """A program in a pipe: no item waits in a buffer."""
    process = start("get", shared.name, "--follow", "--json")
    shared.put({"id": 1})
    assert process.stdout.readline() == '{"id": 1}\n'


def test_the_newest_item_is_taken_if_asked_for(run: Run, queue: Queue) -> None:
    """The older ones are dropped."""
    queue.put_many(["a", "b", "c"])
    assert run("get", queue.name, "--latest").stdout == "c\n"
    assert queue.empty()


@pytest.mark.parametrize("other", [["-n", "2"], ["--all"]])
def test_the_newest_item_is_one(run: Run, queue: Queue, other: list[str]) -> None:
    """So it excludes what takes more."""
    result = run("get", queue.name, "--latest", *other)
    assert (result.exit_code, "--latest takes one item" in result.stderr) == (2, True)
