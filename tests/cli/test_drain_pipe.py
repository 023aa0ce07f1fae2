"""``ipcq drain NAME -`` into a pipe: messages that were taken are kept until the reader has them."""

import errno
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import ipcq
from ipcq._cli import _message_format, _rescue, _rescue_marker, _sinks, cli
from ipcq.errors import NoSpace

pytest.importorskip("fcntl", reason="could not import 'fcntl', which only POSIX has")

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create rescue files in the test's directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the reader."""
    monkeypatch.setattr("ipcq._cli.verbs.drain.READER_SECONDS", 0.0)


@pytest.fixture
def drain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Return a function that drains in this process into a descriptor, and returns exit code and stderr."""

    def drain(name: str, descriptor: int, *options: str) -> tuple[int, str]:
        code = 0
        with monkeypatch.context() as patch, os.fdopen(descriptor, "w") as stream:
            patch.setattr(sys, "stdout", stream)
            try:
                code = cli.main(["drain", name, "-", *options], prog_name="ipcq", standalone_mode=False) or 0
            except SystemExit as end:
                code = int(str(end.code))
        return code, capsys.readouterr().err

    return drain


@pytest.fixture
def pipe() -> Iterator[Callable[[], tuple[int, int]]]:
    """Return a function that creates a pipe, whose reading end is closed after the test."""
    reading: list[int] = []

    def pipe() -> tuple[int, int]:
        ends = os.pipe()
        reading.append(ends[0])
        return ends

    yield pipe
    for each in reading:
        with suppress(OSError):
            os.close(each)


def rescue_file_in(directory: Path) -> Path:
    """Return the only rescue file."""
    (found,) = directory.glob("*.messages")
    return found


def messages(file: Path) -> list[str]:
    """Return the messages that are still to be loaded from a file."""
    return [json.loads(line)["base64"] for line in file.read_text().splitlines()[1:] if not line.startswith("#")]


def take_all(queue: Queue) -> list[Any]:
    items = []
    while not queue.empty():
        items.append(queue.get(timeout=0))
    return items


def test_messages_for_a_pipe_are_kept_in_a_file(
    queue: Queue, drain: Callable[..., Any], pipe: Callable[..., Any], directory: Path, no_wait: None
) -> None:
    """In the current directory."""
    queue.put_many(["a", "b"])
    drain(queue.name, pipe()[1])
    assert messages(rescue_file_in(directory)) == ["oWE=", "oWI="]


def test_the_pipe_carries_the_bytes_of_the_file(
    queue: Queue, drain: Callable[..., Any], pipe: Callable[..., Any], directory: Path, no_wait: None
) -> None:
    """So that load can find a message in the file."""
    queue.put("a")
    reading, writing = pipe()
    drain(queue.name, writing)
    assert os.read(reading, 65536) == rescue_file_in(directory).read_bytes()


def test_file_is_named_if_the_reader_continues(
    queue: Queue, drain: Callable[..., Any], pipe: Callable[..., Any], directory: Path, no_wait: None
) -> None:
    """With the commands that remove it and load it."""
    queue.put("a")
    code, told = drain(queue.name, pipe()[1])
    file = rescue_file_in(directory)
    assert (code, f"rm {file}" in told, f"`ipcq load {queue.name} {file}`" in told) == (0, True, True)


def test_file_is_named_even_if_notes_are_off(
    queue: Queue, drain: Callable[..., Any], pipe: Callable[..., Any], directory: Path, no_wait: None
) -> None:
    """It stays behind."""
    queue.put("a")
    told = drain(queue.name, pipe()[1], "--quiet")[1]
    assert str(rescue_file_in(directory)) in told


def test_file_is_named_at_once_if_the_reader_has_gone(
    queue: Queue, drain: Callable[..., Any], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """drain does not wait any longer, because nobody can take it any more."""
    monkeypatch.setattr("ipcq._cli.verbs.drain.READER_SECONDS", 3600.0)
    queue.put("a")
    reading, writing = os.pipe()

    def read() -> None:
        while os.read(reading, 65536):
            pass
        os.close(reading)

    reader = threading.Thread(target=read)
    reader.start()
    told = drain(queue.name, writing)[1]
    reader.join()
    assert f"rm {rescue_file_in(directory)}" in told


def test_no_file_is_named_if_it_has_gone(
    queue: Queue, drain: Callable[..., Any], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """load has removed it."""
    monkeypatch.setattr("ipcq._cli.verbs.drain.READER_SECONDS", 3600.0)
    queue.put("a")
    reading, writing = os.pipe()

    def read() -> None:
        while os.read(reading, 65536):
            pass
        rescue_file_in(directory).unlink()
        os.close(reading)

    reader = threading.Thread(target=read)
    reader.start()
    told = drain(queue.name, writing)[1]
    reader.join()
    assert told == "ipcq: 1 message taken\n"


def test_signal_ends_the_wait_for_the_reader(
    queue: Queue,
    drain: Callable[..., Any],
    pipe: Callable[..., Any],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C, and the file is named."""
    monkeypatch.setattr("ipcq._cli.verbs.drain.READER_SECONDS", 3600.0)
    monkeypatch.setattr("ipcq._cli.verbs.drain.sleep", lambda _: signal.raise_signal(signal.SIGTERM))
    queue.put("a")
    code, told = drain(queue.name, pipe()[1])
    assert (code, str(rescue_file_in(directory)) in told) == (143, True)


