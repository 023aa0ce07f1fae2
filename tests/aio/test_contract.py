"""`ipcq.aio` keeps the contract: each call of the suite is awaited in an event loop.

The loop runs in a separate thread, so that tasks do what the suite does in threads. Some families are left out because
`ipcq.aio` does not implement them: names, limits of the system, permissions, and signals, which do not interrupt tasks.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

import ipcq.aio
from ipcq.backend import Channel
from ipcq.testing.contract._abilities import Abilities
from ipcq.testing.contract._batches import Batches
from ipcq.testing.contract._delivery import Delivery
from ipcq.testing.contract._ends import Ends
from ipcq.testing.contract._leases import Leases
from ipcq.testing.contract._waiting import Waiting

#: These are thousands of calls; on each version of Python, the other tests of `ipcq.aio` are enough.
pytestmark = pytest.mark.once


async def _outcome(call: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    outcome = call(*arguments, **named)
    return await outcome if inspect.isawaitable(outcome) else outcome


class Facade:
    """A synchronous facade of an `ipcq.aio.Queue`, or of its leases, whose calls are awaited in an event loop."""

    def __init__(self, portal: BlockingPortal, behind: Any) -> None:
        self._portal = portal
        self._behind = behind
        self._coming: Any = None

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._behind, {"close": "aclose"}.get(name, name))
        if not callable(value):
            return value

        def call(*arguments: Any, **named: Any) -> Any:
            arguments = tuple(map(self._revealed, arguments))
            return self._covered(self._portal.call(_outcome, value, arguments, named))

        return call

    def _revealed(self, argument: Any) -> Any:
        if isinstance(argument, list) and any(isinstance(each, Facade) for each in argument):
            return [each._behind for each in argument]
        return argument

    def _covered(self, result: Any) -> Any:
        if isinstance(result, list):
            return list(map(self._covered, result))
        asynchronous = isinstance(result, ipcq.aio.Lease | ipcq.aio.Leases)
        return Facade(self._portal, result) if asynchronous else result

    def __iter__(self) -> "Facade":
        self._coming = aiter(self._behind)
        return self

    def __next__(self) -> Any:
        if self._coming is None:
            iter(self)
        try:
            return self._covered(self._portal.call(self._coming.__anext__))
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> "Facade":
        return self

    def __exit__(self, *why: Any) -> None:
        self._portal.call(self._behind.__aexit__, *why)

    def __repr__(self) -> str:
        return repr(self._behind)


class AioContract(Delivery, Batches, Waiting, Ends, Abilities, Leases):
    """The families, on asynchronous handles."""

    loop: str

    # It raises KeyboardInterrupt in a task, which ends the event loop.
    test_an_interrupted_lease_gives_its_message_back = None

    @pytest.fixture(autouse=True)
    def _in_a_loop(self) -> Iterator[None]:
        with start_blocking_portal(self.loop) as self._portal:
            yield

    def create(self, name: str | None = None, **options: Any) -> Any:
        return self._awaited(super().create(name, **options))

    def attach(self, name: str | None = None, **options: Any) -> Any:
        return self._awaited(super().attach(name, **options))

    def _awaited(self, handle: "ipcq.Queue[Any]") -> Facade:
        facade = Facade(self._portal, ipcq.aio.Queue(handle))
        self._cleaning.callback(facade.close)  # before the handle itself is closed, which tasks would not see at once
        return facade


def families(backend: str, loop: str) -> Any:
    """Return the families for a backend, on an event loop."""
    return pytest.mark.needs(backend)(type("Families", (AioContract,), {"backend": backend, "loop": loop}))


TestMemoryUnderAsyncio = families("memory", "asyncio")
TestMemoryUnderTrio = families("memory", "trio")
TestShmUnderTrio = families("shm", "trio")
TestMqueueUnderAsyncio = families("mqueue", "asyncio")
TestSocketpairUnderTrio = families("socketpair", "trio")
TestPyshmUnderAsyncio = families("pyshm", "asyncio")


@pytest.mark.needs("memory")
class TestMemoryInThreadsUnderAsyncio(AioContract):
    """The same where calls may block."""

    backend = "memory"
    loop = "asyncio"

    @pytest.fixture(autouse=True)
    def _in_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Channel, "may_block", True)
