"""How a storm ends on a queue that cannot be shut down."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import ipcq
from ipcq.testing import storm, workers
from ipcq.testing.oracle import Tag
from ipcq.testing.processes import fresh_name
from ipcq.testing.workers import LOOK, Worker, sweep
from processes.needs import usable


@pytest.fixture
def alone() -> Iterator["ipcq.Queue[object]"]:
    with ipcq.open(fresh_name(), usable("memory"), max_messages=4, max_message_size=512) as queue:
        yield queue
        queue.unlink()


@pytest.mark.parametrize("step", [Worker.produce, Worker.consume], ids=["produce", "consume"])
def test_a_file_ends_waits_on_a_queue_that_cannot_be_shut_down(
    step: Callable[[Worker], None], alone: "ipcq.Queue[object]", tmp_path: Path
) -> None:
    """Waiting workers look for the file after each slice of their patience."""
    over = tmp_path / "over"
    over.touch()
    if step is Worker.produce:
        alone.put_many(range(4))
    worker = Worker(alone, str(tmp_path / "1.ledger"), 1, over=str(over))
    with pytest.raises(ipcq.QueueShutDown):
        step(worker)
    worker.end()


def test_waiting_in_slices_takes_the_whole_patience(alone: "ipcq.Queue[object]", tmp_path: Path) -> None:
    """The end of a slice is no hang."""
    worker = Worker(alone, str(tmp_path / "1.ledger"), 1, patience=0.01, over=str(tmp_path / "over"))
    with pytest.raises(ipcq.QueueEmpty):
        worker.consume()
    worker.end()


def test_a_batch_that_may_be_stored_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection was lost before the server's answer."""

    def put_many(*_: object, **_options: object) -> int:
        raise ipcq.ConnectionLost("no answer", outcome="unknown")

    far = SimpleNamespace(put_many=put_many, capabilities=ipcq.Capabilities(scope=ipcq.Scope.NETWORK))
    worker = Worker(far, str(tmp_path / "1.ledger"), 1, batch=2)
    monkeypatch.setattr(worker._dice, "random", lambda: 0.0)  # a short timeout
    worker.produce()
    worker.end()
    entries = (tmp_path / "1.ledger").read_text().splitlines()
    assert {line[:1] for line in entries} == {"?", "."}


def test_messages_left_by_a_storm_are_taken(alone: "ipcq.Queue[object]", tmp_path: Path) -> None:
    """And recorded as taken."""
    alone.put_many([Tag(7, number).message() for number in range(3)])
    sweep(lambda name: ipcq.open(name, "memory", create=False), [alone.name], 2, str(tmp_path / "2.ledger"))
    assert (alone.qsize(), (tmp_path / "2.ledger").read_text().count("<")) == (0, 3)


def test_patience_may_end_after_several_slices(alone: "ipcq.Queue[object]", tmp_path: Path) -> None:
    """Each slice ends with a look for the file."""
    worker = Worker(alone, str(tmp_path / "1.ledger"), 1, patience=1.5 * LOOK, over=str(tmp_path / "over"))
    with pytest.raises(ipcq.QueueEmpty):
        worker.consume()
    worker.end()


def test_the_end_of_a_queue_that_cannot_be_shut_down_is_a_file(
    alone: "ipcq.Queue[object]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue stays as it is."""
    monkeypatch.setattr(workers, "say", lambda *_: None)
    workers.finish(lambda name: ipcq.open(name, "memory", create=False), [alone.name], str(tmp_path / "over"))
    alone.put(1, timeout=0)
    assert (tmp_path / "over").exists()


def test_a_storm_over_a_queue_that_cannot_be_shut_down_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """From end to end, on a queue that could be shut down but is not."""
    monkeypatch.setattr(storm, "replace", lambda each, **_: replace(each, shutdown=False))
    report = storm.stress(usable("pyshm"), kills=4, producers=1, consumers=1, max_messages=4, max_message_size=512)
    assert report.ok, report.stacks
