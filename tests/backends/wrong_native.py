"""Faults and oddities of the functions in C that a channel may have."""

from contextlib import suppress
from typing import Any, ClassVar

from backends.table import OK, OTHER, Table
from backends.wrong import Odd, Wrong
from ipcq.backend import Received
from ipcq_memory import MemoryChannel


class Quick(MemoryChannel):
    """A channel with correct functions in C; each fault replaces one of their steps."""

    Functions: ClassVar[type[Table]] = Table

    def native(self) -> object:
        self._table = self.Functions(self)
        return self._table.capsule()


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


class OpensWhatAMessageNames(Wrong):
    caught_by = "test_no_message_runs_code"

    class Faulty(Quick):
        class Functions(Table):
            def body(self, data: bytes) -> bytes:
                with suppress(OSError, ValueError):
                    open(data, "rb").close()
                return data
