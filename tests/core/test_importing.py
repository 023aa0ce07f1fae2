"""C35: a fork during a late import of another thread makes a child that can import the same module."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest

from core.conftest import HANG, Run
from ipcq._process import imports as _importing
from ipcq._process.gevent import NativeRLock
from processes.needs import usable

#: Uses a module in a thread, forks during its import, and tells how a child ended that uses the module too.
PROGRAM = """
    import os, signal, sys, threading, warnings
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    slow, before, use, name = {slow!r}, {before!r}, {use!r}, {name!r}
    begun, forked = threading.Event(), threading.Event()

    class Slow:
        @staticmethod
        def find_spec(module, path=None, target=None):
            if module == slow and not begun.is_set():
                begun.set()
                forked.wait(0.1)

    sys.meta_path.insert(0, Slow)
    exec(before, globals())
    thread = threading.Thread(target=exec, args=(use, globals()))
    thread.start()
    assert begun.wait(20), f"nothing imports {{slow}}"
    child = os.fork()
    if not child:
        signal.alarm(5)
        exec(use, globals())
        os._exit(0)
    forked.set()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    thread.join()
    """

OPEN = "ipcq.open(name, {backend!r}, {options}).close()"
MISTAKE = """
try:
    ipcq.open(name, "memori")
except ipcq.BackendUnknown:
    pass
"""
LOOP = """
import asyncio, ipcq.aio

async def opened():
    await (await ipcq.aio.open(name, "memory")).aclose()
"""

#: Modules, each with the code that runs before and the code that imports it.
LATE = {
    "pluggy": ("import ipcq", OPEN.format(backend="memory", options="")),
    "ipcq.serializers._msgpack": ("import ipcq", OPEN.format(backend="memory", options="")),
    "difflib": ("import ipcq", MISTAKE),
    "ipcq._opening.open": ("", "import ipcq"),
    "logging.handlers": ("import ipcq", "import ipcq.logging"),
    "multiprocessing": ("import ipcq", "import ipcq.compat.multiprocessing"),
    "anyio": ("import ipcq", "import ipcq.aio"),
    "anyio._backends._asyncio": (LOOP, "asyncio.run(opened())"),
}

#: Modules of backends, with the backend and its options.
BACKENDS = {
    "ipcq_mqueue._channel": ("mqueue", ""),
    "ipcq_pyshm._channel": ("pyshm", ""),
    "shmlock.shmlock_exceptions": ("pyshm", "lock='shmlock'"),
    "ipcq_shm._channel": ("shm", ""),
    "ipcq_socketpair._channel": ("socketpair", ""),
}


@pytest.mark.parametrize("slow", LATE)
def test_a_child_forked_in_the_middle_of_an_import_can_import(run: Run, name: str, slow: str) -> None:
    """C35: the fork waits until the other thread has imported."""
    before, use = LATE[slow]
    assert run(PROGRAM.format(slow=slow, before=before, use=use, name=name)) == "0"


@pytest.mark.parametrize("slow", BACKENDS)
def test_a_child_forked_while_a_backend_is_imported_can_open(run: Run, name: str, slow: str) -> None:
    """C35: parts of a backend that its first queue needs, and the library that it stands on."""
    backend, options = BACKENDS[slow]
    use = OPEN.format(backend=usable(backend), options=options)
    assert run(PROGRAM.format(slow=slow, before="import ipcq", use=use, name=name)) == "0"


@contextmanager
def another_importing() -> Iterator[None]:
    """Let another thread be inside an import."""
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
    """Tell whether another thread could import."""
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
    """Use a lock of this test's own, for which forks wait only a moment."""
    monkeypatch.setattr(_importing, "_lock", NativeRLock())
    monkeypatch.setattr(_importing, "_PATIENCE_SECONDS", 0.01)


@pytest.mark.usefixtures("impatient")
def test_a_fork_keeps_imports_out_until_it_is_over() -> None:
    """Otherwise the fork could interrupt an import that begins just then."""
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
def test_a_fork_does_not_wait_for_ever_for_an_import() -> None:
    """The import may wait for the thread that forks."""
    with another_importing():
        _importing.before_fork()
        _importing.after_fork_in_parent()
        assert not is_free()


@pytest.mark.usefixtures("impatient")
def test_a_child_forked_all_the_same_can_import() -> None:
    """The thread that holds the lock is not in the child."""
    with another_importing():
        _importing.before_fork()
        _importing.after_fork_in_child()
        assert is_free()


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a module of ours look as if it were being executed."""
    module = ModuleType("ipcq_half")
    module.__spec__ = SimpleNamespace(_initializing=True)  # type: ignore[assignment]  # all that is asked of it
    monkeypatch.setitem(sys.modules, "ipcq_half", module)


@pytest.mark.usefixtures("impatient", "half")
def test_a_fork_does_not_wait_for_ever_for_a_module() -> None:
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
