"""The ring in pure Python keeps the contract, under either lock."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

import ipcq
from ipcq.testing import BackendContract


class TestPyshm(BackendContract):
    backend = "pyshm"


@pytest.mark.once
class TestPyshmUnderShmlock(BackendContract):
    backend = "pyshm"
    small: ClassVar[Mapping[str, Any]] = {**BackendContract.small, "lock": "shmlock"}

    @pytest.fixture(autouse=True)
    def _library(self) -> None:
        pytest.importorskip("shmlock", reason="lock='shmlock' cannot be used here without shmlock")

    def create(self, name: str | None = None, **options: Any) -> "ipcq.Queue[Any]":
        """Create with lock="shmlock", also where a test gives no limits."""
        return super().create(name, **{**options, "lock": "shmlock"})
