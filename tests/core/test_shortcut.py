"""The class of a handle is Queue, or a subclass that its channel makes."""

from typing import Any

import pytest

import ipcq
from core.conftest import Installed
from core.fakes import FakeBackend, FakeChannel
from ipcq._handle import shortcut as _shortcut


class Quick(FakeChannel):
    """A channel whose handles have their own class."""

    @classmethod
    def shortcut(cls, handle: type[Any], /) -> type[Any]:
        return type("Quick", (handle,), {"__slots__": ()})


@pytest.fixture
def channel(installed: Installed, name: str) -> FakeChannel:
    """Return a channel with a shortcut."""
    fake = FakeBackend("fake")
    installed.backend(fake)
    ipcq.open(name, "fake").close()
    channel = fake.channels[0]
    channel.__class__ = Quick
    return channel


def test_a_handle_without_a_shortcut_is_a_plain_queue(name: str) -> None:
    """The channel's default returns the class that it is given."""
    with ipcq.open(name, "memory") as queue:
        queue.unlink()
        assert type(queue) is ipcq.Queue


def test_a_channel_makes_the_class_of_its_handles(channel: FakeChannel) -> None:
    """Clause 21: it is a subclass of Queue."""
    made = _shortcut.class_for(channel)
    assert (made.__name__, made.__base__) == ("Quick", ipcq.Queue)


def test_a_class_of_channels_makes_one_class_of_handles(channel: FakeChannel) -> None:
    """The class is cached."""
    assert _shortcut.class_for(channel) is _shortcut.class_for(channel)


def test_the_environment_can_switch_off_shortcuts(channel: FakeChannel, monkeypatch: pytest.MonkeyPatch) -> None:
    """IPCQ_SHORTCUTS=0 does that."""
    monkeypatch.setenv("IPCQ_SHORTCUTS", "0")
    assert _shortcut.class_for(channel) is ipcq.Queue


@pytest.mark.parametrize("value", ["", "1", "yes"])
def test_any_other_value_of_the_variable_has_no_effect(
    channel: FakeChannel, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """Only 0 is documented."""
    monkeypatch.setenv("IPCQ_SHORTCUTS", value)
    assert _shortcut.class_for(channel) is not ipcq.Queue
