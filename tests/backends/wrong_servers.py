"""The example of a backend with a server, with one deliberate fault each, and the test that must catch it."""

import re
import time
from contextlib import closing
from typing import Any, ClassVar

import ipcq_tcp

from ipcq import backend as b
from ipcq import errors as e
from ipcq.hooks import hookimpl

FAULTS: "list[type[Wrong]]" = []


class Wrong(ipcq_tcp.TcpBackend):
    """The example with a fault.

    Attributes:
        caught_by: The test of the suite that has to fail.
        Client: The client with the fault.
        Channel: The channel class with the fault.
    """

    caught_by: ClassVar[str]
    Client: ClassVar[Any] = ipcq_tcp.Client
    Channel: ClassVar[Any] = ipcq_tcp.TcpChannel

    def __init_subclass__(cls) -> None:
        cls.name = "wrong" + re.sub("[A-Z]", lambda letter: "-" + letter[0].lower(), cls.__name__)
        FAULTS.append(cls)

    def ask(self, operation: str, name: str = "", **content: Any) -> Any:
        with closing(self.Client()) as client:
            return client.ask(operation, name, **content)

    def create(self, name: str, request: b.Request) -> b.Channel:
        return self.spoil(super().create(name, request))

    def attach(self, name: str, request: b.Request) -> b.Channel:
        return self.spoil(super().attach(name, request))

    def spoil(self, channel: Any) -> b.Channel:
        channel.__class__ = self.Channel
        channel.client = self.Client()
        return channel  # type: ignore[no-any-return]  # the example has no types

    @classmethod
    @hookimpl
    def ipcq_backend(cls) -> b.Backend:
        return cls()


class NewIdentities(ipcq_tcp.Client):
    def request(self, operation: b.Operation, *arguments: Any, **content: Any) -> Any:
        identity = f"{operation.identity}-{operation.attempt}"
        return super().request(operation._replace(identity=identity), *arguments, **content)


class DoublesPuts(Wrong):
    """Each attempt is an operation of its own."""

    caught_by = "test_a_put_whose_reply_is_lost_stores_one_message"
    Client = NewIdentities


class LosesGets(Wrong):
    """Likewise."""

    caught_by = "test_a_get_whose_reply_is_lost_takes_one_message"
    Client = NewIdentities


class DoublesBatches(Wrong):
    """Likewise."""

    caught_by = "test_a_batch_whose_replies_are_lost_arrives_once"
    Client = NewIdentities


class FindsItsOwnQueue(Wrong):
    """Likewise: the second attempt finds the queue of the first."""

    caught_by = "test_a_creation_whose_reply_is_lost_succeeds"
    Client = NewIdentities


class IgnoresDeadlines(Wrong):
    """An attempt waits as long as it likes."""

    caught_by = "test_a_timeout_holds_while_the_server_is_silent[put]"

    class Client(ipcq_tcp.Client):
        def request(self, operation: b.Operation, *arguments: Any, **content: Any) -> Any:
            return super().request(operation._replace(until=time.monotonic() + 2), *arguments, **content)


class IgnoresOpenTimeout(IgnoresDeadlines):
    """Likewise, while it opens a queue."""

    caught_by = "test_open_timeout_bounds_all_of_open"


class IgnoresShortTries(Wrong):
    """A call that does not wait takes longer than an answer."""

    caught_by = "test_a_call_without_a_wait_ends_while_the_server_is_silent"

    class Client(ipcq_tcp.Client):
        def request(self, operation: b.Operation, *arguments: Any, **content: Any) -> Any:
            return super().request(operation._replace(until=time.monotonic() + 4), *arguments, **content)


class ForgetsLateMessages(Wrong):
    """A get whose reply comes too late loses its message."""

    caught_by = "test_a_message_on_its_way_at_a_timeout_is_not_lost"

    class Channel(ipcq_tcp.TcpChannel):
        def try_get_many(self, limit: int, /) -> list[b.Received]:
            return [(data.encode("latin-1"), 0) for data in self.ask("get", limit=limit)]


class Outcome(ipcq_tcp.Client):
    outcome: str

    def request(self, *arguments: Any, **content: Any) -> Any:
        try:
            return super().request(*arguments, **content)
        except e.ConnectionLost as error:
            error.outcome = self.outcome  # type: ignore[assignment]  # one of the outcomes
            raise


class IsTooSure(Wrong):
    """It reports that nothing was done after it has sent the request."""

    caught_by = "test_a_silent_server_may_have_done_it"

    class Client(Outcome):
        outcome = "not done"


class IsNeverSure(Wrong):
    """It does not know that a request was not sent."""

    caught_by = "test_a_server_that_is_away_has_done_nothing"

    class Client(Outcome):
        outcome = "unknown"


class GivesUp(Wrong):
    """It attempts each operation once."""

    caught_by = "test_a_waiting_get_outlives_a_restart"

    class Client(Outcome):
        outcome = "done"


class GivesUpPuts(GivesUp):
    """Likewise."""

    caught_by = "test_a_waiting_put_outlives_a_restart"


class AsksOften(Wrong):
    """It polls as a local backend does."""

    caught_by = "test_an_idle_consumer_asks_once_a_second"

    class Channel(ipcq_tcp.TcpChannel):
        slice = b.SLICE

        def wait_readable(self, since: float, until: float, /) -> None:
            b.pause(since, until)


class CannotBeWoken(Wrong):
    """A close waits for the end of its waits."""

    caught_by = "test_close_ends_a_wait_on_the_server"

    class Channel(ipcq_tcp.TcpChannel):
        def wake(self) -> None:
            pass


class RetriesAfterClose(Wrong):
    """It has a loop of its own, which does not end with the handle."""

    caught_by = "test_close_ends_a_call_that_waits_for_the_server"

    class Channel(ipcq_tcp.TcpChannel):
        def try_get_many(self, limit: int, /) -> list[b.Received]:
            until = time.monotonic() + 5
            while True:
                try:
                    return super().try_get_many(limit)
                except (e.ConnectionLost, e.QueueClosed):
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.01)


class UnlinksByName(Wrong):
    """It removes whichever queue has the name."""

    caught_by = "test_unlink_leaves_a_later_queue_alone[True]"

    def unlink_incarnation(self, name: str, incarnation: str) -> None:
        self.unlink(name)


class UnlinksNothing(Wrong):
    """It does not remove its own queue."""

    caught_by = "test_unlink_removes_its_own_queue"

    def unlink_incarnation(self, name: str, incarnation: str) -> None:
        pass


class FollowsTheName(Wrong):
    """An old handle uses the queue that now has the name."""

    caught_by = "test_two_queues_of_a_name_have_different_incarnations"

    class Channel(ipcq_tcp.TcpChannel):
        def try_get_many(self, limit: int, /) -> list[b.Received]:
            return [(data.encode("latin-1"), 0) for data in self.client.ask("get", self.name, limit=limit)]
