"""C28: hostile contents of the file of a pyshm queue with leases, and hostile tokens."""

import os
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from zlib import crc32

import pytest

import ipcq
from backends import pyshm
from backends.pyshm import Handle, create, forge_state, linux, read_file, write_file
from ipcq.errors import CorruptQueue, MessageQueueError
from ipcq_pyshm import _place
from ipcq_pyshm._layout import INDEX_AT, OWNERS_AT, REASON_AT, STATES_AT, LeaseState

pytestmark = linux
name, leasing = pyshm.name, pyshm.leasing

USES: dict[str, Callable[[Handle], object]] = {
    **pyshm.USES,
    "lease": lambda queue: [queue._channel.try_lease(9, None), queue._channel.try_lease_many(10, 2, 1000.0)],
    "put later": lambda queue: queue.put(b"x" * 60, timeout=0, delay=0.0001),
    "settle": lambda queue: [queue._channel.settle(tokens(queue), verdict, 0.0, b"reason") for verdict in range(4)],
    "extend": lambda queue: queue._channel.extend(tokens(queue), 0.0001),
    "find_lost": lambda queue: queue._channel.find_lost(tokens(queue)),
    "recall": lambda queue: queue._channel.recall(1, 1 << 62),
    "held": lambda queue: queue._channel.held(5),
    "dead": lambda queue: queue.dead().peek_all(),
    "get dead": lambda queue: queue.dead().get(timeout=0),
    "requeue": lambda queue: queue.dead().requeue(),
    "clear dead": lambda queue: queue.dead().clear(),
}


def tokens(queue: Handle) -> list[int]:
    """Return tokens that may be those of leases."""
    return [serial << 32 | block for serial in (1, 1 << 16) for block in (0, 1, 2, 3, 4, (1 << 32) - 1)]


def prepare(queue: Handle) -> list[ipcq.Lease[Any]]:
    """Make a message of each state."""
    queue.put_many([b"a" * 40, b"b", b"c" * 64])
    queue.lease(timeout=0).reject("bad")
    jobs = queue.lease_many(1)
    queue.put(b"d", delay=1000)
    return jobs


@pytest.mark.parametrize("use", USES)
def test_every_number_of_the_state_may_be_hostile(leasing: Handle, name: str, use: str) -> None:
    """C28: with a valid checksum, each use returns or raises an error of ours, and the file keeps its size."""
    jobs = prepare(leasing)
    whole = read_file(name)
    for number in (*LeaseState.__slots__, "flags", "count", "bytes", "free", "spare", "redo", "puts", "gets"):
        for word in (0, 1, 3, 64, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 62) - 1, 1 << 62):
            with suppress(struct.error):
                forge_state(name, **{number: word})
            with suppress(MessageQueueError):
                USES[use](leasing)
            assert os.path.getsize(_place.path_of(name)) == len(whole)
            write_file(name, 0, whole)
    leasing.ack_many(jobs)


@pytest.mark.parametrize("seed", range(4))
def test_bytes_may_be_hostile_anywhere(leasing: Handle, name: str, seed: int) -> None:
    """C28: only errors of ours, no message above the limit, no file that grows."""
    import random

    chance = random.Random(seed)
    jobs = prepare(leasing)
    whole = read_file(name)
    geometry = leasing._channel._order._geometry
    places = [*range(STATES_AT, STATES_AT + 300), *range(OWNERS_AT, OWNERS_AT + 32)]
    places += range(geometry.links_at, len(whole))
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            data[chance.choice(places)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        write_file(name, 0, bytes(data))
        leasing._channel._owners.next_look = 0
        with suppress(MessageQueueError):
            result = USES[chance.choice(list(USES))](leasing)
            assert not isinstance(result, bytes) or len(result) <= 64
        assert os.path.getsize(_place.path_of(name)) == len(whole)
    write_file(name, 0, whole)
    leasing.ack_many(jobs)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"x" * 40000,
        struct.pack("<QH", 1024, 1) + b"x",
        struct.pack("<QH", 1 << 40, 1) + b"x",
        struct.pack("<QH", 65000, 9),
    ],
    ids=["without a checksum", "too long", "before the data", "after the end", "cut off"],
)
def test_an_invalid_redo_record_is_corrupt(leasing: Handle, name: str, record: bytes) -> None:
    """C28: its size, its checksum and each of its offsets are checked."""
    write_file(name, 4096, record[:32768])
    forge_state(name, redo=(len(record) or 1) << 32 | crc32(record))
    with pytest.raises(CorruptQueue):
        leasing.get(timeout=0)


def test_a_token_for_the_middle_of_a_message_is_lost(name: str) -> None:
    """C4, C28: the block of its message belongs to another one by now."""
    with create(name, leases=True, max_messages=None, max_message_size=2000, buffer_size=4000) as queue:
        queue.put(b"1")
        queue.put(b"2")
        first, second = queue.lease_many(2)
        channel = queue._channel
        channel.settle([first._token], 0, 0.0, b"")
        channel.settle([second._token], 0, 0.0, b"")
        queue.put(b"\xff" * 2000)
        assert channel.find_lost([first._token, second._token]) == [first._token, second._token]
        assert channel.settle([first._token, second._token], 0, 0.0, b"") == [second._token, first._token]
        first._end = second._end = "acknowledged"


def test_the_index_of_a_lease_may_be_hostile(leasing: Handle, name: str) -> None:
    """C28: a wrong one makes the token a lost one, and the return of the lease an error."""
    leasing.put_many([b"1", b"2"])
    jobs = leasing.lease_many(2)
    order = leasing._channel._order
    write_file(name, order._at(jobs[1]._token & 0xFFFFFFFF) + INDEX_AT, struct.pack("<I", 7))
    assert [job.lost for job in jobs] == [False, True]
    with pytest.raises(CorruptQueue):
        leasing._channel.recall(jobs[1]._token >> 32, 1)
    leasing.ack_many(jobs[:1])
    jobs[1]._end = "lost"


def test_the_length_of_a_reason_may_be_hostile(leasing: Handle, name: str) -> None:
    """C28: it is checked."""
    leasing.put(b"1")
    leasing.lease(timeout=0).reject("bad")
    write_file(name, leasing._channel._order._at(0) + REASON_AT, b"\xff")
    with pytest.raises(CorruptQueue):
        leasing.dead().peek()
