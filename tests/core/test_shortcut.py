"""The class of a handle is Queue, or what its channel makes of it."""

from typing import Any

import pytest

import ipcq
from core.conftest import Installed
from core.fakes import FakeBackend, FakeChannel
from ipcq._handle import shortcut as _shortcut


class Quick(FakeChannel):
    """A channel whose handles are of a class of their own."""

    @classmethod
    def shortcut(cls, handle: type[Any], /) -> type[Any]:
        return type("Quick", (handle,), {"__slots__": ()})


@pytest.fixture
def channel(installed: Installed, name: str) -> FakeChannel:
    """Return a channel of that kind."""
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
    """Clause 21: a subclass."""
    made = _shortcut.class_for(channel)
    assert (made.__name__, made.__base__) == ("Quick", ipcq.Queue)


def test_a_kind_of_channel_is_asked_once(channel: FakeChannel) -> None:
    """What it returns is kept."""
    assert _shortcut.class_for(channel) is _shortcut.class_for(channel)


def test_the_switch_leaves_a_shortcut_out(channel: FakeChannel, monkeypatch: pytest.MonkeyPatch) -> None:
    """IPCQ_SHORTCUTS=0."""
    monkeypatch.setenv("IPCQ_SHORTCUTS", "0")
    assert _shortcut.class_for(channel) is ipcq.Queue


@pytest.mark.parametrize("value", ["", "1", "yes"])
def test_any_other_value_of_the_switch_is_none(
    channel: FakeChannel, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """0 alone is documented."""
    monkeypatch.setenv("IPCQ_SHORTCUTS", value)
    assert _shortcut.class_for(channel) is not ipcq.Queue
