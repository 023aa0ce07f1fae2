"""The checkers themselves: they catch each rule that a history can break, with doctored histories and faulty queues."""

import ctypes
import gc
import math
import os
import random
import signal
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ipcq
from ipcq.testing import histories, storm, workers
from ipcq.testing.histories import Call, linearizable
from ipcq.testing.locks import holds_lock
from ipcq.testing.oracle import Tag, Verdict, judge
from ipcq.testing.processes import Peers, hear, say
from ipcq.testing.storm import Report, Storm, stress
from ipcq.testing.workers import Worker

# Doctored histories, by the exhaustive checker


def test_calls_at_the_same_time_may_take_effect_in_either_order() -> None:
    """Two puts that overlap, taken in the order of their ends."""
    assert linearizable([Call("put", 1, 0, 9), Call("put", 2, 1, 3), Call("get", 2, 4, 5), Call("get", 1, 10, 11)])


@pytest.mark.parametrize(
    ("history", "capacity"),
    [
        ([Call("get", 1, 0, 1)], 9),
        ([Call("get", 1, 0, 1), Call("put", 1, 2, 3)], 9),
        ([Call("put", 1, 0, 1), Call("get", 1, 2, 3), Call("get", 1, 4, 5)], 9),
        ([Call("put", 1, 0, 1), Call("put", 2, 2, 3), Call("get", 2, 4, 5), Call("get", 1, 6, 7)], 9),
        ([Call("put", 1, 0, 1), Call("get", None, 2, 3)], 9),
        ([Call("put", 1, 0, 1), Call("put", None, 2, 3)], 2),
        ([Call("put", 1, 0, 1), Call("put", 2, 2, 3), Call("put", 3, 4, 5)], 2),
    ],
    ids=["fresh", "early", "repeated", "inverted", "wrong empty", "wrong full", "beyond the capacity"],
)
def test_a_history_that_no_queue_can_have_is_rejected(history: list[Call], capacity: int) -> None:
    """Each is wrong in the one way that its name says."""
    assert not linearizable(history, capacity)


def test_full_and_empty_are_accepted_when_they_are_true() -> None:
    """On a queue of one that is full and then empty."""
    assert linearizable(
        [Call("put", 1, 0, 1), Call("put", None, 2, 3), Call("get", 1, 4, 5), Call("get", None, 6, 7)], 1
    )


#: Two messages, of which the first is leased.
LENT = [Call("put", 1, 0, 1), Call("put", 2, 2, 3), Call("lease", 1, 4, 5)]


@pytest.mark.parametrize(
    "history",
    [
        [Call("get", 2, 6, 7), Call("ack", 1, 8, 9), Call("get", None, 10, 11)],
        [Call("put", None, 6, 7), Call("ack", 1, 8, 9), Call("put", 3, 10, 11)],
        [Call("release", 1, 6, 7), Call("lease", 1, 8, 9), Call("lease", 2, 10, 11), Call("lease", None, 12, 13)],
        [Call("get", 2, 6, 7), Call("return", 1, 8, math.inf), Call("get", None, 10, 11), Call("get", 1, 12, 13)],
        [Call("get", 2, 6, 7), Call("release", 1, 8, 20), Call("get", 1, 9, 10)],
    ],
    ids=["acknowledged", "full of leases", "old order", "returned", "at the same time"],
)
def test_leases_are_accepted_if_a_queue_can_have_given_them(history: list[Call]) -> None:
    """C3: of a queue of two."""
    assert linearizable([*LENT, *history], 2)


