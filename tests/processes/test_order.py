"""C8: the history of several producers and consumers is that of one FIFO queue."""

import pytest

import ipcq
from ipcq.testing.processes import Peers
from ipcq.testing.workers import consume, produce

OPERATIONS = 100_000
EACH = 4


@pytest.mark.storm
@pytest.mark.timeout(150)
def test_a_history_of_four_producers_and_four_consumers_is_that_of_one_queue(
    name: str, backend: str, queue: "ipcq.Queue[object]"
) -> None:
    """C8: in 100,000 operations nothing surely overtakes, is lost, doubled, or missed by a get that does not wait."""
    with Peers(patience=120) as peers:
        share = OPERATIONS // 2 // EACH
        consumers = [
            peers.spawn(consume, name, backend, peers.ledger("consumer", number), look=True) for number in range(EACH)
        ]
        producers = [
            peers.spawn(produce, name, backend, number, peers.ledger("producer", number), share)
            for number in range(EACH)
        ]
        for producer in producers:
            producer.done()
        queue.shutdown()
        for consumer in consumers:
            consumer.done()
        verdict = peers.judge()
        print(f"{backend}: {verdict}")
        assert verdict.sound, verdict
        assert not verdict.lost, verdict
        assert verdict.received == share * EACH
