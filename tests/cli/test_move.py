"""``ipcq move`` and ``ipcq copy``: messages from one queue into another."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import ipcq
from ipcq._cli import _sinks
from ipcq._cli._putter import Putter
from local_backends import local_backends

pytest.importorskip("fcntl", reason="could not import 'fcntl', which only POSIX has")

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]
VERBS = ("move", "copy")


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create rescue files in the test's directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make(name: str, memory: str) -> Iterator[Callable[..., Queue]]:
    """Return a function that creates a queue in this process; its name is that of the test and a suffix."""
    with ExitStack() as stack:

        def make(suffix: str, items: Any = (), backend: str = memory, **limits: Any) -> Queue:
            limits = {"max_messages": 8, "max_message_size": 512, **limits}
            queue: Queue = stack.enter_context(ipcq.open(name + suffix, backend, exclusive=True, **limits))
            stack.callback(queue.unlink)
            queue.put_many(items)
            return queue

        yield make


@pytest.fixture
def source(make: Callable[..., Queue]) -> Queue:
    """Return a queue with three messages."""
    return make("-source", "abc")


@pytest.fixture
def target(make: Callable[..., Queue]) -> Queue:
    """Return an empty queue."""
    return make("-target")


@pytest.fixture
def free(name: str) -> Iterator[str]:
    """Return the name of a queue that a verb may create."""
    yield name + "-free"
    for backend in local_backends():
        if ipcq.exists(name + "-free", backend.name):
            ipcq.unlink(name + "-free", backend.name)


@pytest.fixture
def without_peek(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a backend without peek."""
    real = ipcq.Queue.capabilities.fget
    monkeypatch.setattr(ipcq.Queue, "capabilities", property(lambda self: replace(real(self), peek=False)))


@pytest.fixture
def without_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a backend that does not count gets."""
    real = ipcq.Queue.stats
    monkeypatch.setattr(ipcq.Queue, "stats", lambda self: replace(real(self), gets=None))


def take_all(queue: Queue) -> list[Any]:
    items = []
    while not queue.empty():
        items.append(queue.get(timeout=0))
    return items


def list_files(directory: Path) -> list[str]:
    return [each.name for each in directory.iterdir()]


def messages_in(file: Path) -> list[str]:
    """Return the messages that are still to be loaded from a file."""
    return [json.loads(line)["base64"] for line in file.read_text().splitlines()[1:] if not line.startswith("#")]


def on_put(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[Any], object]) -> None:
    """Call a function before each item that this process puts into the queue."""
    put = ipcq.Queue.put

    def acting(self: Queue, item: Any, *arguments: Any, **options: Any) -> None:
        if self.name == name:
            act(item)
        put(self, item, *arguments, **options)

    monkeypatch.setattr(ipcq.Queue, "put", acting)


def raising(error: BaseException) -> Callable[[Any], None]:
    def act(_: Any) -> None:
        raise error

    return act


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
def test_priorities_are_kept_at_both_ends(run: Run, make: Callable[..., Queue], verb: str) -> None:
    """And the order with them, although a message that is put back early would be the next one again."""
    source, target = make("-source", priorities=True), make("-target", priorities=True)
    for item, priority in (("low", 0), ("high", 7), ("second", 7), ("middle", 3)):
        source.put(item, priority=priority)
    run(verb, source.name, target.name)
    expected = ["high", "second", "middle", "low"]
    assert (take_all(target), take_all(source)) == (expected, expected if verb == "copy" else [])


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


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch, target: Queue) -> Queue:
    """Return a queue on a backend without priorities."""
    real = ipcq.Queue.capabilities.fget
    monkeypatch.setattr(
        ipcq.Queue,
        "capabilities",
        property(lambda self: replace(real(self), priorities=self.name != target.name and real(self).priorities)),
    )
    return target


def test_priorities_that_would_be_lost_are_refused(run: Run, make: Callable[..., Queue], plain: Queue) -> None:
    """Before a message is taken."""
    source = make("-source", priorities=True)
    source.put("a", priority=1)
    result = run("move", source.name, plain.name)
    assert ("pass --no-priorities to put each" in result.stderr, source.qsize()) == (True, 1)


def test_priorities_that_were_not_used_are_not_lost(run: Run, make: Callable[..., Queue], plain: Queue) -> None:
    """peek shows the highest priority, and it is 0."""
    run("move", make("-source", "ab", priorities=True).name, plain.name)
    assert take_all(plain) == ["a", "b"]


def test_priorities_that_cannot_be_seen_are_refused(
    run: Run, make: Callable[..., Queue], plain: Queue, without_peek: None
) -> None:
    """Messages may have some."""
    source = make("-source", "a", priorities=True)
    result = run("move", source.name, plain.name)
    assert ("pass --no-priorities to put each" in result.stderr, source.qsize()) == (True, 1)


@pytest.mark.parametrize("looks", [True, False])
def test_priorities_can_be_left_out(
    run: Run, make: Callable[..., Queue], plain: Queue, looks: bool, request: pytest.FixtureRequest
) -> None:
    """With --no-priorities."""
    if not looks:
        request.getfixturevalue("without_peek")
    source = make("-source", priorities=True)
    source.put("a", priority=1)
    run("move", source.name, plain.name, "--no-priorities")
    assert take_all(plain) == ["a"]


def test_source_that_is_emptied_before_the_look_at_priorities_is_3(
    run: Run, make: Callable[..., Queue], plain: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another consumer."""
    source = make("-source", "a", priorities=True)
    monkeypatch.setattr(ipcq.Queue, "peek_message", raising(ipcq.QueueEmpty()))
    assert run("move", source.name, plain.name).exit_code == 3


