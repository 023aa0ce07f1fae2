"""The queue that ``ipcq load`` creates: with the limits of the drained queue, or with limits from options."""

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
def in_test_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a directory in which files may be created."""
    monkeypatch.chdir(tmp_path)


def dump(messages: int | None = 1, **limits: Any) -> str:
    """Return the output of a drain of a queue with these limits."""
    return json.dumps({"ipcq": "messages", "version": 1, "queue": limits, "messages": messages}) + "\n" + MESSAGE


def read_limits(name: str) -> dict[str, Any]:
    """Return the limits with which the queue was created."""
    with ipcq.open(name, create=False) as queue:
        limits = ("mode", "max_messages", "max_message_size", "buffer_size", "priorities")
        return {"backend": queue.backend, **{limit: getattr(queue, limit) for limit in limits}}


def find_backend(**abilities: Any) -> str:
    """Return a usable backend with a rank whose capabilities have these values."""
    for info in ipcq.backends():
        if (
            info.usable
            and info.rank
            and all(getattr(info.capabilities, key) == able for key, able in abilities.items())
        ):
            return info.name
    pytest.skip("backend 'mqueue' cannot be used here: it works on linux, this is another")


@pytest.fixture
def without_bytes() -> str:
    """Return a backend without a limit in bytes."""
    return find_backend(peek=False, priorities=True)


@pytest.fixture
def with_bytes() -> str:
    """Return a backend that has a limit in bytes, and peek."""
    return find_backend(peek=True, priorities=True)


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
    run: Run, name: str, with_bytes: str, option: list[str], limit: str, value: Any
) -> None:
    """A limit that the file does not give is the backend's choice, as for create."""
    text = dump(max_messages=4, max_message_size=512, priorities=limit != "priorities" or not value)
    run("load", name, "-", "--backend", with_bytes, *option, input=text)
    assert read_limits(name)[limit] == value


def test_a_capacity_replaces_all_capacities_of_the_file(run: Run, name: str, with_bytes: str) -> None:
    """A limit in messages and one in bytes may contradict each other."""
    run("load", name, "-", "--backend", with_bytes, "--max-messages", "4000", input=dump(buffer_size=1 << 20))
    assert read_limits(name)["max_messages"] == 4000


def test_option_of_the_backend_is_passed_on(run: Run, name: str) -> None:
    """With -o; a backend without it refuses it."""
    assert "no option 'colour'" in run("load", name, "-", "-o", "colour=red", input=dump()).stderr


def test_wrong_mode_is_a_usage_error(run: Run, name: str) -> None:
    """As for create."""
    assert run("load", name, "-", "--mode", "9", input=dump()).exit_code == 2


def test_limit_that_the_backend_lacks_is_omitted(run: Run, name: str, without_bytes: str) -> None:
    """A limit in bytes, on a backend without one."""
    run("load", name, "-", "--backend", without_bytes, input=dump(buffer_size=1 << 20, max_message_size=512))
    assert (read_limits(name)["backend"], read_limits(name)["max_message_size"]) == (without_bytes, 512)


def test_omitted_limit_is_reported(run: Run, name: str, without_bytes: str) -> None:
    """With the reason."""
    told = run("load", name, "-", "--backend", without_bytes, input=dump(buffer_size=1 << 20)).stderr
    assert f"queue {name!r} is created without --buffer-size 1048576: queue {name!r} on backend" in told


def test_omitted_mode_is_reported_in_octal(run: Run, name: str, with_bytes: str) -> None:
    """Then no other user has access."""
    told = run("load", name, "-", "--backend", with_bytes, input=dump(mode=0o660)).stderr
    assert (read_limits(name)["mode"], "is created without --mode 0660: " in told) == (0o600, True)


def test_only_the_refused_limit_is_omitted(run: Run, name: str, without_bytes: str) -> None:
    """The mode is not the reason for the refusal."""
    text = dump(mode=0o660, buffer_size=1 << 20, max_message_size=512)
    run("load", name, "-", "--backend", without_bytes, input=text)
    assert read_limits(name)["mode"] == 0o660


def test_queue_with_too_little_space_without_the_limit_is_refused(run: Run, name: str, without_bytes: str) -> None:
    """Nobody takes from a new queue, so the load would wait forever."""
    text = dump(5000, buffer_size=1 << 20, max_message_size=512)
    result = run("load", name, "-", "--backend", without_bytes, input=text)
    assert (result.exit_code, "5000 messages do not fit" in result.stderr, ipcq.exists(name)) == (1, True, False)


