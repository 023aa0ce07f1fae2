"""Leases in the core: what a handle does beside its channel."""

import gc
import logging
import math
import pickle
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import ipcq
from core.test_before_fork import forked
from ipcq._abilities import session
from ipcq._abilities.lease import reason_of
from ipcq.backend import LeaseChannel
from ipcq.errors import LimitExceeded, QueueGone

pytestmark = pytest.mark.needs("memory")

Handle = ipcq.Queue[Any]

HANG_SECONDS = 20.0


@pytest.fixture
def queue(name: str) -> Iterator[Handle]:
    """Return a handle to a new queue with leases."""
    with ipcq.open(name, "memory", exclusive=True, leases=True) as queue:
        yield queue


def blind(queue: Handle) -> LeaseChannel:
    """Let the channel of a handle notice no death, and return it."""
    channel = queue._channel
    assert isinstance(channel, LeaseChannel)
    channel.capabilities = replace(channel.capabilities, death_notice=False)
    return channel


def upkeep() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ipcq-leases"]


def wait_until(condition: Any) -> None:
    until = time.monotonic() + HANG_SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def no_threads() -> None:
    """Wait until the threads of earlier tests have ended."""
    wait_until(lambda: not upkeep())


# The thread


def test_a_server_is_not_asked_while_nothing_is_leased(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 42: it returns by itself what is over."""
    monkeypatch.setattr("ipcq._abilities.leases.RENEWED_SECONDS", 60.0)
    monkeypatch.setattr(session, "SLICE", 0.001)
    monkeypatch.setattr(session, "_RENEWAL_SECONDS", 0.0)
    channel = blind(queue)
    channel.remote = True
    extensions = []
    extend = channel.extend

    def extended(tokens: Any, hold: float) -> Any:
        extensions.append(hold)
        return extend(tokens, hold)

    rounds = []
    tend = session.Session._tend

    def tended(*arguments: Any) -> float:
        seconds = tend(*arguments)
        rounds.append((len(extensions), seconds))
        return seconds

    monkeypatch.setattr(session.Session, "_tend", tended)
    monkeypatch.setattr(channel, "extend", extended)
    monkeypatch.setattr(channel, "tend", lambda: tendings.append(None))
    tendings: list[None] = []
    queue.put("job")
    with queue.lease():
        wait_until(lambda: extensions)
    first = len(rounds) + 1  # one may have been on its way
    wait_until(lambda: len(rounds) > first + 10)
    assert rounds[first][0] == rounds[-1][0]
    assert tendings == []


def test_a_renewal_that_failed_is_repeated_soon(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C3: while a server is away, the hold goes on."""
    monkeypatch.setattr(session, "_RENEWAL_SECONDS", 1000.0)
    channel = blind(queue)
    extend, failures = channel.extend, [ipcq.ConnectionLost("first"), ipcq.ConnectionLost("second")]
    renewals = []

    def fail_twice(tokens: Any, hold: float) -> Any:
        if failures:
            raise failures.pop()
        renewals.append(hold)
        return extend(tokens, hold)

    monkeypatch.setattr(channel, "extend", fail_twice)
    queue.put("job")
    with queue.lease():
        wait_until(lambda: renewals)


def test_a_lease_without_a_hold_is_renewed_where_no_death_is_noticed(
    queue: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DESIGN 6: it is a short hold that is renewed while the process lives."""
    monkeypatch.setattr("ipcq._abilities.leases.RENEWED_SECONDS", 0.6)
    monkeypatch.setattr(session, "RENEWED_SECONDS", 0.6)
    monkeypatch.setattr(session, "_RENEWAL_SECONDS", 0.05)
    blind(queue)
    queue.put("job")
    job = queue.lease()
    with pytest.raises(ipcq.QueueEmpty):
        queue.lease(timeout=0.9)
    assert not job.lost
    job.ack()
    assert not queue._session.renewed  # type: ignore[union-attr]  # the queue has leases


def test_a_lease_that_was_not_renewed_in_time_is_lost(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """DESIGN 6: as in a process that was suspended."""
    monkeypatch.setattr("ipcq._abilities.leases.RENEWED_SECONDS", 0.05)
    blind(queue)
    queue.put("job")
    job = queue.lease()
    assert queue.get(timeout=HANG_SECONDS) == "job"
    wait_until(lambda: not queue._session.renewed)  # type: ignore[union-attr]  # as above
    assert job.lost


def test_a_lease_with_a_hold_is_not_renewed(queue: Handle) -> None:
    """The hold is the user's."""
    blind(queue)
    queue.put("job")
    with queue.lease(hold=100):
        assert not upkeep()


def test_an_extended_lease_is_not_renewed(queue: Handle) -> None:
    """Its end is the user's now."""
    blind(queue)
    queue.put("job")
    with queue.lease() as job:
        job.extend(100)
        assert not queue._session.renewed  # type: ignore[union-attr]  # as above


@pytest.mark.parametrize("end", ["close", "unlink", "drop"])
def test_the_thread_ends_with_its_handle(name: str, end: str) -> None:
    """C17: soon after it is closed, collected, or its queue unlinked."""
    queue = ipcq.open(name, "memory", leases=True)
    queue.fileno()
    queue.fileno()
    assert len(upkeep()) == 1
    if end == "drop":
        with pytest.warns(ResourceWarning):
            del queue
            gc.collect()
    else:
        getattr(queue, end)()
    wait_until(lambda: not upkeep())
    if end == "unlink":
        queue.close()


def test_the_thread_survives_an_error(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C23: such as a shortage of memory; the next step tries again."""
    errors: list[BaseException] = [MemoryError(), LimitExceeded(limit="x", value=1, asked=2, remedy="y", errno=1)]
    channel = queue._channel
    assert isinstance(channel, LeaseChannel)
    tend = channel.tend

    def fail_first() -> float | None:
        if errors:
            raise errors.pop()
        return tend()

    monkeypatch.setattr(channel, "tend", fail_first)
    queue.put("job", delay=0.1)
    descriptor = queue.fileno()
    wait_until(lambda: not errors)
    assert descriptor >= 0 and upkeep()


def test_a_thread_that_cannot_be_started_is_an_error(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: and the next call tries again."""

    def fail(self: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(session.NativeThread, "start", fail)
        with pytest.raises(LimitExceeded):
            queue.fileno()
    assert queue.fileno() >= 0
    assert upkeep()


# Forks


@pytest.mark.parametrize("settle", ["ack", "release", "fail", "reject"])
def test_a_forked_child_cannot_settle_its_parents_leases(queue: Handle, settle: str) -> None:
    """C20: LeaseLost says who can, and nothing is changed."""
    queue.put("job")
    with queue.lease() as job:
        assert "the parent process holds this lease" in forked(getattr(job, settle))
        assert not job.lost


def test_a_forked_child_drops_its_parents_leases_in_silence(queue: Handle) -> None:
    """C20: they do not return, and there is no warning."""
    queue.put("job")
    with queue.lease() as job:
        assert forked(job.__del__) == "None"
        assert not job.lost


def test_a_lease_of_another_session_is_refused(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C20: a fork gives the child's handle a new session; in the same process, because a fork is not traced."""
    queue.put("job")
    with queue.lease() as job:
        with monkeypatch.context() as patch:
            patch.setattr(queue, "_session", session.Session())
            with pytest.raises(ipcq.LeaseLost, match="the parent process holds this lease"):
                job.ack()
            job.__del__()
        assert not job.lost


# Leases


def test_of_two_threads_that_settle_one_is_told_what_the_other_did(
    queue: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C4: not that another consumer has the message."""
    queue.put("job")
    job = queue.lease()
    settle = queue._channel.settle  # type: ignore[attr-defined]  # the queue has leases

    def settle_later(tokens: Any, *arguments: Any) -> Any:
        monkeypatch.undo()
        job.ack()  # as another thread
        return settle(tokens, *arguments)

    monkeypatch.setattr(queue._channel, "settle", settle_later)
    with pytest.raises(ipcq.LeaseLost, match="already acknowledged"):
        job.release()


def test_a_lease_cannot_be_sent(queue: Handle) -> None:
    """It belongs to its process."""
    queue.put("job")
    with queue.lease() as job, pytest.raises(TypeError, match="send its item"):
        pickle.dumps(job)


def test_a_lease_shows_its_state(queue: Handle) -> None:
    """For debugging."""
    queue.put("job")
    job = queue.lease()
    assert repr(job) == f"<ipcq.Lease on {queue.name!r}, held, delivery 1>"
    job.ack()
    assert repr(job) == f"<ipcq.Lease on {queue.name!r}, acknowledged, delivery 1>"


def test_leases_of_an_unlinked_queue_are_lost_together(queue: Handle) -> None:
    """C14: ack_many raises QueueGone, and each lease is lost."""
    queue.put_many([1, 2])
    jobs = queue.lease_many(2)
    queue.unlink()
    with pytest.raises(QueueGone):
        queue.ack_many(jobs)
    assert [job.lost for job in jobs] == [True, True]


def test_a_lease_that_was_never_made_is_dropped_in_silence() -> None:
    """Its constructor may have run out of memory."""
    lease = ipcq.Lease.__new__(ipcq.Lease)
    del lease
    gc.collect()


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no"), b"ValueError: no"),
        (ValueError("x" * 100), b"ValueError: " + b"x" * 52),
        (ValueError("https://user:secret@host"), b"ValueError: https://***@host"),
        (ValueError("\udcff"), b"ValueError: ?"),
        (Unprintable(), b"Unprintable"),
    ],
)
def test_an_exception_becomes_a_reason(error: Exception, reason: bytes) -> None:
    """C42: of at most 64 bytes, without secrets."""
    assert reason_of(error) == reason


# Batches and memory


def test_what_does_not_fit_into_memory_is_given_back(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C36: the batch ends before it, and no failure is counted."""
    queue.put_many([1, 2, 3])
    decode, left = queue._decode, [1]

    def decode_one(data: bytes) -> Any:
        if not left:
            raise MemoryError
        left.pop()
        return decode(data)

    monkeypatch.setattr(queue, "_decode", decode_one)
    jobs = queue.lease_many(3)
    monkeypatch.undo()
    assert [job.item for job in jobs] == [1]
    queue.ack_many(jobs)
    assert queue.get_many(timeout=0) == [2, 3]


@pytest.mark.parametrize("verb", ["lease", "lease_many"])
def test_a_message_that_does_not_fit_into_memory_stays(
    queue: Handle, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """C36: MemoryError, and it is recalled."""
    queue.put("job")

    def fail(data: bytes) -> Any:
        raise MemoryError

    monkeypatch.setattr(queue, "_decode", fail)
    with pytest.raises(MemoryError):
        queue.lease() if verb == "lease" else queue.lease_many(2)
    monkeypatch.undo()
    assert queue.get(timeout=0) == "job"


@pytest.mark.parametrize("verb", ["lease", "lease_many"])
def test_a_message_that_cannot_be_recalled_returns_with_the_close(
    queue: Handle, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """C5: the exception of the call comes out."""
    queue.put("job")

    def fail(*_: object) -> Any:
        raise MemoryError

    other = ipcq.open(queue.name, "memory", create=False)
    monkeypatch.setattr(other, "_decode", fail)
    monkeypatch.setattr(other._channel, "recall", fail)
    with pytest.raises(MemoryError):
        other.lease() if verb == "lease" else other.lease_many(2)
    other.close()
    assert queue.get(timeout=0) == "job"


def test_only_undecodable_messages_are_an_error(queue: Handle) -> None:
    """C6: DecodeError with the bytes of the first."""
    with ipcq.open(queue.name, "memory", serializer="raw") as raw:
        raw.put_many([b"\xc1", b"\xc1\x00"])
    with pytest.raises(ipcq.DecodeError) as caught:
        queue.lease_many(5)
    assert (caught.value.data, queue.dead().qsize()) == (b"\xc1", 2)


def test_a_full_queue_that_has_ended_is_only_full(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts for the text cannot be had; the next call says why."""

    def gone() -> Any:
        raise QueueGone

    monkeypatch.setattr(queue._channel, "counts", gone)
    assert "ready" not in str(queue._timed_out(ipcq.QueueFull))


@pytest.mark.parametrize("given", [None, 1, ["job"]], ids=repr)
def test_only_leases_are_acknowledged(queue: Handle, given: Any) -> None:
    """InvalidArgument says what was given."""
    with pytest.raises(ipcq.InvalidArgument, match="takes leases of this handle"):
        queue.ack_many(given)


@pytest.mark.parametrize("hold", [0, -1, math.nan, False], ids=repr)
def test_a_hold_is_more_than_nothing(queue: Handle, hold: float) -> None:
    """C25: the error does not offer 0."""
    with pytest.raises(ipcq.InvalidArgument, match=f"hold must be more than 0 seconds, not {hold}"):
        queue.lease(hold=hold)


# Loops


def test_a_lease_that_is_lost_during_the_body_is_logged(queue: Handle, caplog: pytest.LogCaptureFixture) -> None:
    """The loop goes on, because the message comes again."""
    with caplog.at_level(logging.WARNING, "ipcq"):
        assert lose_once(queue) == [1, 2]
    assert "was not acknowledged" in caplog.text


def test_without_logging_a_lost_lease_is_ignored(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would see the record."""
    monkeypatch.delitem(sys.modules, "logging")
    assert lose_once(queue) == [1, 2]


def lose_once(queue: Handle) -> list[int]:
    """Lose the first lease of a loop in its body, and return the deliveries that the loop saw."""
    queue.put("slow")
    jobs = queue.leases()
    deliveries = []
    for job in jobs:
        deliveries.append(job.deliveries)
        if job.deliveries == 1:
            queue._channel.recall(0, 1 << 62)  # type: ignore[attr-defined]  # as the end of a hold does
        else:
            jobs.stop()
    return deliveries


# Dead letters


def test_the_dead_letters_show_what_they_are(queue: Handle) -> None:
    """For debugging."""
    queue.put("bad")
    queue.lease().reject("no")
    dead = queue.dead()
    assert repr(dead) == f"<ipcq.DeadLetters of {queue.name!r} on 'memory'>"
    assert repr(dead.peek_message()) == "<ipcq.DeadLetter 1, 4 bytes, 1 deliveries: 'no'>"


def test_many_dead_letters_are_looked_at_in_pages(queue: Handle) -> None:
    """One after the other, whatever happens to them meanwhile."""
    queue.put_many(list(range(150)))
    for job in queue.lease_many(150):
        job.reject()
    seen = []
    for letter in queue.dead().peek_all():
        seen.append(letter.item)
        if letter.item == 10:
            queue.dead().get()
    assert seen == list(range(150))


def test_a_dead_letter_can_be_waited_for(queue: Handle) -> None:
    """C10: get waits for the next one, but not forever."""
    with pytest.raises(ipcq.QueueEmpty, match="no dead letter"):
        queue.dead().get(timeout=0.01)
    with pytest.raises(ipcq.QueueEmpty):
        queue.dead().peek()
    queue.put("bad")
    threading.Timer(0.05, queue.lease().reject).start()
    assert queue.dead().get(timeout=HANG_SECONDS) == "bad"


# Options


def test_a_bound_of_failures_requests_leases(name: str) -> None:
    """It would be useless without them."""
    with ipcq.open(name, "memory", max_deliveries=3) as queue:
        assert (queue.capabilities.leases, queue.max_deliveries) == (True, 3)


@pytest.mark.parametrize("ability", ["leases", "death_notice", "delays"])
def test_requiring_leases_requests_them(name: str, ability: str) -> None:
    """A queue without them would be useless."""
    with ipcq.open(name, "memory", require=ability) as queue:
        assert getattr(queue.capabilities, ability)


def test_a_queue_without_leases_has_no_session(name: str) -> None:
    """It pays nothing for what it does not use."""
    with ipcq.open(name, "memory") as queue:
        assert queue._session is None
        queue.fileno()
        assert not upkeep()
