"""The table of `open`'s options: each option reaches every place that has to know it."""

from collections.abc import Mapping
from typing import Any

import pytest

import ipcq
from core.conftest import Installed
from core.fakes import HOST, FakeBackend
from ipcq._opening import open_request
from ipcq._opening.address import Address, parse
from ipcq._opening.open_request import OpenRequest
from ipcq._opening.options import COMPARED, OPTIONS, Options
from ipcq.backend import Request
from ipcq.errors import InvalidArgument, QueueMismatch

#: For each option another value than the default, and its text in a URL. A new option needs a line here.
OTHERS: Mapping[str, tuple[Any, str]] = {
    "create": (False, "no"),
    "exclusive": (True, "yes"),
    "wait": (3.0, "3"),
    "read": (False, "false"),
    "write": (False, "0"),
    "mode": (0o640, "640"),
    "max_messages": (7, "7"),
    "max_message_size": (77, "77"),
    "buffer_size": (777, "777"),
    "priorities": (True, "1"),
    "lifetime": ("last-close", "last-close"),
    "serializer": ("raw", "raw"),
    "allow_pickle": (True, "true"),
    "require": (("peek",), "peek"),
    "other_users": (True, "true"),
    "after_unlink": ("continue", "continue"),
    "open_timeout": (5.0, "5"),
    "type": (int, "int"),
}

every_option = pytest.mark.parametrize("option", OPTIONS)


def asked(**options: Any) -> OpenRequest:
    """Return what `open` makes of these options."""
    return OpenRequest.of(Address("/jobs"), options)


@every_option
def test_an_option_counts(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for differs with it."""
    monkeypatch.setattr(open_request, "monotonic", lambda: 1.0)
    beside = {"create": False} if option == "wait" else {}
    assert asked(**beside, **{option: OTHERS[option][0]}) != asked(**beside)


@every_option
def test_an_option_left_out_is_its_default(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table's default is what counts."""
    monkeypatch.setattr(open_request, "monotonic", lambda: 1.0)
    assert asked(**{option: OPTIONS[option].default}) == asked()


@every_option
def test_an_option_is_read_from_a_url_or_refused_there(option: str) -> None:
    """As the table says."""
    value, text = OTHERS[option]
    if OPTIONS[option].in_url:
        assert parse(f"one:///jobs?{option}={text}").options == {option: value}
    else:
        with pytest.raises(InvalidArgument, match="a URL cannot set"):
            parse(f"one:///jobs?{option}={text}")


@every_option
def test_an_option_is_described(option: str) -> None:
    """The docstring of `open` has what the table says, with the default."""
    described = f"{option}: {OPTIONS[option].doc} Default: ``{OPTIONS[option].shown}``.\n"
    assert described in (ipcq.open.__doc__ or "")


@every_option
def test_an_option_that_is_mistyped_is_guessed(option: str) -> None:
    """Whichever it is."""
    with pytest.raises(InvalidArgument, match=f"did you mean '{option}'"):
        ipcq.open("/jobs", "memory", **{f"{option}x": OTHERS[option][0]})


def test_a_mode_is_described_in_octal() -> None:
    """384 says nothing to anybody."""
    assert "whatever the umask. Reading is consuming. Default: ``0o600``." in (ipcq.open.__doc__ or "")


def test_all_options_but_the_type_are_known_to_a_type_checker() -> None:
    """The overloads of `open` have the type."""
    assert {*Options.__annotations__, "type"} == set(OPTIONS)


@pytest.mark.parametrize("option", [name for name in OPTIONS if hasattr(Request(), name)])
def test_a_request_has_the_defaults_of_the_table(option: str) -> None:
    """What authors build in tests is what `open` asks for."""
    assert getattr(Request(), option) == OPTIONS[option].default


@pytest.mark.parametrize("option", COMPARED)
def test_a_queue_with_another_value_is_refused(installed: Installed, name: str, option: str) -> None:
    """Each option of a queue is compared on attaching, and the error names it."""
    backend = FakeBackend("one", capabilities=HOST)
    installed.backend(backend)
    with (
        ipcq.open(name, "one"),
        pytest.raises(QueueMismatch, match=rf"{option} is .*, asked for {OTHERS[option][0]!r}"),
    ):
        ipcq.open(name, "one", **{option: OTHERS[option][0]})


@pytest.mark.parametrize("option", [name for name, each in OPTIONS.items() if each.role == "new queue"])
def test_an_option_of_a_new_queue_is_not_compared(installed: Installed, name: str, option: str) -> None:
    """A queue that exists keeps what it was created with."""
    backend = FakeBackend("one", capabilities=HOST)
    installed.backend(backend)
    with ipcq.open(name, "one") as first, ipcq.open(name, "one", **{option: OTHERS[option][0]}) as second:
        assert getattr(first, option) == getattr(second, option) == OPTIONS[option].default
