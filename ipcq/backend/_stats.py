"""Figures of one queue."""

from dataclasses import dataclass

from ipcq._process.lock_holders import Holder


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Figures of one queue over all processes; None where the mechanism cannot know."""

    depth: int | None = None
    """Messages in the queue now."""
    bytes: int | None = None
    """Bytes of messages in the queue now."""
    bytes_put: int | None = None
    """Bytes of messages ever stored."""
    puts: int | None = None
    """Messages ever stored."""
    gets: int | None = None
    """Messages ever taken."""
    high_water_mark: int | None = None
    """Most messages that were ever in the queue at a time."""
    waits: int | None = None
    """Times that a put or a get had to wait."""
    timeouts: int | None = None
    """Waits that ended without a message or without space."""
    recoveries: int | None = None
    """Times that the queue was put in order after a process died inside it."""
    handles: int | None = None
    """Handles that are open now, this one included; those of killed processes are not."""
    holder: Holder | None = None
    """Process that blocks others because it is stopped or starved inside the queue."""