@pytest.mark.parametrize("backend", ["mqueue", "pyshm", "shm"])
@pytest.mark.parametrize("end", ["source", "target"])
def test_queue_that_is_shut_down_is_refused_before_anything_is_taken(
    run: Run, make: Callable[..., Queue], backend: str, end: str
) -> None:
    """It accepts no message, so none could be put there, or put back."""
    source, target = make("-source", "a", backend), make("-target", (), backend)
    (source if end == "source" else target).shutdown()
    assert (run("copy", source.name, target.name).exit_code, source.qsize()) == (1, 1)


def test_queue_that_is_shut_down_can_be_moved_from(run: Run, source: Queue, target: Queue) -> None:
    """Its messages can still be taken."""
    source.shutdown()
    assert (run("move", source.name, target.name).exit_code, target.qsize()) == (0, 3)


@pytest.mark.parametrize("verb", VERBS)
def test_full_target_is_4_and_no_message_is_in_between(
    run: Run, source: Queue, make: Callable[..., Queue], directory: Path, verb: str
) -> None:
    """With --wait 0; it checks for space before it takes a message."""
    target = make("-target", max_messages=2)
    result = run(verb, source.name, target.name, "--wait", "0")
    left = ["c"] if verb == "move" else ["a", "b", "c"]
    told = f"2 messages {'moved' if verb == 'move' else 'copied'}, all others are still in '{source.name}'"
    assert (result.exit_code, told in result.stderr, take_all(source), list_files(directory)) == (4, True, left, [])


@pytest.mark.parametrize("verb", VERBS)
def test_space_is_waited_for(run: Run, source: Queue, make: Callable[..., Queue], verb: str) -> None:
    """By default without a limit."""
    target = make("-target", max_messages=2)
    thread = threading.Thread(target=lambda: target.get(timeout=60))
    thread.start()
    code = run(verb, source.name, target.name).exit_code
    thread.join()
    assert (code, take_all(target)) == (0, ["b", "c"])