@pytest.mark.parametrize(
    "history",
    [
        [Call("lease", 1, 6, 7)],
        [Call("get", 1, 6, 7)],
        [Call("lease", None, 6, 7)],
        [Call("put", 3, 6, 7)],
        [Call("ack", 2, 6, 7)],
        [Call("ack", 1, 6, 7), Call("ack", 1, 8, 9)],
        [Call("ack", 1, 6, 7), Call("put", None, 8, 9)],
        [Call("release", 1, 6, 7), Call("ack", 1, 8, 9)],
        [Call("release", 1, 6, 7), Call("lease", 2, 8, 9)],
        [Call("ack", 1, 6, 7), Call("return", 1, 8, 9)],
        [Call("lease", 2, 6, 7), Call("lease", 1, 8, 9), Call("return", 1, 10, math.inf)],
        [Call("release", None, 6, 7)],
    ],
    ids=[
        "leased twice",
        "taken while leased",
        "wrong empty",
        "beyond the capacity",
        "acknowledged without a lease",
        "acknowledged twice",
        "wrong full",
        "acknowledged after its release",
        "out of order",
        "returned after its acknowledgement",
        "returned before the death",
        "nothing settled",
    ],
)
def test_leases_that_no_queue_can_have_given_are_rejected(history: list[Call]) -> None:
    """C3: each is wrong in the one way that its name says."""
    assert not linearizable([*LENT, *history], 2)


def test_the_exhaustive_checker_and_the_rules_agree(tmp_path: Path) -> None:
    """On 2,000 random histories of a few overlapping calls without losses, half of which no queue can have."""
    dice = random.Random(5)
    answers = []
    for _ in range(2000):
        history = random_history(dice)
        answers.append(linearizable(history))
        assert answers[-1] == judge_by_rules(history, tmp_path), history
    assert 100 < sum(answers) < 1900


def random_history(dice: random.Random) -> list[Call]:
    """Return puts, a get for each of them, and gets that found nothing, at random instants."""

    def span() -> tuple[int, int]:
        begun = dice.randrange(0, 40)
        return begun, begun + dice.randrange(1, 12)

    count = dice.randint(1, 4)
    calls = [Call(verb, value, *span()) for verb in ("put", "get") for value in range(count)]
    return calls + [Call("get", None, *span()) for _ in range(dice.randint(0, 2))]


def judge_by_rules(history: list[Call], place: Path) -> bool:
    """Judge a history through the ledgers of as many processes as it has calls."""
    puts, gets = [], []
    for number, call in enumerate(history):
        path = place / f"{number}"
        if call.verb == "put":
            path.write_text(f"? {call.value} 0 {call.begun}\n+ {call.value} 0 {call.returned}\n")
            puts.append(path)
        elif call.value is None:
            path.write_text(f"0 {call.begun} {call.returned}\n")
            gets.append(path)
        else:
            path.write_text(f"< {call.value} 0 {call.begun} {call.returned}\n")
            gets.append(path)
    return judge(puts, gets).sound


# Doctored histories, by the rules


def judge_entries(place: Path, producer: str, consumer: str) -> Verdict:
    """Judge the entries of one producer and one consumer."""
    (place / "p").write_text(producer)
    (place / "c").write_text(consumer)
    return judge([place / "p"], [place / "c"])


def test_a_message_taken_before_it_was_put_is_invented(tmp_path: Path) -> None:
    """The get had returned before the put began."""
    assert judge_entries(tmp_path, "? 0 0 10\n+ 0 0 20\n", "< 0 0 1 5\n").invented == [Tag(0, 0)]


def test_a_batch_that_comes_in_another_order_is_reordered(tmp_path: Path) -> None:
    """Although the calls for both messages overlap."""
    batch = "? 0 0 1\n? 0 1 1\n+ 0 0 5\n+ 0 1 5\n"
    assert judge_entries(tmp_path, batch, "< 0 1 6 9\n< 0 0 6 9\n").reordered == [(Tag(0, 0), Tag(0, 1))]
    assert judge_entries(tmp_path, batch, "< 0 0 6 9\n< 0 1 6 9\n").sound


def test_one_batch_may_not_swap_messages_of_consecutive_puts(tmp_path: Path) -> None:
    """One get returns both, the later one first. A message that nobody put is invented, not reordered."""
    puts = "? 0 0 1\n+ 0 0 2\n? 0 1 3\n+ 0 1 4\n"
    assert judge_entries(tmp_path, puts, "< 0 1 6 9\n< 0 0 6 9\n").reordered == [(Tag(0, 0), Tag(0, 1))]
    assert not judge_entries(tmp_path, puts, "< 0 7 6 9\n< 0 0 6 9\n").reordered


