"""What stands where in a queue's file, and why a process that is killed at any instruction leaves it whole.

*Problem.* Many processes change one file by `pread` and `pwrite`, one at a time under a lock that the kernel takes back
when its holder dies. Whoever gets the lock next must find a queue in which the dead holder's last step was done
completely or not at all, without knowing that somebody died.

*Layout*, version 1, little-endian throughout, so that word size and C library do not matter::

    0     header, written before the file has a name and never again
    1024  state, slot 0     the slot of even sequence numbers
    1152  state, slot 1     the slot of odd ones
    4096  plain queue: the ring of bytes
    4096  queue with priorities: redo record, then at 8192 links, heap and blocks, each behind the other

The header holds what the queue was created with and its name. Sizes and places follow from that by `Geometry.of`, so
there is nothing in it that could point outside; the file has exactly the size that follows, and each process keeps its
own copy.

*Commit.* All that changes is in the state: counters, figures, and where the messages begin and end. A step reads the
newer of the two slots whose checksum holds, writes whatever it has to write into places that this state calls free, and
then writes the next state over the *older* slot. Before that `pwrite` the step has not happened, after it it has. A
write that was cut off in its middle, which no system promises not to happen, fails the checksum, and the older state,
untouched, still counts. The same checksum lets a process look at the state without the lock.

*Plain queue.* Records stand one behind the other in a ring of bytes and may go on at its beginning. `head` and `tail`
count bytes since the queue was made and never wrap. The space behind the tail is free.

*Queue with priorities.* A message is a chain of blocks, found through a binary heap of (key, first block), whose key is
the priority inverted and then the order of putting. `links` names for each block the next one, of a message's chain as
of the chain of free blocks, so a put cuts its blocks off the free chain without writing a link, and a get writes one:
from the last block of the message, which nothing follows as the message's length says, to the free chain. The entries
of the heap that a step moves cannot be written before the commit, as they are in use. They go into the redo record
first, whose checksum the committed state holds; then they are written where they belong, and a second state forgets
them. Whoever finds a state that still holds one writes the entries, again or for the first time: it comes to the same.

*Leases* need no other layout. A record has a state, the number of its holder's slot and a count of deliveries from this
version on; so far every record is ready and nobody's. Slots for holders have their place in the file from `SLOTS` on,
as bytes to lock beyond the end of it, so that they cost nothing.

*What it gives up.* A message goes through the kernel four times, a queue with priorities moves entries for each get,
and a process with write access can forge, drop or hold up messages. It cannot make another one read outside the file,
use more memory than a message may have, or loop: every number from the file is checked before it is used.
"""

import struct
from dataclasses import dataclass
from typing import Final, Literal, Self
from zlib import crc32

from ipcq.backend import Attributes, Lifetime
from ipcq.errors import CorruptQueue, VersionMismatch

MAGIC: Final = b"ipcqpysh"
VERSION: Final = 1

STATES_AT: Final = 1024
STATE_ROOM: Final = 128
DATA_AT: Final = 4096
REDO_ROOM: Final = 4096

#: Bytes beyond the end of any file that are locked: the one that handles of a last-close queue share, the one that
#: stands for the queue's lock where the system has no lock of whole files, and from `SLOTS` on one for each holder of
#: leases.
HOLDERS: Final = 1 << 62
MUTEX: Final = HOLDERS + 1
SLOTS: Final = HOLDERS + (1 << 32)

Lock = Literal["file", "shmlock"]
LOCKS: Final[tuple[Lock, ...]] = ("file", "shmlock")
_LIFETIMES: Final[tuple[Lifetime, ...]] = ("persistent", "last-close")

# Magic, version, checksum of what follows it up to the states. The first two never change their place.
_FRONT: Final = struct.Struct("<8sII")
# max_messages, max_message_size, buffer_size (0: none), priorities, lifetime, lock, length of the name, what names the
# lock's block.
_HEADER: Final = struct.Struct("<QQQBBBB8s")
_NAME_AT: Final = _FRONT.size + _HEADER.size

