"""``ipcq put``."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest
from click.testing import Result

import ipcq
from ipcq._cli.verbs import put as verb

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]

LIMITS = ("--max-messages", "4", "--max-message-size", "512")


def take_all(queue: Queue) -> list[Any]:
    """Take every item from the queue."""
    items = []
    while not queue.empty():
        items.append(queue.get(timeout=0))
    return items


def test_arguments_are_items_of_text(run: Run, queue: Queue) -> None:
    """Each one is one item, in order."""
    run("put", queue.name, "a", "b c", "")
    assert take_all(queue) == ["a", "b c", ""]


def test_success_is_silent(run: Run, queue: Queue) -> None:
    """No news is good news."""
    assert run("put", queue.name, "a").output == ""


def test_lines_of_stdin_are_items_including_blank_ones(run: Run, queue: Queue) -> None:
    """In text mode a blank line is an empty text, and a carriage return belongs to the line."""
    run("put", queue.name, "-", input=b"a\n\n\xc3\xbc\r\n")
    assert take_all(queue) == ["a", "", "ü\r"]


def test_stdin_is_read_without_a_dash(run: Run, queue: Queue) -> None:
    """In a pipeline, '-' can be left out."""
    run("put", queue.name, input="a\n")
    assert take_all(queue) == ["a"]


def test_dash_reads_stdin_at_its_place(run: Run, queue: Queue) -> None:
    """As with cat."""
    run("put", queue.name, "a", "-", "c", input="b\n")
    assert take_all(queue) == ["a", "b", "c"]


def test_terminal_without_items_is_a_usage_error(terminal: Callable[..., Any], queue: Queue) -> None:
    """A command that waits silently would surprise."""
    assert terminal("put", queue.name).code == 2


def test_json_lines_are_objects_and_blank_ones_are_ignored(run: Run, queue: Queue) -> None:
    """JSON may contain blank lines."""
    run("put", queue.name, "--json", input='{"id": 1}\n\n  \n[null, 2.5]\n')
    assert take_all(queue) == [{"id": 1}, [None, 2.5]]


def test_json_arguments_are_objects(run: Run, queue: Queue) -> None:
    """Arguments follow the same rule as lines."""
    run("put", queue.name, "--json", '{"id": 1}', "7")
    assert take_all(queue) == [{"id": 1}, 7]


def test_null_separates_items(run: Run, queue: Queue) -> None:
    """As find -print0 writes them."""
    run("put", queue.name, "--null", "-", input=b"a\nb\0c\0")
    assert take_all(queue) == ["a\nb", "c"]


def test_raw_stdin_is_one_message(run: Run, queue: Queue) -> None:
    """Exactly the bytes of stdin."""
    run("put", queue.name, "--raw", "-", input=b"\xff\n\0")
    with ipcq.open(queue.name, serializer="raw") as raw:
        assert raw.get(timeout=0) == b"\xff\n\0"


def test_raw_nothing_is_an_empty_message(run: Run, queue: Queue) -> None:
    """A message of length 0 is a message."""
    run("put", queue.name, "--raw", "-", input=b"")
    assert queue.qsize() == 1


def test_raw_arguments_are_the_bytes_that_were_typed(run: Run, queue: Queue) -> None:
    """Whatever the locale."""
    run("put", queue.name, "--raw", os.fsdecode(b"\xff"))
    with ipcq.open(queue.name, serializer="raw") as raw:
        assert raw.get(timeout=0) == b"\xff"


def test_raw_records_can_be_separated_by_null(run: Run, queue: Queue) -> None:
    """Several messages of bytes in one stream."""
    run("put", queue.name, "--raw", "--null", "-", input=b"a\0b")
    assert queue.qsize() == 2


def test_priority_comes_first(run: Run, queue: Queue) -> None:
    """The highest is taken first."""
    with ipcq.open(queue.name + "p", "memory", priorities=True) as ranked:
        run("put", ranked.name, "low")
        run("put", ranked.name, "--priority", "7", "high")
        taken = ranked.get_message(timeout=0)
        ranked.unlink()
    assert (taken.item, taken.priority) == ("high", 7)


def test_priority_creates_a_queue_with_priorities(run: Run, name: str) -> None:
    """The command creates the queue that it needs."""
    run("put", name, *LIMITS, "--priority", "7", "x")
    with ipcq.open(name, create=False) as queue:
        assert queue.priorities


def test_serializer_can_be_chosen(run: Run, queue: Queue) -> None:
    """Pickle has to be allowed explicitly."""
    run("put", queue.name, "--serializer", "pickle", "--allow-pickle", "x")
    with ipcq.open(queue.name, allow_pickle=True) as trusting:
        assert trusting.get(timeout=0) == "x"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--raw", "--json"),
        ("--raw", "--serializer", "msgpack"),
        ("--priority", "40000"),
        ("--max-messages", "0"),
        ("--serializer", "pickle"),
        ("--serializer", "nonsense"),
        ("--backend", "nonsense"),
    ],
)
def test_wrong_use_is_2(run: Run, queue: Queue, arguments: tuple[str, ...]) -> None:
    """A combination that can never work is a usage error."""
    assert run("put", queue.name, *arguments, "x").exit_code == 2


def test_wrong_name_is_2(run: Run) -> None:
    """The core's rule for names applies here too."""
    assert run("put", "jobs", "x").exit_code == 2


