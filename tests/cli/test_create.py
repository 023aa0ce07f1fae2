"""``ipcq create``."""

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from click.testing import Result

import ipcq
from ipcq._cli import _creation
from processes.needs import usable

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]

LIMITS = ("--max-messages", "4", "--max-message-size", "512")


def test_queue_exists_afterwards(run: Run, name: str) -> None:
    """With the limits asked for."""
    run("create", name, *LIMITS)
    with ipcq.open(name, create=False) as queue:
        assert (queue.max_messages, queue.max_message_size) == (4, 512)


def test_it_prints_the_queue_that_it_created(run: Run, name: str) -> None:
    """Its backend and its limits."""
    backend = ipcq.backends()[0].name
    assert run("create", name, *LIMITS).stdout == f"{name} on {backend}: 4 messages of at most 512 bytes\n"


def test_quiet_prints_nothing(run: Run, name: str) -> None:
    """With --quiet."""
    assert run("create", name, *LIMITS, "-q").output == ""


def test_json_has_the_keys_of_ls(run: Run, name: str) -> None:
    """One object."""
    facts = json.loads(run("create", name, *LIMITS, "--json").stdout)
    assert (facts["name"], facts["messages"], facts["max_messages"]) == (name, 0, 4)


def test_queue_that_exists_is_1(run: Run, shared: Queue) -> None:
    """create asks for a new queue."""
    result = run("create", shared.name)
    assert (result.exit_code, "--exist-ok accepts it" in result.stderr) == (1, True)


def test_queue_that_exists_can_be_accepted(run: Run, shared: Queue) -> None:
    """With --exist-ok."""
    assert run("create", shared.name, "--exist-ok").exit_code == 0


def test_queue_that_exists_has_to_have_the_limits(run: Run, shared: Queue) -> None:
    """Otherwise it is not the queue that was asked for."""
    assert "--max-messages is 4, asked for 3" in run("create", shared.name, "--exist-ok", "--max-messages", "3").stderr


def test_mode_is_exact(run: Run, name: str) -> None:
    """In octal, whatever the umask."""
    run("create", name, *LIMITS, "--mode", "660")
    with ipcq.open(name, create=False) as queue:
        assert queue.mode == 0o660


@pytest.mark.parametrize("mode", ["999", "rw", "01777", "-1", "1_0"])
def test_odd_mode_is_2(run: Run, name: str, mode: str) -> None:
    """Permission bits are three octal digits."""
    assert run("create", name, f"--mode={mode}").exit_code == 2


def test_capability_can_be_required(run: Run, name: str) -> None:
    """With --require."""
    assert run("create", name, *LIMITS, "--require", "shutdown", "--require", "pollable").exit_code == 0


def test_unknown_capability_is_2(run: Run, name: str) -> None:
    """It is a typing error."""
    assert run("create", name, "--require", "magic").exit_code == 2


def test_buffer_size_is_passed_on(run: Run, name: str) -> None:
    """Backends without a limit in bytes refuse it."""
    result = run("create", name, "--buffer-size", "1000", "--max-messages", "4", "--backend", usable("mqueue"))
    assert "pass --max-messages instead of --buffer-size" in result.stderr


def test_open_timeout_is_passed_on(run: Run, name: str) -> None:
    """Infinity is allowed too."""
    assert run("create", name, *LIMITS, "--open-timeout", "inf", "--priorities").exit_code == 0


def test_option_of_a_backend_is_passed_on(run: Run, name: str) -> None:
    """The core decides whether the option exists."""
    result = run("create", name, "-o", "colour=red")
    assert (result.exit_code, "no option 'colour'" in result.stderr) == (2, True)


@pytest.mark.parametrize("options", [("-o", "colour"), ("-o", "mode=0666"), ("-o", "a=1", "-o", "a=2")])
def test_odd_option_of_a_backend_is_2(run: Run, name: str, options: tuple[str, ...]) -> None:
    """Without a value, one of open's own, or given twice."""
    assert run("create", name, *options).exit_code == 2


def test_put_takes_options_of_a_backend_too(run: Run, name: str) -> None:
    """It creates queues as well."""
    assert "no option 'colour'" in run("put", name, "-o", "colour=red", "x").stderr


def test_queue_inside_a_process_is_refused(run: Run, name: str) -> None:
    """It would end with this command."""
    assert "this one exits" in run("create", name, "--backend", "memory").stderr