def test_a_ledger_without_an_end_is_of_a_consumer_that_was_killed(tmp_path: Path) -> None:
    """The stall is the longest time in which no call returned."""
    verdict = judge_entries(tmp_path, "? 0 0 1\n+ 0 0 2000000000\n.\n", "< 0 0 1 5000000000\n")
    assert (verdict.cut_off, verdict.stall) == (1, 3.0)
    assert judge_entries(tmp_path, "", ".\n").cut_off == 0


def test_verdicts_add_up(tmp_path: Path) -> None:
    """Counts and lists are added, and the stall is the longer one."""
    one = judge_entries(tmp_path, "? 0 0 1\n+ 0 0 2\n", "< 0 0 1 5\n< 0 0 6 7\n")
    both = one + judge_entries(tmp_path, "? 3 3 1\n+ 3 3 2\n? 3 4 2\n+ 3 4 1000000002\n", "")
    assert (both.accepted, both.duplicated, both.lost, both.stall) == (3, [Tag(0, 0)], [Tag(3, 3), Tag(3, 4)], 1.0)


# Workers


class Fake:
    """A queue within this process, with a fault on request."""

    capabilities = ipcq.Capabilities()

    def __init__(self, fault: str = "") -> None:
        self.content: deque[bytes] = deque()
        self.fault = fault
        self.puts = self.gets = 0

    def put(self, message: bytes, timeout: float) -> None:
        if self.fault == "full":
            raise ipcq.QueueFull
        self.puts += 1
        if self.fault != "loses" or self.puts % 3:
            self.content.append(message)

    def get(self, timeout: float) -> object:
        self.gets += 1
        if not self.content or (self.fault == "empty" and timeout == 0):
            raise ipcq.QueueEmpty
        if self.fault == "repeats":
            return self.content[0]
        if self.fault == "inverts":
            return self.content.pop()
        if self.fault == "invents":
            return Tag(99, self.gets).message()
        if self.fault == "tears":
            return self.content.popleft()[:-3]
        return self.content.popleft()

    def put_many(self, messages: list[bytes], timeout: float) -> int:
        if self.fault == "full":
            raise ipcq.QueueFull
        self.content.extend(messages[:2])
        return len(messages[:2])

    def get_many(self, limit: int, timeout: float) -> list[object]:
        return [self.get(timeout) for _ in range(min(limit, max(1, len(self.content))))]


def judge_work(place: Path, handle: Any, batch: int = 1, rounds: int = 8) -> Verdict:
    """Run one producer and one consumer in turn, and judge them."""
    producer = Worker(handle, str(place / "p.ledger"), 1, batch=batch)
    consumer = Worker(handle, str(place / "c.ledger"), 2, batch=batch, look=True)
    for _ in range(rounds):
        producer.produce()
        producer.produce()
        consumer.consume()
    while handle.content and consumer._turns < 100:
        consumer.consume()
    producer.end()
    consumer.end()
    return judge([place / "p.ledger"], [place / "c.ledger"])


@pytest.mark.parametrize("batch", [1, 4])
def test_workers_record_the_calls_on_a_queue(batch: int, tmp_path: Path) -> None:
    """A correct queue is sound, with single messages and with batches of which only a part is stored."""
    verdict = judge_work(tmp_path, Fake(), batch)
    assert verdict.sound and not verdict.lost and not verdict.cut_off and verdict.received == verdict.accepted > 8
    assert bool(verdict.refused) == (batch > 1)


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        ("loses", "lost"),
        ("repeats", "duplicated"),
        ("inverts", "reordered"),
        ("invents", "invented"),
        ("tears", "torn"),
        ("empty", "missed"),
    ],
)
def test_a_faulty_queue_is_caught_by_the_rule_that_it_breaks(fault: str, shown: str, tmp_path: Path) -> None:
    """Each of the rules catches a queue that breaks it."""
    assert getattr(judge_work(tmp_path, Fake(fault)), shown)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_worker_whose_put_fails_records_that_and_fails(batch: int, tmp_path: Path) -> None:
    """Only a batch without a wait may find the queue full."""
    calls = 0
    for number in range(8):
        worker = Worker(Fake("full"), str(tmp_path / f"{number}.ledger"), number, batch=batch)
        with pytest.raises(ipcq.QueueFull):
            for _ in range(50):
                calls += 1
                worker.produce()
        worker.end()
    assert judge(tmp_path.iterdir(), []).refused >= calls
    assert (calls > 8) == (batch > 1)


