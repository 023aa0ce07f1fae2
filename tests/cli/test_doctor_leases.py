"""What ``ipcq doctor`` finds on queues with leases."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result

import ipcq
from ipcq._cli import _lease_checks
from ipcq._cli._lease_checks import check_leases
from ipcq._cli._machine_checks import Check
from ipcq._process.lock_holders import Holder
from ipcq.backend import Held

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]


@pytest.fixture
def jobs(name: str, memory: str) -> Iterator[Queue]:
    """Return a queue with leases for two messages."""
    with ipcq.open(name, memory, leases=True, max_messages=2, max_message_size=512) as queue:
        yield queue


@pytest.fixture
def found(jobs: Queue) -> Callable[[], list[Check]]:
    """Return a function that returns what is found on that queue."""
    return lambda: [check for check in check_leases() if check.subject == f"queue {jobs.name}"]


def test_healthy_queue_is_not_mentioned(found: Callable[[], list[Check]], jobs: Queue) -> None:
    """A message that is leased is no finding."""
    jobs.put("a")
    with jobs.lease():
        assert found() == []


def test_dead_letters_are_a_warning(found: Callable[[], list[Check]], jobs: Queue) -> None:
    """With the command that lists them."""
    jobs.put("a")
    jobs.lease().reject()
    command = f"ipcq dead {jobs.name}   # with --requeue or --drop, once you know why"
    assert found() == [Check("warning", f"queue {jobs.name}", "it has 1 dead letter", command)]


def test_dead_letters_that_fill_the_queue_are_an_error(found: Callable[[], list[Check]], jobs: Queue) -> None:
    """Producers can put no more."""
    jobs.put_many(["a", "b"])
    for _ in range(2):
        jobs.lease().reject()
    (check,) = found()
    assert check[:3] == ("error", f"queue {jobs.name}", "it is full, because it has 2 dead letters: puts wait or fail")


def test_message_that_is_held_for_long_is_a_note(
    found: Callable[[], list[Check]], jobs: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the process, which may work on it."""
    monkeypatch.setattr(_lease_checks, "HELD_SECONDS", 0.0)
    monkeypatch.setattr(_lease_checks, "holder_of_thread", lambda pid, seconds: Holder(pid, "python", False, seconds))
    jobs.put("a")
    with jobs.lease():
        assert found() == [
            Check(
                "note",
                f"queue {jobs.name}",
                f"process {os.getpid()} (python) has held a message for 0 min",
                f"kill {os.getpid()}   # gives back what it holds, if it hangs",
            )
        ]


def test_messages_of_one_process_are_one_note(
    found: Callable[[], list[Check]], jobs: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their number."""
    monkeypatch.setattr(_lease_checks, "HELD_SECONDS", 0.0)
    jobs.put_many(["a", "b"])
    with jobs.lease(), jobs.lease():
        assert [check.text.rpartition(" has ")[2] for check in found()] == ["held 2 messages for up to 0 min"]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes a process hold messages for so many seconds."""

    def held(pid: int | None, *seconds: float) -> None:
        monkeypatch.setattr(_lease_checks, "on_channel", lambda *_: [Held(pid, each, 1) for each in seconds])

    return held


@pytest.mark.parametrize(("seconds", "words"), [(600, "10 min"), (7100, "118 min"), (7200, "2 h"), (90_000, "25 h")])
def test_time_is_told(found: Callable[[], list[Check]], held: Callable[..., None], seconds: float, words: str) -> None:
    """In minutes or hours."""
    held(None, seconds)
    assert [check.text for check in found()] == [f"an unknown process has held a message for {words}"]


def test_shorter_hold_is_not_mentioned(found: Callable[[], list[Check]], held: Callable[..., None]) -> None:
    """Below ten minutes."""
    held(None, 599.0)
    assert found() == []


def test_stopped_process_is_a_warning(
    found: Callable[[], list[Check]], held: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not work on anything."""
    monkeypatch.setattr(_lease_checks, "holder_of_thread", lambda pid, seconds: Holder(pid, "python", True, seconds))
    held(17, 600.0)
    assert [check[0::2] for check in found()] == [
        ("warning", "process 17 (python), which is stopped, has held a message for 10 min"),
    ]


def test_way_out_of_a_stopped_process_is_to_continue_it(
    found: Callable[[], list[Check]], held: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a signal."""
    monkeypatch.setattr(_lease_checks, "holder_of_thread", lambda pid, seconds: Holder(pid, "python", True, seconds))
    held(17, 600.0)
    assert [check.fix for check in found()] == ["kill -CONT 17"]


def test_process_without_a_name_has_its_number(
    found: Callable[[], list[Check]], held: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only Linux tells the name."""
    monkeypatch.setattr(_lease_checks, "holder_of_thread", lambda *_: None)
    held(17, 600.0)
    assert [check.text for check in found()] == ["process 17 has held a message for 10 min"]


def test_queue_without_leases_is_not_mentioned(queue: Queue) -> None:
    """It has none."""
    assert [check for check in check_leases() if check.subject == f"queue {queue.name}"] == []


def test_queue_on_a_backend_without_leases_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot have any."""
    monkeypatch.setattr(ipcq, "queues", lambda: ipcq.Listing([ipcq.QueueInfo("/x", "mqueue")]))
    monkeypatch.setattr(ipcq, "open", lambda *_, **__: pytest.fail("opened"))
    assert list(check_leases()) == []


def test_queue_that_cannot_be_opened_is_not_mentioned(
    found: Callable[[], list[Check]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was unlinked, or is another user's."""

    def refuse(*_: Any, **__: Any) -> None:
        raise ipcq.QueueNotFound

    monkeypatch.setattr(ipcq, "open", refuse)
    assert found() == []


def test_doctor_prints_it(run: Run, jobs: Queue) -> None:
    """Beside its other checks."""
    jobs.put("a")
    jobs.lease().reject()
    assert f"warning\tqueue {jobs.name}\tit has 1 dead letter\t" in run("doctor").stdout
