"""C21: ipcq does not need the global interpreter lock.

A free-threaded Python switches the lock on when it imports an extension that does not declare that it works without it.
And since Python 3.12, each interpreter of a process can have its own lock. Such an interpreter imports only extensions
that declare that they work there. They run in parallel with the same code in other interpreters.
"""

import sys

import pytest

from core.conftest import Run
from processes.needs import usable

SWITCHED = """
import sys

def is_enabled():
    return getattr(sys, "_is_gil_enabled", lambda: True)()

before = is_enabled()
import ipcq

with ipcq.open(sys.argv[1], sys.argv[2]) as queue:
    queue.put({"a": [1, "two", b"three"]})
    queue.get()
    queue.unlink()
print(before == is_enabled())
"""


@pytest.mark.parametrize("backend", ["memory", "pyshm", "shm", "socketpair"])
def test_a_queue_leaves_the_gil_off_if_it_is_off(run: Run, name: str, backend: str) -> None:
    """C21: neither a backend nor a default handle imports an extension that switches it on."""
    # An empty value counts as none, so that Python decides.
    assert run(SWITCHED, name, usable(backend), environment={"PYTHON_GIL": ""}) == "True"


# The scripts below use this module for interpreters with their own GIL.
IMPORT_INTERPRETERS = """
import sys

try:
    import _interpreters as interpreters  # since 3.13
except ImportError:
    import _xxsubinterpreters as interpreters
"""

# The main interpreter unlinks, which imports `secrets`: on CPython 3.12.1 the process may crash when it exits if
# another interpreter has imported that.
SHARED = """
import threading

import ipcq

NAME, BACKEND, COUNT = sys.argv[1], sys.argv[2], int(sys.argv[3])
RESULTS = NAME + "-results"

BEGIN = f'''
import ipcq
queue, results = ipcq.open({NAME!r}, {BACKEND!r}), ipcq.open({RESULTS!r}, {BACKEND!r})
'''
PUT = f'''
for number in range({COUNT}):
    queue.put({{"from": NUMBER, "number": number, "data": bytes(number)}}, timeout=30)
'''
GET = f'''
for _ in range({COUNT}):
    item = queue.get(timeout=30)
    assert item["data"] == bytes(item["number"])
    results.put([item["from"], item["number"]], timeout=30)
'''
END = '''
queue.close()
results.close()
'''

failures = []

def work(script):
    number = interpreters.create()
    try:
        failed = interpreters.run_string(number, script)
        if failed is not None:
            failures.append(failed)
    except BaseException as error:
        failures.append(error)
    finally:
        interpreters.destroy(number)

with ipcq.open(NAME, BACKEND) as queue, ipcq.open(RESULTS, BACKEND) as results:
    bodies = [PUT.replace("NUMBER", str(number)) for number in range(2)] + [GET] * 2
    threads = [threading.Thread(target=work, args=(BEGIN + body + END,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    taken = results.get_many()
    print(sorted(taken) == [[producer, number] for producer in range(2) for number in range(COUNT)], queue.qsize())
    queue.unlink()
    results.unlink()
"""


needs_interpreters = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="a GIL for each interpreter came with Python 3.12"
)


@needs_interpreters
@pytest.mark.parametrize("backend", ["pyshm", "shm"])
def test_interpreters_with_their_own_gils_share_a_queue(run: Run, name: str, backend: str) -> None:
    """C2, C21: two put and two get in parallel, each with its own handle; nothing is lost or repeated."""
    assert run(IMPORT_INTERPRETERS + SHARED, name, usable(backend), 200) == "True 0"


# Prints the class of the second error, the number of descriptors that it left open, and its text.
REFUSED = """
import ipcq

NAME, BACKEND, CALL = sys.argv[1:]

SCRIPT = f'''
import os
import time

import ipcq
import ipcq.logging

def refusal():
    try:
        {CALL}
    except ipcq.MessageQueueError as error:
        return error

refusal()  # imports what it needs
def more_descriptors():
    return max(0, len(os.listdir("/proc/self/fd")) - before)

before = len(os.listdir("/proc/self/fd"))
error = refusal()
# The host of the queue in the main interpreter closes its ends of connections a moment later.
until = time.monotonic() + 10
while more_descriptors() and time.monotonic() < until:
    time.sleep(0.01)
print(type(error).__name__, more_descriptors(), error.detail)
'''

with ipcq.open(NAME, BACKEND) as queue:
    failed = interpreters.run_string(interpreters.create(), SCRIPT)
    assert failed is None, failed
    queue.unlink()
"""


@needs_interpreters
@pytest.mark.parametrize(
    ("backend", "call"),
    [
        ("socketpair", "ipcq.open({name!r} + '-new', 'socketpair')"),
        ("socketpair", "ipcq.open({name!r}, 'socketpair')"),
        ("memory", "with ipcq.open({name!r}, 'memory') as queue: queue.notify(print)"),
        ("shm", "with ipcq.open({name!r}, 'shm') as queue: queue.notify(print)"),
        ("shm", "with ipcq.open({name!r}, 'shm') as queue: ipcq.logging.QueueListener(queue).start()"),
    ],
    ids=["create", "attach", "notify-memory", "notify-shm", "listener"],
)
def test_what_needs_a_daemon_thread_is_refused_where_there_is_none(
    run: Run, name: str, backend: str, call: str
) -> None:
    """C20, C24: the descriptor server, a notice and a listener; the error says why, and leaves nothing open."""
    printed = run(IMPORT_INTERPRETERS + REFUSED, name, usable(backend), call.format(name=name))
    # For a new queue, the names of suitable backends follow.
    assert printed.startswith(
        "Unsupported 0 this needs a daemon thread, and an interpreter with its own GIL has none: use the main "
        "interpreter for it"
    )
