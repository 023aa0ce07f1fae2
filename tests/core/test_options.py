"""The table of `open`'s options: each option takes effect, and URL, docs and errors know it."""

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

#: For each option, a value that is not the default, and its text in a URL. A new option needs a line here.
OTHERS: Mapping[str, tuple[Any, str]] = {
    "create": (False, "no"),
    "exclusive": (True, "yes"),
    "fresh": (True, "yes"),
    "wait": (3.0, "3"),
    "read": (False, "false"),
    "write": (False, "0"),
    "mode": (0o640, "640"),
    "max_messages": (7, "7"),
    "max_message_size": (77, "77"),
    "buffer_size": (777, "777"),
    "priorities": (True, "1"),
    "leases": (True, "yes"),
    "max_deliveries": (7, "7"),
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
    """Return the request that `open` makes of these options."""
    return OpenRequest.of(Address("/jobs"), options)


@every_option
def test_an_option_takes_effect(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It changes the request."""
    monkeypatch.setattr(open_request, "monotonic", lambda: 1.0)
    beside = {"create": False} if option == "wait" else {}
    assert asked(**beside, **{option: OTHERS[option][0]}) != asked(**beside)


@every_option
def test_an_omitted_option_has_its_default(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default is that of the table."""
    monkeypatch.setattr(open_request, "monotonic", lambda: 1.0)
    assert asked(**{option: OPTIONS[option].default}) == asked()


@every_option
def test_an_option_is_read_from_a_url_or_refused_there(option: str) -> None:
    """The table decides which."""
    value, text = OTHERS[option]
    if OPTIONS[option].in_url:
        assert parse(f"one:///jobs?{option}={text}").options == {option: value}
    else:
        with pytest.raises(InvalidArgument, match="a URL cannot set"):
            parse(f"one:///jobs?{option}={text}")


@every_option
def test_an_option_is_described(option: str) -> None:
    """The docstring of `open` has its text and default from the table."""
    described = f"{option}: {OPTIONS[option].doc} Default: ``{OPTIONS[option].shown}``.\n"
    assert described in (ipcq.open.__doc__ or "")


@every_option
def test_a_mistyped_option_gets_a_suggestion(option: str) -> None:
    """This works for each option."""
    with pytest.raises(InvalidArgument, match=f"did you mean '{option}'"):
        ipcq.open("/jobs", "memory", **{f"{option}x": OTHERS[option][0]})


def test_a_mode_is_described_in_octal() -> None:
    """384 would be hard to read."""
    assert "whatever the umask. Reading is consuming. Default: ``0o600``." in (ipcq.open.__doc__ or "")


def test_type_checkers_know_all_options_except_the_type() -> None:
    """`type` is a parameter of the overloads of `open`."""
    assert {*Options.__annotations__, "type"} == set(OPTIONS)


@pytest.mark.parametrize("option", [name for name in OPTIONS if hasattr(Request(), name)])
def test_a_request_has_the_defaults_of_the_table(option: str) -> None:
    """A request that authors build in tests is like one from `open`."""
    assert getattr(Request(), option) == OPTIONS[option].default


@pytest.mark.parametrize("option", COMPARED)
def test_a_queue_with_another_value_is_refused(installed: Installed, name: str, option: str) -> None:
    """Options of a queue are compared when a handle attaches, and the error names the difference."""
    backend = FakeBackend("one", capabilities=HOST)
    installed.backend(backend)
    with (
        ipcq.open(name, "one"),
        pytest.raises(QueueMismatch, match=rf"{option} is .*, asked for {OTHERS[option][0]!r}"),
    ):
        ipcq.open(name, "one", **{option: OTHERS[option][0]})


@pytest.mark.parametrize("option", [name for name, each in OPTIONS.items() if each.role == "new queue"])
def test_an_option_of_a_new_queue_is_not_compared(installed: Installed, name: str, option: str) -> None:
    """An existing queue keeps its value."""
    backend = FakeBackend("one", capabilities=HOST)
    installed.backend(backend)
    with ipcq.open(name, "one") as first, ipcq.open(name, "one", **{option: OTHERS[option][0]}) as second:
        assert getattr(first, option) == getattr(second, option) == OPTIONS[option].default