def test_a_consumer_whose_wait_times_out_fails(tmp_path: Path) -> None:
    """That is a hang of the queue, unless the consumer only looked."""
    worker = Worker(Fake(), str(tmp_path / "c.ledger"), 1, look=True)
    with pytest.raises(ipcq.QueueEmpty):
        worker.consume()
    worker._turns = 3
    worker.consume()
    worker.end()
    assert (tmp_path / "c.ledger").read_text().startswith("0 ")


def test_another_worker_of_the_same_kind_has_its_own_ledger(tmp_path: Path) -> None:
    """It has its own number."""
    worker = Worker(Fake(), str(tmp_path / "p.ledger"), 1, batch=3)
    other = worker.another(Fake(), 7)
    worker.end()
    other.end()
    assert other.ledger == str(tmp_path / "p.7.ledger")
    assert other.number == 7


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return what programs report when they run in this process."""
    reports: list[object] = []
    for module in (workers, histories):
        monkeypatch.setattr(module, "say", reports.append)
    return reports


def test_the_programs_of_a_storm_share_a_queue(memory: str, reports: list[object], name: str, tmp_path: Path) -> None:
    """A producer puts a number of messages, a finisher shuts the queue down, and a consumer drains it and ends."""
    with ipcq.open(name, memory):
        at = [name, memory]
        workers.produce(workers.attached, at, 1, str(tmp_path / "p.ledger"), count=5)
        workers.finish(workers.attached, at)
        workers.consume(workers.attached, at, 2, str(tmp_path / "c.ledger"))
        verdict = judge([tmp_path / "p.ledger"], [tmp_path / "c.ledger"])
    assert (verdict.received, verdict.cut_off) == (5, 0)
    assert reports == ["ready", "done", 0, "ready", "done"]
    workers.remove(name, memory)
    workers.remove(name, memory)
    assert not ipcq.exists(name, memory)


def test_a_recorder_reports_its_calls(
    memory: str, reports: list[Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It includes the calls that found the queue full or empty, in the format of the checker."""
    orders = iter([[60, time.monotonic() + 0.01, False], None])
    monkeypatch.setattr(histories, "hear", lambda: next(orders))
    with ipcq.open(name, memory, max_messages=1) as queue:
        histories.record(workers.attached, [name, memory], 3)
        queue.unlink()
    calls = [Call(*call) for call in reports[1]]
    assert linearizable(calls, 1)
    assert {call.verb for call in calls if call.value is None} == {"put", "get"}


