"""The kernel's message queue keeps the contract."""

from ipcq.testing import BackendContract


class TestMqueue(BackendContract):
    backend = "mqueue"
