"""A call yields to the many processes that sleep, within the time that it may take."""

import os
import struct
import time
from typing import Any

import pytest

import ipcq
from backends import shm
from backends.shm import LOCKS, create

Handle = ipcq.Queue[Any]

works, name = shm.works, shm.name

#: Offsets in csrc/layout.h: the flags that calls check, and the number of sleepers on each side.
WATCH = 140
ASLEEP = 144
#: Calls before one yields (EVENT_TURN in csrc/event.h).
TURN = 256


def fake_sleepers(queue: Handle, side: str) -> None:
    """Make it look as if many processes slept on the event of that side."""
    os.pwrite(queue._channel.descriptor, struct.pack("=I", 1000), LOCKS[side] + ASLEEP)
    os.pwrite(queue._channel.descriptor, struct.pack("=I", 4 if side == "get" else 8), WATCH)


@pytest.mark.parametrize("verb", ["put", "get"])
def test_yielding_takes_no_longer_than_the_timeout(name: str, verb: str) -> None:
    """C11: a timeout covers the sleep of a yield, too."""
    tries = 5
    took = []
    with create(name, max_messages=2 * tries * TURN, max_message_size=8) as queue:
        if verb == "get":
            queue.put_many([b"item"] * (tries * (TURN + 1)))
        fake_sleepers(queue, "get" if verb == "put" else "put")
        for _ in range(tries * (TURN + 1)):
            since = time.monotonic()
            if verb == "put":
                queue.put(b"item", timeout=0.001)
            else:
                queue.get(timeout=0.001)
            took.append(time.monotonic() - since)
    # The last call of each turn yields. The host may delay any call, so the slowest ones are ignored.
    assert sorted(took)[-tries] < 0.01
