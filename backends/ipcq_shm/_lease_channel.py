"""A channel over a queue with leases (csrc/lease.h): the protocol of `LeaseChannel` on the methods of `_core.Ring`."""

import os
from collections.abc import Sequence
from itertools import starmap
from typing import ClassVar

from ipcq.backend import Counts, DeadRecord, Held, LeaseChannel, Leased, Verdict, holder_of_byte
from ipcq_shm import _segment
from ipcq_shm._channel import ShmChannel


class ShmLeaseChannel(ShmChannel, LeaseChannel):
    _leases: ClassVar = True

    def close(self) -> None:
        self._withdraw()
        self.settle_uses()
        self.release_leases()
        super().close()

    def try_put_delayed(self, data: bytes, priority: int, delay: float, /) -> bool:
        return self.put_delayed(data, priority, delay)

    def try_lease(self, serial: int, hold: float | None, /) -> Leased | None:
        taken = self.lease(serial, 1, hold)
        if not taken:
            return None
        try:
            return Leased(*taken[0])
        except MemoryError:
            self.recall(serial, 1)
            raise

    def try_lease_many(self, serial: int, limit: int, hold: float | None, /) -> list[Leased]:
        taken = self.lease(serial, min(limit, self.qsize() or 1), hold)
        try:
            return list(starmap(Leased, taken))
        except MemoryError:
            self.recall(serial, len(taken))
            raise

    def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
        return self.end_leases(tokens, verdict, delay, reason)

    def extend(self, tokens: Sequence[int], hold: float, /) -> list[int]:
        return self.extend_leases(tokens, hold)

    def counts(self) -> Counts:
        return Counts(*self.count_states())

    def held(self, limit: int, /) -> list[Held]:
        held = self.find_held(limit)
        pids = {slot: self._pid_of(slot) for slot, _, _ in held}
        return [Held(pids[slot], seconds, deliveries) for slot, seconds, deliveries in held]

    def _pid_of(self, slot: int) -> int | None:
        if slot < 0:
            return os.getpid()
        holder = holder_of_byte(self.descriptor, _segment.LOCKS_AT + slot, 0.0)
        return None if holder is None else holder.pid

    def try_get_dead(self) -> DeadRecord | None:
        # What is returned is made before the letter is taken, because that may fail.
        while letters := self.peek_dead(0, 1):
            if self.take_dead(letters[0].number):
                return letters[0]
        return None

    def peek_dead(self, after: int, limit: int, /) -> list[DeadRecord]:
        return [DeadRecord(*each) for each in self.peek_dead_after(after, limit)]
