"""The shared-memory ring keeps the contract."""

from ipcq.testing import BackendContract


class TestShm(BackendContract):
    backend = "shm"