def test_gone_reader_is_an_error_that_names_the_file(
    queue: Queue, drain: Callable[..., Any], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message was taken, and it is unknown whether the reader processed it."""
    reading, writing = os.pipe()
    write = _sinks.FileSink.write

    def close(self: _sinks.FileSink, line: bytes) -> None:
        write(self, line)
        if b"oWE=" in line:
            os.close(reading)

    monkeypatch.setattr(_sinks.FileSink, "write", close)
    queue.put_many(["a", "b"])
    code, told = drain(queue.name, writing)
    file = rescue_file_in(directory)
    assert (code, messages(file), queue.qsize(), f"1 message taken, kept in {file}: " in told) == (1, ["oWE="], 1, True)


def test_gone_reader_before_the_first_message_leaves_no_file(
    queue: Queue, drain: Callable[..., Any], directory: Path
) -> None:
    """No message is taken."""
    reading, writing = os.pipe()
    os.close(reading)
    queue.put("a")
    assert (drain(queue.name, writing), list(directory.iterdir()), queue.qsize()) == ((1, ""), [], 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_names_the_file(
    queue: Queue,
    drain: Callable[..., Any],
    pipe: Callable[..., Any],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """It ends a write that hangs."""
    write = _sinks.StdoutSink.write

    def hang(self: _sinks.StdoutSink, line: bytes) -> None:
        if b"oWE=" in line:
            signal.raise_signal(number)
            signal.raise_signal(number)
        write(self, line)

    monkeypatch.setattr(_sinks.StdoutSink, "write", hang)
    queue.put("a")
    code, told = drain(queue.name, pipe()[1])
    assert (code, f"kept in {rescue_file_in(directory)}" in told) == (128 + number, True)


def test_plain_file_as_stdout_needs_no_rescue_file(queue: Queue, drain: Callable[..., Any], directory: Path) -> None:
    """``ipcq drain /x - > file``: that file stays."""
    queue.put("a")
    drain(queue.name, os.open("out", os.O_WRONLY | os.O_CREAT, 0o600))
    assert [each.name for each in directory.iterdir()] == ["out"]


def test_socket_has_a_reader_too(queue: Queue, drain: Callable[..., Any], directory: Path, no_wait: None) -> None:
    """Some shells join programs by sockets."""
    queue.put("a")
    ours, other = socket.socketpair()
    with ours:
        told = drain(queue.name, other.detach())[1]
    assert f"rm {rescue_file_in(directory)}" in told


def test_named_pipe_without_a_reader_is_gone(directory: Path) -> None:
    """The kernel reports it by another error than for a pipe."""
    os.mkfifo("fifo")
    here = os.open("fifo", os.O_PATH)
    assert _sinks._has_lost_its_reader(here)
    os.close(here)


def test_system_without_proc_cannot_check_the_reader(
    queue: Queue, drain: Callable[..., Any], directory: Path, monkeypatch: pytest.MonkeyPatch, no_wait: None
) -> None:
    """MacOS has no O_PATH."""
    monkeypatch.delattr(os, "O_PATH")
    queue.put("a")
    reading, writing = os.pipe()
    told = drain(queue.name, writing)[1]
    os.close(reading)
    assert f"rm {rescue_file_in(directory)}" in told


def test_path_of_the_file_can_be_given(
    queue: Queue, drain: Callable[..., Any], pipe: Callable[..., Any], directory: Path, no_wait: None
) -> None:
    """With --rescue."""
    queue.put("a")
    drain(queue.name, pipe()[1], "--rescue", "mine")
    assert messages(directory / "mine") == ["oWE="]


def test_file_that_exists_is_no_rescue_file(
    queue: Queue, drain: Callable[..., Any], pipe: Callable[..., Any], directory: Path
) -> None:
    """It is not touched, and no message is taken."""
    (directory / "mine").write_text("precious")
    queue.put("a")
    code, _ = drain(queue.name, pipe()[1], "--rescue", "mine")
    assert (code, (directory / "mine").read_text(), queue.qsize()) == (1, "precious", 1)


def test_rescue_needs_a_pipe(run: Run, queue: Queue) -> None:
    """A plain file is kept anyway."""
    assert run("drain", queue.name, "out", "--rescue", "mine").exit_code == 2


def test_name_of_a_leftover_file_is_not_used_again(queue: Queue, directory: Path) -> None:
    """A process that was killed may have had the same process id."""
    first = _rescue.rescue_file(queue, "drain", None)
    second = _rescue.rescue_file(queue, "drain", None)
    first.close(keep=True)
    second.close(keep=True)
    assert len(list(directory.glob("*.messages"))) == 2


def test_private_directory_replaces_an_unusable_current_one(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service may have / as its working directory."""

    def refuse() -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "getcwd", refuse)
    file = _rescue.rescue_file(queue, "drain", None)
    file.close(keep=False)
    assert os.path.dirname(file.path) == ipcq.backend.make_private_directory("rescue")


