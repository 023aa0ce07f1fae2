"""The queue that ``ipcq load`` creates: with the limits of the one that was drained, or with its own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import ipcq
from ipcq._cli import _target

Run = Callable[..., Result]

MESSAGE = '{"priority": 0, "base64": "oWE="}\n'


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be where files may be made."""
    monkeypatch.chdir(tmp_path)


def drained(messages: int | None = 1, **limits: Any) -> str:
    """Return what a drain writes of a queue that has such limits."""
    return json.dumps({"ipcq": "messages", "version": 1, "queue": limits, "messages": messages}) + "\n" + MESSAGE


def made(name: str) -> dict[str, Any]:
    """Return what the queue was created with."""
    with ipcq.open(name, create=False) as queue:
        limits = ("mode", "max_messages", "max_message_size", "buffer_size", "priorities")
        return {"backend": queue.backend, **{limit: getattr(queue, limit) for limit in limits}}


def of_kind(**abilities: Any) -> str:
    """Return a backend between processes that has these capabilities and no others of them."""
    for info in ipcq.backends():
        if (
            info.usable
            and info.rank
            and all(getattr(info.capabilities, key) == able for key, able in abilities.items())
        ):
            return info.name
    pytest.skip("backend 'mqueue' cannot be used here: it works on linux, this is another")


@pytest.fixture
def in_messages() -> str:
    """Return a backend that bounds its queues by messages alone, and says no to a bound in bytes."""
    return of_kind(peek=False, priorities=True)


@pytest.fixture
def in_bytes() -> str:
    """Return a backend that bounds its queues by bytes as well, and can look at a message."""
    return of_kind(peek=True, priorities=True)


@pytest.mark.parametrize(
    ("option", "limit", "value"),
    [
        (["--max-messages", "7"], "max_messages", 7),
        (["--max-message-size", "300"], "max_message_size", 300),
        (["--buffer-size", "65536"], "buffer_size", 65536),
        (["--priorities"], "priorities", True),
        (["--no-priorities"], "priorities", False),
        (["--mode", "0600"], "mode", 0o600),
    ],
)
def test_options_replace_the_limits_of_the_file(
    run: Run, name: str, in_bytes: str, option: list[str], limit: str, value: Any
) -> None:
    """What the file does not say is the backend's choice, as with create."""
    text = drained(max_messages=4, max_message_size=512, priorities=limit != "priorities" or not value)
    run("load", name, "-", "--backend", in_bytes, *option, input=text)
    assert made(name)[limit] == value


def test_a_capacity_replaces_all_capacities_of_the_file(run: Run, name: str, in_bytes: str) -> None:
    """One in messages and one in bytes may contradict each other."""
    run("load", name, "-", "--backend", in_bytes, "--max-messages", "4000", input=drained(buffer_size=1 << 20))
    assert made(name)["max_messages"] == 4000


def test_option_of_the_backend_is_handed_on(run: Run, name: str) -> None:
    """With -o, and who does not have it says so."""
    assert "no option 'colour'" in run("load", name, "-", "-o", "colour=red", input=drained()).stderr


def test_wrong_mode_is_a_usage_error(run: Run, name: str) -> None:
    """As for create."""
    assert run("load", name, "-", "--mode", "9", input=drained()).exit_code == 2


def test_what_the_backend_cannot_have_is_left_out(run: Run, name: str, in_messages: str) -> None:
    """A bound in bytes, where there is none."""
    run("load", name, "-", "--backend", in_messages, input=drained(buffer_size=1 << 20, max_message_size=512))
    assert (made(name)["backend"], made(name)["max_message_size"]) == (in_messages, 512)


def test_what_is_left_out_is_told(run: Run, name: str, in_messages: str) -> None:
    """With the reason."""
    told = run("load", name, "-", "--backend", in_messages, input=drained(buffer_size=1 << 20)).stderr
    assert f"queue {name!r} is created without --buffer-size 1048576: queue {name!r} on backend" in told


def test_a_mode_that_is_left_out_is_told_in_octal(run: Run, name: str, in_bytes: str) -> None:
    """Nobody else is let in then."""
    told = run("load", name, "-", "--backend", in_bytes, input=drained(mode=0o660)).stderr
    assert (made(name)["mode"], "is created without --mode 0660: " in told) == (0o600, True)


def test_no_more_is_left_out_than_has_to_be(run: Run, name: str, in_messages: str) -> None:
    """The mode is not what is in the way."""
    text = drained(mode=0o660, buffer_size=1 << 20, max_message_size=512)
    run("load", name, "-", "--backend", in_messages, input=text)
    assert made(name)["mode"] == 0o660


