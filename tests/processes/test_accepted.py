"""C1: a message that was accepted is stored."""

import ipcq
from ipcq.testing.oracle import Tag
from ipcq.testing.processes import Peers, bound
from processes.programs import put_and_die
from processes.sizes import size

ROUNDS = size(100, 10_000)


def test_a_message_outlives_a_producer_that_dies_right_after_put(
    queue: "ipcq.Queue[object]", backend: str, peers: Peers
) -> None:
    """C1: a message put by a producer that then kills itself is received, every time."""
    for number in range(ROUNDS):
        assert peers.fork(put_and_die, queue.name, backend, number).wait() == -9
        assert Tag.of(queue.get(timeout=10)) == Tag(number, 0)
    print(f"{ROUNDS} of {ROUNDS} messages outlived their producer; loss rate below {bound(ROUNDS):.3g} (95 %)")
