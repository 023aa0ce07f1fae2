"""The protocol of channels whose queue is on a server (clauses 38 to 42)."""

from typing import Final, Protocol, runtime_checkable

from ipcq._process.deadline import pause
from ipcq.backend._channel import Channel

#: The longest pause between two polls of a wait, in seconds.
_POLL_SECONDS: Final = 1.0


@runtime_checkable
class RemoteChannel(Channel, Protocol):
    """A channel whose operations ask a server, so any of them may block. With leases, subclass `LeaseChannel` as well.

    It asks with `ask`, which knows the deadline of the user's call. Its `incarnation` is not empty.
    """

    remote: bool = True
    slice: float = 2.0  # a wait and a get are two requests, so an idle consumer makes one a second
    may_block: bool = True

    def wait_readable(self, since: float, until: float, /) -> None:
        """Wait as `Channel.wait_readable` does; by default it polls, ever less often, down to once a second."""
        pause(since, until, longest=_POLL_SECONDS)

    def wait_writable(self, size: int, since: float, until: float, /) -> None:
        """Wait as `Channel.wait_writable` does."""
        pause(since, until, longest=_POLL_SECONDS)
