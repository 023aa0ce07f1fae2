"""The in-process reference backend keeps the contract."""

from ipcq.testing import BackendContract


class TestMemory(BackendContract):
    backend = "memory"
