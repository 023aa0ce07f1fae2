"""The functions in C of another backend: the example of the documentation, built with the installed header."""

import importlib.util
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ipcq
from core.conftest import Installed
from core.fakes import FakeBackend, FakeChannel
from ipcq._process import native
from ipcq.backend import Received, get_include
from ipcq.errors import MessageTooLarge, QueueClosed, QueueEmpty, QueueFull

if native.Base is native.PythonBase:
    pytest.skip("Windows has no C extension of ipcq, and neither does macOS", allow_module_level=True)

SOURCE = Path(__file__).parents[2] / "examples" / "ipcq_slot" / "_slot.c"


@pytest.fixture(autouse=True)
def switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IPCQ_SHORTCUTS", raising=False)


@pytest.fixture(scope="module")
def slot(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the example's extension."""
    compiler = shutil.which("cc") or pytest.skip("needs a C compiler")
    built = tmp_path_factory.mktemp("built") / "_slot.so"
    include = [f"-I{get_include()}", f"-I{sysconfig.get_path('include')}"]
    options = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-pthread"]
    subprocess.run([compiler, *options, *include, str(SOURCE), "-o", str(built)], check=True)
    spec = importlib.util.spec_from_file_location("_slot", built)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def queue(slot: Any, installed: Installed, name: str) -> Iterator[ipcq.Queue[Any]]:
    """Return a handle to a queue of one message."""

    class SlotChannel(FakeChannel):
        def native(self) -> object:
            self.slot = slot.new()
            return self.slot

        def try_put(self, data: bytes, priority: int, /) -> bool:
            return bool(slot.try_put(self.slot, data))

        def try_get(self) -> Received | None:
            data = slot.try_get(self.slot)
            return None if data is None else (data, 0)

    class SlotBackend(FakeBackend):
        def create(self, *arguments: Any) -> Any:
            channel = super().create(*arguments)
            channel.__class__ = SlotChannel
            return channel

    installed.backend(SlotBackend("slot"))
    with ipcq.open(name, "slot", max_message_size=1000) as queue:
        yield queue


def test_the_header_is_where_the_function_says() -> None:
    """It is installed with ipcq."""
    assert os.path.isfile(os.path.join(get_include(), "ipcq", "channel.h"))


def test_the_functions_are_used(queue: ipcq.Queue[Any]) -> None:
    """Otherwise the following tests would test the methods in Python."""
    assert queue._armed


@pytest.mark.parametrize(
    "item", [None, b"", b"bytes", {"a": [1, 2.5, "text"]}, b"x" * 990], ids=lambda item: str(item)[:20]
)
def test_an_item_comes_back(queue: ipcq.Queue[Any], item: Any) -> None:
    """Whether the codec in C knows its type or not."""
    queue.put(item)
    assert queue.get() == item


def test_what_the_serializer_cannot_encode_is_refused(queue: ipcq.Queue[Any]) -> None:
    """The serializer in Python refuses it, as without functions in C."""
    with pytest.raises(ipcq.EncodeError):
        queue.put({1, 2})


def test_a_full_queue_is_full(queue: ipcq.Queue[Any]) -> None:
    """Without functions that wait, Python waits."""
    queue.put(1)
    with pytest.raises(QueueFull):
        queue.put(2, timeout=0.01)
    assert queue.get() == 1


def test_an_empty_queue_is_empty(queue: ipcq.Queue[Any]) -> None:
    """Without functions that wait, Python waits."""
    for call in (queue.get_nowait, lambda: queue.get(timeout=0.01)):
        with pytest.raises(QueueEmpty):
            call()


def test_a_message_that_is_too_large_never_reaches_the_functions(queue: ipcq.Queue[Any]) -> None:
    """They would write past the end of their memory."""
    with pytest.raises(MessageTooLarge):
        queue.put(bytes(1001))


def test_a_batch_is_put_and_got_one_by_one(queue: ipcq.Queue[Any]) -> None:
    """The table has no functions for batches."""
    assert (queue.put_many([b"1", b"2"], block=False), queue.get_many(block=False)) == (1, [b"1"])


def test_a_closed_handle_says_so(queue: ipcq.Queue[Any]) -> None:
    """Its functions are no longer called."""
    queue.close()
    with pytest.raises(QueueClosed):
        queue.put(1)
