"""The shared-memory ring keeps the contract, with put and get in C and in Python."""

import pytest

from ipcq.testing import BackendContract


class TestShm(BackendContract):
    backend = "shm"


@pytest.mark.once
class TestShmInPython(BackendContract):
    backend = "shm"

    @pytest.fixture(autouse=True)
    def in_python(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("IPCQ_SHORTCUTS", "0")  # which the processes that a test starts inherit
