"""A drop-in replacement for shmqueue 0.0.2: change ``import shmqueue`` to ``from ipcq.compat import shmqueue``."""

from ipcq.compat.shmqueue import exceptions
from ipcq.compat.shmqueue._queue import (
    SIZE_HEADER,
    SYSTEM_PAGESIZE,
    DebugRefLogAction,
    SerializationMethods,
    ShmQueue,
    ShmRefDataSnapshot,
)

__all__ = (
    "SIZE_HEADER",
    "SYSTEM_PAGESIZE",
    "DebugRefLogAction",
    "SerializationMethods",
    "ShmQueue",
    "ShmRefDataSnapshot",
    "exceptions",
)