_STATE: Final = struct.Struct("<15Q")
_CHECKED: Final = struct.Struct("<15QI")
_SEQUENCE: Final = struct.Struct("<Q")

#: A record: length of the message, slot of its holder, deliveries, state, one byte of nothing.
RECORD: Final = struct.Struct("<QIHBx")
READY: Final = 1

#: Bits of `State.flags`.
DOWN: Final = 1

#: No counter comes near this in the lifetime of a machine; positions beyond it are forged.
_MOST: Final = 1 << 62

BLOCK: Final = 512
LINK: Final = struct.Struct("<I")
ENTRY: Final = struct.Struct("<QQ")
CELL: Final = struct.Struct("<QQQ")
#: A step down the heap moves one entry of each level at the most.
MOST_CELLS: Final = 64


class State:
    """What a queue is between two steps."""

    __slots__ = (
        "bytes",
        "count",
        "cut_off",
        "flags",
        "free",
        "gets",
        "head",
        "high_water_mark",
        "puts",
        "recoveries",
        "redo",
        "sequence",
        "spare",
        "tail",
        "timeouts",
        "waits",
    )

    def __init__(
        self,
        sequence: int = 0,
        flags: int = 0,
        count: int = 0,
        size: int = 0,
        head: int = 0,
        tail: int = 0,
        free: int = 0,
        spare: int = 0,
        redo: int = 0,
        puts: int = 0,
        gets: int = 0,
        high_water_mark: int = 0,
        waits: int = 0,
        timeouts: int = 0,
        recoveries: int = 0,
    ) -> None:
        self.sequence = sequence
        self.flags = flags
        self.count = count
        self.bytes = size
        self.head = head
        self.tail = tail
        self.free = free
        self.spare = spare
        self.redo = redo
        self.puts = puts
        self.gets = gets
        self.high_water_mark = high_water_mark
        self.waits = waits
        self.timeouts = timeouts
        self.recoveries = recoveries
        #: A newer one was there and is cut off. Not in the file.
        self.cut_off = False

    def packed(self) -> bytes:
        raw = _STATE.pack(
            self.sequence,
            self.flags,
            self.count,
            self.bytes,
            self.head,
            self.tail,
            self.free,
            self.spare,
            self.redo,
            self.puts,
            self.gets,
            self.high_water_mark,
            self.waits,
            self.timeouts,
            self.recoveries,
        )
        return raw + crc32(raw).to_bytes(4, "little")

    def stored(self, count: int, size: int) -> None:
        """Count messages of `size` bytes in all that came in."""
        self.count += count
        self.bytes += size
        self.puts += count
        self.high_water_mark = max(self.high_water_mark, self.count)

    def taken(self, count: int, size: int) -> None:
        """Count messages of `size` bytes in all that went out."""
        self.count -= count
        self.bytes -= size
        self.gets += count


def place(sequence: int) -> int:
    """Return where the state of a sequence number stands."""
    return STATES_AT + (sequence & 1) * STATE_ROOM