def test_rescue_file_that_cannot_be_created_is_an_error_before_anything_is_taken(
    queue: Queue, drain: Callable[..., Any], pipe: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the option that names one."""

    def refuse(part: str = "") -> str:
        raise NoSpace("full")

    monkeypatch.setattr(os, "getcwd", refuse)
    monkeypatch.setattr(_rescue, "make_private_directory", refuse)
    queue.put("a")
    code, told = drain(queue.name, pipe()[1])
    assert (code, "cannot create a rescue file (full): name one with --rescue FILE" in told, queue.qsize()) == (
        1,
        True,
        1,
    )


def run_pipe(first: list[str], second: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run two verbs with a pipe between them, as a shell does; stderr is that of both."""
    line = " | ".join(shlex.join([sys.executable, "-m", "ipcq", *verb]) for verb in (first, second))
    return subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, timeout=60, check=False)


def test_load_removes_the_file_once_it_has_all_messages(shared: Queue, directory: Path) -> None:
    """``ipcq drain /x - | ipcq load /y -``."""
    shared.put_many(["a", "b"])
    result = run_pipe(["drain", shared.name, "-"], ["load", shared.name + "-b", "-"])
    with ipcq.open(shared.name + "-b", create=False) as other:
        got = (other.qsize(), list(directory.iterdir()), result.stderr)
        other.unlink()
    assert got == (2, [], "ipcq: 2 messages taken\n")


