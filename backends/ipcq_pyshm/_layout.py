"""The layout of a queue's file, and why a kill at any instruction leaves it consistent.

*Problem.* Many processes change one file with `pread` and `pwrite`, one at a time under a lock that the kernel releases
when its holder dies. The next holder cannot tell that the last one died, and must still find its last step either
complete or without any effect.

*Layout*, version 2, little-endian throughout, so that word size and C library do not matter::

    0     header, written before the file has a name and never again
    1024  state, slot 0     for even sequence numbers
    1152  state, slot 1     for odd sequence numbers
    1280  bells, one for messages and one for space (see `_bells`)
    1288  with leases: when somebody last looked for dead owners (see `_owners`)
    1296  how many messages were dropped to make room
    4096  without priorities: the ring of bytes
    4096  with priorities: redo record; from 8192 on links, heap and blocks, one after the other
    4096  with leases: redo record, table of owners, links, four heaps and blocks (see `_leases`)

Version 1 had no leases and a shorter header; all else was the same. So a handle that only takes
accepts it, as that of `ipcq drain` does.
A feature that a later ipcq adds is a bit of the header's `features`; an ipcq that does not know it refuses the queue.
One is reserved, for messages in files of their own, whose names have the queue's `incarnation`: a record whose state is
2 then refers to such a file.

The header holds the parameters and the name of the queue. `Geometry.of` computes all sizes and offsets from the
parameters, so the header has no offset that could point outside the file. The file has exactly the computed size, and
each process keeps its own copy of the header.

*Commit.* Everything that changes is in the state: counters, statistics, and the positions of the messages. A step
reads the newer of the two slots with a valid checksum, writes into space that this state counts as free, and then
writes the next state over the *older* slot. Before that `pwrite` the step has no effect; afterwards it is complete. No
system guarantees that a write is not torn. A torn write fails the checksum, and the older state still counts. The
checksum also allows reading the state without the lock.

*Without priorities.* Records follow each other in a ring of bytes; a record may wrap around its end. `head` and `tail`
count bytes since the creation of the queue and never wrap. The space after the tail is free.

*With priorities.* A message is a chain of blocks, found through a binary heap of (key, first block). The key is the
inverted priority and then the number of the put. `links` holds for each block the next block, in the chain of a message
and in the chain of free blocks. So a put cuts its blocks off the free chain without writing a link. A get writes one
link: from the message's last block, which the message's length determines, to the free chain. The heap entries that a
step moves are in use, so they cannot be written before the commit. They are first written to the redo record, whose
checksum is in the committed state; then they are written to the heap, and a second state clears the redo record. A
process that reads a state with a redo record writes the entries again, which is idempotent.

*With leases* a state has other counters, `LeaseState`; `_leases` says where the messages are. An owner of leases locks
the byte `OWNERS` + its number, beyond the end of the file, where it takes no space.

*What it gives up.* Each put and each get takes several system calls, a queue with priorities moves heap entries for
each get, and a process with write access can forge, drop or delay messages. It cannot make another process read outside
the file, use more memory than a message may have, or loop: every number from the file is checked before it is used.
"""

import struct
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, Self, TypeAlias
from zlib import crc32

from ipcq.backend import Attributes, Lifetime
from ipcq.errors import CorruptQueue, VersionMismatch

MAGIC: Final = b"ipcqpysh"
VERSION: Final = 2
#: The version without leases, which `ipcq drain` still reads.
OLD_VERSION: Final = 1

#: Bits of the header's features. The next one, 2, is reserved for messages in files of their own ("parcels").
LEASES: Final = 1

STATES_AT: Final = 1024
STATE_ROOM: Final = 128
BELL: Final = struct.Struct("<I")
BELLS_AT: Final = STATES_AT + 2 * STATE_ROOM
#: When somebody last looked for dead owners, in nanoseconds of the monotonic clock.
LOOKED: Final = struct.Struct("<Q")
LOOKED_AT: Final = BELLS_AT + 2 * BELL.size
#: Both states and both bells, which one call reads.
STATES_BYTES: Final = 2 * STATE_ROOM + 2 * BELL.size
#: How many messages were dropped to make room; a figure, written after the commit.
DROPPED: Final = struct.Struct("<Q")
DROPPED_AT: Final = LOOKED_AT + LOOKED.size
DATA_AT: Final = 4096
REDO_ROOM: Final = 4096

