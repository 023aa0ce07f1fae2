"""A pyshm queue when memory runs out during a step."""

from typing import Any

import pytest

import ipcq
from backends import pyshm

name = pyshm.name


def fail(*_: object) -> Any:
    """Simulate a call that runs out of memory."""
    raise MemoryError


@pytest.mark.parametrize("priorities", [False, True], ids=["in turn", "by priority"])
@pytest.mark.parametrize("verb", ["take", "commit"])
def test_a_batch_has_as_many_messages_as_memory_allowed(
    name: str, priorities: bool, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C36: the other messages stay in the queue, in order, wherever memory ran out."""
    with ipcq.open(
        name, "pyshm", max_messages=4, max_message_size=64, serializer="raw", priorities=priorities
    ) as queue:
        queue.put_many([b"1", b"2", b"3"])
        channel = queue._channel
        at, attribute = (channel._order, "take") if verb == "take" else (channel, "_commit")
        call, left = getattr(at, attribute), iter([True, False] if priorities or verb == "take" else [False])
        monkeypatch.setattr(at, attribute, lambda *given: call(*given) if next(left, True) else fail())
        taken = [data for data, _ in channel.try_get_many(3)]
        assert taken == [b"1"]
        assert [queue.get(timeout=0), queue.get(timeout=0)] == [b"2", b"3"]
        queue.unlink()


@pytest.mark.parametrize("priorities", [False, True], ids=["in turn", "by priority"])
def test_a_batch_without_memory_raises(name: str, priorities: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """C36: and takes nothing."""
    with ipcq.open(
        name, "pyshm", max_messages=4, max_message_size=64, serializer="raw", priorities=priorities
    ) as queue:
        queue.put_many([b"1", b"2"])
        with monkeypatch.context() as scarce:
            scarce.setattr(queue._channel, "_commit", fail)
            with pytest.raises(MemoryError):
                queue._channel.try_get_many(2)
        assert queue.get_many() == [b"1", b"2"]
        queue.unlink()


def test_a_get_succeeds_though_the_heap_is_not_updated_yet(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C36: the next step finishes the move."""
    with ipcq.open(name, "pyshm", max_messages=4, max_message_size=64, serializer="raw", priorities=True) as queue:
        queue.put_many([b"1", b"2", b"3"])
        with monkeypatch.context() as scarce:
            scarce.setattr(queue._channel._order, "apply", fail)
            assert queue.get(timeout=0) == b"1"
        assert [queue.get(timeout=0), queue.get(timeout=0)] == [b"2", b"3"]
        queue.unlink()
