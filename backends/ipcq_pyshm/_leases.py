"""The order of a queue with leases: its messages in four states, each state a heap in the file.

*Places.* A message is a chain of blocks, as with priorities, and stays where it is until it leaves the queue. Its first
block begins with its head. Which state it is in says only the heap that has its entry:

======== ============================== =====================================================
heap     key                            value
======== ============================== =====================================================
ready    inverted priority, and number  first block
delayed  when it becomes ready          first block
leased   when the lease ends, or NEVER  slot of the owner, and first block
dead     number                         first block
======== ============================== =====================================================

*Fresh messages.* Without priorities, messages leave mostly in the order of putting. So those that have been ready since
they were put are not in the heap, but in a chain: each head has the number of the next one's first block. The next
message is the first one of the chain or of the heap, whichever was put first.

*Leases.* The head of a leased message has the place of its entry. So a token, which is the first block and the serial
number, leads to the entry; the lease is this channel's if that entry has its slot and this block, and the head has the
serial number. A block that was freed or leased again fails one of these comparisons. The number of deliveries in the
head is that of the deliveries that are over: so to lease a message changes nothing that counts while it is ready.

*Steps.* Entries after the last one of a heap, and the parts of a head that belong to another state, are free: they are
written before the commit. All other writes are staged and go through the redo record. So a message that is put, leased
and acknowledged alone needs no redo record, and a process that is killed between any two writes leaves the old state or
the new one.
"""

from collections.abc import Iterator
from heapq import nsmallest
from time import monotonic_ns
from typing import Final, NamedTuple

from ipcq.backend import (
    HIGHEST_PRIORITY,
    HOLD_ENDED,
    HOLDER_DIED,
    LONGEST,
    REASON_SIZE,
    Attributes,
    DeadRecord,
    Leased,
    Received,
    Verdict,
)
from ipcq.errors import CorruptQueue
from ipcq_pyshm import _staged
from ipcq_pyshm._chains import Chains
from ipcq_pyshm._entries import BLOCK_BITS, BLOCK_MASK, Entries
from ipcq_pyshm._heap import NUMBER_BITS
from ipcq_pyshm._layout import (
    COUNTS,
    COUNTS_AT,
    ENTRY,
    FRONT,
    HEAD,
    IDENTITY,
    INDEX,
    INDEX_AT,
    LINK,
    LOAN,
    LOAN_AT,
    NEVER,
    NEXT,
    NEXT_AT,
    REASON,
    REASON_AT,
    Geometry,
    LeaseState,
)
from ipcq_pyshm._ring import Cells, Order, Place, Read, Write, index_of

_NUMBER_MASK: Final = (1 << NUMBER_BITS) - 1
_COUNT_MASK: Final = (1 << 32) - 1

#: Bytes of a message that one call reads together with its head.
_AHEAD_BYTES: Final = 1024

#: The most messages that one step returns to the ready ones. Meanwhile it keeps others out for a few milliseconds.
RETURNED_AT_ONCE: Final = 256


class Front(NamedTuple):
    """The head of a message, without the reason."""

    key: int
    size: int
    deliveries: int
    failures: int
    serial: int
    since: int
    place: int
    next: int


class Mine(NamedTuple):
    """A message that a token of this channel holds."""

    block: int
    front: Front
    place: int


