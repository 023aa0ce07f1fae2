"""``ipcq peek``."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

import ipcq

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]


def test_next_item_is_printed(run: Run, queue: Queue) -> None:
    """The item that the next get would take."""
    queue.put_many(["a", "b"])
    assert run("peek", queue.name).stdout == "a\n"


def test_next_item_stays(run: Run, queue: Queue) -> None:
    """peek takes nothing."""
    queue.put("a")
    run("peek", queue.name)
    assert queue.qsize() == 1


@pytest.mark.parametrize(("options", "printed"), [(("--json",), '"a"\n'), (("--null",), "a\0"), (("--raw",), "\xa1a")])
def test_form_can_be_chosen(run: Run, queue: Queue, options: tuple[str, ...], printed: str) -> None:
    """As for get."""
    queue.put("a")
    assert run("peek", queue.name, *options).stdout_bytes.decode("latin-1") == printed


@pytest.mark.parametrize("options", [("--raw", "--json"), ("--raw", "--allow-pickle")])
def test_forms_exclude_each_other(run: Run, queue: Queue, options: tuple[str, ...]) -> None:
    """A combination that can never work is a usage error."""
    assert run("peek", queue.name, *options).exit_code == 2


@pytest.mark.parametrize("options", [(), ("--wait", "0.1")])
def test_empty_queue_is_3(run: Run, queue: Queue, options: tuple[str, ...]) -> None:
    """As for get."""
    assert run("peek", queue.name, *options).exit_code == 3


def test_missing_queue_is_5(run: Run, name: str) -> None:
    """peek creates nothing."""
    assert run("peek", name).exit_code == 5


def test_item_is_waited_for(run: Run, queue: Queue) -> None:
    """With --wait."""
    thread = threading.Timer(0.1, queue.put, ["late"])
    thread.start()
    result = run("peek", queue.name, "--wait", "60")
    thread.join()
    assert result.stdout == "late\n"


def test_url_names_the_backend(run: Run, queue: Queue) -> None:
    """As everywhere."""
    queue.put("a")
    assert run("peek", f"memory://{queue.name}").stdout == "a\n"


def test_undecodable_message_is_shown_in_base64(run: Run, queue: Queue) -> None:
    """The error says that it stays in the queue."""
    with ipcq.open(queue.name, serializer="raw") as raw:
        raw.put(b"\xc1")
    result = run("peek", queue.name)
    assert (
        result.exit_code,
        result.stderr.endswith("the message stays in the queue; its 1 bytes in base64: wQ==\n"),
    ) == (
        1,
        True,
    )


def test_error_of_a_backend_without_peek_names_one_with_it(program: Callable[..., Any], opaque: Queue) -> None:
    """On a real queue of the kernel."""
    opaque.put("a")
    result = program("peek", opaque.name, "--backend", opaque.backend)
    assert (result.returncode, "cannot look at a message without taking it: use --backend" in result.stderr) == (
        1,
        True,
    )


def test_a_queue_that_is_shut_down_is_not_waited_for(run: Run, queue: Queue) -> None:
    """No item can come any more."""
    queue.shutdown()
    result = run("peek", queue.name, "--wait", "600")
    assert (result.exit_code, "shut down" in result.stderr) == (1, True)
