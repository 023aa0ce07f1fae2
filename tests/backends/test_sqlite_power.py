"""C40: what was accepted or acknowledged before a power cut is so after it."""

import random
import shutil
from pathlib import Path

import pytest

from backends.power import STRACE, Disk, Event, record
from ipcq.backend import LeaseChannel, Request, Verdict
from ipcq.errors import QueueNotFound
from ipcq_sqlite import SqliteBackend

pytestmark = [
    pytest.mark.skipif(STRACE is None, reason="strace is not installed: apt-get install strace"),
    pytest.mark.timeout(300),
]

# Says before and after each step what it does. The large messages make the journal long enough for a checkpoint. Leases
# are not synced: puts, releases and failures follow them, and the end of the holder.
SCRIPT = """
import sys
from ipcq.backend import Request, Verdict
from ipcq_sqlite import SqliteBackend
place, durability, leases = sys.argv[1], sys.argv[2], sys.argv[3] == "leases"
backend = SqliteBackend(place)
def step(what, call, *arguments):
    os.write(9, f"begin {what}".encode())
    result = call(*arguments)
    os.write(9, f"end {what}".encode())
    return result
request = Request(leases=leases, options={"durability": durability})
queue = step("create", backend.create, "/jobs", request)
number = 0
serial = 1
def put(count, size):
    global number
    numbers = range(number, number + count)
    number += count
    what = "put " + " ".join(map(str, numbers))
    step(what, queue.try_put_many, [str(each).encode().ljust(size) for each in numbers])
def lease():
    global serial
    serial += 1
    return queue.try_lease(serial, None)
def settle(leased, verdict):
    what = "take " + leased.data.decode().split()[0] if verdict == Verdict.ACK else "settle"
    step(what, queue.settle, [leased.token], verdict, 0.0, b"")
def take():
    if leases:
        leased = lease()
        put(1, 10)
        settle(leased, Verdict.ACK)
    else:
        step("take " + queue.peek()[0].decode().split()[0], queue.try_get)
for size in (1, 100, 3000):
    put(1, size)
    put(3, size)
    take()
queue.close()
queue = backend.attach("/jobs", request)
take()
for _ in range(5):
    put(1, 1000000)
    take()
put(2, 10)
take()
if leases:
    for verdict in (Verdict.RELEASE, Verdict.FAIL, Verdict.REJECT):
        settle(lease(), verdict)
    step("take " + queue.peek_dead(0, 1)[0].data.decode().split()[0], queue.try_get_dead)
    lease()
    put(1, 10)
    lease()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "place"
    place.mkdir()
    return place


def survivors(place: Path) -> set[int] | None:
    """Return the numbers of the messages after a cut; None if there is no queue."""
    try:
        queue = SqliteBackend(str(place)).attach("/jobs", Request())
    except QueueNotFound:
        return None
    try:
        found = [data for batch in iter(lambda: queue.try_get_many(1000), []) for data, _ in batch]
        dead = [each.data for each in queue.peek_dead(0, 9)] if isinstance(queue, LeaseChannel) else []
    finally:
        queue.close()
    numbers = [int(each) for each in found]
    assert numbers == sorted(set(numbers))
    return {*numbers, *map(int, dead)}


class Expected:
    """What must, and what may, be there after a cut."""

    def __init__(self) -> None:
        self.created = False
        self.must: set[int] = set()
        self.may: set[int] = set()

    def note(self, mark: bytes) -> None:
        when, what, *words = mark.decode().split()
        numbers = set(map(int, words))
        if what == "create":
            self.created = when == "end"
        elif when == "begin":
            self.may |= numbers
            if what == "take":
                self.must -= numbers
        elif what == "put":
            self.must |= numbers
        else:
            self.may -= numbers

    def check(self, found: set[int] | None) -> bool:
        if found is None:
            return not self.created
        return self.must <= found <= self.may


def cut_everywhere(events: list[Event], place: Path, scratch: Path) -> list[tuple[int, object]]:
    """Cut before and after each sync and at each mark; return where the outcome was wrong."""
    disk, expected, wrong = Disk(place), Expected(), []
    luck = random.Random(40)
    for number, event in enumerate(events):
        points = [0, 1] if event.call == "fsync" else [1] if event.call == "mark" else []
        for after in (0, 1):
            if after:
                expected.note(event.data) if event.call == "mark" else disk.apply(event)
            for variant in (None, luck) if after in points else ():
                where = scratch / f"{number}-{after}-{variant is luck}"
                where.mkdir()
                disk.build(where, variant)
                found = survivors(where)
                shutil.rmtree(where)
                if not expected.check(found):
                    wrong.append((number, found))
    return wrong


def has_checkpoint(events: list[Event]) -> bool:
    """Return whether a put or a get has written to the database itself."""
    mark = ""
    for event in events:
        if event.call == "mark":
            mark = event.data.decode()
        elif event.call == "pwrite64" and event.path.endswith("/db") and mark.startswith(("begin put", "begin take")):
            return True
    return False


@pytest.mark.parametrize("leases", ["plain", "leases"])
def test_a_power_cut_loses_nothing_and_returns_nothing(place: Path, tmp_path: Path, leases: str) -> None:
    """C40: with durability="full", at whatever moment the power fails."""
    events = record(SCRIPT, place, str(place), "full", leases)
    assert sum(event.call == "mark" for event in events) > 30
    assert has_checkpoint(events)
    assert not cut_everywhere(events, place, tmp_path)


def test_the_proof_finds_what_normal_loses(place: Path, tmp_path: Path) -> None:
    """C40: durability="normal" loses the last messages, and the replay shows it."""
    events = record(SCRIPT, place, str(place), "normal", "plain")
    assert cut_everywhere(events, place, tmp_path)


# Each step by itself, named after what it does.
STEPS = """
import sys
from ipcq.backend import Request, Verdict
from ipcq_sqlite import SqliteBackend
queue = SqliteBackend(sys.argv[1]).create("/jobs", Request(leases=True, options={"durability": sys.argv[2]}))
queue.try_put_many([b"item"] * 9)
def step(what, call, *arguments):
    os.write(9, f"begin {what}".encode())
    call(*arguments)
    os.write(9, f"end {what}".encode())