class Leases(Chains, Order[LeaseState]):
    def __init__(self, attributes: Attributes, geometry: Geometry, read: Read, write: Write) -> None:
        super().__init__(geometry, read, write)
        self._most_messages = attributes.max_messages or geometry.blocks
        self._most_bytes = attributes.buffer_size or geometry.size
        self._longest = attributes.max_message_size
        self._bound = attributes.max_deliveries
        self._sorted = attributes.priorities
        self.staged = staged = _staged.Staged(read)
        room = geometry.blocks * ENTRY.size
        at = geometry.heap_at
        self._ready = Entries("heaped", at, read, write, staged)
        self._delayed = Entries("delayed", at + room, read, write, staged)
        self._leased = Entries("leased", at + 2 * room, read, write, staged, self._lease_moved)
        self._dead = Entries("dead", at + 3 * room, read, write, staged)

    # Steps

    def begin(self, state: LeaseState) -> None:
        """Begin a step, or its next part, on a committed state."""
        self.staged.begin()
        self._ready.committed = state.heaped
        self._delayed.committed = state.delayed
        self._leased.committed = state.leased
        self._dead.committed = state.dead

    def packed(self, cells: Cells) -> tuple[bytes, int]:
        return _staged.packed(list(cells))

    def redo(self, redo: int) -> Cells:
        """Read the redo record of a dead process."""
        return _staged.unpacked(redo, self._read, self._geometry.size)

    def apply(self, cells: Cells) -> None:
        for at, data in cells:
            self._write(at, data)

    def check(self, state: LeaseState) -> bool:
        places = state.places
        return (
            places <= self._most_messages
            and places + state.spare <= self._geometry.blocks
            and state.heaped <= state.count
        )

    def fits(self, state: LeaseState, size: int) -> bool:
        return (
            state.places < self._most_messages
            and state.bytes + size <= self._most_bytes
            and self._blocks(size) <= state.spare
        )

    # Putting and taking

    def store(self, state: LeaseState, data: bytes, priority: int, due: int = 0) -> Cells:
        needed = self._blocks(len(data))
        chain = self._chain(state.free, needed)
        block = chain[0]
        state.puts += 1
        key = HIGHEST_PRIORITY - priority << NUMBER_BITS | state.puts & _NUMBER_MASK
        head = IDENTITY.pack(key, len(data)) + COUNTS.pack(0, 0)
        self._spread(chain, head.ljust(HEAD, b"\0") + data)
        if due:
            self._delay(state, due, block)
        elif self._sorted:
            self._make_ready(state, key, block)
        else:
            if state.count > state.heaped:
                # The last one has no valid link.
                self._write(self._at(state.last_fresh) + NEXT_AT, NEXT.pack(block))
            else:
                state.first_fresh = block
            state.last_fresh = block
            state.count += 1
        state.spare -= needed
        # The last block has no valid link.
        state.free = self._link(chain[-1]) if state.spare else 0
        state.bytes += len(data)
        return ()

    def take(self, state: LeaseState) -> tuple[Received, Cells]:
        block, front, data = self._next(state)
        self._remove_next(state, block, front)
        self._free(state, block, front.size)
        return (data, _priority(front.key)), ()

    def look(self, state: LeaseState) -> Received:
        _, front, data = self._next(state)
        return data, _priority(front.key)

    def droppable(self, state: LeaseState, priority: int) -> Iterator[Place]:
        inverted = HIGHEST_PRIORITY - priority
        places = [place for place in self._all_ready(state) if place.key >> NUMBER_BITS >= inverted]
        return iter(sorted(places, key=lambda place: (-(place.key >> NUMBER_BITS), place.key)))

    def latest(self, state: LeaseState) -> list[Place]:
        places = sorted(self._all_ready(state))
        return [place for place in places if place.key >> NUMBER_BITS == places[0].key >> NUMBER_BITS]

    def forget(self, state: LeaseState, place: Place) -> None:
        # The number of places follows from the counts of all states.
        state.count -= 1
        state.bytes -= place.size
        state.spare += self._blocks(place.size)

    def remove(self, state: LeaseState, place: Place) -> Cells:
        if self._sorted:
            self._ready.remove(state, index_of(self._ready.all(state), place))
            state.count -= 1
        else:
            self._remove_next(state, place.block, self._front(place.block))
        self._free(state, place.block, place.size)
        return ()

    def read(self, place: Place) -> Received:
        return self._message(place.block)[1], _priority(place.key)

    def _all_ready(self, state: LeaseState) -> list[Place]:
        blocks = [block for _, block in self._ready.all(state)]
        fresh = state.first_fresh
        for _ in range(state.count - state.heaped):
            blocks.append(fresh)
            fresh = self._front(fresh).next
        return [Place(front.key, block, front.size) for block in blocks for front in [self._front(block)]]

    def drop(self, state: LeaseState, leased: bool = False) -> None:
        """Discard the messages that are ready or delayed, and perhaps those that are leased."""
        block = state.first_fresh
        for _ in range(state.count - state.heaped):
            front = self._front(block)
            self._free(state, block, front.size)
            block = front.next
        heaps = (self._ready, self._delayed, self._leased) if leased else (self._ready, self._delayed)
        self._drop(state, [entry for heap in heaps for entry in heap.all(state)])
        state.count = state.heaped = state.delayed = 0
        if leased:
            state.leased = 0
        if not state.leased:
            state.next_due = 0

    def _drop(self, state: LeaseState, entries: list[tuple[int, int]]) -> None:
        for _, value in entries:
            block = value & BLOCK_MASK
            self._free(state, block, self._front(block).size)

    def _free(self, state: LeaseState, block: int, size: int) -> None:
        # Prepend the chain to the free chain by writing the link of its last block, which counts only from the commit.
        chain = self._chain(block, self._blocks(size))
        self._write(self._geometry.links_at + chain[-1] * LINK.size, LINK.pack(state.free))
        state.free = block
        state.spare += len(chain)
        state.bytes -= size
        state.gets += 1

    # Leasing

    def lease(self, state: LeaseState, slot: int, serial: int, due: int) -> Leased:
        """Lease the next message; at least one must be ready."""
        block, front, data = self._next(state)
        self._remove_next(state, block, front)
        at = self._at(block)
        index = self._leased.push(state, due, slot << BLOCK_BITS | block)
        self._write(at + LOAN_AT, LOAN.pack(serial, monotonic_ns(), index))
        self._note_due(state, due)
        return Leased(data, _priority(front.key), front.deliveries + 1, serial << BLOCK_BITS | block, front.failures)

    def find(self, state: LeaseState, slot: int, token: int, now: int) -> Mine | None:
        """Return what a token holds; None if its lease is over."""
        serial, block = token >> BLOCK_BITS, token & BLOCK_MASK
        if block >= self._geometry.blocks:
            return None
        at = self._at(block)
        front = Front._make(FRONT.unpack(self._read(at, FRONT.size)))
        moved = self.staged.get(at + INDEX_AT)
        place = front.place if moved is None else INDEX.unpack(moved)[0]
        if front.serial != serial or place >= state.leased:
            return None  # the block may be in the middle of a message by now
        due, value = self._leased.entry(place)
        return Mine(block, front, place) if value == slot << BLOCK_BITS | block and due > now else None

    def settle(self, state: LeaseState, mine: Mine, verdict: Verdict, due: int, reason: bytes) -> None:
        """End a lease."""
        block, front, place = mine
        self._leased.remove(state, place)
        if verdict == Verdict.ACK:
            self._free(state, block, front.size)
            return
        failures = front.failures + (verdict == Verdict.FAIL)
        counts = COUNTS.pack(front.deliveries + 1 & _COUNT_MASK, failures & _COUNT_MASK)
        self.staged.write(self._at(block) + COUNTS_AT, counts)
        if verdict == Verdict.REJECT or (verdict == Verdict.FAIL and self._bound and failures >= self._bound):
            # Free until the message is dead.
            self._write(self._at(block) + REASON_AT, REASON.pack(len(reason), reason))
            self._dead.push(state, front.key & _NUMBER_MASK, block)
        elif due:
            self._delay(state, due, block)
        else:
            self._make_ready(state, front.key, block)
        state.returned += verdict != Verdict.REJECT

    def extend(self, state: LeaseState, mine: Mine, due: int) -> None:
        index = self._leased.rekey(state, mine.place, due)
        self._lease_moved(mine.block, index)
        self._note_due(state, due)

    def leases_of(self, state: LeaseState, slots: set[int]) -> list[Mine]:
        """Return what these owners hold. The indexes are those of the committed state."""
        found = [value & BLOCK_MASK for _, value in self._leased.all(state) if value >> BLOCK_BITS in slots]
        return [Mine(block, front, front.place) for block in found for front in [self._front(block)]]

    def give_back(self, state: LeaseState, mine: Mine, verdict: Verdict, reason: bytes = b"") -> None:
        """Return a message that `leases_of` found, although others have been returned since."""
        self.settle(state, mine._replace(place=self._front(mine.block).place), verdict, 0, reason)

    def held(self, state: LeaseState, limit: int) -> list[tuple[int, int, int]]:
        """Return slot, begin and number of deliveries of the oldest leases."""
        fronts = [(value >> BLOCK_BITS, self._front(value & BLOCK_MASK)) for _, value in self._leased.all(state)]
        found = [(slot, front.since, front.deliveries + 1) for slot, front in fronts]
        return nsmallest(limit, found, key=lambda each: each[1])

    # What is over

    def return_due(self, state: LeaseState, now: int) -> bool:
        """Return messages whose hold or delay is over; return False if there are more of them."""
        for _ in range(RETURNED_AT_ONCE):
            if self.staged.crowded:
                return False
            lease, delay = self._leased.top(state), self._delayed.top(state)
            if lease is not None and lease[0] <= now:
                block = lease[1] & BLOCK_MASK
                self.settle(state, Mine(block, self._front(block), 0), Verdict.FAIL, 0, HOLD_ENDED)
            elif delay is not None and delay[0] <= now:
                block = delay[1] & BLOCK_MASK
                self._delayed.remove(state, 0)
                self._make_ready(state, self._front(block).key, block)
            else:
                ends = [entry[0] for entry in (lease, delay) if entry is not None and entry[0] < NEVER]
                state.next_due = min(ends, default=0)
                return True
        return False

    def return_dead(self, state: LeaseState, slots: set[int]) -> bool:
        """Return what dead owners hold; return False if there is more of it."""
        found = self.leases_of(state, slots)
        for mine in found[:RETURNED_AT_ONCE]:
            if self.staged.crowded:
                return False
            self.give_back(state, mine, Verdict.FAIL, HOLDER_DIED)
        return len(found) <= RETURNED_AT_ONCE

    def _delay(self, state: LeaseState, due: int, block: int) -> None:
        self._delayed.push(state, due, block)
        self._note_due(state, due)

    def _note_due(self, state: LeaseState, due: int) -> None:
        if due < NEVER and (not state.next_due or due < state.next_due):
            state.next_due = due

    # Dead letters

    def take_dead(self, state: LeaseState) -> DeadRecord:
        """Take the dead letter that was put first; there must be one."""
        number, block = self._dead.entry(0)
        record = self._letter(number, block)
        self._dead.remove(state, 0)
        self._free(state, block, len(record.data))
        return record

    def dead_after(self, state: LeaseState, number: int, limit: int) -> list[DeadRecord]:
        later = [entry for entry in self._dead.all(state) if entry[0] > number]
        return [self._letter(*entry) for entry in nsmallest(limit, later)]

    def requeue(self, state: LeaseState) -> None:
        """Make the dead letter ready that was put first; there must be one."""
        _, block = self._dead.entry(0)
        front = self._front(block)
        self._dead.remove(state, 0)
        self.staged.write(self._at(block) + COUNTS_AT, COUNTS.pack(front.deliveries, 0))
        self._make_ready(state, front.key, block)

    def drop_dead(self, state: LeaseState) -> None:
        self._drop(state, self._dead.all(state))
        state.dead = 0

    def _letter(self, number: int, block: int) -> DeadRecord:
        front, data = self._message(block)
        length, reason = REASON.unpack(self._read(self._at(block) + REASON_AT, REASON.size))
        if length > REASON_SIZE:
            raise CorruptQueue
        return DeadRecord(data, _priority(front.key), front.deliveries, reason[:length], number)

    # Messages

    def _make_ready(self, state: LeaseState, key: int, block: int) -> None:
        self._ready.push(state, key, block)
        state.count += 1

    def _next(self, state: LeaseState) -> tuple[int, Front, bytes]:
        block = state.first_fresh
        if not state.heaped:
            front, data = self._message(block)
        elif state.count == state.heaped:
            block = self._ready.entry(0)[1]
            front, data = self._message(block)
        else:
            key, other = self._ready.entry(0)
            if key < self._front(block).key:
                block = other
            front, data = self._message(block)
        return block, front, data

    def _remove_next(self, state: LeaseState, block: int, front: Front) -> None:
        if state.heaped and not (state.count > state.heaped and block == state.first_fresh):
            self._ready.remove(state, 0)
        else:
            state.first_fresh = front.next
        state.count -= 1

    def _message(self, block: int) -> tuple[Front, bytes]:
        size = min(HEAD + self._longest, self._geometry.block, HEAD + _AHEAD_BYTES)
        raw = self._read(self._at(block), size)
        front = self._checked(raw, block)
        end = HEAD + front.size
        if end > size:
            raw = self._gathered(self._chain(block, self._blocks(front.size)), end)
        return front, raw[HEAD:end]

    def _front(self, block: int) -> Front:
        return self._checked(self._read(self._at(block), FRONT.size), block)

    def _checked(self, raw: bytes, block: int) -> Front:
        front = Front._make(FRONT.unpack_from(raw))
        if front.size > self._longest or front.key >> NUMBER_BITS > HIGHEST_PRIORITY:
            raise CorruptQueue
        moved = self.staged.get(self._at(block) + INDEX_AT)
        return front if moved is None else front._replace(place=INDEX.unpack(moved)[0])

    def _at(self, block: int) -> int:
        if block >= self._geometry.blocks:
            raise CorruptQueue
        return self._geometry.blocks_at + block * self._geometry.block

    def _blocks(self, size: int) -> int:
        return -(-(HEAD + size) // self._geometry.block)

    def _lease_moved(self, value: int, index: int) -> None:
        self.staged.write(self._at(value & BLOCK_MASK) + INDEX_AT, INDEX.pack(index))


def _priority(key: int) -> int:
    return HIGHEST_PRIORITY - (key >> NUMBER_BITS)


def due_in(seconds: float) -> int:
    """Return the time that many seconds from now, in nanoseconds of the monotonic clock."""
    return monotonic_ns() + int(min(seconds, LONGEST) * 1e9)
