"""Queues in SQLite databases keep the contract, with either durability."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

import ipcq
from ipcq.testing import BackendContract


class _Places(BackendContract):
    @pytest.fixture(autouse=True)
    def _directories(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        self.places = (f"sqlite://{tmp_path}/one/", f"sqlite://{tmp_path}/two/")


class TestSqlite(_Places):
    backend = "sqlite"


@pytest.mark.once
class TestSqliteNormal(_Places):
    backend = "sqlite"
    small: ClassVar[Mapping[str, Any]] = {**BackendContract.small, "durability": "normal"}

    def create(self, name: str | None = None, **options: Any) -> "ipcq.Queue[Any]":
        """Create with durability="normal", also where a test gives no limits."""
        return super().create(name, **{**options, "durability": "normal"})
