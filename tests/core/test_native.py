"""The parts of a handle in C, and what it does without the extension or with functions that do not fit."""

import ctypes
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ipcq
from backends.table import OTHER, Table
from core.conftest import Installed
from core.fakes import FakeBackend, FakeChannel
from ipcq._process import native
from ipcq.errors import QueueClosed

IN_C = pytest.mark.skipif(
    native.Base is native.PythonBase, reason="Windows has no C extension of ipcq, and neither does macOS"
)

capsule_of = ctypes.pythonapi.PyCapsule_New
capsule_of.restype = ctypes.py_object
capsule_of.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Front(ctypes.Structure):
    """The first fields of a table (ipcq/channel.h)."""

    _fields_ = (("version", ctypes.c_uint32), ("size", ctypes.c_uint32), ("rest", ctypes.c_byte * 256))


class TableChannel(FakeChannel):
    """A channel with a table that a test provides."""

    table: Callable[[], object] = staticmethod(lambda: None)

    def native(self) -> object:
        return self.table()


@pytest.fixture(autouse=True)
def switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IPCQ_SHORTCUTS", raising=False)


@pytest.fixture
def open_with(installed: Installed, name: str) -> Iterator[Callable[[Callable[[], object]], ipcq.Queue[Any]]]:
    """Return a function that opens a handle whose channel returns the given table."""
    fake = FakeBackend("fake")
    installed.backend(fake)
    made: list[ipcq.Queue[Any]] = []

    def open_with(table: Callable[[], object]) -> ipcq.Queue[Any]:
        class Mine(TableChannel):
            pass

        Mine.table = staticmethod(table)
        create = fake.create

        def created(*arguments: Any) -> Any:
            channel = create(*arguments)
            channel.__class__ = Mine
            return channel

        fake.create = created
        made.append(ipcq.open(name, "fake"))
        return made[-1]

    yield open_with
    for each in made:
        each.close()


def test_a_channel_has_no_functions_in_c_by_default(name: str) -> None:
    """Then every call runs in Python."""
    with ipcq.open(name, "memory") as queue:
        queue.unlink()
        assert (type(queue), queue._armed) == (ipcq.Queue, False)


@IN_C
@pytest.mark.parametrize(
    ("version", "size"), [(0, 264), (2, 264), (1, 0), (1, 8)], ids=["older", "newer", "empty", "cut off"]
)
def test_functions_of_another_version_are_not_used(
    open_with: Callable[..., ipcq.Queue[Any]], caplog: pytest.LogCaptureFixture, version: int, size: int
) -> None:
    """Clause 21: the log says what to do, and the methods in Python are used."""
    front = Front(version, size)
    with caplog.at_level(logging.WARNING, "ipcq"):
        queue = open_with(lambda: capsule_of(ctypes.addressof(front), b"ipcq.channel", None))
    queue.put(5)
    assert (queue._armed, queue.get(), "compile the backend again" in caplog.text) == (False, 5, True)


@IN_C
@pytest.mark.parametrize("capsule", [5, capsule_of(8, b"other", None)], ids=["no capsule", "another name"])
def test_what_is_no_table_is_an_error(open_with: Callable[..., ipcq.Queue[Any]], capsule: object) -> None:
    """Clause 21: the backend is at fault, and its author must see it at once; the half-open handle is closed."""
    with pytest.raises(ValueError, match="PyCapsule"):
        open_with(lambda: capsule)


@IN_C
def test_no_function_is_called_once_a_handle_is_closed(installed: Installed, name: str) -> None:
    """Rule 4 of the header, even if the handle is closed during a call: up to 3.11, a finaliser may do that."""
    calls: list[str] = []

    def count(_: Any) -> int:
        queue.close()
        return 2

    def get_many(*_: Any) -> int:
        calls.append("get_many")
        return OTHER

    in_c = [
        ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(count),
        ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 5)(get_many),
    ]
    installed.backend(FakeBackend("fake"))
    with ipcq.open(name, "fake") as queue:
        table = Table(queue._channel)
        table.functions.count, table.functions.get_many = (ctypes.cast(each, ctypes.c_void_p) for each in in_c)
        queue._arm(table.capsule(), queue._encode, queue._decode, True, True, True)
        with pytest.raises(QueueClosed):
            queue.get_many(block=False)
    assert calls == []


@IN_C
def test_logging_is_not_imported_for_a_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """If nobody has imported it, there are no handlers."""
    monkeypatch.setitem(sys.modules, "logging", None)
    native.log_mismatch(ipcq.VersionMismatch("other"))


def test_the_switch_does_not_ask_the_channel(
    open_with: Callable[..., ipcq.Queue[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With IPCQ_SHORTCUTS=0, the functions of a backend are not even requested."""

    def fail() -> object:
        raise AssertionError

    monkeypatch.setenv("IPCQ_SHORTCUTS", "0")
    assert not open_with(fail)._armed


def test_without_the_extension_base_and_decorator_are_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """The install succeeds without a compiler."""
    monkeypatch.delattr("ipcq._native", raising=False)
    monkeypatch.setitem(sys.modules, "ipcq._native", None)
    *bases, in_c = native.parts()
    assert bases == [native.PythonBase, native.PythonLeaseBase, native.PythonSerials]
    assert in_c(len) is len


def test_an_extension_that_cannot_be_loaded_now_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: a later import succeeds, once a descriptor is free again."""

    class Full:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "ipcq._native":
                raise ImportError("_native.so: cannot open shared object file: Too many open files")

    monkeypatch.delattr("ipcq._native", raising=False)
    monkeypatch.delitem(sys.modules, "ipcq._native", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Full(), *sys.meta_path])
    with pytest.raises(ImportError):
        native.parts()


def test_the_base_in_python_does_nothing() -> None:
    """It has the same methods as the one in C."""
    base = native.PythonBase()
    assert [base._arm(1, 2), base._disarm(), base._await_uses(), base._forget_uses(), base._armed] == [
        None,
        None,
        None,
        None,
        False,
    ]


def test_a_lease_without_the_extension_is_given_back_when_it_is_dropped() -> None:
    """The base class in C has the finaliser; the one in Python gives it to its subclasses."""
    dropped: list[object] = []

    class Lease(native.PythonLeaseBase):
        def _dropped(self) -> None:
            dropped.append(self.item)

    lease = Lease()
    lease.item = "job"
    del lease
    assert dropped == ["job"]


@pytest.mark.parametrize("serials", dict.fromkeys((native.PythonSerials, native.Serials)))
def test_serial_numbers_are_given_out_once(serials: Any) -> None:
    """From 1, as many as were asked for."""
    session = serials()
    assert [session.serial(3), session.serial(1), session.serial(1)] == [1, 4, 5]
