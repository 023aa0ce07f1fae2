"""Queues for asyncio and trio: `ipcq.open` and `ipcq.Queue` with `await`, over anyio, the extra ``aio``."""

from ipcq._distribution import DISTRIBUTION as _DISTRIBUTION

try:
    import anyio as _anyio  # noqa: F401  # to say how to install it
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"the library anyio is not installed: pip install '{_DISTRIBUTION}[aio]'", name="anyio", path=__file__
    ) from error

from ipcq.aio._in_place import Reservation, ViewCall
from ipcq.aio._leases import Lease, LeaseCall, Leases
from ipcq.aio._open import Opening, open
from ipcq.aio._queue import Queue

__all__ = ("Lease", "LeaseCall", "Leases", "Opening", "Queue", "Reservation", "ViewCall", "open")