def test_small_capacity_that_is_asked_for_is_accepted(run: Run, name: str, without_bytes: str) -> None:
    """A consumer may be waiting."""
    text = dump(5000, buffer_size=1 << 20, max_message_size=512)
    assert run("load", name, "-", "--backend", without_bytes, "--max-messages", "4", input=text).exit_code == 0


def test_message_size_beyond_the_backend_is_refused_with_the_way_out(run: Run, name: str, without_bytes: str) -> None:
    """Then no message is put."""
    result = run("load", name, "-", "--backend", without_bytes, input=dump(max_message_size=1 << 30))
    told = "messages may have 1073741824 bytes: if none is that large, pass a smaller --max-message-size"
    assert (result.exit_code, told in result.stderr, ipcq.exists(name)) == (1, True, False)


def test_message_size_that_is_asked_for_needs_no_way_out(run: Run, name: str, without_bytes: str) -> None:
    """The option itself is too large."""
    text = dump(max_message_size=512)
    told = run("load", name, "-", "--backend", without_bytes, "--max-message-size", str(1 << 30), input=text).stderr
    assert (": if none is that large" in told, "1073741824 were requested" in told) == (False, True)


def test_options_of_the_url_win(run: Run, name: str, with_bytes: str) -> None:
    """Its limits override those of the file."""
    run("load", f"{with_bytes}://{name}?max_messages=3", "-", input=dump(max_messages=4, buffer_size=1 << 20))
    assert read_limits(name)["max_messages"] == 3


def test_too_small_a_queue_is_refused_before_a_pipe_is_read(run: Run, queue: ipcq.Queue[Any]) -> None:
    """Messages that were read from a pipe cannot be read again."""
    result = run("load", queue.name, "-", input=dump(max_message_size=513))
    told = "takes messages of at most 512 bytes, but some may have 513: if none is larger than 512, "
    told += "pass --max-message-size 512"
    assert (result.exit_code, told in result.stderr, queue.qsize()) == (1, True, 0)


def test_message_size_that_is_asked_for_is_trusted(run: Run, queue: ipcq.Queue[Any]) -> None:
    """Messages may be smaller than the limit."""
    text = dump(max_message_size=513)
    assert run("load", queue.name, "-", "--max-message-size", "512", input=text).exit_code == 0


def test_file_is_loaded_as_far_as_it_fits(run: Run, queue: ipcq.Queue[Any], tmp_path: Path) -> None:
    """The file is still there afterwards."""
    (tmp_path / "file").write_text(dump(max_message_size=513))
    assert run("load", queue.name, "file").exit_code == 0


def test_existing_queue_must_have_the_limits_that_are_asked_for(run: Run, queue: ipcq.Queue[Any]) -> None:
    """Or it is refused."""
    assert "asked for 5" in run("load", queue.name, "-", "--max-messages", "5", input=dump()).stderr


def test_existing_queue_may_have_priorities_that_are_not_used(run: Run, name: str, memory: str) -> None:
    """With --no-priorities all messages are equal."""
    with ipcq.open(name, memory, priorities=True) as queue:
        text = dump() + '{"priority": 7, "base64": "oWI="}\n'
        run("load", name, "-", "--no-priorities", input=text)
        assert [queue.get_message(timeout=0).priority for _ in range(2)] == [0, 0]


def test_mode_is_for_a_queue_that_is_created(run: Run, queue: ipcq.Queue[Any]) -> None:
    """An existing queue keeps its own."""
    assert run("load", queue.name, "-", "--mode", "0666", input=dump()).exit_code == 0


def test_queue_that_appears_meanwhile_is_used_as_it_is(
    run: Run, queue: ipcq.Queue[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process created it after the look."""
    monkeypatch.setattr(_target, "open_existing", lambda *_, **__: None)
    assert (run("load", queue.name, "-", input=dump(max_messages=9)).exit_code, queue.qsize()) == (0, 1)


def test_refused_queue_is_not_left_behind(run: Run, name: str, memory: str) -> None:
    """It was created in vain."""
    run("load", name, "-", "--backend", memory, input=dump())
    assert not ipcq.exists(name, memory)


@pytest.mark.parametrize("facts", ['"queue": {}, "messages": "1"', '"queue": {"max_message_size": "9"}'])
def test_first_line_without_its_numbers_is_an_error(run: Run, name: str, facts: str) -> None:
    """Somebody changed it."""
    ipcq.open(name, "memory").close()
    result = run("load", name, "-", input=f'{{"ipcq": "messages", "version": 1, {facts}}}\n')
    assert (result.exit_code, "it was changed" in result.stderr) == (1, True)
