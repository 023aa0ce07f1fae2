"""The classes of backends with one deliberate fault each, and of unusual but correct ones.

They prove that the suite can fail. Each is the in-process reference backend with one fault, registered by an entry
point as a third-party backend is. The backends themselves are in the modules `wrong_*`.
"""

import re
from typing import Any, ClassVar

from ipcq.backend import Backend, Channel, Request
from ipcq.hooks import hookimpl
from ipcq_memory import LeaseMemoryChannel, MemoryBackend, MemoryChannel

#: Importing a module adds its classes to these lists.
FAULTS: "list[type[Wrong]]" = []
ODDITIES: "list[type[Odd]]" = []


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