step("lease", queue.try_lease_many, 1, 5, 60.0)
step("put", queue.try_put, b"item", 0)
step("extend", queue.extend, [1], 90.0)
for number, verdict in enumerate(Verdict, 1):
    step(verdict.name, queue.settle, [number], verdict, 0.0, b"")
step("dead", queue.try_get_dead)
step("recall", queue.recall, 5, 1)
step("lease", queue.try_lease, 6, None)
step("get", queue.try_get)
step("delayed", queue.try_put_delayed, b"item", 0, 1e-6)
step("ends", queue.counts)
step("shutdown", queue.shutdown, False)
"""


def synced_steps(place: Path, durability: str) -> tuple[set[str], set[str]]:
    """Return the steps that sync the disk, and those that do not."""
    synced, others, syncs = set(), set(), 0
    for event in record(STEPS, place, str(place), durability):
        if event.call == "fsync":
            syncs += 1
        elif event.call == "mark":
            when, what = event.data.decode().split()
            if when == "end":
                (synced if syncs else others).add(what)
            syncs = 0
    return synced, others


def test_only_what_a_power_cut_ends_anyway_is_not_synced(place: Path) -> None:
    """C40: a lease, its renewal, and the end of a delay that nobody has been told of."""
    synced, others = synced_steps(place, "full")
    assert others == {"lease", "extend", "ends"}
    assert synced == {"put", *Verdict.__members__, "dead", "recall", "get", "delayed", "shutdown"}


def test_nothing_is_synced_in_a_queue_that_is_not_durable(place: Path) -> None:
    """C40: durability="normal" leaves that to the system."""
    assert not synced_steps(place, "normal")[0]
