"""Figures of one queue."""

from dataclasses import dataclass

from ipcq._process.lock_holders import Holder


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Figures of one queue over all processes; None if the mechanism does not keep the figure."""

    depth: int | None = None
    """Messages in the queue that a get can take now."""
    bytes: int | None = None
    """Bytes of messages in the queue now, also of those that are leased, delayed or dead."""
    bytes_put: int | None = None
    """Bytes of all messages stored so far."""
    puts: int | None = None
    """Messages stored so far."""
    gets: int | None = None
    """Messages taken, acknowledged or dropped so far."""
    dropped: int | None = None
    """Messages dropped so far by puts with `drop_oldest`, and by `get_latest`; `gets` counts them too."""
    high_water_mark: int | None = None
    """Largest number of messages in the queue so far, also of those that are leased, delayed or dead."""
    waits: int | None = None
    """Number of puts and gets that had to wait."""
    timeouts: int | None = None
    """Number of waits that timed out."""
    recoveries: int | None = None
    """Number of times that the queue was repaired after a process died inside it."""
    handles: int | None = None
    """Handles that are open now, including this one; handles of killed processes do not count."""
    leased: int | None = None
    """Messages on loan now; None on a queue without leases, as the following figures."""
    delayed: int | None = None
    """Messages now that become ready later."""
    dead: int | None = None
    """Dead letters now."""
    returned: int | None = None
    """Number of times that a lease ended without an acknowledgement, a rejection or a drop."""
    holder: Holder | None = None
    """Process that blocks others because it is stopped, or not scheduled, while it holds a lock of the queue."""
