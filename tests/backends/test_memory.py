"""The in-process reference keeps the contract."""

from ipcq.testing import BackendContract


class TestMemory(BackendContract):
    backend = "memory"
