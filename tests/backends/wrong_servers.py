"""The example of a backend with a server, with one deliberate fault each, and the tests that must catch it."""

import re
import time
from collections.abc import Callable
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
        caught_by: The tests of the suite that have to fail.
        Client: The client with the fault.
        Channel: The channel class with the fault.
    """

    caught_by: ClassVar[tuple[str, ...]]
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


def changed(change: Callable[[b.Operation], b.Operation]) -> Any:
    """Return a client that changes each operation before it asks the server."""

    class Client(ipcq_tcp.Client):
        def request(self, operation: b.Operation, *arguments: Any, **content: Any) -> Any:
            return super().request(change(operation), *arguments, **content)

    return Client


def waiting(seconds: float) -> Any:
    """Return a client that waits this long, whatever the deadline is."""
    return changed(lambda operation: operation._replace(until=time.monotonic() + seconds))


def reporting(outcome: str) -> Any:
    """Return a client that reports this outcome whenever the connection is lost."""

    class Client(ipcq_tcp.Client):
        def request(self, *arguments: Any, **content: Any) -> Any:
            try:
                return super().request(*arguments, **content)
            except e.ConnectionLost as error:
                error.outcome = outcome  # type: ignore[assignment]  # one of the outcomes
                raise

    return Client


class IdentifiesAttempts(Wrong):
    """Each attempt is an operation of its own, so the second one does it again or finds what the first one did."""

    caught_by = (
        "test_a_put_whose_reply_is_lost_stores_one_message",
        "test_a_get_whose_reply_is_lost_takes_one_message",
        "test_a_batch_whose_replies_are_lost_arrives_once",
        "test_a_creation_whose_reply_is_lost_succeeds",
    )
    Client = changed(lambda operation: operation._replace(identity=f"{operation.identity}-{operation.attempt}"))


class IgnoresDeadlines(Wrong):
    """An attempt waits for two seconds."""

    caught_by = (
        "test_a_timeout_holds_while_the_server_is_silent[put]",
        "test_open_timeout_bounds_all_of_open",
    )
    Client = waiting(2)


class IgnoresShortTries(Wrong):
    """A call that does not wait takes longer than an answer."""

    caught_by = ("test_a_call_without_a_wait_ends_while_the_server_is_silent",)
    Client = waiting(4)


class ForgetsLateMessages(Wrong):
    """A get whose reply comes too late loses its message."""

    caught_by = ("test_a_message_on_its_way_at_a_timeout_is_not_lost",)

    class Channel(ipcq_tcp.TcpChannel):
        def try_get_many(self, limit: int, /) -> list[b.Received]:
            return [(data.encode("latin-1"), 0) for data in self.ask("get", limit=limit)]


class IsTooSure(Wrong):
    """It reports that nothing was done after it has sent the request."""

    caught_by = ("test_a_silent_server_may_have_done_it",)
    Client = reporting("not done")


class IsNeverSure(Wrong):
    """It does not know that a request was not sent."""

    caught_by = ("test_a_server_that_is_away_has_done_nothing",)
    Client = reporting("unknown")


class GivesUp(Wrong):
    """It attempts each operation once."""

    caught_by = ("test_a_waiting_get_outlives_a_restart", "test_a_waiting_put_outlives_a_restart")
    Client = reporting("done")


class AsksOften(Wrong):
    """It polls as a local backend does."""

    caught_by = ("test_an_idle_consumer_asks_once_a_second",)

    class Channel(ipcq_tcp.TcpChannel):
        slice = b.SLICE

        def wait_readable(self, since: float, until: float, /) -> None:
            b.pause(since, until)


class CannotBeWoken(Wrong):
    """A close waits for the end of its waits."""

    caught_by = ("test_close_ends_a_wait_on_the_server",)

    class Channel(ipcq_tcp.TcpChannel):
        def wake(self) -> None:
            pass


class RetriesAfterClose(Wrong):
    """It has a loop of its own, which does not end with the handle."""

    caught_by = ("test_close_ends_a_call_that_waits_for_the_server",)

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

    caught_by = ("test_unlink_leaves_a_later_queue_alone[True]",)

    def unlink_incarnation(self, name: str, incarnation: str) -> None:
        self.unlink(name)


class UnlinksNothing(Wrong):
    """It does not remove its own queue."""

    caught_by = ("test_unlink_removes_its_own_queue",)

    def unlink_incarnation(self, name: str, incarnation: str) -> None:
        pass


class FollowsTheName(Wrong):
    """An old handle uses the queue that now has the name."""

    caught_by = ("test_two_queues_of_a_name_have_different_incarnations",)

    class Channel(ipcq_tcp.TcpChannel):
        def try_get_many(self, limit: int, /) -> list[b.Received]:
            return [(data.encode("latin-1"), 0) for data in self.client.ask("get", self.name, limit=limit)]