def test_queue_is_created_with_the_limits_asked_for(run: Run, name: str) -> None:
    """The first user of a name creates the queue."""
    run("put", name, *LIMITS, "x")
    with ipcq.open(name, create=False) as queue:
        assert (queue.max_messages, queue.max_message_size) == (4, 512)


def test_missing_queue_is_5_where_it_must_exist(run: Run, name: str) -> None:
    """With --no-create."""
    assert run("put", name, "--no-create", "x").exit_code == 5


def test_options_of_a_url_are_taken(run: Run, name: str) -> None:
    """A URL may have the limits for a new queue."""
    backend = ipcq.backends()[0].name
    run("put", f"{backend}://{name}?max_messages=4&max_message_size=512", "x")
    with ipcq.open(name, create=False) as queue:
        assert queue.max_messages == 4


def test_queue_that_ends_with_the_command_is_refused(run: Run, name: str) -> None:
    """Otherwise the item would be lost silently."""
    assert "this one exits" in run("put", name, "--backend", "memory", "x").stderr


def test_queue_that_lives_by_its_holders_is_refused(run: Run, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This command would be its only holder."""
    fleeting = replace(ipcq.backends()[0].capabilities or ipcq.Capabilities(), persistence=ipcq.Persistence.HOLDERS)
    monkeypatch.setattr(ipcq.Queue, "capabilities", property(lambda self: fleeting))
    assert "only while a process has them open" in run("put", name, *LIMITS, "x").stderr


def test_full_queue_without_a_wait_is_4(run: Run, queue: Queue) -> None:
    """With --wait 0."""
    queue.put_many(range(4))
    assert run("put", queue.name, "--wait", "0", "x").exit_code == 4


def test_full_queue_prints_the_number_of_items(run: Run, queue: Queue) -> None:
    """No item is lost silently."""
    assert run("put", queue.name, "--wait", "0", *"abcdef").stderr == (
        f"ipcq: queue {queue.name!r} on backend 'memory': no space became free before the timeout; "
        "ITEM 5 was not put; 4 items put before it\n"
    )


def test_full_queue_is_waited_for(run: Run, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default without a limit, as in a pipe, with a note after a while."""
    monkeypatch.setattr(verb, "DELAY_SECONDS", 0.01)
    queue.put_many(range(4))
    thread = threading.Timer(0.1, queue.get)
    thread.start()
    result = run("put", queue.name, "x")
    thread.join()
    assert (result.exit_code, result.stderr) == (
        0,
        f"ipcq: queue {queue.name!r} is full, waiting for space (--wait 0 fails instead)\n",
    )


def test_note_about_waiting_can_be_left_out(run: Run, queue: Queue) -> None:
    """With --quiet."""
    queue.put_many(range(4))
    thread = threading.Timer(0.1, queue.get)
    thread.start()
    result = run("put", queue.name, "--quiet", "x")
    thread.join()
    assert result.stderr == ""


def test_timeout_is_kept(run: Run, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """The note does not extend the timeout."""
    monkeypatch.setattr(verb, "DELAY_SECONDS", 0.01)
    queue.put_many(range(4))
    began = monotonic()
    run("put", queue.name, "--wait", "0.2", "x")
    assert monotonic() - began >= 0.2


def test_bad_json_names_its_line(run: Run, queue: Queue) -> None:
    """The items before it have been put."""
    assert run("put", queue.name, "--json", input="1\n\n2\n{]\n3\n").stderr == (
        "ipcq: line 4 of the input is not JSON: Expecting property name enclosed in double quotes at column 2; "
        "it was not put; 2 items put before it\n"
    )


def test_bad_json_is_1(run: Run, queue: Queue) -> None:
    """The command was right, its input was not."""
    assert run("put", queue.name, "--json", "{").exit_code == 1


def test_items_before_bad_json_are_in(run: Run, queue: Queue) -> None:
    """They were put as they arrived."""
    run("put", queue.name, "--json", input="1\n2\nx\n3\n")
    assert take_all(queue) == [1, 2]


@pytest.mark.parametrize("text", ["NaN", "[" * 100_000, "1" * 5000])
def test_json_beyond_reason_is_refused(run: Run, queue: Queue, text: str) -> None:
    """Whatever Python's parser raises becomes the same error."""
    assert "ITEM 1 cannot be read as JSON" in run("put", queue.name, "--json", text).stderr


def test_invalid_utf8_names_the_way_out(run: Run, queue: Queue) -> None:
    """Text is UTF-8; other bytes need --raw."""
    assert "--raw puts bytes unchanged" in run("put", queue.name, "-", input=b"a\n\xff\n").stderr


def test_item_that_cannot_be_encoded_is_1(run: Run, queue: Queue) -> None:
    """MessagePack has no integers of more than 64 bits."""
    assert run("put", queue.name, "--json", str(1 << 64)).exit_code == 1


@pytest.mark.parametrize("options", [("--raw",), ()])
def test_too_large_an_input_is_refused(run: Run, queue: Queue, options: tuple[str, ...]) -> None:
    """The error has the limit, and the rest is not read."""
    assert (
        "has more than the 512 bytes that the queue takes"
        in run("put", queue.name, *options, "-", input=b"x" * 100_000).stderr
    )


def test_interruption_prints_the_number_of_items(run: Run, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user needs the number to resume."""

    def interrupted(self: Queue, item: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ipcq.Queue, "put", interrupted)
    result = run("put", queue.name, "x")
    assert (result.exit_code, result.stderr) == (130, "ipcq: interrupted; 0 items put\n")


def test_quiet_interruption_prints_nothing(run: Run, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --quiet."""

    def interrupted(self: Queue, item: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ipcq.Queue, "put", interrupted)
    assert run("put", queue.name, "-q", "x").stderr == ""


def test_queue_that_was_shut_down_is_1(run: Run, queue: Queue) -> None:
    """No item can be put any more."""
    queue.shutdown()
    assert run("put", queue.name, "x").exit_code == 1


def test_line_is_put_as_soon_as_it_comes(start: Callable[..., Any], shared: Queue) -> None:
    """A program reading a pipe that stays open."""
    process = start("put", shared.name, "-")
    process.stdin.write("first\n")
    process.stdin.flush()
    assert shared.get(timeout=60) == "first"


def test_long_stream_passes_through_a_short_queue(start: Callable[..., Any], shared: Queue) -> None:
    """More items than the queue holds: the producer waits, and none is lost."""
    process = start("put", shared.name, "--json", "-", stdin=subprocess.PIPE)
    feeder = threading.Thread(target=process.communicate, args=("".join(f"{n}\n" for n in range(500)),))
    feeder.start()
    items = [shared.get(timeout=60) for _ in range(500)]
    feeder.join()  # otherwise its pipes would be closed too early
    assert items == list(range(500))


def test_interrupted_program_prints_the_number_of_items(start: Callable[..., Any], shared: Queue) -> None:
    """A real SIGINT while it waits for space."""
    process = start("put", shared.name, *"abcdef")
    assert "is full" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (130, "ipcq: interrupted; 4 items put\n")


def test_a_full_queue_drops_its_oldest_items_if_asked_to(run: Run, queue: Queue) -> None:
    """And says on stderr how many, unless it is to be quiet."""
    result = run("put", queue.name, "--drop-oldest", "a", "b", "c", "d", "e", "f")
    assert result.stderr == "ipcq: 2 items dropped to make room\n"
    assert run("put", queue.name, "--drop-oldest", "--quiet", "g").output == ""
    assert take_all(queue) == ["d", "e", "f", "g"]


def test_dropping_excludes_waiting(run: Run, queue: Queue) -> None:
    """A put that drops never waits."""
    result = run("put", queue.name, "--drop-oldest", "--wait", "1", "a")
    assert (result.exit_code, "mutually exclusive" in result.stderr) == (2, True)