#: Offsets of lock bytes, beyond the end of any file: the byte that all handles of a last-close queue lock; the byte
#: that serves as the queue's lock if the system cannot lock whole files; and from `OWNERS` on one byte for each owner
#: of leases, whose number has at most `OWNER_BITS` bits.
HOLDERS: Final = 1 << 62
MUTEX: Final = HOLDERS + 1
OWNERS: Final = HOLDERS + (1 << 32)
OWNER_BITS: Final = 60

Lock = Literal["file", "shmlock"]
LOCKS: Final[tuple[Lock, ...]] = ("file", "shmlock")
_LIFETIMES: Final[tuple[Lifetime, ...]] = ("persistent", "last-close")

# Magic, version, and the checksum of the following bytes up to the states. The first two never move.
_FRONT: Final = struct.Struct("<8sII")
# max_messages, max_message_size, buffer_size (0: no limit), priorities, lifetime, lock, length of the name, lock_name.
_OLD_HEADER: Final = struct.Struct("<QQQBBBB8s")
# The same; and features, max_deliveries (0: no bound), time_namespace, incarnation.
_HEADER: Final = struct.Struct("<QQQBBBB8sIIQ8s")

_STATE: Final = struct.Struct("<15Q")
_CHECKED: Final = struct.Struct("<15QI")
_LEASE_STATE: Final = struct.Struct("<Q11I9Q")
_LEASE_CHECKED: Final = struct.Struct("<Q11I9QI")
#: The sequence numbers of both slots.
_SEQUENCES: Final = struct.Struct(f"<Q{STATE_ROOM - 8}xQ")

#: A record: length of the message, six unused bytes, state, one byte of padding.
RECORD: Final = struct.Struct("<QIHBx")
READY: Final = 1

CUT_OFF: Final = "its file was truncated: unlink and recreate it"

#: Bits of `State.flags`. With `PARTLY`, a batch is under way that has been committed in part.
DOWN: Final = 1
PARTLY: Final = 2

#: No counter comes near this in the lifetime of a machine; larger numbers are forged.
_MOST: Final = 1 << 62

BLOCK: Final = 512
LINK: Final = struct.Struct("<I")
ENTRY: Final = struct.Struct("<QQ")
CELL: Final = struct.Struct("<QQQ")
#: A sift moves at most one entry per level of the heap.
MOST_CELLS: Final = 64

#: With leases: the redo record, and the table of the owners' numbers.
LEASE_REDO_ROOM: Final = 1 << 15
OWNER: Final = struct.Struct("<Q")
MOST_OWNERS: Final = 1024
OWNERS_AT: Final = DATA_AT + LEASE_REDO_ROOM

#: The head of a message with leases, in its first block. What it is: key (see `_heap`) and length in bytes.
IDENTITY: Final = struct.Struct("<QQ")
#: Deliveries that are over, and failures.
COUNTS: Final = struct.Struct("<II")
#: While it is leased: serial number, since when in nanoseconds, and index in the heap of leases.
LOAN: Final = struct.Struct("<QQI")
INDEX: Final = struct.Struct("<I")
#: While it is fresh: the next message that is.
NEXT: Final = struct.Struct("<I")
#: While it is dead: length of the reason, and the reason.
REASON: Final = struct.Struct("<B64s")
COUNTS_AT: Final = IDENTITY.size
LOAN_AT: Final = COUNTS_AT + COUNTS.size
INDEX_AT: Final = LOAN_AT + LOAN.size - INDEX.size
NEXT_AT: Final = LOAN_AT + LOAN.size
REASON_AT: Final = NEXT_AT + NEXT.size
#: All of it but the reason.
FRONT: Final = struct.Struct("<QQIIQQII")
HEAD: Final = REASON_AT + REASON.size
#: The end of a lease that has none: later than any other.
NEVER: Final = (1 << 62) - 1


_Bytes: TypeAlias = bytes  # the name that `State.bytes` hides


class State:
    """The state of a queue between two steps."""

    sequence: int
    flags: int
    count: int
    bytes: int
    head: int
    tail: int
    free: int
    spare: int
    redo: int
    puts: int
    gets: int
    high_water_mark: int
    waits: int
    timeouts: int
    recoveries: int
    cut_off: bool
    """A newer state is incomplete. This field is not in the file."""

    __slots__ = tuple(__annotations__)

    @classmethod
    def first(cls, blocks: int) -> Self:
        """Return the state of a new queue, whose blocks are all free."""
        state = cls()
        for number in (*State.__slots__, *cls.__slots__):
            setattr(state, number, 0)
        state.sequence, state.spare, state.cut_off = 1, blocks, False
        return state

    @property
    def ended(self) -> bool:
        """Whether no get will ever return a message."""
        return self.flags & DOWN != 0 and not self.count

    def load(self, numbers: list[int]) -> None:
        """Take the numbers from a file, in the order of `packed`."""
        raise NotImplementedError  # pragma: no cover - `newest` does it

    def packed(self) -> _Bytes:
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


