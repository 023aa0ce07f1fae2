"""One message on which `work` works."""

from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import ipcq
from ipcq._cli._children import Command


@dataclass(eq=False)
class Job:
    """A leased message, and the command that was started for it."""

    number: int
    """Its place among the jobs of this process, from 1."""
    lease: ipcq.Lease[Any]
    command: Command = field(init=False)
    """Set when it is started."""
    pid: int | None = None
    """The process of the command; None if it was not started."""
    began: float = 0.0
    """When the command was started, on the monotonic clock."""
    extend_at: float = float("inf")
    """When the hold is to be extended next."""
    status: int | None = None
    """The exit code of the command, negative for the signal that killed it; None while it runs."""
    seconds: float | None = None
    """How long the command ran."""

    def has_ended(self) -> bool:
        """Return whether the command has ended; then `status` and `seconds` are known."""
        self.status = self.command.poll()
        if self.status is None:
            return False
        self.seconds = monotonic() - self.began
        return True

    def __str__(self) -> str:
        return f"job {self.number} (delivery {self.lease.deliveries})"
