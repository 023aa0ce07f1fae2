"""C40: what was accepted or acknowledged before a power cut is so after it."""

import random
import shutil
from pathlib import Path

import pytest

from backends.power import STRACE, Disk, Event, record
from ipcq.backend import Request
from ipcq.errors import QueueNotFound
from ipcq_sqlite import SqliteBackend

pytestmark = [
    pytest.mark.skipif(STRACE is None, reason="strace is not installed: apt-get install strace"),
    pytest.mark.timeout(300),
]

# Says before and after each step what it does. The large messages make the journal long enough for a checkpoint.
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
def take():
    global serial
    if leases:
        leased = queue.try_lease(serial, None)
        serial += 1
        step("take " + leased.data.decode().split()[0], queue.settle, [leased.token], Verdict.ACK, 0.0, b"")
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
    finally:
        queue.close()
    numbers = [int(each) for each in found]
    assert numbers == sorted(set(numbers))
    return set(numbers)


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


@pytest.mark.parametrize("leases", ["plain", "leases"])
def test_a_power_cut_loses_nothing_and_returns_nothing(place: Path, tmp_path: Path, leases: str) -> None:
    """C40: with durability="full", at whatever moment the power fails."""
    events = record(SCRIPT, place, str(place), "full", leases)
    assert sum(event.call == "mark" for event in events) > 30
    assert not cut_everywhere(events, place, tmp_path)


def test_the_proof_finds_what_normal_loses(place: Path, tmp_path: Path) -> None:
    """C40: durability="normal" loses the last messages, and the replay shows it."""
    events = record(SCRIPT, place, str(place), "normal", "plain")
    assert cut_everywhere(events, place, tmp_path)
