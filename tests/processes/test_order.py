"""C8: the history of several producers and consumers is that of one FIFO queue."""

import itertools
import signal
import time
from collections import Counter
from contextlib import suppress

import pytest

import ipcq
from ipcq.testing.histories import Call, linearizable, record
from ipcq.testing.processes import Peers
from ipcq.testing.workers import attached, consume, produce
from processes.needs import needs_leases
from processes.sizes import size

HISTORIES = size(1, 20)
OPERATIONS = size(100_000, 1_000_000)
#: Fewer where each operation is a transaction.
OPERATIONS_OF = {"sqlite": size(20_000, 1_000_000)}
PROCESSES = 4

SHORT_HISTORIES = size(500, 5000)
LEASE_HISTORIES = size(100, 2000)
CALLS = 40


@pytest.fixture
def operations(request: pytest.FixtureRequest, backend: str) -> int:
    """Return the number of operations in a history; the command line may give another."""
    return int(request.config.getoption("--operations") or OPERATIONS_OF.get(backend, OPERATIONS))


@pytest.mark.storm
@pytest.mark.timeout(300 if HISTORIES == 1 else 0)
@pytest.mark.parametrize("history", range(HISTORIES))
def test_a_history_of_four_producers_and_four_consumers_is_that_of_one_queue(
    name: str, backend: str, queue: "ipcq.Queue[object]", history: int, operations: int
) -> None:
    """C8: no message certainly overtakes another, is lost, duplicated, or missed by a get."""
    at = [name, backend]
    with Peers(patience=None) as peers:
        share = operations // 2 // PROCESSES
        consumers = [
            peers.spawn(consume, attached, at, number, peers.ledger("consumer", number), look=True)
            for number in range(PROCESSES)
        ]
        producers = [
            peers.spawn(produce, attached, at, number, peers.ledger("producer", number), count=share)
            for number in range(PROCESSES)
        ]
        for producer in producers:
            producer.done(250 if HISTORIES == 1 else 500)
        queue.shutdown()
        for consumer in consumers:
            consumer.done()
        began = time.monotonic()
        verdict = peers.judge()
        print(f"{backend}: {verdict}; longest stall {verdict.stall * 1000:.1f} ms")
        print(f"{backend}: judged in {time.monotonic() - began:.1f} s")
        assert verdict.sound and not verdict.lost and not verdict.cut_off, verdict
        assert verdict.received == share * PROCESSES


@pytest.mark.storm
def test_short_histories_with_full_and_empty_results_are_those_of_one_queue(name: str, backend: str) -> None:
    """C8: each of 500 histories has an order: 160 calls without waits, by four processes on a queue of two."""
    refused = {"put": 0, "get": 0}
    overlapping = 0
    with (
        ipcq.open(name, backend, exclusive=True, max_messages=2, max_message_size=64) as queue,
        Peers(patience=100) as peers,
    ):
        crew = [peers.fork(record, attached, [name, backend], number) for number in range(PROCESSES)]
        for peer in crew:
            peer.hear()
        for _ in range(SHORT_HISTORIES):
            start = time.monotonic() + 0.002
            for peer in crew:
                peer.say([CALLS, start, False])
            history = sorted((Call(*call) for peer in crew for call in peer.hear()), key=lambda call: call.begun)
            queue.clear()
            assert linearizable(history, 2), history
            overlapping += sum(later.begun < earlier.returned for earlier, later in itertools.pairwise(history))
            for call in history:
                refused[call.verb] += call.value is None
        for peer in crew:
            peer.say(None)
            peer.done()
    print(
        f"{backend}: {SHORT_HISTORIES} histories of {CALLS * PROCESSES} calls,"
        f" found full {refused['put']}, empty {refused['get']}"
    )
    assert all(refused.values())


@pytest.mark.storm
def test_short_histories_with_leases_and_a_death_are_those_of_one_queue(name: str, backend: str) -> None:
    """C3, C8: each of 100 histories has an order: calls without waits on a queue of three, and one holder is killed.

    What the killed process held returns at some instant after its death, in its old place.
    """
    needs_leases(backend)
    seen: Counter[str] = Counter()
    with (
        ipcq.open(name, backend, exclusive=True, max_messages=3, max_message_size=64, leases=True) as queue,
        Peers(patience=100) as peers,
    ):
        at = [name, backend]
        crew = [peers.fork(record, attached, at, number, leases=True) for number in range(PROCESSES - 1)]
        for peer in crew:
            peer.hear()
        for number in range(LEASE_HISTORIES):
            victim = peers.fork(record, attached, at, PROCESSES + number, leases=True)
            victim.hear()
            start = time.monotonic() + 0.002
            for peer in (*crew, victim):
                peer.say([CALLS, start, peer is victim])
            history = [Call(*call) for peer in (*crew, victim) for call in peer.hear()]
            assert victim.wait() == -signal.SIGKILL
            while queue.stats().leased or not queue.empty():
                begun = time.monotonic_ns()
                with suppress(ipcq.QueueEmpty):  # it has not returned yet
                    history.append(Call("get", int(queue.get(timeout=0)), begun, time.monotonic_ns()))
            history.append(Call("get", None, time.monotonic_ns(), time.monotonic_ns()))
            assert linearizable(history, 3), sorted(history, key=lambda call: call.begun)
            seen.update(f"{call.verb}{'' if call.value is not None else ' refused'}" for call in history)
        for peer in crew:
            peer.say(None)
            peer.done()
    print(f"{backend}: {LEASE_HISTORIES} histories of {CALLS * PROCESSES} calls and more: {dict(seen)}")
    assert all(seen[verb] for verb in ("lease", "ack", "release", "return", "lease refused", "put refused"))
