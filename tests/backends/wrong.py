"""Backends with one deliberate fault each, and the test of the suite that must catch it.

They prove that the suite can fail. Each is the in-process reference backend with one fault, registered by an entry
point as a third-party backend is.
"""

import copy
import errno
import os
import pickle
import re
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

from backends import sql
from backends.table import OK, OTHER, Table
from ipcq.backend import Backend, Channel, DeadRecord, Leased, Notice, Place, Received, Request, Stats, Verdict
from ipcq.errors import PermissionDenied, QueueClosed, QueueEmpty, QueueExists, QueueGone, QueueNotFound, QueueShutDown
from ipcq.hooks import hookimpl
from ipcq.testing.contract._dead_letters import DeadLetters
from ipcq.testing.contract._leases import Leases
from ipcq.testing.contract._places import Places
from ipcq_memory import LeaseMemoryChannel, MemoryBackend, MemoryChannel
from ipcq_memory._leases import Message, State, returned

FAULTS: "list[type[Wrong]]" = []
ODDITIES: "list[type[Odd]]" = []

#: Tests of leases that need a descriptor, notices, or a backend without leases.
UNTRIED = (
    "test_the_descriptor_",
    "test_a_notice_",
    "test_leases_are_refused_",
)


class Wrong(MemoryBackend):
    """The reference backend with a fault.

    Attributes:
        caught_by: The test of the suite that has to fail.
        Faulty: The channel class with the fault.
        right: The class of tests in which that test passes.
    """

    caught_by: ClassVar[str]
    right: ClassVar[str] = "Right"
    Faulty: ClassVar[type[MemoryChannel]] = MemoryChannel

    def __init_subclass__(cls) -> None:
        cls.name = "wrong" + re.sub("[A-Z]", lambda letter: "-" + letter[0].lower(), cls.__name__)
        if hasattr(cls, "caught_by"):
            FAULTS.append(cls)

    def create(self, name: str, request: Request) -> Channel:
        return self.spoil(super().create(name, request))

    def attach(self, name: str, request: Request) -> Channel:
        return self.spoil(super().attach(name, request))

    def spoil(self, channel: Channel) -> Channel:
        if isinstance(channel, LeaseMemoryChannel) or not issubclass(self.Faulty, LeaseMemoryChannel):
            channel.__class__ = self.Faulty  # a fault in leases needs a queue with leases
        return channel

    @classmethod
    @hookimpl
    def ipcq_backend(cls) -> Backend:
        return cls()


class Odd(Wrong):
    """The reference backend with unusual but correct behaviour.

    Attributes:
        passes: The tests of the suite that it must pass.
        small: As in the suite.
    """

    passes: ClassVar[tuple[str, ...]]
    small: ClassVar[dict[str, Any]] = {"max_messages": 4, "max_message_size": 512}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        ODDITIES.append(cls)


class Loses(Wrong):
    caught_by = "test_a_message_is_there_when_put_returns"

    class Faulty(MemoryChannel):
        def try_put(self, data: bytes, priority: int, /) -> bool:
            self.puts = getattr(self, "puts", 0) + 1
            return self.puts % 7 == 0 or super().try_put(data, priority)


class Duplicates(Wrong):
    caught_by = "test_messages_come_in_the_order_in_which_they_were_put"

    class Faulty(MemoryChannel):
        def try_get(self) -> Received | None:
            self.gets = getattr(self, "gets", 0) + 1
            return self.peek() if self.gets % 7 == 0 else super().try_get()


class Reorders(Wrong):
    caught_by = "test_messages_that_wait_together_keep_their_order"

    class Faulty(MemoryChannel):
        def try_put(self, data: bytes, priority: int, /) -> bool:
            return super().try_put(data, self.qsize())


class WaitsTooLong(Wrong):
    caught_by = "test_a_timeout_is_never_early_and_hardly_late[get]"

    class Faulty(MemoryChannel):
        def wait_readable(self, since: float, until: float, /) -> None:
            time.sleep(1)


class GivesUpEarly(Wrong):
    caught_by = "test_a_timeout_is_never_early_and_hardly_late[get]"

    class Faulty(MemoryChannel):
        def wait_readable(self, since: float, until: float, /) -> None:
            raise QueueEmpty


class RaisesTheWrongException(Wrong):
    caught_by = "test_the_end_of_a_queue_is_noticed_by_other_handles[get]"

    class Faulty(MemoryChannel):
        def try_get(self) -> Received | None:
            try:
                return super().try_get()
            except QueueGone as error:
                raise QueueClosed from error


