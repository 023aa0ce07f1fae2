"""``ipcq dead``."""

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

import ipcq

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]


@pytest.fixture
def jobs(name: str, memory: str) -> Iterator[Queue]:
    """Return a queue with two dead letters, and one message that is ready."""
    with ipcq.open(name, memory, leases=True, priorities=True, max_messages=4, max_message_size=512) as queue:
        queue.put({"id": 1})
        queue.put("two", priority=3)
        for lease in queue.lease_many(2):
            lease.reject(f"no {lease.priority}")
        queue.put("ready")
        yield queue


def bury(queue: Queue, item: Any) -> None:
    """Make a dead letter."""
    queue.put(item, priority=9)
    queue.lease().reject("why")


def last_item(result: Result) -> str:
    return result.stdout.splitlines()[-1].split("\t")[-1]


def test_letters_are_listed(run: Run, jobs: Queue) -> None:
    """Number, priority, deliveries, size, reason and item, in the order of putting."""
    assert run("dead", jobs.name).stdout == '1\t0\t1\t5\tno 0\t{"id": 1}\n2\t3\t1\t4\tno 3\ttwo\n'


def test_terminal_has_a_table(terminal: Callable[..., SimpleNamespace], jobs: Queue) -> None:
    """With headings."""
    assert terminal("dead", jobs.name).text.split()[:6] == [
        "number", "priority", "deliveries", "bytes", "reason", "item",
    ]  # fmt: skip


def test_no_letter_is_no_line(run: Run, name: str, memory: str) -> None:
    """And no error."""
    with ipcq.open(name, memory, leases=True):
        result = run("dead", name)
    assert (result.exit_code, result.output) == (0, "")


def test_listing_takes_nothing(run: Run, jobs: Queue) -> None:
    """The letters stay."""
    run("dead", jobs.name)
    assert jobs.dead().qsize() == 2


def test_listing_can_be_limited(run: Run, jobs: Queue) -> None:
    """To the first."""
    assert run("dead", jobs.name, "-n", "1").stdout.count("\n") == 1


def test_long_item_is_cut_in_the_table(run: Run, jobs: Queue) -> None:
    """At 60 characters."""
    bury(jobs, "x" * 61)
    assert last_item(run("dead", jobs.name)) == "x" * 59 + "…"


def test_item_of_60_characters_is_whole(run: Run, jobs: Queue) -> None:
    """It fits."""
    bury(jobs, "x" * 60)
    assert last_item(run("dead", jobs.name)) == "x" * 60


def test_item_with_a_newline_is_one_line(run: Run, jobs: Queue) -> None:
    """Control characters are escaped."""
    bury(jobs, "a\nb")
    assert last_item(run("dead", jobs.name)) == r"a\nb"


def test_json_has_whole_letters(run: Run, jobs: Queue) -> None:
    """One object for each, with stable keys."""
    first, _ = run("dead", jobs.name, "--json").stdout.splitlines()
    assert json.loads(first) == {
        "number": 1,
        "priority": 0,
        "deliveries": 1,
        "bytes": 5,
        "reason": "no 0",
        "item": {"id": 1},
        "error": None,
        "base64": None,
    }


@pytest.fixture
def damaged(name: str, memory: str) -> Iterator[Queue]:
    """Return a queue with a dead letter that cannot be decoded."""
    with ipcq.open(name, memory, leases=True, serializer="raw") as queue:
        queue.put(b"\xc1")
        queue.lease().reject("why")
        yield queue


def test_undecodable_letter_has_its_bytes(run: Run, damaged: Queue) -> None:
    """In base64."""
    assert run("dead", damaged.name).stdout == '1\t0\t1\t1\twhy\t{"$base64": "wQ=="}\n'


def test_undecodable_letter_has_its_bytes_and_the_error_in_json(run: Run, damaged: Queue) -> None:
    """And no item."""
    told = json.loads(run("dead", damaged.name, "--json").stdout)
    assert (told["item"], told["base64"], bool(told["error"])) == (None, "wQ==", True)


def test_pickles_need_permission(run: Run, name: str, memory: str) -> None:
    """As for `ipcq get`."""
    with ipcq.open(name, memory, leases=True, serializer="pickle", allow_pickle=True) as queue:
        queue.put({1})
        queue.lease().reject("why")
        assert run("dead", name, "--allow-pickle").stdout.endswith("\twhy\t[1]\n")


def test_requeued_letters_are_ready(run: Run, jobs: Queue) -> None:
    """At their old place: before later messages of their priority."""
    run("dead", jobs.name, "--requeue")
    assert jobs.get_many() == ["two", {"id": 1}, "ready"]


def test_requeued_letters_are_counted(run: Run, jobs: Queue) -> None:
    """In words."""
    assert run("dead", jobs.name, "--requeue").stdout == "2 dead letters requeued\n"


def test_only_the_first_can_be_requeued(run: Run, jobs: Queue) -> None:
    """With --count."""
    assert run("dead", jobs.name, "--requeue", "--count", "1").stdout == "1 dead letter requeued\n"


def test_dropped_letters_are_gone(run: Run, jobs: Queue) -> None:
    """And nothing else."""
    run("dead", jobs.name, "--drop")
    assert (jobs.dead().qsize(), jobs.get_many()) == (0, ["ready"])


def test_dropped_letters_are_counted(run: Run, jobs: Queue) -> None:
    """In words."""
    assert run("dead", jobs.name, "--drop").stdout == "2 dead letters dropped\n"


@pytest.mark.parametrize(("count", "dropped"), [(1, 1), (9, 2)])
def test_only_the_first_can_be_dropped(run: Run, jobs: Queue, count: int, dropped: int) -> None:
    """At most as many as there are."""
    told = json.loads(run("dead", jobs.name, "--drop", "-n", str(count), "--json").stdout)
    assert told == {"name": jobs.name, "backend": "memory", "dropped": dropped}


def test_result_can_be_json(run: Run, jobs: Queue) -> None:
    """With stable keys."""
    told = json.loads(run("dead", jobs.name, "--requeue", "--json").stdout)
    assert told == {"name": jobs.name, "backend": "memory", "requeued": 2}


def test_quiet_prints_no_result(run: Run, jobs: Queue) -> None:
    """With --quiet."""
    assert run("dead", jobs.name, "--drop", "-q").output == ""


def test_requeue_and_drop_exclude_each_other(run: Run, jobs: Queue) -> None:
    """A usage error."""
    assert run("dead", jobs.name, "--requeue", "--drop").exit_code == 2


def test_queue_without_leases_is_refused(run: Run, queue: Queue) -> None:
    """With the way out."""
    result = run("dead", queue.name)
    assert (result.exit_code, "has no leases: create it with --leases" in result.stderr) == (1, True)


def test_missing_queue_is_5(run: Run, name: str) -> None:
    """It is not created."""
    assert run("dead", name).exit_code == 5
