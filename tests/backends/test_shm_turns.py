"""Whoever runs among many that sleep gives way to them: what the calls of a handle make of it."""

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

#: The layout of csrc/layout.h: what calls have to attend to, and of each side how many sleep.
WATCH = 140
ASLEEP = 144
#: Calls that get on before one gives way (EVENT_TURN of csrc/event.h).
TURN = 256


def let_sleep(queue: Handle, side: str) -> None:
    """Make it look as if many slept on what that side rings."""
    os.pwrite(queue._channel.descriptor, struct.pack("=I", 1000), LOCKS[side] + ASLEEP)
    os.pwrite(queue._channel.descriptor, struct.pack("=I", 4 if side == "get" else 8), WATCH)


@pytest.mark.parametrize("verb", ["put", "get"])
def test_giving_way_takes_no_longer_than_the_call_may_wait(name: str, verb: str) -> None:
    """C11: a timeout covers that sleep, too."""
    tries = 5
    took = []
    with create(name, max_messages=2 * tries * TURN, max_message_size=8) as queue:
        if verb == "get":
            queue.put_many([b"item"] * (tries * (TURN + 1)))
        let_sleep(queue, "get" if verb == "put" else "put")
        for _ in range(tries * (TURN + 1)):
            since = time.monotonic()
            if verb == "put":
                queue.put(b"item", timeout=0.001)
            else:
                queue.get(timeout=0.001)
            took.append(time.monotonic() - since)
    # The last call of each turn gives way; the host may hold up any of them.
    assert sorted(took)[-tries] < 0.01
