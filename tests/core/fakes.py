"""A backend for tests of the core: a test sets its answers, and can run code at each call."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ipcq.backend import (
    Attributes,
    Availability,
    Backend,
    Capabilities,
    Channel,
    Notice,
    Persistence,
    Place,
    Received,
    Request,
    Scope,
)
from ipcq.errors import InvalidArgument, QueueExists, QueueGone, QueueNotFound, QueueShutDown

#: The default capabilities of the fakes: enough for ``auto`` to create queues on them.
HOST = Capabilities(
    scope=Scope.HOST,
    persistence=Persistence.KERNEL,
    exact_qsize=True,
    listing=True,
    modes=True,
    after_unlink=True,
)


class FakeQueue:
    """The state that the channels of one queue share."""

    def __init__(self, request: Request) -> None:
        self.messages: deque[Received] = deque()
        self.linked = True
        self.down = False
        self.attributes = Attributes(
            mode=request.mode,
            max_messages=request.max_messages or 8,
            max_message_size=request.max_message_size or 8192,
            buffer_size=request.buffer_size,
            priorities=request.priorities,
            leases=request.leases,
            max_deliveries=request.max_deliveries,
            lifetime=request.lifetime,
            options={option: value for option, value in request.options.items() if option == "shape"},
        )


class FakeChannel(Channel):
    """A minimal channel."""

    def __init__(
        self, queue: FakeQueue, capabilities: Capabilities, survives_fork: bool = True, outlives_unlink: bool = False
    ) -> None:
        self.queue = queue
        self.outlives_unlink = outlives_unlink
        self.attributes = queue.attributes
        self.capabilities = capabilities
        self.survives_fork = survives_fork
        self.closings = 0
        self.noticed: list[Notice | None] = []

    def _check_linked(self) -> None:
        if not (self.queue.linked or self.outlives_unlink):
            raise QueueGone

    def try_put(self, data: bytes, priority: int, /) -> bool:
        self._check_linked()
        if self.queue.down:
            raise QueueShutDown
        if len(self.queue.messages) == self.attributes.max_messages:
            return False
        self.queue.messages.append((data, priority))
        return True

    def try_get(self) -> Received | None:
        self._check_linked()
        if self.queue.messages:
            return self.queue.messages.popleft()
        if self.queue.down:
            raise QueueShutDown
        return None

    def qsize(self) -> int:
        self._check_linked()
        return len(self.queue.messages)

    def linked(self) -> bool:
        return self.queue.linked

    def notify(self, notice: Notice | None, /) -> None:
        self.noticed.append(notice)

    def after_fork(self) -> bool:
        return self.survives_fork

    def close(self) -> None:
        self.closings += 1


class FakeBackend(Backend):
    """A backend in memory that claims to reach the whole machine."""

    def __init__(
        self,
        name: str,
        *,
        rank: int | None = None,
        capabilities: Capabilities = HOST,
        availability: Availability | None = None,
        options: Mapping[str, type] | None = None,
    ) -> None:
        self.name = name
        self.rank = rank
        self.capabilities = capabilities
        self.availability = availability or Availability.yes()
        self.options = options or {}
        self.queues: dict[str, FakeQueue] = {}
        self.channels: list[FakeChannel] = []
        self.requests: list[Request] = []
        self.survives_fork = True
        # Called with the queue's name before the backend answers; the backend raises what they raise.
        self.on_probe: Callable[[str], object] = _nothing
        self.on_exists: Callable[[str], object] = _nothing
        self.on_create: Callable[[str], object] = _nothing
        self.on_attach: Callable[[str], object] = _nothing
        self.on_names: Callable[[str], object] = _nothing

    def probe(self) -> Availability:
        self.on_probe("")
        return self.availability

    def exists(self, name: str) -> bool:
        self.on_exists(name)
        return name in self.queues

    def create(self, name: str, request: Request) -> Channel:
        self.on_create(name)
        if name in self.queues:
            raise QueueExists
        self.queues[name] = FakeQueue(request)
        return self._channel(name, request)

    def attach(self, name: str, request: Request) -> Channel:
        self.on_attach(name)
        if name not in self.queues:
            raise QueueNotFound
        return self._channel(name, request)

    def _channel(self, name: str, request: Request) -> FakeChannel:
        self.requests.append(request)
        outlives_unlink = request.after_unlink == "continue"
        channel = FakeChannel(self.queues[name], self.capabilities, self.survives_fork, outlives_unlink)
        self.channels.append(channel)
        return channel

    def unlink(self, name: str) -> None:
        if name not in self.queues:
            raise QueueNotFound
        self.queues.pop(name).linked = False

    def names(self) -> list[str]:
        self.on_names("")
        return list(self.queues)

    def make(self, name: str, **request: Any) -> FakeQueue:
        """Create a queue as a program that does not use ipcq would."""
        self.queues[name] = queue = FakeQueue(Request(**request))
        return queue


class PlacedBackend(FakeBackend):
    """A fake whose queues are in the numbered databases of servers: ``placed://host:7000/0/``."""

    schemes = ("placeds", "distant")

    def __init__(self, name: str = "placed", **settings: Any) -> None:
        settings["capabilities"] = replace(settings.get("capabilities", HOST), places=True)
        super().__init__(name, **settings)
        self._settings = settings
        self.bound: dict[str, FakeBackend] = {}
        #: Each place as it was given, with its credentials.
        self.given: list[Place] = []

    def at(self, place: Place) -> Backend:
        self.given.append(place)
        path = place.path or ("0",)
        if len(path) > 1 or not path[0].isdigit():
            raise InvalidArgument(f"the database of {str(place)!r} is not a number: write it as placed://HOST/0/NAME")
        canonical = replace(place, host=place.host or "localhost", port=place.port or 7000, path=path)
        if canonical == Place("placed", "localhost", 7000, ("0",)):
            return self
        return self.bound.setdefault(str(canonical), FakeBackend(str(canonical), **self._settings))


def _nothing(name: str) -> None:
    return None


def raising(error: BaseException) -> Callable[[str], object]:
    """Return a callback that raises an error."""

    def answer(name: str) -> object:
        raise error

    return answer
