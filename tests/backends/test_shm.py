"""The shared-memory ring keeps the contract, with its shortcut and without."""

import pytest

from ipcq.testing import BackendContract


class TestShm(BackendContract):
    backend = "shm"


class TestShmWithoutShortcut(BackendContract):
    backend = "shm"

    @pytest.fixture(autouse=True)
    def no_shortcut(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("IPCQ_SHORTCUTS", "0")  # which the processes that a test starts inherit
