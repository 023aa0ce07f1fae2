"""Faults and oddities of a queue with leases.

`_queue` is the queue behind the channel, and `_change` changes its messages by token.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from backends import sql
from backends.wrong import Odd, Wrong
from ipcq.backend import Channel, DeadRecord, Leased, Received, Request, Stats, Verdict
from ipcq.errors import QueueExists, QueueNotFound, QueueShutDown
from ipcq.testing.contract._dead_letters import DeadLetters
from ipcq.testing.contract._leases import Leases
from ipcq_memory import LeaseMemoryChannel, MemoryChannel
from ipcq_memory._leases import Message, State, returned

#: Tests of leases that need a descriptor, notices, or a backend without leases.
UNTRIED = (
    "test_the_descriptor_",
    "test_a_notice_",
    "test_leases_are_refused_",
)


class ShowsLeased(Wrong):
    caught_by = "test_a_leased_message_is_with_one_consumer"

    class Faulty(LeaseMemoryChannel):
        def try_lease(self, serial: int, hold: float | None, /) -> Leased | None:
            received = self.peek()
            return None if received is None else Leased(*received, 1, serial << 64 | 1, 0)


class ForgetsAcks(Wrong):
    caught_by = "test_an_acknowledged_message_is_gone"

    class Faulty(LeaseMemoryChannel):
        def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
            return [] if verdict == Verdict.ACK else super().settle(tokens, verdict, delay, reason)


class ForgetsDeliveries(Wrong):
    caught_by = "test_each_delivery_is_counted"

    class Faulty(LeaseMemoryChannel):
        def try_lease(self, serial: int, hold: float | None, /) -> Leased | None:
            leased = super().try_lease(serial, hold)
            return leased and leased._replace(deliveries=1)


class ForgetsFailures(Wrong):
    caught_by = "test_each_failure_is_counted"

    class Faulty(LeaseMemoryChannel):
        def try_lease(self, serial: int, hold: float | None, /) -> Leased | None:
            leased = super().try_lease(serial, hold)
            return leased and leased._replace(failures=0)


class CountsPoliteReturnsAsFailures(Wrong):
    caught_by = "test_each_failure_is_counted"

    class Faulty(LeaseMemoryChannel):
        def try_lease(self, serial: int, hold: float | None, /) -> Leased | None:
            leased = super().try_lease(serial, hold)
            return leased and leased._replace(failures=leased.deliveries - 1)


class GivesAwayLeasedPlaces(Wrong):
    caught_by = "test_a_message_keeps_its_place_in_the_limits[leased]"

    class Faulty(LeaseMemoryChannel):
        def _put_once(self, data: bytes, priority: int) -> bool:
            self._queue._most_messages = 4 + self._queue.counts().leased
            return super()._put_once(data, priority)


class DropsTheDead(Wrong):
    caught_by = "test_a_message_keeps_its_place_in_the_limits[dead]"

    class Faulty(LeaseMemoryChannel):
        def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
            verdict = Verdict.ACK if verdict == Verdict.REJECT else verdict
            return super().settle(tokens, verdict, delay, reason)


class ReturnsAtTheEnd(Wrong):
    caught_by = "test_a_message_that_returns_comes_before_all_later_ones[release]"

    class Faulty(LeaseMemoryChannel):
        def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
            if verdict != Verdict.RELEASE:
                return super().settle(tokens, verdict, delay, reason)
            messages = [self._queue._messages[token & 0xFFFF] for token in tokens]
            lost = super().settle(tokens, Verdict.ACK, delay, reason)
            for message in messages:
                assert message is not None
                self.try_put(message.data, message.priority)
            return lost


class ReturnsInTheOrderOfRelease(Wrong):
    caught_by = "test_messages_return_in_their_old_order"
    Faulty = ReturnsAtTheEnd.Faulty


class ReturnsAboveAll(Wrong):
    caught_by = "test_a_message_returns_within_its_priority"

    class Faulty(LeaseMemoryChannel):
        def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
            return self._change(tokens, lambda message: returned(message._replace(priority=99)))


class AcceptsLateAcks(Wrong):
    caught_by = "test_a_late_settlement_changes_nothing[ack]"

    class Faulty(LeaseMemoryChannel):
        def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
            self._queue.drop_all(State.LEASED)
            return []


class ForgetsTheSerial(Wrong):
    caught_by = "test_a_late_settlement_by_the_handle_that_has_it_again_changes_nothing"

    class Faulty(LeaseMemoryChannel):
        def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
            queue = self._queue
            now = [message for message in queue.messages(State.LEASED) if message.owner is self]
            queue.commit({message.number: None for message in now}, gets=len(now))
            return []


class SettlesAfterTheHold(Wrong):
    caught_by = "test_a_settlement_after_the_end_of_the_hold_is_refused"

    class Faulty(LeaseMemoryChannel):
        def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
            super().settle(tokens, verdict, delay, reason)
            return []


class HoldsForEver(Wrong):
    caught_by = "test_a_lease_ends_with_its_hold"

    class Faulty(LeaseMemoryChannel):
        def try_lease(self, serial: int, hold: float | None, /) -> Leased | None:
            return super().try_lease(serial, None)


class EndsHoldsEarly(Wrong):
    caught_by = "test_a_lease_ends_with_its_hold"

    class Faulty(LeaseMemoryChannel):
        def try_lease(self, serial: int, hold: float | None, /) -> Leased | None:
            return super().try_lease(serial, None if hold is None else hold / 2)


class ForgetsExtensions(Wrong):
    caught_by = "test_an_extended_lease_ends_later"

    class Faulty(LeaseMemoryChannel):
        def extend(self, tokens: Sequence[int], hold: float, /) -> list[int]:
            return self.find_lost(tokens)


class ExtendsWhatIsLost(Wrong):
    caught_by = "test_a_lease_that_is_over_cannot_be_extended"

    class Faulty(LeaseMemoryChannel):
        def extend(self, tokens: Sequence[int], hold: float, /) -> list[int]:
            super().extend(tokens, hold)
            return []


class IgnoresDelays(Wrong):
    caught_by = "test_a_delayed_message_comes_when_its_time_has_come"

    class Faulty(LeaseMemoryChannel):
        def try_put_delayed(self, data: bytes, priority: int, delay: float, /) -> bool:
            return self.try_put(data, priority)


class OrdersByDueTime(Wrong):
    caught_by = "test_what_is_due_together_comes_in_the_order_of_putting"

    class Faulty(LeaseMemoryChannel):
        def try_put_delayed(self, data: bytes, priority: int, delay: float, /) -> bool:
            queue = self._queue
            number = 1000 - round(delay * 1000)  # so that what was put first comes last
            queue.commit({number: Message(number, priority, data, State.DELAYED, time.monotonic() + delay)}, puts=1)
            return True


class IgnoresTheDelayOfReleases(Wrong):
    caught_by = "test_a_message_can_be_given_back_for_later[release]"

    class Faulty(LeaseMemoryChannel):
        def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
            return super().settle(tokens, verdict, 0.0, reason)


class NeverGivesUp(Wrong):
    caught_by = "test_a_message_that_failed_too_often_is_a_dead_letter"

    class Faulty(LeaseMemoryChannel):
        def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
            verdict = Verdict.RELEASE if verdict == Verdict.FAIL else verdict
            return super().settle(tokens, verdict, delay, reason)


class GivesUpUnasked(Wrong):
    caught_by = "test_without_a_bound_no_number_of_failures_is_too_many"

    class Faulty(LeaseMemoryChannel):
        def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
            verdict = Verdict.REJECT if verdict == Verdict.FAIL else verdict
            return super().settle(tokens, verdict, delay, reason)


class CountsReleasesAsFailures(Wrong):
    caught_by = "test_a_polite_return_is_no_failure[release]"

    class Faulty(LeaseMemoryChannel):
        def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
            verdict = Verdict.FAIL if verdict == Verdict.RELEASE else verdict
            return super().settle(tokens, verdict, delay, reason)


class CountsACloseAsAFailure(Wrong):
    caught_by = "test_a_polite_return_is_no_failure[close]"

    class Faulty(LeaseMemoryChannel):
        def close(self) -> None:
            queue = self._queue
            mine = [message for message in queue.messages(State.LEASED) if message.owner is self]
            queue.commit({message.number: queue.failed(message, b"closed") for message in mine})
            super().close()


class KeepsTheLeasesOfClosedHandles(Wrong):
    caught_by = "test_closing_returns_all_leases"

    class Faulty(LeaseMemoryChannel):
        def close(self) -> None:
            MemoryChannel.close(self)


class ReturnsTheLeasesOfOthers(Wrong):
    caught_by = "test_closing_leaves_the_leases_of_others_alone"

    class Faulty(LeaseMemoryChannel):
        def close(self) -> None:
            queue = self._queue
            queue.commit({message.number: returned(message) for message in queue.messages(State.LEASED)})
            super().close()


class ForgetsToRecall(Wrong):
    caught_by = "test_an_interrupted_lease_gives_its_message_back"

    class Faulty(LeaseMemoryChannel):
        def recall(self, serial: int, count: int, /) -> None:
            pass


class ForgetsReasons(Wrong):
    caught_by = "test_a_rejected_message_is_a_dead_letter_at_once"

    class Faulty(LeaseMemoryChannel):
        def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
            return super().settle(tokens, verdict, delay, b"")


class OrdersTheDeadByDeath(Wrong):
    caught_by = "test_dead_letters_are_taken_in_the_order_of_putting"

    class Faulty(LeaseMemoryChannel):
        def try_get_dead(self) -> DeadRecord | None:
            self._queue._messages = dict(reversed(self._queue._messages.items()))
            return super().try_get_dead()


class RemembersFailures(Wrong):
    caught_by = "test_requeued_dead_letters_start_anew"

    class Faulty(LeaseMemoryChannel):
        def requeue(self, limit: int, /) -> int:
            letters = self._queue.messages(State.DEAD)[:limit]
            self._queue.commit({letter.number: returned(letter)._replace(failures=1) for letter in letters})
            return len(letters)


class RequeuesAll(Wrong):
    caught_by = "test_some_dead_letters_can_be_requeued"

    class Faulty(LeaseMemoryChannel):
        def requeue(self, limit: int, /) -> int:
            return super().requeue(1000)


class ClearsLeases(Wrong):
    caught_by = "test_clearing_the_dead_letters_leaves_the_rest"

    class Faulty(LeaseMemoryChannel):
        def clear(self) -> int:
            return self._queue.drop_all(State.READY, State.LEASED)


class LosesTheRestOfABatch(Wrong):
    caught_by = "test_a_lost_lease_does_not_prevent_the_others"

    class Faulty(LeaseMemoryChannel):
        def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
            return self.find_lost(tokens) or super().settle(tokens, verdict, delay, reason)


class EndsWithLeasesOut(Wrong):
    caught_by = "test_a_queue_ends_when_nothing_is_leased"

    class Faulty(LeaseMemoryChannel):
        def _get_once(self) -> Received | None:
            if self._queue.down and not self._queue.size():
                raise QueueShutDown
            return super()._get_once()


class DropsTheDeadAtShutdown(Wrong):
    caught_by = "test_an_immediate_shutdown_drops_all_but_the_dead_letters"

    class Faulty(LeaseMemoryChannel):
        def shutdown(self, immediate: bool, /) -> None:
            super().shutdown(immediate)
            self.clear_dead()


class KeepsLeasesAtShutdown(Wrong):
    caught_by = "test_an_immediate_shutdown_drops_all_but_the_dead_letters"

    class Faulty(LeaseMemoryChannel):
        def shutdown(self, immediate: bool, /) -> None:
            super().shutdown(False)
            if immediate:
                self.clear()


class RequeuesAfterTheShutdown(Wrong):
    caught_by = "test_dead_letters_of_a_queue_that_is_shut_down_are_not_requeued"

    class Faulty(LeaseMemoryChannel):
        def requeue(self, limit: int, /) -> int:
            letters = self._queue.messages(State.DEAD)[:limit]
            self._queue.commit({letter.number: returned(letter) for letter in letters})
            return len(letters)


class MiscountsReturns(Wrong):
    caught_by = "test_the_figures_count_each_state"

    class Faulty(LeaseMemoryChannel):
        def stats(self) -> Stats:
            return replace(super().stats(), returned=self._queue.returned + 1)


class NoticesPutsAlone(Wrong):
    caught_by = "test_a_notice_comes_when_a_message_is_ready_again[release]"

    class Faulty(LeaseMemoryChannel):
        def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
            registrant, self._queue.registrant = self._queue.registrant, None
            lost = super().settle(tokens, verdict, delay, reason)
            self._queue.registrant = registrant
            return lost


class TendsSilently(Wrong):
    caught_by = "test_the_descriptor_tells_when_a_message_is_ready_again[hold]"

    class Faulty(LeaseMemoryChannel):
        def tend(self) -> float | None:
            return None


class RingsForLeasedMessages(Wrong):
    caught_by = "test_the_descriptor_tells_the_end_when_nothing_is_leased"

    class Faulty(LeaseMemoryChannel):
        def _is_ready(self) -> bool:
            return super()._is_ready() or self._queue.down


class LeasesUnasked(Wrong):
    caught_by = "test_other_leases_than_those_of_the_queue_are_a_mismatch"

    def create(self, name: str, request: Request) -> Channel:
        channel = super().create(name, request)
        channel.attributes = replace(channel.attributes, leases=True, max_deliveries=5)
        return channel

    def attach(self, name: str, request: Request) -> Channel:
        channel = super().attach(name, request)
        channel.attributes = replace(channel.attributes, leases=True, max_deliveries=5)
        return channel


class KeepsLeasesInSql(Odd):
    """Each operation is one transaction, and no death is noticed."""

    passes = tuple(
        name
        for family in (Leases, DeadLetters)
        for name in vars(family)
        if name.startswith("test_") and not name.startswith(UNTRIED)
    )
    capabilities = sql.CAPABILITIES
    queues: ClassVar[dict[str, sql.SqlQueue]] = {}

    def create(self, name: str, request: Request) -> Channel:
        if name in self.queues:
            raise QueueExists
        self.queues[name] = sql.SqlQueue(request)
        return self.attach(name, request)

    def attach(self, name: str, request: Request) -> Channel:
        if name not in self.queues:
            raise QueueNotFound
        channel = sql.SqlChannel(self.queues[name])
        leases = channel.attributes.leases
        channel.capabilities = replace(channel.capabilities, leases=leases, delays=leases)
        return channel

    def exists(self, name: str) -> bool:
        return name in self.queues

    def unlink(self, name: str) -> None:
        if name not in self.queues:
            raise QueueNotFound
        self.queues.pop(name).linked = False

    def names(self) -> list[str]:
        return list(self.queues)
