"""``ipcq drain`` and ``ipcq load``: messages into a file and back."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import ipcq
from ipcq._cli import _message_reader, _sinks
from ipcq._cli._signals import record_signals

fcntl = pytest.importorskip("fcntl", reason="could not import 'fcntl', which only POSIX has")
resource = pytest.importorskip("resource", reason="could not import 'resource', which only POSIX has")

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]

HEADER = '{"ipcq": "messages", "version": 1, "queue": {}}\n'
MESSAGE = '{"priority": 0, "base64": "oWE="}\n'


@pytest.fixture(autouse=True)
def in_test_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Create rescue files in the test's directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of a file that a test may create."""
    return tmp_path / "messages"


@pytest.fixture
def without_peek(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a backend without peek."""
    real = ipcq.Queue.capabilities.fget
    monkeypatch.setattr(ipcq.Queue, "capabilities", property(lambda self: replace(real(self), peek=False)))


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def take_all(queue: Queue) -> list[Any]:
    """Take every message from the queue."""
    items = []
    while not queue.empty():
        items.append(queue.get(timeout=0))
    return items


def test_all_messages_are_in_the_file(run: Run, queue: Queue, file: Path) -> None:
    """With their priorities and their bytes."""
    with ipcq.open(queue.name, serializer="raw") as raw:
        raw.put(b"\xff\n\0")
        raw.put(b"")
    run("drain", queue.name, str(file))
    assert lines(file)[1:] == [{"priority": 0, "base64": "/woA"}, {"priority": 0, "base64": ""}]


def test_first_line_describes_the_queue(run: Run, queue: Queue, file: Path) -> None:
    """So that the queue can be created again."""
    queue.put("a")
    run("drain", queue.name, str(file))
    assert lines(file)[0]["queue"] == {
        "name": queue.name,
        "backend": "memory",
        "mode": 0o600,
        "max_messages": 4,
        "max_message_size": 512,
        "buffer_size": None,
        "priorities": False,
    }


def test_it_prints_the_number_of_messages(run: Run, queue: Queue, file: Path) -> None:
    """On stderr, because stdout may have the messages."""
    queue.put_many(["a", "b"])
    assert run("drain", queue.name, str(file)).stderr == "ipcq: 2 messages taken\n"


def test_quiet_prints_nothing(run: Run, queue: Queue, file: Path) -> None:
    """With --quiet."""
    queue.put("a")
    assert run("drain", queue.name, str(file), "-q").output == ""


def test_json_describes_the_drain(run: Run, queue: Queue, file: Path) -> None:
    """One object."""
    queue.put("a")
    told = json.loads(run("drain", queue.name, str(file), "--json").stdout)
    assert told == {"name": queue.name, "backend": "memory", "file": str(file), "messages": 1}


def test_json_needs_a_file(run: Run, queue: Queue) -> None:
    """Stdout cannot have both."""
    assert run("drain", queue.name, "-", "--json").exit_code == 2


def test_at_most_the_given_number_is_taken(run: Run, queue: Queue, file: Path) -> None:
    """With -n."""
    queue.put_many(["a", "b", "c"])
    run("drain", queue.name, str(file), "-n", "2")
    assert (len(lines(file)), queue.qsize()) == (3, 1)


def test_empty_queue_is_3_and_leaves_no_file(run: Run, queue: Queue, file: Path) -> None:
    """There are no messages to store."""
    assert (run("drain", queue.name, str(file)).exit_code, file.exists()) == (3, False)


def test_queue_that_was_shut_down_can_be_drained(run: Run, queue: Queue, file: Path) -> None:
    """Its messages can still be taken."""
    queue.put("a")
    queue.shutdown()
    assert run("drain", queue.name, str(file)).exit_code == 0


def test_file_that_exists_is_not_touched(run: Run, queue: Queue, file: Path) -> None:
    """And no message is taken."""
    file.write_text("precious")
    queue.put("a")
    result = run("drain", queue.name, str(file))
    assert (result.exit_code, file.read_text(), queue.qsize()) == (1, "precious", 1)


def test_missing_directory_is_1(run: Run, queue: Queue, tmp_path: Path) -> None:
    """And no message is taken."""
    queue.put("a")
    assert (run("drain", queue.name, str(tmp_path / "no" / "file")).exit_code, queue.qsize()) == (1, 1)


def test_file_is_private(run: Run, queue: Queue, file: Path) -> None:
    """Other users must not read the messages."""
    queue.put("a")
    run("drain", queue.name, str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_file_may_have_no_directory_in_its_name(
    run: Run, queue: Queue, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is created in the current directory."""
    monkeypatch.chdir(file.parent)
    queue.put("a")
    run("drain", queue.name, file.name)
    assert file.exists()


def test_file_is_on_disk_before_success_is_reported(
    run: Run, queue: Queue, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file, and the directory that names it."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    queue.put("a")
    run("drain", queue.name, str(file))
    assert synced == [str(file), str(file.parent)]


def test_message_of_a_lasting_queue_is_on_disk_before_the_next_is_taken(
    run: Run, queue: Queue, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue that survives a reboot must not lose a message in one."""
    durable = replace(queue.capabilities, persistence=ipcq.Persistence.DISK, peek=False)
    monkeypatch.setattr(ipcq.Queue, "capabilities", property(lambda self: durable))
    left = []
    monkeypatch.setattr(os, "fsync", lambda _: left.append(queue.qsize()))
    queue.put_many(["a", "b"])
    run("drain", queue.name, str(file))
    assert left[:3] == [2, 1, 0]


def test_full_disk_is_noticed_before_anything_is_taken(
    run: Run, queue: Queue, file: Path, monkeypatch: pytest.MonkeyPatch, without_peek: None
) -> None:
    """Blocks are reserved while the message is still in the queue."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    queue.put("a")
    result = run("drain", queue.name, str(file))
    assert (result.exit_code, queue.qsize(), file.exists()) == (1, 1, False)


def test_file_that_may_not_grow_is_noticed_before_anything_is_taken(
    program: Callable[..., Any], shared: Queue, file: Path
) -> None:
    """A real limit on a real queue: RLIMIT_FSIZE."""
    shared.put("a")
    result = program(
        "drain", shared.name, str(file), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    )
    assert (result.returncode, "File too large" in result.stderr, shared.qsize()) == (1, True, 1)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_file_system_that_cannot_reserve_is_used_nevertheless(
    run: Run, queue: Queue, file: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Only the write itself counts."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    queue.put("a")
    assert run("drain", queue.name, str(file)).exit_code == 0


def test_system_that_cannot_reserve_is_used_nevertheless(
    run: Run, queue: Queue, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MacOS has no posix_fallocate."""
    monkeypatch.delattr(os, "posix_fallocate")
    queue.put("a")
    assert run("drain", queue.name, str(file)).exit_code == 0


def test_unused_reserved_space_is_truncated(run: Run, queue: Queue, file: Path) -> None:
    """The file is as long as its lines."""
    queue.put("a")
    run("drain", queue.name, str(file))
    assert file.read_bytes().endswith(b'"oWE="}\n')


def test_message_is_in_the_file_before_it_is_taken(
    run: Run, queue: Queue, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the backend has peek, no kill at any point can lose it."""
    take = ipcq.Queue.get_message
    seen = []

    def get_message(self: Queue, **options: Any) -> Any:
        seen.append(b'"oWE="' in file.read_bytes())
        return take(self, **options)

    monkeypatch.setattr(ipcq.Queue, "get_message", get_message)
    queue.put("a")
    run("drain", queue.name, str(file), "-n", "1")
    assert seen == [True]


def test_message_that_another_consumer_took_is_not_in_the_file(
    run: Run, queue: Queue, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between peek and get: the file has the messages that were taken."""
    look = ipcq.Queue.peek_message

    def peek_message(self: Queue) -> Any:
        message = look(self)
        monkeypatch.undo()
        queue.get()
        return message

    queue.put_many(["somebody else's", "b"])
    monkeypatch.setattr(ipcq.Queue, "peek_message", peek_message)
    run("drain", queue.name, str(file))
    assert [line["base64"] for line in lines(file)[1:]] == ["oWI="]


def test_last_message_that_another_consumer_took_is_not_in_the_file(
    run: Run, queue: Queue, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no other message takes its place."""
    look = ipcq.Queue.peek_message

    def peek_message(self: Queue) -> Any:
        message = look(self)
        if message.item == b"\xa1b":
            queue.get()
        return message

    monkeypatch.setattr(ipcq.Queue, "peek_message", peek_message)
    queue.put_many(["a", "b"])
    run("drain", queue.name, str(file))
    assert [line["base64"] for line in lines(file)[1:]] == ["oWE="]


def test_message_that_cannot_be_written_is_on_stderr(
    run: Run, queue: Queue, file: Path, fail_write: Callable[[bytes, int], None], without_peek: None
) -> None:
    """It was taken, so it is printed as a line that load accepts."""
    fail_write(b"oWE=", errno.EIO)
    queue.put("a")
    assert MESSAGE.strip() in run("drain", queue.name, str(file)).stderr


def test_messages_go_to_stdout(program: Callable[..., Any], shared: Queue) -> None:
    """For '-', as a program."""
    shared.put("a")
    assert program("drain", shared.name, "-").stdout.splitlines()[1] == MESSAGE.strip()


def test_messages_go_to_a_terminal(terminal: Callable[..., Any], queue: Queue) -> None:
    """If the user asks for it."""
    queue.put("a")
    assert MESSAGE.strip() in terminal("drain", queue.name, "-").text


def test_terminal_that_has_gone_is_noticed_before_anything_is_taken(
    run: Run, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a pipe."""
    queue.put("a")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone, pytest.raises(BrokenPipeError):
        monkeypatch.setattr(sys, "stdout", gone)
        _sinks.StdoutSink().make_room()


def test_reader_that_has_gone_is_noticed_before_anything_is_taken(start: Callable[..., Any], shared: Queue) -> None:
    """``ipcq drain /x - | true``."""
    shared.put("a")
    reading, writing = os.pipe()
    os.close(reading)
    process = start("drain", shared.name, "-", stdout=writing)
    os.close(writing)
    complaint = process.communicate(timeout=60)[1]
    assert (complaint, shared.qsize()) == ("", 1)


def test_closed_stdout_is_an_error_before_anything_is_taken(program: Callable[..., Any], shared: Queue) -> None:
    """``ipcq drain /x - >&-``."""
    shared.put("a")
    result = program("drain", shared.name, "-", preexec_fn=lambda: os.close(1))
    assert (result.stderr, shared.qsize()) == ("ipcq: stdout is closed\n", 1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_it_between_two_messages(
    run: Run, queue: Queue, file: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """Messages that were taken are in the file, and the others are in the queue."""
    make_room = _sinks.FileSink.make_room

    def interrupted(self: _sinks.FileSink) -> None:
        make_room(self)
        if queue.qsize() == 2:
            signal.raise_signal(number)

    monkeypatch.setattr(_sinks.FileSink, "make_room", interrupted)
    queue.put_many(["a", "b", "c"])
    result = run("drain", queue.name, str(file))
    assert (result.exit_code, len(lines(file)), queue.qsize(), result.stderr) == (
        code,
        3,
        1,
        "ipcq: stopped: 2 messages taken, the others are still in the queue\n",
    )


def test_stopped_drain_can_be_quiet(run: Run, queue: Queue, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --quiet."""
    monkeypatch.setattr(_sinks.FileSink, "make_room", lambda self: signal.raise_signal(signal.SIGINT))
    queue.put("a")
    assert run("drain", queue.name, str(file), "-q").stderr == ""


def test_second_signal_ends_a_write_that_hangs(start: Callable[..., Any], name: str) -> None:
    """The reader does not read; the message is in the rescue file, which stderr names."""
    reading, writing = os.pipe()
    with ipcq.open(name, max_messages=1, max_message_size=8192) as queue:
        queue.put("x" * 8000)
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        process = start("drain", name, "-", stdout=writing)
        os.close(writing)
        while not queue.empty():
            assert process.poll() is None
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
    complaint = process.communicate(timeout=60)[1]
    os.close(reading)
    # A third signal may have ended the process itself.
    ended = process.returncode in {130, -signal.SIGINT}
    assert (ended, "1 message taken, kept in " in complaint) == (True, True)


DYING = """
import os, signal, sys
import ipcq
from ipcq._cli import _sinks, main

calls = 0


def dying(function, *, before):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == 3 and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        if calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


name, file, method, before = sys.argv[1:]
owner = ipcq.Queue if hasattr(ipcq.Queue, method) else _sinks.FileSink
setattr(owner, method, dying(getattr(owner, method), before=before == "before"))
main(["drain", name, file])
"""


@pytest.mark.parametrize(
    ("method", "when", "lost"),
    [
        ("get_message", "before", []),
        ("get_message", "after", ["c"]),
        ("write", "before", ["b"]),  # the first line is the header
        ("write", "after", []),
        ("make_room", "before", []),
        ("make_room", "after", []),
    ],
)
def test_killed_drain_loses_at_most_the_message_in_flight(
    opaque: Queue, run: Run, file: Path, method: str, when: str, lost: list[str]
) -> None:
    """C2: a SIGKILL before and after each step, on a queue without peek; load accepts the file."""
    opaque.put_many("abcd")
    program = [sys.executable, "-c", DYING, opaque.name, str(file), method, when]
    assert subprocess.run(program, timeout=60, check=False).returncode == -signal.SIGKILL
    rest = take_all(opaque)
    run("load", opaque.name, str(file))
    assert take_all(opaque) + rest == [each for each in "abcd" if each not in lost]


def test_drained_messages_are_loaded(run: Run, queue: Queue, file: Path) -> None:
    """The same messages in the same order."""
    queue.put_many(["a", {"b": [1, None]}])
    run("drain", queue.name, str(file))
    run("load", queue.name, str(file))
    assert take_all(queue) == ["a", {"b": [1, None]}]


def test_priorities_are_kept(run: Run, name: str, file: Path) -> None:
    """And restored."""
    with ipcq.open(name, "memory", priorities=True) as queue:
        queue.put("high", priority=7)
        queue.put("low")
        run("drain", name, str(file))
        run("load", name, str(file))
        assert [(m.item, m.priority) for m in (queue.get_message(), queue.get_message())] == [("high", 7), ("low", 0)]


def test_load_prints_the_number_of_messages(run: Run, queue: Queue, file: Path) -> None:
    """On stdout, because it is the result."""
    file.write_text(HEADER + MESSAGE)
    assert run("load", queue.name, str(file)).stdout == f"1 message put into {queue.name}\n"


def test_quiet_load_prints_nothing(run: Run, queue: Queue, file: Path) -> None:
    """With --quiet."""
    file.write_text(HEADER + MESSAGE)
    assert run("load", queue.name, str(file), "-q").output == ""


def test_json_describes_the_load(run: Run, queue: Queue, file: Path) -> None:
    """One object."""
    file.write_text(HEADER + MESSAGE * 3)
    told = json.loads(run("load", queue.name, str(file), "--json", "--skip", "1").stdout)
    assert told == {"name": queue.name, "backend": "memory", "messages": 2, "skipped": 1}


def test_stdin_can_be_loaded(run: Run, queue: Queue) -> None:
    """For '-'."""
    run("load", queue.name, "-", input=HEADER + MESSAGE)
    assert take_all(queue) == ["a"]


def test_files_can_be_joined(run: Run, queue: Queue) -> None:
    """By cat; a drain that was killed may leave NULs from its reserved blocks."""
    run("load", queue.name, "-", input=HEADER + MESSAGE + "\0" * 100 + HEADER + MESSAGE + "\0" * 100)
    assert take_all(queue) == ["a", "a"]


def test_first_messages_can_be_skipped(run: Run, queue: Queue) -> None:
    """With --skip."""
    run("load", queue.name, "-", "--skip", "1", input=HEADER + MESSAGE + MESSAGE.replace("oWE=", "oWI="))
    assert take_all(queue) == ["b"]


def test_no_more_messages_than_there_are_can_be_skipped(run: Run, queue: Queue) -> None:
    """It is an error."""
    result = run("load", queue.name, "-", "--skip", "3", input=HEADER + MESSAGE)
    assert (result.exit_code, result.stderr) == (1, "ipcq: the file has 1 message, fewer than --skip 3\n")


def test_queue_is_recreated_as_it_was(run: Run, shared: Queue, file: Path) -> None:
    """If it has been removed meanwhile."""
    shared.put("a")
    run("drain", shared.name, str(file))
    shared.unlink()
    run("load", shared.name, str(file))
    with ipcq.open(shared.name, create=False) as again:
        assert (again.max_messages, again.max_message_size, again.get()) == (4, 512, "a")


def test_queue_is_not_created_where_it_must_exist(run: Run, name: str) -> None:
    """With --no-create."""
    assert run("load", name, "-", "--no-create", input=HEADER + MESSAGE).exit_code == 5


def test_queue_that_ends_with_the_command_is_refused(run: Run, name: str) -> None:
    """As for put."""
    assert "this one exits" in run("load", name, "-", "--backend", "memory", input=HEADER).stderr


def test_missing_file_is_1(run: Run, queue: Queue, file: Path) -> None:
    """The error names it."""
    result = run("load", queue.name, str(file))
    assert (result.exit_code, str(file) in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1 is missing: the file is empty"),
        (
            "hello\n",
            "line 1 is plain text, but `ipcq load` reads output of `ipcq drain` or lines",
        ),
        ("a" + "ü" * 5000, "line 1 is plain text"),
        ("<a>\n</a>\n", "line 1 is XML or HTML"),
        ("a\0b\n", "line 1 is binary data"),
        (b"ab\xffcdefg\n", "line 1 is binary data"),
        ('{\n "id": 1\n}\n', "line 1 is not complete JSON, and every item needs its own line: jq -c . FILE"),
        ("[\n1]\n", "line 1 is not complete JSON, and every item needs its own line: jq -c . FILE"),
        (HEADER[:-5] + "\n", "line 1 is damaged or truncated"),
        (MESSAGE, "line 1 is not a header of `ipcq drain`"),
        (
            '{"id": 1}\nhello\n',
            "line 2 is not JSON, unlike the lines before it: Expecting value",
        ),
        ('{"id": 1}\n' + HEADER, "line 2 starts output of `ipcq drain` after lines of JSON"),
        (
            b"\x1f\x8b\x08",
            "or lines of JSON: gzip -dc FILE | ipcq load",
        ),
        (b"\x80\x04K\x01.", "this is a pickle"),
        (b"SQLite format 3\0", "this is an SQLite database"),
        ("[1]\n".encode("utf-16"), "this is UTF-16"),
        ('{"ipcq": "messages", "version": 1}\n', "line 1 is not a header of `ipcq drain`"),
        (HEADER.replace("1", "2"), "line 1 has version 2, but this ipcq reads 1"),
        (HEADER + MESSAGE + MESSAGE[:-3], "line 3 is damaged or truncated; 1 message put; resume with --skip 1"),
        (HEADER + '{"priority": 0}\n', "line 2 is not a message of `ipcq drain`"),
        (HEADER + '{"base64": "oWE="}\n', "line 2 is not a message of `ipcq drain`"),
        (HEADER + '{"priority": 0, "base64": "?"}\n', "line 2 is not a message of `ipcq drain`"),
        (HEADER + "[" * 100_000 + "\n", "line 2 is damaged or truncated"),
        (HEADER + '{"priority": -1, "base64": "oWE="}\n', "priority must be an int from 0 to 32767, not -1"),
        (HEADER + '{"priority": 0, "base64": "' + "A" * 1024 + '"}\n', "has 768 bytes, the limit is 512"),
    ],
)
def test_invalid_input_is_an_error(run: Run, queue: Queue, text: str | bytes, complaint: str) -> None:
    """The error has the line, and the number of messages that were put."""
    assert complaint in run("load", queue.name, "-", input=text).stderr


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ('{"id": 1}\n\n[2]\n  \n"three"\nnull', [{"id": 1}, [2], "three", None]),
        ("[1]\n", [[1]]),
        ("\n5\n", [5]),
        ('{"priority": 0, "base64": "oWE=", "more": 1}\n', [{"priority": 0, "base64": "oWE=", "more": 1}]),
        ('{"id": 1}\n{"ipcq": 1}\n', [{"id": 1}, {"ipcq": 1}]),
    ],
)
def test_lines_of_json_are_loaded_as_items(run: Run, queue: Queue, text: str, items: list[Any]) -> None:
    """As `ipcq put --json` does."""
    assert (run("load", queue.name, "-", input=text).exit_code, take_all(queue)) == (0, items)


def test_first_lines_of_json_can_be_skipped(run: Run, queue: Queue) -> None:
    """With --skip."""
    run("load", queue.name, "-", "--skip", "1", input="1\n2\n")
    assert take_all(queue) == [2]


def test_lines_of_json_create_a_queue_with_the_default_limits(run: Run, name: str, file: Path) -> None:
    """The lines do not describe a queue."""
    file.write_text("1\n")
    run("load", name, str(file))
    with ipcq.open(name, create=False) as queue:
        assert queue.get(timeout=0) == 1


def test_value_that_messagepack_cannot_encode_ends_a_load_of_json(run: Run, queue: Queue) -> None:
    """The error has the way out, and the command that resumes."""
    assert (
        "put it as text or as bytes; 1 message put; resume with --skip 1"
        in run("load", queue.name, "-", input=f"1\n{2**64}\n").stderr
    )


def test_full_queue_without_a_wait_is_4(run: Run, queue: Queue) -> None:
    """With --wait 0; the error says how to resume."""
    result = run("load", queue.name, "-", "--wait", "0", input=HEADER + MESSAGE * 6)
    assert (result.exit_code, result.stderr.endswith("; 4 messages put; resume with --skip 4\n")) == (4, True)


def test_load_resumes_where_it_ended(run: Run, queue: Queue, file: Path) -> None:
    """With the --skip of the error."""
    file.write_text(HEADER + "".join(MESSAGE.replace("oWE=", f"oW{letter}=") for letter in "EIMQUY"))
    run("load", queue.name, str(file), "--wait", "0")
    first = take_all(queue)
    run("load", queue.name, str(file), "--skip", "4")
    assert first + take_all(queue) == ["a", "b", "c", "d", "e", "f"]


def test_full_queue_is_waited_for(run: Run, queue: Queue) -> None:
    """By default without a limit."""
    thread = threading.Timer(0.3, queue.get)
    thread.start()
    result = run("load", queue.name, "-", input=HEADER + MESSAGE * 5)
    thread.join()
    assert (result.exit_code, queue.qsize()) == (0, 4)


def test_waiting_is_reported_after_a_while(run: Run, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once."""
    monkeypatch.setattr("ipcq._cli._putter.DELAY_SECONDS", 0.0)
    assert (
        run("load", queue.name, "-", "--wait", "0.3", input=HEADER + MESSAGE * 5).stderr.count("waiting for space") == 1
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_load_prints_how_to_resume(start: Callable[..., Any], shared: Queue, number: int, code: int) -> None:
    """A real signal while it waits for space; the count is exact."""
    process = start("load", shared.name, "-")
    process.stdin.write(HEADER + MESSAGE * 6)
    process.stdin.close()
    process.stdin = None
    assert "is full, waiting for space" in process.stderr.readline()
    process.send_signal(number)
    complaint = process.communicate(timeout=60)[1]
    assert (process.returncode, "4 messages put; resume with --skip 4\n" in complaint, shared.qsize()) == (
        code,
        True,
        4,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_a_load_between_two_tries(
    run: Run, queue: Queue, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """Never within a put, so that the count is exact."""

    def full(self: Queue, *_: Any, **__: Any) -> None:
        signal.raise_signal(number)
        raise ipcq.QueueFull

    monkeypatch.setattr(ipcq.Queue, "put", full)
    result = run("load", queue.name, "-", input=HEADER + MESSAGE)
    assert (result.exit_code, result.stderr.endswith("0 messages put; resume with --skip 0\n")) == (code, True)


def test_signal_raises_inside_a_call_that_may_block() -> None:
    """From the given count on, and not before."""
    with record_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SystemExit), stop.raising(2):
            signal.raise_signal(signal.SIGTERM)


def test_load_is_stopped_while_it_reads(start: Callable[..., Any], shared: Queue) -> None:
    """From a pipe into which nobody writes."""
    process = start("load", shared.name, "-")
    process.stdin.write(HEADER + MESSAGE)
    process.stdin.flush()
    assert shared.get(timeout=60) == "a"
    process.send_signal(signal.SIGINT)
    assert "1 message put; resume with --skip 1" in process.communicate(timeout=60)[1]


def test_signal_before_reading_ends_it(run: Run, queue: Queue, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was only noted, and a read could block indefinitely."""

    def interrupted(read: Callable[[int], bytes]) -> _message_reader.MessageReader:
        signal.raise_signal(signal.SIGINT)
        return _message_reader.MessageReader(read)

    monkeypatch.setattr("ipcq._cli.verbs.load.MessageReader", interrupted)
    file.write_text(HEADER + MESSAGE)
    assert run("load", queue.name, str(file)).exit_code == 130


def test_two_programs_pass_messages_through_a_pipe(
    program: Callable[..., Any], start: Callable[..., Any], shared: Queue
) -> None:
    """``ipcq drain /x - | ipcq load /y -``."""
    shared.put_many(["a", "b"])
    reading = start("drain", shared.name, "-")
    program("load", shared.name + "-other", "-", stdin=reading.stdout)
    with ipcq.open(shared.name + "-other", create=False) as other:
        other.unlink()
        assert other.max_messages == 4


def test_long_load_shows_a_bar(terminal: Callable[..., Any], queue: Queue, file: Path, monkeypatch: Any) -> None:
    """On a terminal, after a while."""
    monkeypatch.setattr("ipcq._cli._progress.DELAY_SECONDS", 0.0)
    monkeypatch.setattr("ipcq._cli._progress.UPDATE_SECONDS", 0.0)
    file.write_text(HEADER + MESSAGE * 4)
    assert "] 100%   4 messages put" in terminal("load", queue.name, str(file)).text


def test_short_load_shows_no_bar(terminal: Callable[..., Any], queue: Queue, file: Path) -> None:
    """A short operation needs none."""
    file.write_text(HEADER + MESSAGE * 4)
    assert terminal("load", queue.name, str(file)).text == f"4 messages put into {queue.name}\r\n"


def test_load_from_a_pipe_shows_no_percentage(
    queue: Queue, terminal: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    """The size of the input is unknown."""
    monkeypatch.setattr("ipcq._cli._progress.DELAY_SECONDS", 0.0)
    monkeypatch.setattr("ipcq._cli._progress.UPDATE_SECONDS", 0.0)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_text(HEADER + MESSAGE))
    writer.start()
    told = terminal("load", queue.name, str(fifo)).text
    writer.join()
    assert "\r1 messages put   " in told


def test_drain_shows_a_bar(terminal: Callable[..., Any], queue: Queue, file: Path, monkeypatch: Any) -> None:
    """On a terminal, after a while."""
    monkeypatch.setattr("ipcq._cli._progress.DELAY_SECONDS", 0.0)
    monkeypatch.setattr("ipcq._cli._progress.UPDATE_SECONDS", 0.0)
    queue.put_many(["a", "b"])
    assert "]  50%   1 messages taken" in terminal("drain", queue.name, str(file)).text


def test_bar_needs_a_terminal(run: Run, queue: Queue, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would clutter a log."""
    monkeypatch.setattr("ipcq._cli._progress.DELAY_SECONDS", 0.0)
    queue.put("a")
    assert run("drain", queue.name, str(file)).stderr == "ipcq: 1 message taken\n"


def test_bar_is_written_at_intervals(terminal: Callable[..., Any], queue: Queue, file: Path, monkeypatch: Any) -> None:
    """Not for each message."""
    monkeypatch.setattr("ipcq._cli._progress.DELAY_SECONDS", 0.0)
    queue.put_many(["a", "b"])
    assert terminal("drain", queue.name, str(file)).text.count("messages taken") == 2
