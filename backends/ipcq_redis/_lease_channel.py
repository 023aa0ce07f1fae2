"""A channel to a queue with leases. All times are those of the server's clock."""

import secrets
from collections.abc import Sequence
from time import monotonic
from typing import Any, Final

from ipcq.backend import (
    LONGEST,
    STEP,
    Counts,
    DeadRecord,
    Held,
    LeaseChannel,
    Leased,
    Operation,
    Stats,
    Unanswered,
    Verdict,
    suppressed,
)
from ipcq.errors import MessageQueueError
from ipcq_redis._channel import RedisChannel
from ipcq_redis._client import REMEMBERED, Client
from ipcq_redis._lease_scripts import LEASES
from ipcq_redis._scripts import LEASE_KEYS

#: Seconds for which `close` tries to give leases back; otherwise they end with their holds.
_CLOSE_SECONDS: Final = 1.0
_HALF: Final = 32


class RedisLeaseChannel(RedisChannel, LeaseChannel):
    _scripts = LEASES

    def _choose_scripts(self) -> None:
        self._suffixes = LEASE_KEYS

    def _begin(self, client: Client) -> None:
        super()._begin(client)
        self._owner = secrets.token_hex(8)
        self._has_leased = False
        self._leases: Unanswered[Leased] = Unanswered(REMEMBERED)

    def try_put_delayed(self, data: bytes, priority: int, delay: float, /) -> bool:
        return self._put([data], priority, _micros(delay)) == 1

    def stats(self) -> Stats:
        depth, size, bytes_put, puts, gets, high, returned, dropped, *_ = self._figures()
        counts = self.counts()
        return Stats(
            depth=depth,
            bytes=size,
            bytes_put=bytes_put,
            puts=puts,
            gets=gets,
            dropped=dropped,
            high_water_mark=high,
            leased=counts.leased,
            delayed=counts.delayed,
            dead=counts.dead,
            returned=returned,
        )

    # Leases

    def try_lease(self, serial: int, hold: float | None, /) -> Leased | None:
        return next(iter(self.try_lease_many(serial, 1, hold)), None)

    def try_lease_many(self, serial: int, limit: int, hold: float | None, /) -> list[Leased]:
        assert hold is not None  # noqa: S101  # for the type checker: without death_notice it is a number
        micros = _micros(hold)

        def attempt(operation: Operation) -> list[Leased]:
            self._has_leased = True
            reply = self._attempt(operation, self._scripts.lease, limit, STEP, micros, self._owner, *_halves(serial))
            return self._leased(self._checked(reply), serial)

        return self._leases.take(attempt, limit)

    def _leased(self, reply: list[Any], asked: int) -> list[Leased]:
        if not reply:
            return []
        *columns, high, low, end = reply
        serial = (high << _HALF) + low
        if serial != asked and self._client.server_time(monotonic()) * 1e6 > end:
            return []  # the lost reply to an earlier call has come too late: they are back in the queue
        return [
            Leased(data, priority, deliveries, serial + place, failures)
            for place, (data, priority, deliveries, failures) in enumerate(zip(*columns, strict=True))
        ]

    def recall(self, serial: int, count: int, /) -> None:
        # A reply that is still on its way would bring a lease that is over.
        self._leases = Unanswered(REMEMBERED)
        self._once(self._scripts.recall, self._owner, *_halves(serial), count)

    def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
        words = map(self._token, tokens)
        (lost,) = self._once(self._scripts.settle, int(verdict), _micros(delay), reason, *words)
        return [tokens[place] for place in lost]

    def extend(self, tokens: Sequence[int], hold: float, /) -> list[int]:
        (lost,) = self._once(self._scripts.extend, _micros(hold), *map(self._token, tokens))
        return [tokens[place] for place in lost]

    def find_lost(self, tokens: Sequence[int], /) -> list[int]:
        (lost,) = self._look(self._scripts.find_lost, *map(self._token, tokens))
        return [tokens[place] for place in lost]

    def _token(self, serial: int) -> str:
        high, low = _halves(serial)
        return f"{self._owner}:{high}:{low}"

    def tend(self) -> float | None:
        (due,) = self._look(self._scripts.tend)
        return None if due < 0 else min(LONGEST, due / 1e6)

    def counts(self) -> Counts:
        return Counts(*self._look(self._scripts.counts))

    def held(self, limit: int, /) -> list[Held]:
        (held,) = self._look(self._scripts.held, limit)
        return [Held(None, micros / 1e6, deliveries) for micros, deliveries in held]

    # Dead letters

    def try_get_dead(self) -> DeadRecord | None:
        (records,) = self._once(self._scripts.get_dead)
        return next((DeadRecord(*each) for each in records), None)

    def peek_dead(self, after: int, limit: int, /) -> list[DeadRecord]:
        (records,) = self._look(self._scripts.peek_dead, after, limit)
        return [DeadRecord(*each) for each in records]

    def requeue(self, limit: int, /) -> int:
        return int(self._once(self._scripts.requeue, limit)[0])

    def clear_dead(self) -> int:
        return int(self._once(self._scripts.clear_dead)[0])

    # Life

    def close(self) -> None:
        try:
            if self._has_leased:
                with suppressed(MessageQueueError):
                    operation = Operation("", monotonic() + _CLOSE_SECONDS, 1)
                    keys = (self._meta, self._meta, *self._keys)
                    self._client.run(operation, self._scripts.leave, keys, "", self.incarnation, self._owner)
        finally:
            super().close()


def _micros(seconds: float) -> int:
    return max(0, round(seconds * 1e6))


def _halves(serial: int) -> tuple[int, int]:
    return serial >> _HALF, serial & ((1 << _HALF) - 1)
