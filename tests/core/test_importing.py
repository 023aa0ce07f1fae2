"""C35: how a fork deals with imports of other threads, simulated in one process."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest

from core.conftest import HANG
from ipcq._process import imports as _importing
from ipcq._process.gevent import NativeRLock


@contextmanager
def another_importing() -> Iterator[None]:
    """Keep another thread inside an import."""
    inside, over = threading.Event(), threading.Event()

    def stay() -> None:
        with _importing.importing():
            inside.set()
            over.wait(HANG)

    thread = threading.Thread(target=stay)
    thread.start()
    assert inside.wait(HANG)
    yield
    over.set()
    thread.join()


def is_free() -> bool:
    """Return whether another thread could import."""
    answers: list[bool] = []

    def ask() -> None:
        answers.append(_importing._lock.acquire(blocking=False))
        if answers[0]:
            _importing._lock.release()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return answers[0]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a separate lock, for which forks wait only 10 ms."""
    monkeypatch.setattr(_importing, "_lock", NativeRLock())
    monkeypatch.setattr(_importing, "_TIMEOUT_SECONDS", 0.01)


@pytest.mark.usefixtures("impatient")
def test_a_fork_keeps_imports_out_until_it_is_over() -> None:
    """Otherwise it could interrupt an import that has just begun."""
    _importing.before_fork()
    during = is_free()
    _importing.after_fork_in_parent()
    assert (during, is_free()) == (False, True)


@pytest.mark.usefixtures("impatient")
def test_the_child_can_import_after_the_fork() -> None:
    """The lock that the fork took is released in the child too."""
    _importing.before_fork()
    _importing.after_fork_in_child()
    assert is_free()


@pytest.mark.usefixtures("impatient")
def test_a_fork_does_not_wait_indefinitely_for_an_import() -> None:
    """The import may wait for the thread that forks."""
    with another_importing():
        _importing.before_fork()
        _importing.after_fork_in_parent()
        assert not is_free()


@pytest.mark.usefixtures("impatient")
def test_a_child_that_was_forked_during_an_import_can_import() -> None:
    """The thread that holds the lock does not exist in the child."""
    with another_importing():
        _importing.before_fork()
        _importing.after_fork_in_child()
        assert is_free()


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a module of ipcq look as if it were being executed."""
    module = ModuleType("ipcq_half")
    module.__spec__ = SimpleNamespace(_initializing=True)  # type: ignore[assignment]  # the only attribute that is read
    monkeypatch.setitem(sys.modules, "ipcq_half", module)


@pytest.mark.usefixtures("impatient", "half")
def test_a_fork_does_not_wait_indefinitely_for_a_module() -> None:
    """The module may wait for the thread that forks."""
    _importing.before_fork()
    _importing.after_fork_in_parent()
    assert is_free()


@pytest.mark.usefixtures("half")
def test_a_fork_does_not_wait_for_an_import_of_its_own_thread() -> None:
    """A signal handler that interrupted the import may fork."""
    names = {"__name__": "ipcq_half", "ask": _importing._is_executed_elsewhere}
    exec("told = ask()", names)
    assert (names["told"], _importing._is_executed_elsewhere()) == (False, True)
