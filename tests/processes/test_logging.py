"""Log records of several processes, which share only their text."""

from pathlib import Path

import pytest

import ipcq
from core import logs
from core.test_logging import Kept
from ipcq.logging import QueueListener
from ipcq.testing.processes import Peers, until

pytestmark = pytest.mark.needs("shm")


@pytest.fixture
def kept() -> Kept:
    """Return a handler that keeps its records."""
    return Kept()


def test_unrelated_processes_meet(name: str, peers: Peers, tmp_path: Path) -> None:
    """C1: one process logs and another one writes; both know only the name."""
    path = tmp_path / "log"
    writer = peers.spawn(logs.write, name, str(path))
    writer.hear()
    number = peers.spawn(logs.log, name, 3).hear()
    writer.say("end")
    writer.wait()
    assert path.read_text() == "".join(f"WARNING app.part {number} number {each}\n" for each in range(3))


def test_records_wait_for_a_listener(name: str, peers: Peers, kept: Kept) -> None:
    """C1: the process that logged has ended meanwhile."""
    peer = peers.spawn(logs.log, name, 5)
    peer.hear()
    peer.wait()
    with QueueListener(name, kept):
        pass
    assert [vars(record)["number"] for record in kept.records] == list(range(5))


def test_a_killed_process_loses_no_record(name: str, peers: Peers, kept: Kept) -> None:
    """C1: a logged record is in the queue."""
    peer = peers.spawn(logs.log_and_die, name, 50)
    assert peer.wait() == -9
    with QueueListener(name, kept):
        pass
    assert kept.texts() == [f"number {number}" for number in range(50)]


def test_a_process_killed_while_it_logs_blocks_no_other(name: str, peers: Peers, kept: Kept) -> None:
    """C15: the other processes continue, with whole records."""
    with QueueListener(name, kept):
        for _ in range(3):
            peer = peers.spawn(logs.log_on_and_on, name)
            peer.hear()
            before = len(kept.records)
            until(lambda: len(kept.records) > before)  # noqa: B023
            peer.kill()
            peer.wait()
        peers.spawn(logs.log, name, 1).hear()
        until(lambda: kept.records[-1].msg == "number 0")
    assert {record.msg for record in kept.records} == {"again", "number 0"}


def test_several_processes_log_at_the_same_time(name: str, peers: Peers, kept: Kept) -> None:
    """C8: the records of each process arrive in order and completely."""
    with QueueListener(name, kept):
        started = [peers.spawn(logs.log, name, 200) for _ in range(3)]
        numbers = [peer.hear() for peer in started]
        until(lambda: len(kept.records) == 600)
    for number in numbers:
        mine = [vars(record)["number"] for record in kept.records if record.process == number]
        assert mine == list(range(200))


def test_a_forked_process_logs_through_the_same_handler(name: str, peers: Peers, kept: Kept, lockable: str) -> None:
    """C20: it reopens the queue where that is necessary."""
    with ipcq.open(name, lockable) as queue:
        parent, child = peers.spawn(logs.log_in_a_child, name).hear()
        with QueueListener(queue, kept):
            pass
        queue.unlink()
    assert [(record.msg, record.process) for record in kept.records] == [
        ("parent", parent),
        ("child", child),
        ("parent again", parent),
    ]
