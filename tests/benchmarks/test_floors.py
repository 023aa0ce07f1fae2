"""The bare ring of the benchmarks moves messages as a queue does."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import floors
import same_thread

sys.path.pop(0)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the floors use system calls of Linux")

KINDS = ["Ring", "PlainRing", "DictRing"]


def items(kind: str) -> list[Any]:
    """Return messages of several sizes."""
    if kind == "DictRing":
        return [{}, same_thread.RECORD, {"id": 7, "": 1e300, "a" * 31: "", "large": 1 << 40, "no": False}]
    return [b"", b"1", bytes(64), bytes(range(256)) * 8]


@pytest.mark.parametrize("kind", KINDS)
def test_messages_come_out_unchanged_and_in_order(kind: str) -> None:
    """Also after the ring's position has wrapped around."""
    ring = getattr(floors.extension(), kind)()
    sent = items(kind)
    for turn in range(20_000):
        for item in sent:
            ring.put(item)
        came = [ring.get() for _ in sent]
        assert came == sent, turn


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_ring_raises(kind: str) -> None:
    """It cannot wait."""
    with pytest.raises(IndexError, match="empty"):
        getattr(floors.extension(), kind)().get()


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_ring_raises_and_keeps_its_messages(kind: str) -> None:
    """The first message is still the first."""
    ring = getattr(floors.extension(), kind)()
    sent = items(kind)[1]
    with pytest.raises(IndexError, match="full"):
        while True:
            ring.put(sent)
    assert ring.get() == sent


@pytest.mark.parametrize("item", [None, "text", {"a": []}, {1: b""}, {"a" * 32: 1}, {"id": -1}, {"id": 1 << 64}])
def test_a_ring_refuses_what_it_does_not_know(item: Any) -> None:
    """It is a floor for known messages, not a codec."""
    with pytest.raises(TypeError):
        floors.extension().DictRing().put(item)
    with pytest.raises(TypeError):
        floors.extension().Ring().put(item)