def test_queue_that_goes_with_its_last_handle_is_refused(run: Run, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This command would be its only holder."""
    lasting = replace(ipcq.Capabilities(), scope=ipcq.Scope.HOST, persistence=ipcq.Persistence.KERNEL)
    monkeypatch.setattr(ipcq.Queue, "capabilities", property(lambda self: lasting))
    result = run("create", f"memory://{name}?lifetime=last-close")
    assert "only while a process has them open" in result.stderr


def test_capacity_only_in_bytes_is_not_printed_in_messages(
    run: Run, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no such number."""
    lasting = replace(ipcq.Capabilities(), scope=ipcq.Scope.HOST, persistence=ipcq.Persistence.KERNEL)
    monkeypatch.setattr(ipcq.Queue, "capabilities", property(lambda self: lasting))
    result = run("create", name, "--backend", "memory", "--buffer-size", "1000", "--max-message-size", "10")
    assert result.stdout == f"{name} on memory: at most 10 bytes\n"


def test_url_options_do_not_affect_the_look() -> None:
    """They apply only to a queue that is created."""
    assert _creation.open_existing("memory:///no-such?max_messages=4", "auto") is None


@pytest.mark.parametrize("option", ["exclusive", "fresh"])
def test_url_that_requires_a_new_queue_is_not_looked_up(queue: Queue, option: str) -> None:
    """Creating it finds that there is one, or removes it."""
    assert _creation.open_existing(f"{queue.backend}://{queue.name}?{option}=true", "auto") is None


def test_minimum_can_be_required(run: Run, name: str) -> None:
    """After a colon."""
    result = run("create", name, *LIMITS, "--require", "persistence:kernel", "--require", "max_message_size:512")
    assert result.exit_code == 0


def test_minimum_that_no_backend_has_is_1_with_both_figures(run: Run, name: str) -> None:
    """The actual value, and the required one."""
    result = run("create", name, *LIMITS, "--require", "persistence:synced")
    words = "its persistence is 'kernel', but at least 'synced' is required"
    assert (result.exit_code, words in result.stderr) == (1, True)


def test_unknown_minimum_is_2_with_the_known_ones(run: Run, name: str) -> None:
    """It is a typing error."""
    result = run("create", name, "--require", "persistence:paper")
    assert (result.exit_code, "one of process, holders, kernel, disk, synced" in result.stderr) == (2, True)


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> str:
    """Make IPCQ_BACKEND name a persistent backend that is not the best, and return its name."""
    ranked = [each for each in ipcq.backends() if each.usable and each.rank is not None and each.capabilities]
    names = [each.name for each in ranked if each.capabilities.persistence >= ipcq.Persistence.KERNEL]
    if len(names) < 2:
        pytest.skip("backend 'mqueue' cannot be used here: it works on linux, this is " + sys.platform)
    monkeypatch.setenv("IPCQ_BACKEND", names[1])
    return names[1]


def test_another_backend_than_the_best_is_reported(run: Run, name: str, second: str) -> None:
    """On stderr, with its limits and the reason."""
    first, *_ = run("create", name, *LIMITS).stderr.splitlines()
    assert first == (
        f"ipcq: queue {name!r} was created on backend {second!r}, with at most 4 messages of at most 512 bytes; "
        f"better backends were skipped: {ipcq.backends()[0].name}: IPCQ_BACKEND names {second!r}"
    )


def test_another_backend_than_the_best_is_not_reported_with_quiet(run: Run, name: str, second: str) -> None:
    """With --quiet."""
    assert run("create", name, *LIMITS, "-q").output == ""


def test_later_log_records_are_not_printed(run: Run, name: str, second: str) -> None:
    """The command restores the loggers."""
    before = logging.getLogger("ipcq").level, logging.getLogger("ipcq").handlers[:]
    run("create", name, *LIMITS)
    assert (logging.getLogger("ipcq").level, logging.getLogger("ipcq").handlers) == before


@pytest.fixture
def unmounted(second: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the queues of the second backend unlistable, and return its name."""
    listing = ipcq.Listing()
    listing.unlisted = {second: "it is not mounted: mount it"}
    monkeypatch.setattr(ipcq, "queues", lambda: listing)
    return second


def test_queue_that_ls_cannot_show_is_reported(run: Run, name: str, unmounted: str) -> None:
    """With the way out."""
    words = f"`ipcq ls` cannot show the queues of backend {unmounted!r}: it is not mounted: mount it"
    assert words in run("create", name, *LIMITS).stderr


def test_backend_that_was_named_is_not_reported(run: Run, name: str, unmounted: str) -> None:
    """A user who names a backend knows it."""
    assert run("create", name, *LIMITS, "--backend", unmounted).stderr == ""


@pytest.mark.needs("socketpair")
@pytest.mark.parametrize("verb", [("create",), ("put", "x")])
def test_queue_that_would_not_persist_is_refused_with_the_reason(
    run: Run, name: str, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    """If only a backend without persistence is usable."""
    monkeypatch.setenv("IPCQ_BACKEND", usable("socketpair"))
    result = run(verb[0], name, *verb[1:])
    ending = "IPCQ_BACKEND names 'socketpair'); make one usable, or start the consumer first\n"
    assert (result.exit_code, result.stderr.endswith(ending)) == (1, True)


@pytest.mark.needs("socketpair")
def test_queue_that_would_not_persist_is_not_created(run: Run, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for a moment."""
    from ipcq_socketpair import SocketpairBackend

    made: list[str] = []
    monkeypatch.setattr(SocketpairBackend, "create", lambda self, name, request: made.append(name))
    monkeypatch.setenv("IPCQ_BACKEND", usable("socketpair"))
    run("create", name)
    assert not made


def test_another_program_finds_it(program: Callable[..., Any], name: str) -> None:
    """It is a separate process."""
    program("create", name, *LIMITS)
    assert program("stat", name).returncode == 0