def test_load_that_fails_leaves_all_messages_in_the_file(shared: Queue, directory: Path) -> None:
    """C37: a name without its slash; the error names the file."""
    shared.put_many(["a", "b"])
    result = run_pipe(["drain", shared.name, "-"], ["load", "b", "-"])
    assert (messages(rescue_file_in(directory)), str(rescue_file_in(directory)) in result.stderr) == (
        ["oWE=", "oWI="],
        True,
    )


def test_load_that_ends_early_leaves_the_rest_in_the_file(shared: Queue, directory: Path) -> None:
    """C37: messages in the queue are marked, so loading the file duplicates none."""
    shared.put_many("abcd")
    name = shared.name + "-b"
    result = run_pipe(["drain", shared.name, "-"], ["load", name, "-", "--max-messages", "2", "--wait", "0"])
    with ipcq.open(name, create=False) as other:
        first = take_all(other)
        assert f"resume with `ipcq load {name} {rescue_file_in(directory)}`" in result.stderr
        subprocess.run([sys.executable, "-m", "ipcq", "load", name, rescue_file_in(directory)], timeout=60, check=True)
        got = (first, other.qsize(), list(directory.iterdir()))
        other.unlink()
    assert got == (["a", "b"], 2, [])


@pytest.fixture
def stream(queue: Queue, directory: Path) -> str:
    """Return what a drain of two messages has written into a pipe and into the file ``kept``."""
    file = _rescue.rescue_file(queue, "drain", "kept")
    file.write(_message_format.header(queue, file.path))
    for item in (b"\xa1a", b"\xa1b"):
        file.write(_message_format.record(ipcq.Message(item, 0)))
    file.close(keep=True)
    return (directory / "kept").read_text()


def test_loaded_file_is_removed(run: Run, queue: Queue, stream: str, directory: Path) -> None:
    """A rescue file that is loaded by its name is used up, too."""
    run("load", queue.name, "kept")
    assert (take_all(queue), list(directory.iterdir())) == (["a", "b"], [])


def test_skipped_messages_count_as_put(run: Run, queue: Queue, stream: str, directory: Path) -> None:
    """With --skip, they have been put before."""
    run("load", queue.name, "-", "--skip", "1", input=stream)
    assert (take_all(queue), list(directory.iterdir())) == (["b"], [])


def test_too_large_a_skip_removes_nothing(run: Run, queue: Queue, stream: str, directory: Path) -> None:
    """It is an error."""
    run("load", queue.name, "-", "--skip", "3", input=stream)
    assert list_files(directory) == ["kept"]


def test_message_that_did_not_arrive_through_the_pipe_stays(
    run: Run, queue: Queue, stream: str, directory: Path
) -> None:
    """drain was killed between the write to the file and the write to the pipe."""
    run("load", queue.name, "-", input=stream[: stream.rindex("{")])
    assert messages(directory / "kept") == ["oWI="]


def test_reserved_space_behind_the_last_message_is_no_message(
    run: Run, queue: Queue, stream: str, directory: Path
) -> None:
    """NULs."""
    with (directory / "kept").open("a") as file:
        file.write("\0" * 100)
    run("load", queue.name, "-", input=stream)
    assert list_files(directory) == []


