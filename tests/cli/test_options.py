"""The part of the command line that comes from the table of `open`'s options."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import click
import pytest
from click.testing import Result

import ipcq
from ipcq._cli import VERBS
from ipcq._cli._exits import line_of
from ipcq._opening import registry
from ipcq._opening.options import OPTIONS
from ipcq.errors import CorruptQueue, QueueShutDown

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]

FLAGS = {name: option.flag for name, option in OPTIONS.items() if option.flag}


def offered() -> Iterator[str]:
    """Yield the flags of all verbs."""
    for verb in VERBS:
        command: click.Command = import_module(f"ipcq._cli.verbs.{verb}").command
        for parameter in command.params:
            yield from parameter.opts


@pytest.mark.parametrize("flag", FLAGS.values())
def test_flag_of_the_table_is_offered(flag: str) -> None:
    """By at least one verb."""
    assert flag in set(offered())


@pytest.mark.parametrize("flag", FLAGS.values())
def test_flag_has_help_for_a_terminal(flag: str) -> None:
    """A sentence without the markup of docstrings, in every verb that offers the flag."""
    commands = [import_module(f"ipcq._cli.verbs.{verb}").command for verb in VERBS]
    helps = [parameter.help for command in commands for parameter in command.params if flag in parameter.opts]
    assert all(text.endswith(".") and "`" not in text for text in helps)


@pytest.mark.parametrize(("option", "flag"), FLAGS.items())
def test_line_names_the_flag_of_an_argument(option: str, flag: str) -> None:
    """For each argument of `ipcq.open` that an error of the core names."""
    assert line_of(ipcq.Unsupported(f"it cannot: leave {option}=7 out")) == f"it cannot: leave {flag} 7 out"


@pytest.mark.parametrize(("option", "flag"), FLAGS.items())
def test_line_names_the_flag_of_a_mismatch(option: str, flag: str) -> None:
    """If a queue differs from the request."""
    error = ipcq.QueueMismatch(f"lifetime is 'x', asked for 'y'; {option} is 4, asked for 3")
    assert line_of(error) == f"lifetime is 'x', asked for 'y'; {flag} is 4, asked for 3"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("max_messages must be an int of 1 or more, not 0", "--max-messages must be an int of 1 or more, not 0"),
        ("use mode=0o600", "use --mode 0600"),
        ("with allow_pickle=True on both ends", "with --allow-pickle on both ends"),
        ("the minimum 5 in require=: raise it", "the minimum 5 in --require: raise it"),
        ("and require= asks for it", "and --require asks for it"),
        ("require: max_message_size needs a minimum", "require: max_message_size needs a minimum"),
        ("its max_message_size is 8, but 9 is required", "its max_message_size is 8, but 9 is required"),
        ("option max_messages='four': no int", "option max_messages='four': no int"),
        ("pass max_messages instead of buffer_size", "pass --max-messages instead of --buffer-size"),
        ("it keeps packets in order: leave out priorities", "it keeps packets in order: leave out --priorities"),
        ("leave that out, or unlink it first", "leave that out, or `ipcq rm` it first"),
        (QueueShutDown.wording, "the queue is shut down: `ipcq rm` and recreate it to continue"),
        (CorruptQueue.wording, "the queue's contents are damaged: `ipcq rm` and recreate it"),
        ("or unlink the other", "or `ipcq rm` the other"),
        ("did not finish within open_timeout: find", "did not finish in time: find"),
        ("the handle was opened with lifetime='x'", "the handle was opened with lifetime='x'"),
    ],
)
def test_line_has_the_words_of_the_shell(text: str, line: str) -> None:
    """Flags and commands replace arguments and functions; other words stay."""
    assert line_of(ipcq.Unsupported(text)) == line


def test_option_of_open_is_not_a_backend_option(run: Run, name: str) -> None:
    """The error names the flag to use."""
    assert (
        "max_messages is not a backend option: use --max-messages." in run("put", name, "-o", "max_messages=4").stderr
    )


def test_option_of_open_without_a_flag_is_not_a_backend_option(run: Run, name: str) -> None:
    """There is no flag to use instead."""
    assert "lifetime is not a backend option." in run("put", name, "-o", "lifetime=last-close").stderr


@pytest.fixture
def lookups(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that collects the names looked up on the queue's backend."""
    kind = type(registry.backend(queue.backend))
    names: list[str] = []
    look = kind.exists
    monkeypatch.setattr(kind, "exists", lambda self, name: names.append(name) or look(self, name))
    return names


def test_put_looks_a_queue_up_once(run: Run, queue: Queue, lookups: list[str]) -> None:
    """The open is the look."""
    run("put", queue.name, "x")
    assert lookups == [queue.name]


def test_move_looks_each_queue_up_once(run: Run, queue: Queue, lookups: list[str]) -> None:
    """The open is the look."""
    with ipcq.open(f"{queue.name}-2", queue.backend) as target:
        queue.put("x")
        lookups.clear()
        run("move", queue.name, target.name)
    assert lookups == [queue.name, target.name]
