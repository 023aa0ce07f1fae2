"""Who holds leases: a number that nobody uses again, and a byte of the file that its owner locks until it dies.

Each channel has a random number. Before its first lease it locks the byte at that offset, far beyond the end of the
file, and enters the number into a free slot of the table of owners. The lock belongs to the channel's open file, so the
kernel releases it when the channel is closed or its process dies, whatever killed it. A forked child opens the file
again, and is another owner. Numbers are not used again, so a number whose byte is not locked has a dead owner.

The table needs no commit. A slot is written under the queue's lock, before the first lease that refers to it is
committed, and emptied after the last one is. A kill in between, or in the middle of the write, leaves a dead owner
without leases, whose slot the next look empties.
"""

import os
import secrets
from typing import Final

from ipcq.backend import holder_of_byte
from ipcq_pyshm import _file
from ipcq_pyshm._layout import LOOKED, LOOKED_AT, MOST_OWNERS, OWNER, OWNER_BITS, OWNERS, OWNERS_AT
from ipcq_pyshm._ring import Read, Write

#: Nanoseconds between two looks for dead owners, by whichever process.
LOOK_NANOSECONDS: Final = 20_000_000


class Owners:
    """The table of owners, and this channel's entry. All methods run under the queue's lock."""

    def __init__(self, descriptor: int, read: Read, write: Write) -> None:
        self._descriptor = descriptor
        self._read = read
        self._write = write
        self._number = secrets.randbits(OWNER_BITS - 1) | 1 << OWNER_BITS - 1  # never 0
        self.slot = -1
        """The slot of this channel; -1 while it has none, and so no leases."""
        self.next_look = 0
        """When this channel looks for dead owners again, in nanoseconds of the monotonic clock."""

    def enter(self) -> int:
        """Enter this channel, which has no slot, and return its slot; -1 if the table is full."""
        numbers = self.numbers()
        if self._number not in numbers:  # otherwise a call of a signal handler has just entered it
            if 0 not in numbers:
                return -1
            _file.lock_byte(self._descriptor, OWNERS + self._number)
            numbers[numbers.index(0)] = self._number
            self._set(numbers.index(self._number), self._number)
        self.slot = numbers.index(self._number)
        return self.slot

    def leave(self, slot: int) -> None:
        """Empty a slot whose owner has no leases any more."""
        self._set(slot, 0)

    def numbers(self) -> list[int]:
        return [number for (number,) in OWNER.iter_unpack(self._read(OWNERS_AT, MOST_OWNERS * OWNER.size))]

    def find_dead(self, now: int) -> set[int]:
        """Return the slots of dead owners, unless somebody has just looked for them.

        The caller returns their leases, and then calls `leave` and `looked`. If it is killed before, the next one looks
        at once.
        """
        (looked,) = LOOKED.unpack(self._read(LOOKED_AT, LOOKED.size))
        if 0 <= now - looked < LOOK_NANOSECONDS:
            self.next_look = looked + LOOK_NANOSECONDS
            return set()
        dead = self.dead()
        if not dead:
            self.looked(now)
        return dead

    def dead(self) -> set[int]:
        """Return the slots of dead owners."""
        return {slot for slot, number in enumerate(self.numbers()) if number and not self._lives(number)}

    def looked(self, now: int) -> None:
        """Record that the leases of all dead owners are returned."""
        self._write(LOOKED_AT, LOOKED.pack(now))
        self.next_look = now + LOOK_NANOSECONDS

    def pid_of(self, number: int) -> int | None:
        """Return the process of an owner, or None if it is unknown."""
        if number == self._number:
            return os.getpid()
        holder = holder_of_byte(self._descriptor, OWNERS + number, 0.0)
        return None if holder is None else holder.pid

    def _lives(self, number: int) -> bool:
        if number == self._number:
            return True
        return number >> OWNER_BITS == 0 and _file.is_byte_locked(self._descriptor, OWNERS + number)

    def _set(self, slot: int, number: int) -> None:
        self._write(OWNERS_AT + slot * OWNER.size, OWNER.pack(number))
