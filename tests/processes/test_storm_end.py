"""How a storm ends where its queue cannot be shut down."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ipcq
from ipcq.testing.oracle import Tag
from ipcq.testing.processes import fresh_name
from ipcq.testing.workers import Worker, sweep
from processes.needs import usable


@pytest.fixture
def alone() -> Iterator["ipcq.Queue[object]"]:
    with ipcq.open(fresh_name(), usable("memory"), max_messages=4, max_message_size=512) as queue:
        yield queue
        queue.unlink()


@pytest.mark.parametrize("step", [Worker.produce, Worker.consume], ids=["produce", "consume"])
def test_a_file_ends_who_waits_at_a_queue_that_cannot_be_shut_down(
    step: Callable[[Worker], None], alone: "ipcq.Queue[object]", tmp_path: Path
) -> None:
    """They look for it each time that a slice of their patience is over."""
    over = tmp_path / "over"
    over.touch()
    if step is Worker.produce:
        alone.put_many(range(4))
    worker = Worker(alone, str(tmp_path / "1.ledger"), 1, over=str(over))
    with pytest.raises(ipcq.QueueShutDown):
        step(worker)
    worker.end()


def test_who_waits_in_slices_is_as_patient_as_others(alone: "ipcq.Queue[object]", tmp_path: Path) -> None:
    """A slice that ends is no hang."""
    worker = Worker(alone, str(tmp_path / "1.ledger"), 1, patience=0.01, over=str(tmp_path / "over"))
    with pytest.raises(ipcq.QueueEmpty):
        worker.consume()
    worker.end()


def test_what_a_storm_leaves_is_swept_up(alone: "ipcq.Queue[object]", tmp_path: Path) -> None:
    """And entered as taken."""
    alone.put_many([Tag(7, number).message() for number in range(3)])
    sweep(lambda name: ipcq.open(name, "memory", create=False), [alone.name], 2, str(tmp_path / "2.ledger"))
    assert (alone.qsize(), (tmp_path / "2.ledger").read_text().count("<")) == (0, 3)
