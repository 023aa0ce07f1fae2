"""Waiting: wake-ups after 5 ms compared with a bare futex in C, and the processor time of a consumer blocked for 2 s.

Ratios are to the futex. Goals: on shm at most 1.15 times the time of the futex for a wake-up, and at most 0.3 ms of
processor time. A sleeper looks every 100 ms, because the waker may have been stopped or killed, and because a signal
may arrive just before the sleep; a second program in C shows what only that costs. fairness.py measures how 64
processes wait for each other.
"""

import harness
from floors import Floor

from ipcq._bench.contestant import PEER
from ipcq._bench.queues import Ipcq
from ipcq._bench.references import Pipe


class Futex(Floor):
    """The floor as a peer, so that ratios refer to it."""

    kind = PEER

    def __init__(self) -> None:
        super().__init__("futex, C")


if __name__ == "__main__":
    backends = [Ipcq(name) for name in ("shm", "mqueue", "socketpair", "pyshm")]
    harness.main(__doc__, [*backends, Futex(), Floor("futex in slices of 100 ms, C"), Pipe()], ("wake-up", "idle"))
