"""C35: a fork while another thread imports a module leaves a child that can import the same module."""

import pytest

from processes.needs import usable
from scripts import run

#: Uses a module in a thread, forks during its import, and prints the exit code of a child that uses the module too.
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
def test_a_child_forked_in_the_middle_of_an_import_can_import(name: str, slow: str) -> None:
    """C35: the fork waits until the other thread has finished its import."""
    before, use = LATE[slow]
    assert run(PROGRAM.format(slow=slow, before=before, use=use, name=name)) == "0"


@pytest.mark.parametrize("slow", BACKENDS)
def test_a_child_forked_while_a_backend_is_imported_can_open(name: str, slow: str) -> None:
    """C35: the modules of a backend that its first queue needs, and its library."""
    backend, options = BACKENDS[slow]
    use = OPEN.format(backend=usable(backend), options=options)
    assert run(PROGRAM.format(slow=slow, before="import ipcq", use=use, name=name)) == "0"