class LeaseState(State):
    """The state of a queue with leases. `count` is the number of messages that are ready."""

    heaped: int
    """Number of messages in the heap of those that are ready. The others are in the chain of fresh ones."""
    first_fresh: int
    last_fresh: int
    """First and last message of that chain."""
    leased: int
    delayed: int
    dead: int
    returned: int
    next_due: int
    """No hold and no delay ends earlier, in nanoseconds of the monotonic clock; 0 if none ends."""

    __slots__ = tuple(__annotations__)

    @property
    def ended(self) -> bool:
        return self.flags & DOWN != 0 and not (self.count or self.leased or self.delayed)

    @property
    def places(self) -> int:
        """Number of messages in all states."""
        return self.count + self.leased + self.delayed + self.dead

    # The fields are written out here and in `load`: a loop over their names takes 4 microseconds
    # more in each step.
    def packed(self) -> _Bytes:
        raw = _LEASE_STATE.pack(
            self.sequence,
            self.flags,
            self.count,
            self.heaped,
            self.first_fresh,
            self.last_fresh,
            self.leased,
            self.delayed,
            self.dead,
            self.free,
            self.spare,
            self.high_water_mark,
            self.bytes,
            self.redo,
            self.puts,
            self.gets,
            self.returned,
            self.next_due,
            self.waits,
            self.timeouts,
            self.recoveries,
        )
        return raw + crc32(raw).to_bytes(4, "little")

    def load(self, numbers: list[int]) -> None:
        (
            self.sequence,
            self.flags,
            self.count,
            self.heaped,
            self.first_fresh,
            self.last_fresh,
            self.leased,
            self.delayed,
            self.dead,
            self.free,
            self.spare,
            self.high_water_mark,
            self.bytes,
            self.redo,
            self.puts,
            self.gets,
            self.returned,
            self.next_due,
            self.waits,
            self.timeouts,
            self.recoveries,
        ) = numbers
        self.head = self.tail = 0


def place(sequence: int) -> int:
    """Return the offset of the state with a sequence number."""
    return STATES_AT + (sequence & 1) * STATE_ROOM


def newest(
    raw: bytes, kind: type[State] = State, checked: struct.Struct = _CHECKED, size: int = _STATE.size
) -> State | None:
    """Return the newer state with a valid checksum; None if neither slot has one.

    With the lock, an incomplete newer state was left by a dead process. Without it, another process may be writing.

    Raises:
        CorruptQueue: The file ends before the states do.
    """
    if len(raw) < 2 * STATE_ROOM:
        raise CorruptQueue(CUT_OFF)
    even, odd = _SEQUENCES.unpack_from(raw)
    first = STATE_ROOM if odd > even else 0
    for at in (first, STATE_ROOM - first):
        *numbers, checksum = checked.unpack_from(raw, at)
        if crc32(raw[at : at + size]) == checksum and (numbers[0] & 1) * STATE_ROOM == at:
            if max(numbers) >= _MOST:
                return None
            state = kind()
            state.cut_off = at != first
            if kind is not State:
                state.load(numbers)
                return state
            # Not in a method, because every step and every poll reads a state.
            (
                state.sequence,
                state.flags,
                state.count,
                state.bytes,
                state.head,
                state.tail,
                state.free,
                state.spare,
                state.redo,
                state.puts,
                state.gets,
                state.high_water_mark,
                state.waits,
                state.timeouts,
                state.recoveries,
            ) = numbers
            return state
    return None


