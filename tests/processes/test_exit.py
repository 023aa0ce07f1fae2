"""C17: an interpreter that ends with open handles prints nothing and does not hang."""

import subprocess
import sys

import pytest

from processes.needs import usable


@pytest.mark.parametrize("which", ["memory", "mqueue", "pyshm", "shm", "socketpair"])
def test_a_handle_that_outlives_the_modules_is_closed_silently(name: str, which: str) -> None:
    """The interpreter clears its modules at exit, and releases the last reference to the handle after that."""
    script = "import sys, threading, ipcq; threading.kept = ipcq.open(sys.argv[1], sys.argv[2])"
    done = subprocess.run(
        [sys.executable, "-c", script, name, usable(which)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# The cycle is collected after all other threads have stopped.
CLOSED_AT_THE_END = """
import gc, inspect, sys, threading, ipcq
class Owner:
    def __del__(self):
        self.queue.close()
def take(queue, taken, get):
    while True:
        get(queue)
        taken.set()
gc.disable()
owner = Owner()
owner.itself = owner
owner.queue = ipcq.open(sys.argv[1], sys.argv[2])
taken = threading.Event()
get = inspect.unwrap(ipcq.Queue.get) if sys.argv[3] == "python" else ipcq.Queue.get
threading.Thread(target=take, args=(owner.queue, taken, get), daemon=True).start()
owner.queue.put("item")
taken.wait()
del owner
"""


@pytest.mark.parametrize(
    ("which", "how"),
    [(backend, "python") for backend in ("memory", "mqueue", "pyshm", "shm", "socketpair")] + [("shm", "c")],
)
def test_a_finaliser_that_closes_at_exit_does_not_wait_for_dead_threads(name: str, which: str, how: str) -> None:
    """The interpreter lets no daemon thread run any more, so none of them ever returns from its call."""
    done = subprocess.run(
        [sys.executable, "-c", CLOSED_AT_THE_END, name, usable(which), how],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("which", ["memory", "mqueue", "shm"])
def test_a_handle_with_a_request_for_a_notice_is_closed_silently_at_exit(name: str, which: str) -> None:
    """The thread that waits for the notice does not run any more and cannot report that it has left."""
    script = (
        "import gc, sys, ipcq; gc.disable(); kept = [ipcq.open(sys.argv[1], sys.argv[2])]; kept.append(kept); "
        "kept[0].notify(signal=10); del kept"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, name, usable(which)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_nameless_queue_that_outlives_the_modules_is_closed_silently() -> None:
    """Its overflow file has its own descriptors and finaliser."""
    usable("shm")
    script = "import threading, ipcq.compat.multiprocessing as face; threading.kept = face.Queue()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
