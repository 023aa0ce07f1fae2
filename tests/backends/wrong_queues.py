"""Faults and oddities of a queue without leases."""

import errno
import os
import pickle
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

from backends.wrong import Odd, Wrong
from ipcq.backend import Channel, Notice, Received, Request
from ipcq.errors import QueueClosed, QueueEmpty, QueueGone, QueueShutDown
from ipcq_memory import MemoryBackend, MemoryChannel


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
            return super().try_put(queue.scratch + data[len(data) // 2 :], priority)


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


class DropsTheNewest(Wrong):
    caught_by = "test_a_put_drops_the_oldest_and_says_how_many"

    class Faulty(MemoryChannel):
        def try_put_dropping(self, data: bytes, priority: int, /) -> int | None:
            if super().try_put(data, priority):
                return 0
            self.try_get_latest()
            return int(super().try_put(data, priority))


class DropsTooMany(Wrong):
    caught_by = "test_a_put_drops_the_oldest_and_says_how_many"

    class Faulty(MemoryChannel):
        def try_put_dropping(self, data: bytes, priority: int, /) -> int | None:
            dropped = super().try_put_dropping(data, priority)
            return dropped and dropped + (super().try_get() is not None)


class ForgetsWhatItDropped(Wrong):
    caught_by = "test_among_threads_each_message_is_taken_or_dropped"

    class Faulty(MemoryChannel):
        def try_put_dropping(self, data: bytes, priority: int, /) -> int | None:
            return None if super().try_put_dropping(data, priority) is None else 0


class DropsOneAlone(Wrong):
    caught_by = "test_a_put_drops_as_many_as_are_in_its_way"

    class Faulty(MemoryChannel):
        def try_put_dropping(self, data: bytes, priority: int, /) -> int | None:
            if super().try_put(data, priority):
                return 0
            super().try_get()
            return 1 if super().try_put(data, priority) else None


class DropsInVain(Wrong):
    caught_by = "test_a_put_drops_the_lowest_priority_and_none_above_its_own"

    class Faulty(MemoryChannel):
        def try_put_dropping(self, data: bytes, priority: int, /) -> int | None:
            dropped = super().try_put_dropping(data, priority)
            if dropped is None:
                self.try_get()
            return dropped


class DropsWhatIsHigher(Wrong):
    caught_by = "test_a_put_drops_the_lowest_priority_and_none_above_its_own"

    class Faulty(MemoryChannel):
        def try_put_dropping(self, data: bytes, priority: int, /) -> int | None:
            if super().try_put(data, priority):
                return 0
            super().try_get()
            return int(super().try_put(data, priority))


class KeepsTheOlder(Wrong):
    caught_by = "test_the_newest_is_taken_and_the_older_ones_are_dropped"

    class Faulty(MemoryChannel):
        def try_get_latest(self) -> Received | None:
            taken = super().try_get_many(100)
            for data, priority in taken[:-1]:
                super().try_put(data, priority)
            return taken[-1] if taken else None


class DropsEveryPriority(Wrong):
    caught_by = "test_the_newest_of_the_highest_priority_is_taken"

    class Faulty(MemoryChannel):
        def try_get_latest(self) -> Received | None:
            received = super().try_get_latest()
            self.clear()
            return received


class DropsInSilence(Wrong):
    caught_by = "test_dropping_wakes_who_waits"

    class Faulty(MemoryChannel):
        def wait_readable(self, since: float, until: float, /) -> None:
            time.sleep(3)


class DropsAfterTheEnd(Wrong):
    caught_by = "test_dropping_ends_with_the_queue[shutdown]"

    class Faulty(MemoryChannel):
        def try_put_dropping(self, data: bytes, priority: int, /) -> int | None:
            self._queue.down, down = False, self._queue.down
            try:
                return super().try_put_dropping(data, priority)
            finally:
                self._queue.down = down


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


class ForgetsPrioritiesOfBatches(Wrong):
    caught_by = "test_a_batch_has_a_priority"

    class Faulty(MemoryChannel):
        def try_put_many(self, batch: Sequence[bytes], priority: int = 0, /) -> int:
            return super().try_put_many(batch)


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


class RunsMessages(Wrong):
    caught_by = "test_no_message_runs_code"

    class Faulty(MemoryChannel):
        def try_get(self) -> Received | None:
            received = super().try_get()
            if received:
                with suppress(Exception):
                    pickle.loads(received[0])
            return received


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