def test_waiting_is_reported_after_a_while(
    run: Run, source: Queue, make: Callable[..., Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once."""
    monkeypatch.setattr("ipcq._cli._putter.DELAY_SECONDS", 0.0)
    told = run("move", source.name, make("-target", max_messages=2).name, "--wait", "0.1").stderr
    assert told.count("waiting for space") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("verb", VERBS)
def test_signal_ends_it_between_two_messages(
    run: Run,
    source: Queue,
    target: Queue,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    number: int,
    code: int,
) -> None:
    """Messages that were taken have arrived; copy first restores the order of the others."""
    on_put(monkeypatch, target.name, lambda item: item == b"\xa1b" and signal.raise_signal(number))
    result = run(verb, source.name, target.name)
    told = f"stopped: 2 messages {'moved' if verb == 'move' else 'copied'}, all others are still in '{source.name}'"
    left = ["c"] if verb == "move" else ["a", "b", "c"]
    assert (result.exit_code, told in result.stderr, take_all(source), list_files(directory)) == (code, True, left, [])


def test_stopped_move_can_be_quiet(run: Run, source: Queue, target: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --quiet."""
    on_put(monkeypatch, target.name, lambda _: signal.raise_signal(signal.SIGINT))
    assert run("move", source.name, target.name, "-q").stderr == ""


@pytest.mark.parametrize("verb", VERBS)
def test_signal_ends_the_wait_for_space(
    run: Run, source: Queue, make: Callable[..., Queue], directory: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """No message is taken meanwhile."""
    target = make("-target", max_messages=2)
    monkeypatch.setattr("ipcq._cli._putter.sleep_in_slices", lambda _: signal.raise_signal(signal.SIGTERM))
    assert (run(verb, source.name, target.name).exit_code, target.qsize(), list_files(directory)) == (143, 2, [])


@pytest.mark.parametrize("backend", ["mqueue", "pyshm", "shm"])
@pytest.mark.parametrize("verb", VERBS)
def test_target_that_is_shut_down_ends_the_wait_for_space(
    run: Run,
    source: Queue,
    make: Callable[..., Queue],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    backend: str,
) -> None:
    """No space becomes free as long as nobody takes its messages."""
    target = make("-target", "xy", backend, max_messages=2)
    steps = iter([target.shutdown, lambda: signal.raise_signal(signal.SIGTERM)])
    monkeypatch.setattr("ipcq._cli._putter.sleep_in_slices", lambda _: next(steps)())
    assert (run(verb, source.name, target.name).exit_code, target.qsize(), list_files(directory)) == (1, 2, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_message_without_space_is_kept(
    run: Run, source: Queue, target: Queue, directory: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The signal ends the wait, and the error names the file."""

    def full(item: Any) -> None:
        signal.raise_signal(number)
        raise ipcq.QueueFull

    on_put(monkeypatch, target.name, full)
    result = run("move", source.name, target.name, "--rescue", "mine")
    file = directory / "mine"
    told = f"1 message in no queue, kept in {file}: resume with `ipcq load {target.name} {file}`\n"
    assert (result.exit_code, result.stderr.endswith(told), messages_in(directory / "mine")) == (
        128 + number,
        True,
        ["oWE="],
    )


def test_message_that_the_target_refuses_is_kept(
    run: Run, source: Queue, target: Queue, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the suggested command puts it, once."""
    with monkeypatch.context() as patch:
        on_put(patch, target.name, raising(ipcq.NoSpace("no memory")))
        run("move", source.name, target.name, "--rescue", "mine")
    run("load", target.name, "mine")
    assert (take_all(target), take_all(source), list_files(directory)) == (["a"], ["b", "c"], [])


@pytest.mark.parametrize("error", [ipcq.NoSpace("no memory"), ipcq.QueueFull()])
def test_message_that_the_target_refuses_is_put_back_by_copy(
    run: Run, source: Queue, target: Queue, directory: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """And the order is as before."""
    on_put(monkeypatch, target.name, lambda item: item == b"\xa1b" and raising(error)(item))
    result = run("copy", source.name, target.name, "--wait", "0")
    assert (result.exit_code, take_all(source), take_all(target), list_files(directory)) == (
        4 if isinstance(error, ipcq.QueueFull) else 1,
        ["a", "b", "c"],
        ["a"],
        [],
    )


def test_target_that_is_removed_meanwhile_leaves_all_in_the_source(
    run: Run, source: Queue, free: str, monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    """In order."""
    with ipcq.open(free, max_messages=8, max_message_size=512) as target:
        on_put(monkeypatch, source.name, lambda item: item == b"\xa1a" and target.unlink())
        result = run("copy", source.name, free)
    assert (result.exit_code, "1 message copied" in result.stderr, take_all(source), list_files(directory)) == (
        1,
        True,
        ["a", "b", "c"],
        [],
    )


def test_full_disk_leaves_all_in_the_source(
    run: Run, make: Callable[..., Queue], target: Queue, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages that were taken are put back before the error is printed."""
    source = make("-source", "abc", priorities=True)
    write = _sinks.FileSink.write

    def full(self: _sinks.FileSink, line: bytes) -> None:
        if b"oWI=" in line:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, line)

    monkeypatch.setattr(_sinks.FileSink, "write", full)
    result = run("copy", source.name, target.name)
    assert (result.exit_code, sorted(take_all(source)), list_files(directory)) == (1, ["a", "b", "c"], [])


def test_signal_ends_the_wait_of_copy_and_all_messages_are_put_back(
    run: Run, source: Queue, target: Queue, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was no space after all."""

    def full(item: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        raise ipcq.QueueFull

    on_put(monkeypatch, target.name, full)
    assert (run("copy", source.name, target.name).exit_code, take_all(source), list_files(directory)) == (
        143,
        ["a", "b", "c"],
        [],
    )


def test_second_signal_ends_restoring_the_order(
    run: Run, source: Queue, target: Queue, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages that were taken are still put back."""
    on_put(monkeypatch, source.name, lambda _: signal.raise_signal(signal.SIGTERM))
    assert (run("copy", source.name, target.name).exit_code, take_all(source), list_files(directory)) == (
        143,
        ["c", "a", "b"],
        [],
    )


def test_third_signal_ends_putting_back(
    run: Run, make: Callable[..., Queue], target: Queue, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remaining messages are in the file, which stderr names with the source."""
    source = make("-source", "abc", priorities=True)

    def full(item: Any) -> None:
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        raise ipcq.QueueFull

    with monkeypatch.context() as patch:
        on_put(patch, source.name, lambda item: item == b"\xa1b" and full(item))
        result = run("copy", source.name, target.name, "--rescue", "mine")
    assert (
        f"2 messages in no queue, kept in {directory / 'mine'}: resume with `ipcq load {source.name} " in result.stderr
    )
    run("load", source.name, "mine")
    assert (result.exit_code, take_all(source), take_all(target), list_files(directory)) == (
        143,
        ["a", "b", "c"],
        ["a", "b", "c"],
        [],
    )


def test_source_that_is_shut_down_meanwhile_leaves_a_file(
    run: Run, source: Queue, target: Queue, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No message can be put back."""
    on_put(monkeypatch, target.name, lambda _: source.shutdown())
    result = run("copy", source.name, target.name, "--rescue", "mine")
    assert (result.exit_code, messages_in(directory / "mine"), take_all(source)) == (1, ["oWE="], ["b", "c"])


def test_messages_that_others_take_meanwhile_are_not_copied_twice(
    run: Run, source: Queue, target: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue counts gets, so copy recognizes the messages that it has put back."""
    on_put(monkeypatch, target.name, lambda item: item == b"\xa1a" and source.get())
    run("copy", source.name, target.name)
    assert (take_all(target), sorted(take_all(source))) == (["a", "c"], ["a", "c"])


def test_last_message_that_may_have_been_put_back_is_not_copied(
    run: Run, source: Queue, target: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other consumers took the earlier ones between a look and the get."""
    get = ipcq.Queue.get_message
    calls = []

    def take(self: Queue, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            monkeypatch.undo()
            source.get()
            source.get()
        return get(self, *arguments, **options)

    monkeypatch.setattr(ipcq.Queue, "get_message", take)
    run("copy", source.name, target.name)
    assert (take_all(target), take_all(source)) == (["a"], ["a"])


def test_no_message_is_copied_twice_without_a_count_of_gets(
    run: Run, source: Queue, target: Queue, monkeypatch: pytest.MonkeyPatch, without_counts: None
) -> None:
    """Then messages are put back after all have been taken."""
    on_put(monkeypatch, target.name, lambda item: item == b"\xa1a" and source.get())
    run("copy", source.name, target.name)
    assert (take_all(target), take_all(source)) == (["a", "c"], ["a", "c"])


def test_copy_of_messages_that_others_have_taken_is_no_error(
    run: Run, source: Queue, target: Queue, monkeypatch: pytest.MonkeyPatch, without_counts: None
) -> None:
    """All messages, after the first."""
    on_put(monkeypatch, target.name, lambda _: source.clear())
    assert (run("copy", source.name, target.name).exit_code, take_all(source)) == (0, ["a"])


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


@pytest.mark.needs("socketpair")
@pytest.mark.needs("shm")  # without it the source is on mqueue and has priorities, which is refused first
def test_new_queue_without_a_holder_is_refused(program: Callable[..., Any], shared: Queue, free: str) -> None:
    """And no message is taken."""
    shared.put("a")
    result = program("move", shared.name, f"socketpair://{free}")
    assert ("start the consumer first" in result.stderr, shared.qsize()) == (True, 1)


DYING = """
import os, signal, sys
import ipcq
from ipcq._cli import main
from ipcq._cli._sinks import FileSink
from ipcq._cli._putter import Putter

verb, source, target, file, method, when, number = sys.argv[1:]
owner = {"get_message": ipcq.Queue, "put": Putter}.get(method, FileSink)
real = getattr(owner, method)
calls = 0


def dying(*arguments, **options):
    global calls
    calls += 1
    if calls == int(number) and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*arguments, **options)
    if calls == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return result


setattr(owner, method, dying)
main([verb, source, target, "--rescue", file])
"""


def run_and_die(*arguments: str) -> None:
    program = [sys.executable, "-c", DYING, *arguments]
    assert subprocess.run(program, timeout=60, check=False, capture_output=True).returncode == -signal.SIGKILL


#: Where a move dies in the second message of three, and which message is then duplicated or lost.
DEATHS = (
    ("get_message", "before", ["b"], []),  # in the source and in the file
    ("get_message", "after", [], ["b"]),  # in the file, if the backend has peek
    ("write", "before", [], ["b"]),
    ("put", "before", [], []),
    ("put", "after", ["b"], []),  # in the target and in the file
    ("clear", "before", ["b"], []),
    ("clear", "after", [], []),
)


@pytest.mark.parametrize("backend", ["mqueue", "shm"])
@pytest.mark.parametrize(("method", "when", "doubled", "lost"), DEATHS)
def test_killed_move_loses_at_most_the_message_in_flight(
    run: Run,
    make: Callable[..., Queue],
    directory: Path,
    backend: str,
    method: str,
    when: str,
    doubled: list[str],
    lost: list[str],
) -> None:
    """C37: a SIGKILL before and after each step; the suggested command puts the messages of the file."""
    source, target = make("-source", "abc", backend), make("-target", (), backend)
    # The first line that is written is the header.
    run_and_die("move", source.name, target.name, "mine", method, when, "3" if method == "write" else "2")
    run("load", target.name, "mine")
    looks = source.capabilities.peek
    if not looks and method == "get_message" and when == "before":
        doubled = []
    expected = [each for each in "abc" if looks or each not in lost]
    assert sorted([*take_all(target), *take_all(source)]) == sorted([*expected, *doubled])


@pytest.mark.parametrize("backend", ["mqueue", "shm"])
@pytest.mark.parametrize("number", ["2", "5"])
@pytest.mark.parametrize(("method", "when"), [("put", "before"), ("put", "after"), ("get_message", "after")])
def test_killed_copy_loses_no_message_that_is_in_the_file(
    run: Run, make: Callable[..., Queue], directory: Path, backend: str, number: str, method: str, when: str
) -> None:
    """C37: the suggested command puts back the missing messages; at most the one in flight is there twice."""
    if method == "get_message":
        number = str((int(number) + 1) // 2)
    source, target = make("-source", "abc", backend), make("-target", (), backend)
    run_and_die("copy", source.name, target.name, "mine", method, when, number)
    run("load", source.name, "mine")
    left = take_all(source)
    lost = 1 if method == "get_message" and not source.capabilities.peek else 0
    assert len(set(left)) == 3 - lost and len(left) <= 4


def test_write_that_fails_after_the_get_prints_the_message(
    run: Run, source: Queue, target: Queue, monkeypatch: pytest.MonkeyPatch, without_peek: None
) -> None:
    """Neither queue nor file has it."""
    write = _sinks.FileSink.write

    def fail(self: _sinks.FileSink, line: bytes) -> None:
        if b"oWE=" in line:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        write(self, line)

    monkeypatch.setattr(_sinks.FileSink, "write", fail)
    told = run("move", source.name, target.name).stderr
    assert '`ipcq load` accepts its line: {"priority": 0, "base64": "oWE="}' in told