def test_queue_that_has_too_little_space_without_it_is_refused(run: Run, name: str, in_messages: str) -> None:
    """Nobody takes from a queue that is new, so the load would wait for ever."""
    text = drained(5000, buffer_size=1 << 20, max_message_size=512)
    result = run("load", name, "-", "--backend", in_messages, input=text)
    assert (result.exit_code, "5000 messages do not fit" in result.stderr, ipcq.exists(name)) == (1, True, False)


def test_capacity_that_is_asked_for_is_no_reason_to_refuse(run: Run, name: str, in_messages: str) -> None:
    """Somebody may be waiting to take from it."""
    text = drained(5000, buffer_size=1 << 20, max_message_size=512)
    assert run("load", name, "-", "--backend", in_messages, "--max-messages", "4", input=text).exit_code == 0


def test_size_that_the_backend_cannot_have_is_refused_with_the_way_out(run: Run, name: str, in_messages: str) -> None:
    """Nothing is put then."""
    result = run("load", name, "-", "--backend", in_messages, input=drained(max_message_size=1 << 30))
    told = "messages may have 1073741824 bytes: if none is that large, pass a smaller --max-message-size"
    assert (result.exit_code, told in result.stderr, ipcq.exists(name)) == (1, True, False)


def test_size_that_was_asked_for_needs_no_way_out(run: Run, name: str, in_messages: str) -> None:
    """It is the option itself that is too much."""
    text = drained(max_message_size=512)
    told = run("load", name, "-", "--backend", in_messages, "--max-message-size", str(1 << 30), input=text).stderr
    assert (": if none is that large" in told, "1073741824 were requested" in told) == (False, True)


def test_url_has_the_last_word(run: Run, name: str, in_bytes: str) -> None:
    """What it says is not taken from the file."""
    run("load", f"{in_bytes}://{name}?max_messages=3", "-", input=drained(max_messages=4, buffer_size=1 << 20))
    assert made(name)["max_messages"] == 3


def test_too_small_a_queue_is_told_before_a_pipe_is_read(run: Run, queue: ipcq.Queue[Any]) -> None:
    """What is read from a pipe is not there any more."""
    result = run("load", queue.name, "-", input=drained(max_message_size=513))
    told = "takes messages of at most 512 bytes, but some may have 513: if none is larger than 512, "
    told += "pass --max-message-size 512"
    assert (result.exit_code, told in result.stderr, queue.qsize()) == (1, True, 0)


def test_size_that_is_asked_for_is_trusted(run: Run, queue: ipcq.Queue[Any]) -> None:
    """Messages need not be as large as they may be."""
    text = drained(max_message_size=513)
    assert run("load", queue.name, "-", "--max-message-size", "512", input=text).exit_code == 0


def test_file_is_loaded_as_far_as_it_fits(run: Run, queue: ipcq.Queue[Any], tmp_path: Path) -> None:
    """It is still there afterwards."""
    (tmp_path / "file").write_text(drained(max_message_size=513))
    assert run("load", queue.name, "file").exit_code == 0


def test_existing_queue_has_the_limits_that_are_asked_for(run: Run, queue: ipcq.Queue[Any]) -> None:
    """Or it is refused."""
    assert "asked for 5" in run("load", queue.name, "-", "--max-messages", "5", input=drained()).stderr


def test_existing_queue_may_have_priorities_that_are_not_used(run: Run, name: str, memory: str) -> None:
    """With --no-priorities all messages are equal."""
    with ipcq.open(name, memory, priorities=True) as queue:
        text = drained() + '{"priority": 7, "base64": "oWI="}\n'
        run("load", name, "-", "--no-priorities", input=text)
        assert [queue.get_message(timeout=0).priority for _ in range(2)] == [0, 0]


def test_mode_is_for_a_queue_that_is_created(run: Run, queue: ipcq.Queue[Any]) -> None:
    """An existing one keeps its own."""
    assert run("load", queue.name, "-", "--mode", "0666", input=drained()).exit_code == 0


def test_queue_that_appears_meanwhile_is_taken_as_it_is(
    run: Run, queue: ipcq.Queue[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else created it after the look."""
    monkeypatch.setattr(_target, "open_existing", lambda *_, **__: None)
    assert (run("load", queue.name, "-", input=drained(max_messages=9)).exit_code, queue.qsize()) == (0, 1)


def test_queue_that_would_not_last_is_not_left_behind(run: Run, name: str, memory: str) -> None:
    """It was made for nothing."""
    run("load", name, "-", "--backend", memory, input=drained())
    assert not ipcq.exists(name, memory)


@pytest.mark.parametrize("facts", ['"queue": {}, "messages": "1"', '"queue": {"max_message_size": "9"}'])
def test_first_line_without_its_numbers_is_told(run: Run, name: str, facts: str) -> None:
    """Somebody changed it."""
    ipcq.open(name, "memory").close()
    result = run("load", name, "-", input=f'{{"ipcq": "messages", "version": 1, {facts}}}\n')
    assert (result.exit_code, "it was changed" in result.stderr) == (1, True)
