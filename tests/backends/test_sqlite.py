"""Queues in SQLite databases keep the contract, with either durability."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from unittest import TestCase

import pytest

import ipcq
from ipcq.testing import BackendContract
from ipcq.testing.machine import machine_for


class _Places(BackendContract):
    @pytest.fixture(autouse=True)
    def _directories(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        self.places = (f"sqlite://{tmp_path}/one/", f"sqlite://{tmp_path}/two/")  # type: ignore[misc]


class TestSqlite(_Places):
    backend = "sqlite"


@pytest.mark.once
class TestSqliteNormal(_Places):
    backend = "sqlite"
    small: ClassVar[Mapping[str, Any]] = {**BackendContract.small, "durability": "normal"}

    def create(self, name: str | None = None, **options: Any) -> "ipcq.Queue[Any]":
        """Create with durability="normal", also where a test gives no limits."""
        return super().create(name, **{**options, "durability": "normal"})


def _once(machine: type[TestCase]) -> type[TestCase]:
    """Run it on one Python; a slow disk may take minutes."""
    return pytest.mark.once(pytest.mark.timeout(400)(machine))


# With the other durability each call would wait for the disk.
TestSqliteAgrees = _once(machine_for("sqlite", durability="normal"))
TestSqliteWithLeasesAgrees = _once(machine_for("sqlite", leases=True, durability="normal"))
