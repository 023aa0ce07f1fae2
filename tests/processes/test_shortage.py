"""C36: memory runs out in the caller, at each of its requests in turn."""

import subprocess
import sys
from pathlib import Path

import pytest

import ipcq
from ipcq.testing.processes import fresh_name
from processes.needs import usable

pytest.importorskip("_testcapi", reason="this Python comes without what makes requests for memory fail")

PROGRAM = Path(__file__).with_name("shortage.py")
PUTS = ["put", "put_many"]
GETS = ["get", "get_message", "get_many"]
#: Gets on socketpair are left out: CPython allocates the packet's object after the kernel has handed the packet over.
ACTS = {
    "shm": [*PUTS, *GETS, "peek"],
    "pyshm": [*PUTS, *GETS, "peek"],
    "memory": [*PUTS, *GETS, "peek"],
    "mqueue": [*PUTS, *GETS],
    "socketpair": [*PUTS, "peek"],
}


SIZES = {"mappings": 0, "small": 100, "large": 40000}
#: The kernel's queues do not take such large messages.
CASES = [(at, size) for at in ACTS for size in SIZES if (at, size) != ("mqueue", "large")]


@pytest.mark.parametrize(("at", "size"), CASES, ids=["-".join(case) for case in CASES])
def test_no_failing_memory_request_loses_or_duplicates_a_message(at: str, size: str) -> None:
    """C36: an operation that raised did not happen, and one that returned did, in order."""
    usable(at)
    name = fresh_name()
    try:
        done = subprocess.run(
            [sys.executable, PROGRAM, at, name, str(SIZES[size]), *ACTS[at]],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        if ipcq.exists(name):
            ipcq.unlink(name)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


BELOW_THE_BATCH = """
import resource, sys, ipcq
backend, name, size, count = sys.argv[1], sys.argv[2], 16 << 20, 4
limits = {} if backend == "socketpair" else {"buffer_size": count * (size + 4096)}
with ipcq.open(name, backend, max_message_size=size + 8, **limits) as queue:
    for number in range(count):
        queue.put(bytes([number]) * size)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 5 * size, -1))
    taken = []
    while len(taken) < count:
        taken += [item[0] for item in queue.get_many(block=False)]
    print(taken)
    queue.unlink()
"""


@pytest.mark.parametrize("at", ["shm", "pyshm", "memory", "socketpair"])
@pytest.mark.skipif(sys.platform != "linux", reason="the address space is read from /proc")
def test_a_batch_too_large_for_the_address_space_comes_in_parts(at: str) -> None:
    """C36: items that fit into memory are returned, and the rest stays in the queue."""
    usable(at)
    name = fresh_name()
    try:
        done = subprocess.run(
            [sys.executable, "-c", BELOW_THE_BATCH, at, name], capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        if ipcq.exists(name):
            ipcq.unlink(name)
    assert (done.returncode, done.stdout.strip()) == (0, "[0, 1, 2, 3]"), done.stderr