def test_file_that_was_removed_meanwhile_is_no_error(
    run: Run, queue: Queue, stream: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was to be removed anyway."""
    close = _rescue_marker.RescueMarker.close

    def remove(self: _rescue_marker.RescueMarker, *, done: bool) -> None:
        os.unlink(self.path)
        close(self, done=done)

    monkeypatch.setattr(_rescue_marker.RescueMarker, "close", remove)
    assert run("load", queue.name, "-", input=stream).exit_code == 0


def test_rescue_file_that_was_removed_meanwhile_is_no_error(queue: Queue, directory: Path) -> None:
    """Also when its creator is about to remove it."""
    file = _rescue.rescue_file(queue, "drain", "kept")
    (directory / "kept").unlink()
    file.close(keep=False)
    assert list_files(directory) == []


def test_other_file_of_that_name_is_not_touched(run: Run, queue: Queue, stream: str, directory: Path) -> None:
    """For example messages from another machine: each file has its own random token."""
    other = stream.replace('"token": "', '"token": "0')
    (directory / "kept").write_text(other)
    run("load", queue.name, "-", input=stream)
    assert (queue.qsize(), (directory / "kept").read_text()) == (2, other)


def test_missing_file_is_no_error(run: Run, queue: Queue, stream: str, directory: Path) -> None:
    """The messages came from another machine."""
    (directory / "kept").unlink()
    assert (run("load", queue.name, "-", input=stream).exit_code, queue.qsize()) == (0, 2)


@pytest.mark.parametrize("path", ["1", '""', '"\\u0000"', "null"])
def test_nonsense_instead_of_a_path_is_no_error(run: Run, queue: Queue, path: str) -> None:
    """Anybody can write such a line."""
    header = f'{{"ipcq": "messages", "version": 1, "queue": {{}}, "kept": {{"path": {path}}}}}\n'
    assert run("load", queue.name, "-", input=header).exit_code == 0


def test_error_names_the_file_instead_of_a_number_to_skip(run: Run, queue: Queue, stream: str, directory: Path) -> None:
    """Messages that were put are marked in the file."""
    queue.put_many("xyz")
    told = run("load", queue.name, "-", "--wait", "0", input=stream).stderr
    assert told.endswith(
        f"; 1 message put; the others are kept, resume with `ipcq load {queue.name} {directory / 'kept'}`\n"
    )


def list_files(directory: Path) -> list[str]:
    return [each.name for each in directory.iterdir()]


def test_marked_message_is_in_a_queue_already(run: Run, queue: Queue) -> None:
    """Wherever the file is by now."""
    header = '{"ipcq": "messages", "version": 1, "queue": {}}\n'
    run("load", queue.name, "-", input=header + '#"priority": 0, "base64": "oWE="}\n')
    assert queue.empty()


def test_file_of_marked_messages_is_removed(run: Run, queue: Queue, stream: str, directory: Path) -> None:
    """It has no message left to put."""
    (directory / "kept").write_text(stream.replace('{"priority"', '#"priority"'))
    run("load", queue.name, "kept")
    assert (list_files(directory), queue.qsize()) == ([], 0)


def test_mark_is_on_the_message_and_not_on_a_gap_before_it(
    run: Run, queue: Queue, stream: str, directory: Path
) -> None:
    """NULs that were reserved."""
    header, first, second, _ = stream.split("\n")
    (directory / "kept").write_text(f"{header}\n\0\0{first}\n{second}\n")
    queue.put_many("xyz")
    run("load", queue.name, "kept", "--wait", "0")
    assert (directory / "kept").read_text().split("\n")[1] == "\0\0#" + first[1:]


def test_shorter_message_does_not_leave_the_end_of_a_longer_one(queue: Queue, directory: Path) -> None:
    """The line of the next message overwrites that of the previous one."""
    file = _rescue.rescue_file(queue, "move", "kept", reserve_bytes=0)
    file.write(_message_format.header(queue, file.path))
    file.make_room()
    file.write(_message_format.record(ipcq.Message(b"long" * 20, 0)))
    file.clear()
    file.make_room()
    file.write(_message_format.record(ipcq.Message(b"\xa1a", 0)))
    there = (directory / "kept").read_text().rstrip("\0").split("\n")[1:]
    file.close(keep=False)
    assert [line.strip("\0") for line in there] == ['{"priority": 0, "base64": "oWE="}', ""]


def test_file_that_a_moved_directory_hides_is_not_removed(
    run: Run, queue: Queue, stream: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During the load, a foreign directory becomes a link to this user's home: the path then names another file."""
    (directory / "foreign").mkdir()
    (directory / "home").mkdir()
    (directory / "home" / "kept").write_text("precious")
    theirs = stream.replace(str(directory / "kept"), str(directory / "foreign" / "kept"))
    (directory / "foreign" / "kept").write_text(theirs)
    mark = _rescue_marker.RescueMarker.mark

    def exchange(self: _rescue_marker.RescueMarker, begin: int) -> None:
        mark(self, begin)
        if not (directory / "foreign").is_symlink():
            (directory / "foreign").rename("old")
            (directory / "foreign").symlink_to("home")

    monkeypatch.setattr(_rescue_marker.RescueMarker, "mark", exchange)
    run("load", queue.name, "-", input=theirs)
    assert ((directory / "home" / "kept").read_text(), os.listdir("old")) == ("precious", [])


@pytest.mark.parametrize("kind", ["fifo", "link", "directory", "device"])
def test_only_a_plain_file_is_opened(
    run: Run, queue: Queue, stream: str, directory: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Opening alone starts some devices, such as a watchdog."""
    target = directory / "other"
    make: dict[str, Callable[[], object]] = {
        "fifo": lambda: os.mkfifo(target),
        "link": lambda: target.symlink_to("kept"),
        "directory": target.mkdir,
        "device": lambda: None,
    }
    make[kind]()
    path = os.devnull if kind == "device" else str(target)
    opened: list[Any] = []
    really = os.open

    def note(path: Any, *arguments: Any, **options: Any) -> int:
        opened.append(os.path.basename(path))
        return really(path, *arguments, **options)

    monkeypatch.setattr(os, "open", note)
    monkeypatch.setattr(os, "supports_dir_fd", {note})
    run("load", queue.name, "-", input=stream.replace(str(directory / "kept"), path))
    assert (queue.qsize(), os.path.basename(path) in opened) == (2, False)


def test_relative_path_is_no_path(run: Run, queue: Queue, stream: str, directory: Path) -> None:
    """The writer of the first line does not know the directory of the load."""
    other = stream.replace(str(directory / "kept"), "kept")
    (directory / "kept").write_text(other)
    run("load", queue.name, "-", input=other)
    assert (directory / "kept").read_text() == other


def lines(stream: str) -> list[str]:
    return stream.splitlines(keepends=True)


def drop_first(stream: str) -> str:
    """Return what a filter such as ``grep`` between the two programs leaves."""
    header, _, second = lines(stream)
    return header + second


def replace_first(stream: str) -> str:
    return stream.replace("oWE=", "oWM=")


def mark_all(stream: str) -> str:
    return stream.replace('{"priority"', '#"priority"')


def blank_first(stream: str) -> str:
    header, first, second = lines(stream)
    return header + "\0" * len(first) + second


@pytest.mark.parametrize("change", [drop_first, replace_first, mark_all, blank_first])
def test_message_that_was_not_loaded_is_neither_marked_nor_removed(
    run: Run, queue: Queue, stream: str, directory: Path, change: Callable[[str], str]
) -> None:
    """C37: the pipe carried other lines than the file has, by a filter or by malice."""
    run("load", queue.name, "-", input=change(stream))
    assert "oWE=" in messages(directory / "kept")


def test_file_with_more_messages_than_arrived_is_not_marked_for_the_next_stream(
    run: Run, queue: Queue, stream: str, directory: Path
) -> None:
    """Two streams were joined, and the second one's drain ran on another machine."""
    header, first, second = lines(stream)
    elsewhere = header.replace(str(directory / "kept"), str(directory / "elsewhere"))
    run("load", queue.name, "-", input=header + first + elsewhere + second)
    assert (queue.qsize(), messages(directory / "kept")) == (2, ["oWI="])


def test_error_names_a_number_to_skip_if_the_file_has_other_lines(
    run: Run, queue: Queue, stream: str, directory: Path
) -> None:
    """Resuming with that file would put some messages twice."""
    queue.put_many("xyz")
    told = run("load", queue.name, "-", "--wait", "0", input=replace_first(stream)).stderr
    assert told.endswith("; 1 message put; resume with --skip 1\n")


def test_system_without_directory_descriptors_removes_the_file_too(
    run: Run, queue: Queue, stream: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows."""
    monkeypatch.setattr(os, "supports_dir_fd", set())
    run("load", queue.name, "-", input=stream)
    assert (take_all(queue), list_files(directory)) == (["a", "b"], [])