def newest(raw: bytes) -> State | None:
    """Return the newer state of two slots whose checksum holds; None where neither's does.

    Under the lock, a newer state that is cut off is what a dead process left; without it, somebody is writing just now.
    """
    (even,) = _SEQUENCE.unpack_from(raw, 0)
    (odd,) = _SEQUENCE.unpack_from(raw, STATE_ROOM)
    first = STATE_ROOM if odd > even else 0
    for at in (first, STATE_ROOM - first):
        *numbers, checksum = _CHECKED.unpack_from(raw, at)
        if crc32(raw[at : at + _STATE.size]) == checksum and place(numbers[0]) == STATES_AT + at:
            if max(numbers) >= _MOST:
                return None
            state = State(*numbers)
            state.cut_off = at != first
            return state
    return None


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes and places in the file; each follows from the queue's attributes."""

    size: int
    """The whole file, in bytes."""
    ring: int
    """Bytes of the ring; 0 in a queue with priorities."""
    block: int
    """Bytes of a block; 0 in a plain queue."""
    blocks: int
    links_at: int
    heap_at: int
    blocks_at: int

    @classmethod
    def of(cls, attributes: Attributes) -> Self:
        messages, size = attributes.max_messages, attributes.max_message_size
        room = attributes.buffer_size
        if not attributes.priorities:
            # Every record that is counted has its header beside the bytes; without a count there is room for one, so
            # that the largest message always fits.
            ring = (messages or 0) * (size + RECORD.size) if room is None else room + (messages or 1) * RECORD.size
            return cls(DATA_AT + ring, ring, 0, 0, 0, 0, 0)
        if room is None:
            block, blocks = size + RECORD.size, messages or 0
        else:
            # Of each chain one block may be partly filled.
            block, blocks = BLOCK, -(-(room + (messages or 1) * RECORD.size) // BLOCK) + (messages or 0)
        links_at = DATA_AT + REDO_ROOM
        heap_at = -(-(links_at + blocks * LINK.size) // ENTRY.size) * ENTRY.size
        blocks_at = heap_at + blocks * ENTRY.size
        return cls(blocks_at + blocks * block, 0, block, blocks, links_at, heap_at, blocks_at)


@dataclass(frozen=True, slots=True)
class Header:
    """What a queue was created with."""

    name: str
    attributes: Attributes
    lock: Lock
    lock_name: bytes
    """Eight random bytes that a lock in a place of its own is named by."""

    def packed(self) -> bytes:
        given = self.attributes
        name = self.name.encode()
        rest = _HEADER.pack(
            given.max_messages or 0,
            given.max_message_size,
            given.buffer_size or 0,
            given.priorities,
            _LIFETIMES.index(given.lifetime),
            LOCKS.index(self.lock),
            len(name),
            self.lock_name,
        )
        rest = (rest + name).ljust(STATES_AT - _FRONT.size, b"\0")
        return _FRONT.pack(MAGIC, VERSION, crc32(rest)) + rest

    @classmethod
    def of(cls, raw: bytes, mode: int) -> Self:
        """Read a header.

        Args:
            raw: The file's first bytes, up to the states.
            mode: The file's permission bits.

        Raises:
            CorruptQueue: It is none.
            VersionMismatch: It is of another version.
        """
        if len(raw) != STATES_AT:
            raise CorruptQueue(f"its file ends after {len(raw)} bytes: remove it")
        magic, version, checksum = _FRONT.unpack_from(raw)
        if magic != MAGIC:
            raise CorruptQueue("its file was not written by ipcq: remove it")
        if version != VERSION:
            raise VersionMismatch(
                f"its layout has version {version}, this ipcq knows version {VERSION}: use the ipcq that made it, "
                "or unlink it and create it anew"
            )
        if crc32(raw[_FRONT.size :]) != checksum:
            raise CorruptQueue("its header is damaged: unlink it and create it anew")
        messages, size, room, priorities, lifetime, lock, length, lock_name = _HEADER.unpack_from(raw, _FRONT.size)
        try:
            header = cls(
                raw[_NAME_AT : _NAME_AT + length].decode(),
                Attributes(
                    mode=mode,
                    max_messages=messages or None,
                    max_message_size=size,
                    buffer_size=room or None,
                    priorities=bool(priorities),
                    lifetime=_LIFETIMES[lifetime],
                ),
                LOCKS[lock],
                lock_name,
            )
        except (IndexError, UnicodeDecodeError) as error:
            raise CorruptQueue("its header makes no sense: unlink it and create it anew") from error
        # A checksum is no proof: whoever may write can compute it.
        bounded = room or (messages and size)
        if not size or not bounded or (room and room < size * (messages and 1)) or max(messages, size, room) >= _MOST:
            raise CorruptQueue("its header makes no sense: unlink it and create it anew")
        return header