newest_of_leases: Final = partial(newest, kind=LeaseState, checked=_LEASE_CHECKED, size=_LEASE_STATE.size)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes and offsets in the file, computed from the queue's attributes."""

    size: int
    """The whole file, in bytes."""
    ring: int
    """Bytes of the ring; 0 with priorities."""
    block: int
    """Bytes of a block; 0 without priorities."""
    blocks: int
    links_at: int
    heap_at: int
    """The heap; with leases, four heaps."""
    blocks_at: int

    @classmethod
    def of(cls, attributes: Attributes) -> Self:
        messages, size = attributes.max_messages, attributes.max_message_size
        room = attributes.buffer_size
        if not attributes.priorities and not attributes.leases:
            # buffer_size counts only bytes of messages, so each of max_messages needs space for its record header.
            # Without max_messages there is space for one header, so that the largest message always fits.
            ring = (messages or 0) * (size + RECORD.size) if room is None else room + (messages or 1) * RECORD.size
            return cls(DATA_AT + ring, ring, 0, 0, 0, 0, 0)
        head = HEAD if attributes.leases else RECORD.size
        if room is None:
            block, blocks = size + head, messages or 0
        else:
            # The last block of each chain may be partly filled.
            block, blocks = BLOCK, -(-(room + (messages or 1) * head) // BLOCK) + (messages or 0)
        links_at = OWNERS_AT + MOST_OWNERS * OWNER.size if attributes.leases else DATA_AT + REDO_ROOM
        heap_at = -(-(links_at + blocks * LINK.size) // ENTRY.size) * ENTRY.size
        blocks_at = heap_at + blocks * ENTRY.size * (4 if attributes.leases else 1)
        return cls(blocks_at + blocks * block, 0, block, blocks, links_at, heap_at, blocks_at)


@dataclass(frozen=True, slots=True)
class Header:
    """The parameters and the name of a queue."""

    name: str
    attributes: Attributes
    lock: Lock
    lock_name: bytes
    """Eight random bytes, used in the name of the queue's shmlock."""
    time_namespace: int = 0
    """Identifies the monotonic clock of a queue with leases (time_namespaces(7)); 0 if it is unknown."""
    incarnation: bytes = bytes(8)
    """Eight random bytes, for the names of files that belong to this queue."""

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
            LEASES if given.leases else 0,
            given.max_deliveries or 0,
            self.time_namespace,
            self.incarnation,
        )
        rest = (rest + name).ljust(STATES_AT - _FRONT.size, b"\0")
        return _FRONT.pack(MAGIC, VERSION, crc32(rest)) + rest

    @classmethod
    def of(cls, raw: bytes, mode: int, old_version: bool = True) -> Self:
        """Parse and check a header.

        Args:
            raw: The file's first bytes, up to the states.
            mode: The file's permission bits.
            old_version: Accept a queue of the version without leases.

        Raises:
            CorruptQueue: It is not a valid header.
            VersionMismatch: The layout has another version, or features that this ipcq does not know.
        """
        if len(raw) != STATES_AT:
            raise CorruptQueue(f"its file ends after {len(raw)} bytes: remove it")
        magic, version, checksum = _FRONT.unpack_from(raw)
        if magic != MAGIC:
            raise CorruptQueue("its file was not written by ipcq: remove it")
        if version == OLD_VERSION and not old_version:
            raise VersionMismatch(
                f"its layout has version {version}, but this ipcq supports version {VERSION}: take its messages out "
                "with ipcq drain, remove it with ipcq rm, and put them into a new queue with ipcq load"
            )
        if version not in (OLD_VERSION, VERSION):
            raise VersionMismatch(
                f"its layout has version {version}, but this ipcq supports version {VERSION}: "
                "use the ipcq that created it, or unlink and recreate it"
            )
        if crc32(raw[_FRONT.size :]) != checksum:
            raise CorruptQueue("its header is damaged: unlink and recreate it")
        form = _OLD_HEADER if version == OLD_VERSION else _HEADER
        messages, size, room, priorities, lifetime, lock, length, lock_name, *later = form.unpack_from(raw, _FRONT.size)
        features, max_deliveries, time_namespace, incarnation = later or (0, 0, 0, bytes(8))
        if features & ~LEASES:
            raise VersionMismatch(
                f"it has features that this ipcq does not know ({features:#x}): "
                "use the ipcq that created it, or unlink and recreate it"
            )
        name_at = _FRONT.size + form.size
        try:
            header = cls(
                raw[name_at : name_at + length].decode(),
                Attributes(
                    mode=mode,
                    max_messages=messages or None,
                    max_message_size=size,
                    buffer_size=room or None,
                    priorities=bool(priorities),
                    leases=bool(features & LEASES),
                    max_deliveries=max_deliveries or None,
                    lifetime=_LIFETIMES[lifetime],
                ),
                LOCKS[lock],
                lock_name,
                time_namespace,
                incarnation,
            )
        except (IndexError, UnicodeDecodeError) as error:
            raise CorruptQueue("its header is invalid: unlink and recreate it") from error
        # A checksum proves nothing: any process that can write can compute it.
        bounded = room or (messages and size)
        if not size or not bounded or (room and room < size * (messages and 1)) or max(messages, size, room) >= _MOST:
            raise CorruptQueue("its header is invalid: unlink and recreate it")
        return header