class LetsForeignExceptionsOut(Wrong):
    caught_by = "test_a_put_that_found_no_space_queued_nothing"

    class Faulty(MemoryChannel):
        def try_put(self, data: bytes, priority: int, /) -> bool:
            if not super().try_put(data, priority):
                raise BlockingIOError(errno.EAGAIN, "would block")
            return True


class TearsUnderTwoWriters(Wrong):
    caught_by = "test_messages_of_several_threads_are_never_mixed"

    class Faulty(MemoryChannel):
        def try_put(self, data: bytes, priority: int, /) -> bool:
            queue = self._queue
            queue.scratch = data[: len(data) // 2]  # type: ignore[attr-defined]  # a buffer shared by all writers
            time.sleep(0)
            return super().try_put(queue.scratch + data[len(data) // 2 :], priority)  # type: ignore[attr-defined]


class ForgetsTheMode(Wrong):
    caught_by = "test_the_mode_is_private_under_any_umask"

    def spoil(self, channel: Channel) -> Channel:
        umask = os.umask(0)
        os.umask(umask)
        channel.attributes = replace(channel.attributes, mode=0o666 & ~umask)
        return channel


class LeaksDescriptors(Wrong):
    caught_by = "test_handles_give_back_their_descriptors"

    def attach(self, name: str, request: Request) -> Channel:
        os.open(os.devnull, os.O_RDONLY)
        return super().attach(name, request)


class LeaksThreads(Wrong):
    caught_by = "test_handles_leave_no_threads"

    class Faulty(MemoryChannel):
        def wait_readable(self, since: float, until: float, /) -> None:
            threading.Thread(target=threading.Event().wait, args=(30,), daemon=True).start()
            super().wait_readable(since, until)


class AcceptsTooLarge(Wrong):
    caught_by = "test_a_message_one_byte_over_the_limit_is_refused"

    def attach(self, name: str, request: Request) -> Channel:
        channel = super().attach(name, request)
        channel.attributes = replace(channel.attributes, max_message_size=channel.attributes.max_message_size + 4096)
        return channel


class ForgetsShutdown(Wrong):
    caught_by = "test_nothing_is_put_by_who_shut_the_queue_down"

    class Faulty(MemoryChannel):
        def shutdown(self, immediate: bool, /) -> None:
            pass


class DropsAtShutdown(Wrong):
    caught_by = "test_what_is_in_a_queue_that_is_shut_down_can_be_drained"

    class Faulty(MemoryChannel):
        def shutdown(self, immediate: bool, /) -> None:
            super().shutdown(True)


class KeepsAtImmediateShutdown(Wrong):
    caught_by = "test_an_immediate_shutdown_drops_what_is_there"

    class Faulty(MemoryChannel):
        def shutdown(self, immediate: bool, /) -> None:
            super().shutdown(False)


class SplitsABatch(Wrong):
    caught_by = "test_what_a_batch_stores_at_a_time_appears_in_one_step"

    class Faulty(MemoryChannel):
        def try_put_many(self, batch: Sequence[bytes], priority: int = 0, /) -> int:
            stored = 0
            for data in batch:
                if not super().try_put_many([data], priority):
                    break
                stored += 1
                time.sleep(0)
            return stored


class MiscountsABatch(Wrong):
    caught_by = "test_as_much_of_a_batch_as_fits_is_stored"

    class Faulty(MemoryChannel):
        def try_put_many(self, batch: Sequence[bytes], priority: int = 0, /) -> int:
            super().try_put_many(batch, priority)
            return len(batch)


class StoresWhatItRefuses(Wrong):
    caught_by = "test_a_put_that_found_no_space_queued_nothing"

    class Faulty(MemoryChannel):
        def try_put(self, data: bytes, priority: int, /) -> bool:
            if super().try_put(data, priority):
                return True
            self._queue.alone(lambda: self._queue.store(data, priority))
            return False


class ClaimsToBePollable(Wrong):
    caught_by = "test_the_descriptor_is_readable_exactly_while_a_message_is_there"

    class Faulty(MemoryChannel):
        def fileno(self) -> int:
            if not hasattr(self, "null"):
                self.null = open(os.devnull, "rb")  # noqa: SIM115  # closed with the channel
            return self.null.fileno()

        def close(self) -> None:
            if hasattr(self, "null"):
                self.null.close()
            super().close()


class HidesItsShutdown(Wrong):
    caught_by = "test_the_end_wakes_who_polls[shutdown]"

    class Faulty(MemoryChannel):
        def _is_ready(self) -> bool:
            return bool(self._queue.size()) or not (self._queue.linked or self._continues)


class HidesItsUnlink(Wrong):
    caught_by = "test_the_end_wakes_who_polls[unlink]"

    class Faulty(MemoryChannel):
        def _is_ready(self) -> bool:
            return bool(self._queue.size()) or self._queue.down


class ForgetsToTellWhoAsksLate(Wrong):
    caught_by = "test_a_descriptor_that_is_asked_for_after_the_shutdown_is_readable"

    class Faulty(MemoryChannel):
        def fileno(self) -> int:
            self.late = getattr(self, "late", self._queue.down)
            return super().fileno()

        def _is_ready(self) -> bool:
            return bool(self._queue.size()) if self.late else super()._is_ready()


class TellsOfTheEndOnce(Wrong):
    caught_by = "test_a_descriptor_stays_readable_after_the_end[shutdown]"

    class Faulty(MemoryChannel):
        def try_get(self) -> Received | None:
            try:
                return super().try_get()
            except QueueShutDown:
                self.told = True
                raise

        def _is_ready(self) -> bool:
            return not hasattr(self, "told") and super()._is_ready()


class EndsADescriptorThatGoesOn(Wrong):
    caught_by = "test_an_unlink_leaves_the_descriptor_of_a_handle_that_goes_on_alone"

    class Faulty(MemoryChannel):
        def _is_ready(self) -> bool:
            return super()._is_ready() or not self._queue.linked


class NeverNoticesTheEnd(Wrong):
    caught_by = "test_the_end_of_a_queue_is_noticed_by_other_handles[put]"

    class Faulty(MemoryChannel):
        def _check(self) -> None:
            pass


class EndsTooSoon(Wrong):
    caught_by = "test_a_nameless_queue_can_be_used_on"

    def spoil(self, channel: Channel) -> Channel:
        assert isinstance(channel, MemoryChannel)
        channel._continues = False
        return channel


class RoundsMaxMessages(Wrong):
    caught_by = "test_exactly_as_many_messages_fit_as_were_asked_for"

    def create(self, name: str, request: Request) -> Channel:
        channel = super().create(name, request)
        assert isinstance(channel, MemoryChannel)
        queue = channel._queue
        queue.has_space = lambda size: queue.size() < 4  # type: ignore[method-assign]  # the next power of two
        return channel


class IsNotExclusive(Wrong):
    caught_by = "test_one_of_many_threads_creates"

    def create(self, name: str, request: Request) -> Channel:
        time.sleep(0.01)
        return self.attach(name, request) if self.exists(name) else super().create(name, request)


class HarmsByAttaching(Wrong):
    caught_by = "test_looking_and_attaching_alter_nothing"

    def attach(self, name: str, request: Request) -> Channel:
        channel = super().attach(name, request)
        channel.clear()
        return channel


class UnlinksOnClose(Wrong):
    caught_by = "test_closing_every_handle_keeps_the_queue"

    class Faulty(MemoryChannel):
        def close(self) -> None:
            super().close()
            MemoryBackend().unlink(self._name)


class OutlivesItsLastHandle(Wrong):
    caught_by = "test_a_last_close_queue_goes_with_its_last_handle"

    class Faulty(MemoryChannel):
        def close(self) -> None:
            self._queue.holders += 1
            super().close()


class DropsZeroLength(Wrong):
    caught_by = "test_a_zero_length_message_arrives_as_one"

    class Faulty(MemoryChannel):
        def try_put(self, data: bytes, priority: int, /) -> bool:
            return not data or super().try_put(data, priority)


class EndsMessagesAtZero(Wrong):
    caught_by = "test_every_byte_may_stand_everywhere"

    class Faulty(MemoryChannel):
        def try_put(self, data: bytes, priority: int, /) -> bool:
            return super().try_put(data.rstrip(b"\0") if data[-2:] == b"\0\0" else data, priority)


class SwallowsWhatHandlersRaise(Wrong):
    caught_by = "test_an_exception_out_of_a_handler_arrives_unchanged[get]"

    class Faulty(MemoryChannel):
        def wait_readable(self, since: float, until: float, /) -> None:
            try:
                super().wait_readable(since, until)
            except Exception:  # the fault
                pass


class TakesByLooking(Wrong):
    caught_by = "test_looking_takes_nothing"

    class Faulty(MemoryChannel):
        def peek(self) -> Received | None:
            return self.try_get()


class HidesTheEndFromALook(Wrong):
    caught_by = "test_looking_into_a_queue_that_is_shut_down_and_empty_says_so"

    class Faulty(MemoryChannel):
        def peek(self) -> Received | None:
            with suppress(QueueShutDown):
                return super().peek()
            return None


class RefusesToClearWhatHasEnded(Wrong):
    caught_by = "test_clearing_a_queue_that_is_shut_down_drops_what_is_there"

    class Faulty(MemoryChannel):
        def clear(self) -> int:
            self.peek()
            return super().clear()


class ForgetsPriorities(Wrong):
    caught_by = "test_the_highest_priority_comes_first"

    class Faulty(MemoryChannel):
        def try_put(self, data: bytes, priority: int, /) -> bool:
            return super().try_put(data, 0)


class CountsRoughly(Wrong):
    caught_by = "test_the_count_is_exact"

    class Faulty(MemoryChannel):
        def qsize(self) -> int:
            return super().qsize() // 2 * 2


class NoticesEachMessage(Wrong):
    caught_by = "test_a_notice_comes_when_a_message_arrives"

    class Faulty(MemoryChannel):
        def notify(self, notice: Notice | None, /) -> None:
            if notice is None or isinstance(notice, int):
                super().notify(notice)
                return

            def again() -> None:
                self.notify(notice)
                notice()

            super().notify(again)


class ListsNothing(Wrong):
    caught_by = "test_existing_queues_are_listed"

    def names(self) -> list[str]:
        return []


class ForgetsWhatIsLeft(Wrong):
    caught_by = "test_shutdown_reaches_who_comes_later"

    def attach(self, name: str, request: Request) -> Channel:
        channel = super().attach(name, request)
        assert isinstance(channel, MemoryChannel)
        if channel._queue.down:
            channel.close()
            raise QueueShutDown
        return channel


class HoldsLittle(Wrong):
    caught_by = "test_eight_messages_of_8_kib_fit_where_nothing_was_asked_for"

    def create(self, name: str, request: Request) -> Channel:
        return super().create(name, replace(request, max_messages=request.max_messages or 7))


class Quick(MemoryChannel):
    """A channel with correct functions in C; each fault replaces one of their steps."""

    Functions: ClassVar[type[Table]] = Table

    def native(self) -> object:
        self._table = self.Functions(self)
        return self._table.capsule()


# Leases. `_queue` is the queue behind the channel, and `_change` changes its messages by token.


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


class WorksInC(Odd):
    passes = (
        "test_an_item_comes_back_as_it_was_put",
        "test_a_closed_handle_says_so",
        "test_a_message_one_byte_over_the_limit_is_refused",
        "test_the_end_of_a_queue_is_noticed_by_other_handles",
    )
    Faulty = Quick


class ForgetsTheLimitAtOnce(Wrong):
    caught_by = "test_a_message_one_byte_over_the_limit_is_refused"

    class Faulty(Quick):
        class Functions(Table):
            def limit(self) -> int:
                return 1 << 40


class HidesTheEndAtOnce(Wrong):
    caught_by = "test_the_end_of_a_queue_is_noticed_by_other_handles"

    class Faulty(Quick):
        class Functions(Table):
            def put(self, context: Any, piece: Any, polite: int) -> int:
                result = super().put(context, piece, polite)
                return OK if result == OTHER else result


class DropsThePriorityAtOnce(Wrong):
    caught_by = "test_the_highest_priority_comes_first"

    class Faulty(Quick):
        class Functions(Table):
            def put(self, context: Any, piece: Any, polite: int) -> int:
                piece.contents.priority = 0
                return super().put(context, piece, polite)


class LosesWhatDoesNotFitAtOnce(Wrong):
    caught_by = "test_eight_messages_of_8_kib_fit_where_nothing_was_asked_for"

    class Faulty(Quick):
        class Functions(Table):
            def placed(self, space: Any, received: Received) -> int:
                result = super().placed(space, received)
                self.kept.clear()
                return result


class ChangesMessagesAtOnce(Wrong):
    caught_by = "test_an_item_comes_back_as_it_was_put"

    class Faulty(Quick):
        class Functions(Table):
            def body(self, data: bytes) -> bytes:
                return data[::-1]


class RunsMessages(Wrong):
    caught_by = "test_no_message_runs_code"

    class Faulty(MemoryChannel):
        def try_get(self) -> Received | None:
            received = super().try_get()
            if received:
                with suppress(Exception):
                    pickle.loads(received[0])
            return received


class OpensWhatAMessageNames(Wrong):
    caught_by = "test_no_message_runs_code"

    class Faulty(Quick):
        class Functions(Table):
            def body(self, data: bytes) -> bytes:
                with suppress(OSError, ValueError):
                    open(data, "rb").close()
                return data


class OpensFiles(Odd):
    passes = ("test_no_message_runs_code",)

    class Faulty(MemoryChannel):
        def try_get(self) -> Received | None:
            with open(os.devnull, "rb"):
                os.listdir(".")
            return super().try_get()


class HasAnOption(Odd):
    passes = ("test_a_limit_is_honoured_or_refused",)
    options: ClassVar[dict[str, type]] = {"colour": str}
    small: ClassVar[dict[str, Any]] = {**Odd.small, "colour": "blue"}


class Denies(Odd):
    passes = (
        "test_going_on_after_an_unlink_is_refused_where_it_cannot_be",
        "test_a_mode_is_refused_where_there_is_one_alone",
    )
    capabilities = replace(MemoryBackend.capabilities, modes=False, after_unlink=False)

    def spoil(self, channel: Channel) -> Channel:
        channel.capabilities = replace(channel.capabilities, modes=False, after_unlink=False)
        return super().spoil(channel)


class ForgetsItsOptions(Wrong):
    caught_by = "test_every_handle_has_the_options_of_the_queue"

    def attach(self, name: str, request: Request) -> Channel:
        channel = super().attach(name, request)
        channel.attributes = replace(channel.attributes, options={"colour": "none"})
        return channel


class TakesAnyPlace(Wrong):
    caught_by = "test_a_backend_without_places_refuses_them"

    def at(self, place: Place) -> Backend:
        return self


class InPlaces(MemoryBackend):
    """The reference backend with places: each has a prefix for the names of its queues."""

    prefix = ""

    def at(self, place: Place) -> Backend:
        bound = copy.copy(self)
        bound.name = self.text_of(place)
        bound.prefix = self.prefix_of(place)
        return bound

    def text_of(self, place: Place) -> str:
        return str(place)

    def prefix_of(self, place: Place) -> str:
        return str(place)

    def create(self, name: str, request: Request) -> Channel:
        return super().create(self.prefix + name, request)

    def attach(self, name: str, request: Request) -> Channel:
        return super().attach(self.prefix + name, request)

    def exists(self, name: str) -> bool:
        return super().exists(self.prefix + name)

    def unlink(self, name: str) -> None:
        super().unlink(self.prefix + name)

    def names(self) -> list[str]:
        parts = [name.rpartition("/") for name in super().names()]
        return [f"/{name}" for prefix, _, name in parts if prefix == self.prefix]

    def spoil(self, channel: Channel) -> Channel:
        channel.capabilities = self.capabilities
        return channel


class HasPlaces(InPlaces, Odd):
    passes = tuple(
        name
        for name in vars(Places)
        if name.startswith("test_") and name != "test_a_backend_without_places_refuses_them"
    )
    capabilities = replace(MemoryBackend.capabilities, places=True)


class MixesPlaces(InPlaces, Wrong):
    caught_by = "test_queues_in_two_places_do_not_meet"
    right = "HasPlaces"
    capabilities = HasPlaces.capabilities

    def prefix_of(self, place: Place) -> str:
        return ""

    def create(self, name: str, request: Request) -> Channel:
        return self.attach(name, request) if self.exists(name) else super().create(name, request)


class ListsAllPlaces(InPlaces, Wrong):
    caught_by = "test_a_queue_is_found_in_its_place_alone"
    right = "HasPlaces"
    capabilities = HasPlaces.capabilities

    def names(self) -> list[str]:
        return ["/" + name.rpartition("/")[2] for name in MemoryBackend.names(self)]


class TellsAnotherPlace(InPlaces, Wrong):
    caught_by = "test_the_text_of_a_place_leads_to_it"
    right = "HasPlaces"
    capabilities = HasPlaces.capabilities

    def text_of(self, place: Place) -> str:
        return f"{place}more/"


class TellsNoPlace(InPlaces, Wrong):
    caught_by = "test_a_url_of_a_queue_leads_to_its_place"
    right = "HasPlaces"
    capabilities = HasPlaces.capabilities

    def text_of(self, place: Place) -> str:
        return self.name


class ShowsPasswords(InPlaces, Wrong):
    caught_by = "test_no_password_is_shown"
    right = "HasPlaces"
    capabilities = HasPlaces.capabilities

    def text_of(self, place: Place) -> str:
        password = place.password.reveal() if place.password else ""
        return str(place).replace("://", f"://{place.user}:{password}@")


class QuotesPasswords(InPlaces, Wrong):
    caught_by = "test_no_password_is_shown"
    right = "HasPlaces"
    capabilities = HasPlaces.capabilities

    def at(self, place: Place) -> Backend:
        if place.password:
            try:
                raise ValueError(f"the server refused {place.password.reveal()}")
            except ValueError as error:
                raise PermissionDenied("wrong password") from error
        return super().at(place)


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
