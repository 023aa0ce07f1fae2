"""The ring in pure Python keeps the contract, under either lock."""

from collections.abc import Mapping
from typing import Any, ClassVar

from ipcq.testing import BackendContract


class TestPyshm(BackendContract):
    backend = "pyshm"


class TestPyshmUnderShmlock(BackendContract):
    backend = "pyshm"
    small: ClassVar[Mapping[str, Any]] = {**BackendContract.small, "lock": "shmlock"}