def test_a_recorder_reports_its_leases_and_what_it_holds_when_it_dies(
    memory: str, reports: list[Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It releases them if it lives on."""
    start = time.monotonic() + 0.01
    orders = iter([[62, start, False], *[[9, start, True]] * 4, None])
    monkeypatch.setattr(histories, "hear", lambda: next(orders))
    monkeypatch.setattr(histories, "HELD_UP", -1)  # refusals are left out
    deaths: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: deaths.append(number))
    with ipcq.open(name, memory, max_messages=2, leases=True) as queue:
        with pytest.warns(ResourceWarning, match="unsettled"):  # because it lives on
            histories.record(workers.attached, [name, memory], 3, leases=True)
            gc.collect()
        queue.unlink()
    living, *dying = ([Call(*call) for call in report] for report in reports[1:])
    assert linearizable(living, 2)
    count = Counter(call.verb for call in living)
    assert set(count) == {"put", "get", "lease", "ack", "release"}
    assert count["lease"] == count["ack"] + count["release"]
    assert all(call.value is not None for call in living)
    assert any(calls[-1].verb == "return" for calls in dying)
    assert deaths == [signal.SIGKILL] * 4


# Leases

#: A message that was put and leased, and what else is in the consumer's ledger.
PUT_ONE = "? 0 0 1\n+ 0 0 2\n"
LEASED: dict[str, tuple[str, str]] = {
    "acknowledged twice": ("l 0 0 5 1\nA 0 0 0 1\na 0 0 0 1\nA 0 0 0 1\na 0 0 0 1\n.\n", "duplicated"),
    "delivered after its acknowledgement": ("l 0 0 5 1\nA 0 0 0 1\na 0 0 0 1\nl 0 0 9 2\n.\n", "duplicated"),
    "delivered twice with one number": ("l 0 0 5 1\nl 0 0 9 1\nA 0 0 0 1\na 0 0 0 1\n.\n", "uncounted"),
    "delivered before its release's delay": ("l 0 0 5 1\nb 0 0 20 1\nl 0 0 9 2\nA 0 0 0 2\na 0 0 0 2\n.\n", "early"),
    "delivered before it was put": ("l 0 1 5 1\n.\n", "invented"),
    "leased and lost": ("l 0 0 5 1\nx 0 0 0 1\n.\n", "lost"),
}


@pytest.mark.parametrize("fault", LEASED)
def test_a_history_of_leases_that_no_queue_can_have_is_noticed(fault: str, tmp_path: Path) -> None:
    """Each is wrong in the one way that its name says."""
    entries, shown = LEASED[fault]
    verdict = judge_entries(tmp_path, PUT_ONE, entries)
    found = {**verdict.wrong, "lost": len(verdict.lost)}
    assert found[shown] == 1
    assert sum(found.values()) == (2 if shown == "invented" else 1)  # the message that was put is then lost


def test_a_delivery_before_the_delay_of_a_put_is_noticed(tmp_path: Path) -> None:
    """Its time counts from the begin of the put."""
    entries = "l 0 0 {} 1\nA 0 0 0 1\na 0 0 0 1\n.\n"
    for instant, early in ((100, 1), (101, 0)):
        assert judge_entries(tmp_path, "? 0 0 1 100\n+ 0 0 2\n", entries.format(instant)).early == early


def test_a_message_whose_acknowledgement_a_kill_interrupted_is_not_lost(tmp_path: Path) -> None:
    """The queue may have committed it."""
    verdict = judge_entries(tmp_path, PUT_ONE, "l 0 0 5 1\nA 0 0 0 1\n")
    assert (verdict.lost, verdict.cut_off, verdict.received) == ([], 1, 0)


def test_deliveries_that_nobody_recorded_are_counted(tmp_path: Path) -> None:
    """Killed consumers account for them, up to a batch each; more are a fault."""
    verdict = judge_entries(tmp_path, PUT_ONE, "l 0 0 5 10\nl 0 0 6 12\nA 0 0 0 12\na 0 0 0 12\n.\n")
    assert (verdict.unrecorded, verdict.redelivered) == (10, 1)
    report = Report(mode="lease", seed=1, seconds=1.0, kills=30, verdict=verdict)
    assert report.faults == ["10 deliveries that no consumer recorded, but killed consumers account for at most 0"]
    assert "1 redelivered" in str(report)


@pytest.mark.parametrize("hold", [None, 0.001])
def test_workers_record_the_leases_of_a_queue(hold: float | None, memory: str, name: str, tmp_path: Path) -> None:
    """A correct queue is sound: with holds that end in time, and with late settlements."""
    with ipcq.open(name, memory, leases=True, max_messages=100, serializer="raw") as queue:
        producer = Worker(queue, str(tmp_path / "p.ledger"), 1, delays=True)
        consumer = Worker(queue, str(tmp_path / "c.ledger"), 2, hold=hold, delays=True)
        for _ in range(40):
            producer.produce()
        queue.put(b"no message of a producer")
        queue.shutdown()
        with pytest.raises(ipcq.QueueShutDown):
            while True:
                consumer.work()
        producer.end()
        consumer.end()
        queue.unlink()
    verdict = judge([tmp_path / "p.ledger"], [tmp_path / "c.ledger"])
    assert not any((verdict.wrong | {"torn": 0}).values()) and not verdict.lost
    assert verdict.torn and verdict.redelivered
    assert ("x " in (tmp_path / "c.ledger").read_text()) == (hold is not None)


@pytest.mark.parametrize("patience", [20.0, 0.0])
def test_a_worker_settles_again_if_the_lock_was_held_for_long(
    patience: float, memory: str, name: str, tmp_path: Path
) -> None:
    """The holder may have got no processor; the patience is that of the other calls."""
    with ipcq.open(name, memory, leases=True, serializer="raw") as queue:
        queue.put_many([Tag(1, number).message() for number in range(9)])
        worker = Worker(queue, str(tmp_path / "c.ledger"), 2, patience=patience)
        settle, settled = queue._channel.settle, 0

        def settle_at_the_third_try(*given: Any) -> list[int]:
            nonlocal settled
            settled += 1
            if settled % 3:
                raise ipcq.TimedOutError
            return list(settle(*given))

        queue._channel.settle = settle_at_the_third_try
        if patience:
            while not queue.empty():
                worker.work()
        else:
            with pytest.raises(ipcq.TimedOutError):
                worker.work()
        worker.end()
        del queue._channel.settle
        queue.unlink()


def test_a_program_of_a_storm_leases(memory: str, reports: list[object], name: str, tmp_path: Path) -> None:
    """Until the queue has ended: what was given back comes again first."""
    with ipcq.open(name, memory, leases=True, serializer="raw") as queue:
        queue.put_many([Tag(1, number).message() for number in range(20)])
        queue.shutdown()
        workers.work(lambda at: ipcq.open(at, memory, create=False, serializer="raw"), [name], 2, str(tmp_path / "c"))
        assert queue.stats().gets == 20
        queue.unlink()
    assert reports == ["ready", "done"]


def test_a_lease_that_is_lost_without_a_hold_is_a_failure(memory: str, name: str, tmp_path: Path) -> None:
    """The worker lives, so nothing may have ended it."""
    with ipcq.open(name, memory, leases=True, serializer="raw") as queue:
        queue.put_many([Tag(1, number).message() for number in range(20)])
        worker = Worker(queue, str(tmp_path / "c.ledger"), 2)
        queue._channel.settle = lambda tokens, *_: list(tokens)
        with pytest.raises(ipcq.LeaseLost):
            worker.work()
        worker.end()
        del queue._channel.settle
        queue.unlink()


# Reports


def test_a_report_lists_the_faults() -> None:
    """It lists losses beyond those of killed consumers, and each kind of fault; and it is not ok."""
    verdict = Verdict(9, 0, 0, 9, lost=[Tag(0, 1), Tag(0, 2)], torn=["x"], missed=1)
    report = Report(mode="get", seed=1, seconds=1.0, kills=30, losable=1, verdict=verdict, recoveries=4)
    assert report.faults == ["2 lost, but killed consumers account for at most 1", "1 torn", "1 missed"]
    assert not report.ok
    assert "4 recoveries" in str(report) and "below 0.1 per kill" in str(report)


def test_a_delayed_get_without_a_wait_may_find_nothing(tmp_path: Path) -> None:
    """A get that was delayed for more than a millisecond may find nothing, a quick one may not."""
    puts = "? 0 0 1\n+ 0 0 2\n"
    verdict = judge_entries(tmp_path, puts, "0 5 20000000\n0 5 6\n< 0 0 30000000 30000001\n")
    assert (verdict.missed, verdict.put_off) == (1, 1)
    report = Report(mode="stops", seed=1, seconds=1.0, kills=3, stops=5, verdict=Verdict(9, 0, 0, 9, put_off=1))
    assert report.ok and "5 stops" in str(report)


def test_reports_add_up() -> None:
    """Over rounds, with the first seed and the last trouble."""
    first = Report(mode="names", seed=1, seconds=1.0, kills=3, inside=1, slowest_open=0.5)
    both = first + Report(mode="names", seed=2, seconds=2.0, kills=4, recoveries=2, trouble="stuck")
    assert (both.seed, both.seconds, both.kills, both.inside, both.recoveries) == (1, 3.0, 7, 1, 2)
    assert (both.slowest_open, both.faults, both.bound) == (0.5, ["stuck"], 3 / 7)
    assert (first + first).recoveries is None
    assert "slowest open 500.0 ms" in str(both)


# Storms that go wrong


class Stuck:
    """A queue that never returns a message."""

    def put(self, message: bytes, timeout: float) -> None:
        time.sleep(timeout)

    def get(self, timeout: float) -> object:
        time.sleep(timeout)
        raise ipcq.QueueEmpty

    def close(self) -> None:
        pass


class Failing(Stuck):
    """A queue whose puts fail."""

    def put(self, message: bytes, timeout: float) -> None:
        raise ValueError("on purpose")


def open_stuck() -> Stuck:
    return Stuck()


def open_failing() -> Failing:
    return Failing()


@pytest.mark.parametrize(
    ("opener", "patience", "trouble", "shown"),
    [(open_stuck, 0.5, "no progress for", "in get"), (open_failing, 20.0, "ended by itself", "on purpose")],
)
def test_a_storm_that_fails_shows_the_stacks_of_its_processes(
    opener: Callable[[], Stuck], patience: float, trouble: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stall and a failing process both end the storm, with the output of the processes."""
    monkeypatch.setattr(storm, "PAUSE", 0.05)  # so that a process lives long enough to fail
    report = Storm(opener=opener, arguments=(), kills=1000, producers=1, consumers=1, seed=1, patience=patience).run()
    assert trouble in report.trouble
    assert shown in report.stacks
    assert not report.ok


@pytest.mark.needs("pyshm")
def test_a_storm_stops_aiming_where_there_is_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """After some failed attempts, victims are no longer stopped and checked for a lock."""
    looks = []
    monkeypatch.setattr(storm, "VAIN", 0)
    monkeypatch.setattr(storm, "holds_lock", looks.append)
    report = stress("pyshm", kills=12, producers=1, consumers=1, seed=1, max_messages=4, max_message_size=512)
    assert report.ok and not looks


def test_a_storm_over_a_queue_that_cannot_be_created_raises(memory: str) -> None:
    """And nothing is left under the name."""
    with pytest.raises(ipcq.InvalidArgument):
        stress("memory", kills=1, max_messages=0)


# Locks


def hold_file(path: str) -> None:
    """Open a file, lock it when told, and report both."""
    import fcntl  # which only POSIX has

    held = os.open(path, os.O_RDWR | os.O_CREAT)
    say("free")
    hear()
    fcntl.flock(held, fcntl.LOCK_EX)
    say("held")
    time.sleep(100)


def hold_robust() -> None:
    """Create a robust mutex of the C library, lock it when told, and report both."""
    library = ctypes.CDLL(None)
    attributes, mutex = ctypes.create_string_buffer(64), ctypes.create_string_buffer(256)
    library.pthread_mutexattr_init(attributes)
    library.pthread_mutexattr_setrobust(attributes, 1)
    library.pthread_mutex_init(mutex, attributes)
    say("free")
    hear()
    library.pthread_mutex_lock(mutex)
    say("held")
    time.sleep(100)


@pytest.mark.parametrize(("program", "place"), [(hold_file, "lock"), (hold_robust, None)], ids=["file", "robust futex"])
def test_a_lock_that_a_stopped_process_holds_is_seen(
    program: Callable[..., None], place: str | None, peers: Peers, tmp_path: Path
) -> None:
    """A file lock and a robust futex; before it is taken, none is seen."""
    peer = peers.spawn(program, *([str(tmp_path / place)] if place else []))
    assert peer.hear() == "free"
    peer.stop()
    assert not holds_lock(peer.pid)
    peer.resume()
    peer.say("go on")
    assert peer.hear() == "held"
    peer.stop()
    assert holds_lock(peer.pid)
    peer.kill()
    assert not holds_lock(peer.pid)
