"""Processes that are killed at any call on the file of a pyshm queue with leases, and what the others find."""

from itertools import pairwise
from typing import Any

import pytest

from backends import pyshm, striking
from backends.pyshm import linux

pytestmark = linux
name = pyshm.name

TRIAL = """
from ipcq_pyshm import _owners
_owners.LOOK_NANOSECONDS = 0  # each step looks for the dead
STATES = ("_ready", "_delayed", "_leased", "_dead")

def found(channel):
    order, told = channel._order, []
    state = channel._run_surely(channel._whole)
    fresh, block = [], state.first_fresh
    for _ in range(state.count - state.heaped):
        front = order._front(block)
        fresh.append((front.key, block))
        block = front.next
    assert fresh == sorted(fresh) and (not fresh or fresh[-1][1] == state.last_fresh)
    for heap in STATES:
        entries = getattr(order, heap).all(state) + (fresh if heap == "_ready" else [])
        for key, value in sorted(entries):
            block = value & 0xFFFFFFFF
            front, data = order._message(block)
            reason = order._letter(key, block).reason.decode() if heap == "_dead" else ""
            told.append([heap, data[:1].decode(), len(data), front.key, front.deliveries, front.failures, reason])
            assert heap != "_leased" or front.place == [v for _, v in order._leased.all(state)].index(value)
    assert sum(each[2] for each in told) == state.bytes
    assert state.puts == state.gets + state.places == state.gets + len(told)
    used = sum(order._blocks(each[2]) for each in told)
    assert used + state.spare == order._geometry.blocks
    return told, state.returned

def trial(first, second):
    queue = ipcq.open(name, "pyshm", exclusive=True, serializer="raw", **options)
    kept = globals() | {"queue": queue}  # from Python 3.13 on, what exec assigns in a function would be gone at once
    exec(prepare, kept)
    more = killed(first, begin, act)
    channel = queue._channel
    pending = channel._newest(channel._read(1024, 264)).redo  # otherwise there is nothing to repair
    more_again = killed(second, "", repair) if more and second and pending else False
    told, returned = found(channel)
    print(json.dumps([told, returned]))
    if not channel._look().flags:
        channel.recall(1, 2**62)  # what this process leased
        queue.dead().clear()
        queue.clear()
        most = 0
        while not queue.full():
            queue.put_nowait(bytes(64))
            most += 1
        assert most == options["max_messages"]
        jobs = queue.lease_many(most)
        assert [job.item for job in jobs] == [bytes(64)] * most
        queue.ack_many(jobs)
        assert found(channel)[0] == []
    queue.unlink()
    queue.close()
    return more, more_again
"""

Found = list[tuple[list[list[Any]], int]]

#: Five messages, the second and the fourth of several blocks if they are small.
SOME = "for letter in b'abcde': queue.put_nowait(bytes([letter]) * 60)\n"
#: The parent holds the first two messages.
HELD = SOME + "held = queue.lease_many(2)\n"
#: A dead process holds the first two messages.
DEAD = SOME + "killed(0, '', 'jobs = queue.lease_many(2)')\n"
#: Three dead letters.
LETTERS = SOME + "for job in queue.lease_many(3): job.reject('bad')\n"
ONE = "job = queue.lease(timeout=0)"
TWO = "jobs = queue.lease_many(2)"

#: What is done before, what the victim does before, and what it does when it is killed.
ACTS: dict[str, tuple[str, str, str]] = {
    "put into an empty queue": ("", "", "queue.put_nowait(b'x' * 64)"),
    "put": (HELD, "", "queue.put_nowait(b'x' * 64)"),
    "put for later": (HELD, "", "queue.put(b'x' * 64, timeout=0, delay=1000)"),
    "put a batch": ("queue.put_nowait(b'a')", "", "queue.put_many([b'x' * 64, b'y' * 30, b'z'])"),
    "get": (HELD, "", "queue.get_nowait()"),
    "get many": (HELD, "", "queue._channel.try_get_many(2)"),
    "lease": (SOME, "", ONE),
    "lease the only one": ("queue.put_nowait(b'a')", "", ONE),
    "lease with a hold": (HELD, "", "job = queue.lease(timeout=0, hold=1000)"),
    "lease many": (HELD, "", TWO),
    "ack": (HELD, ONE, "job.ack()"),
    "ack before another": (HELD, "jobs = queue.lease_many(3)", "jobs[0].ack()"),
    "ack many": (HELD, TWO, "queue.ack_many(jobs)"),
    "release": (SOME, TWO, "jobs[0].release()"),
    "release for later": (SOME, ONE, "job.release(1000)"),
    "reject": (SOME, ONE, "job.reject('bad')"),
    "recall": (SOME, TWO, "queue._channel.recall(1, 2**62)"),
    "close": (HELD, TWO, "queue.close()"),
    "clear": (HELD + "queue.put(b'later', delay=1000)", "", "queue.clear()"),
    "take a dead letter": (LETTERS, "", "queue.dead().get(timeout=0)"),
    "requeue": (LETTERS, "", "queue.dead().requeue()"),
    "clear the dead letters": (LETTERS, "", "queue.dead().clear()"),
}
#: What ends the same way if it has not happened.
REPAIRS: dict[str, tuple[str, str, str]] = {
    "fail": (SOME, ONE, "job.fail()"),
    "extend": (SOME, TWO, "jobs[1].extend(1000); jobs[0].extend(500)"),
    "return what the dead held": (DEAD, "", "queue.qsize()"),
    "return after the hold": (HELD + "[job.extend(1e-9) for job in held]", "", "queue.qsize()"),
    # The channel stores it as delayed, however long the call takes; `put` would take the call's time off the delay.
    "return after the delay": (
        SOME + "queue._channel.try_put_delayed(queue._encode(b'z'), 0, 1e-9); time.sleep(0.001)",
        "",
        "queue.qsize()",
    ),
}


def kill_at_each_call(name: str, prepare: str, begin: str, act: str, repair: str = "", **options: Any) -> Found:
    """Kill a process at each call of an act, and one that repairs at each of its calls; return what is found after."""
    given = {"leases": True, "max_messages": 6, "max_message_size": 64, **options}
    return striking.kill_at_each_call(TRIAL, name, prepare, begin, act, repair, **given)


#: Acts on messages of several blocks, and on a queue with priorities.
BLOCKS = ["put", "get", "lease", "ack before another", "close", "requeue"]
RANKED = ["put", "get", "lease", "lease many", "release"]
CASES = [
    *((act, {}) for act in ACTS),
    *((act, {"buffer_size": 6 * 64}) for act in BLOCKS),
    *((act, {"priorities": True}) for act in RANKED),
]


@pytest.mark.parametrize(("act", "options"), CASES, ids=lambda value: str(*value) if isinstance(value, dict) else value)
def test_a_process_killed_at_any_call_has_done_its_step_or_not(name: str, act: str, options: dict[str, Any]) -> None:
    """C3, C15: with torn writes as well; what it had leased returns with one more delivery and one failure."""
    found = [told for told, _ in kill_at_each_call(name, *ACTS[act], **options)]
    turns = [(one, other) for one, other in pairwise(found) if one != other]
    assert len(turns) == 1, found
    assert len(found) > 5


@pytest.mark.parametrize("act", REPAIRS)
def test_a_process_killed_at_any_call_changes_nothing_that_ends_otherwise(name: str, act: str) -> None:
    """C3, C15: each message returns once, and its failure is counted once."""
    found = kill_at_each_call(name, *REPAIRS[act])
    assert all(told == found[0] for told in found), found
    assert len(found) > 5


@pytest.mark.parametrize("act", ["fail", "requeue"])
def test_a_process_that_repairs_may_be_killed_at_any_call_too(name: str, act: str) -> None:
    """C3, C15: however many die one after the other, a message has one state, and a failure is counted once."""
    found = [told for told, _ in kill_at_each_call(name, *(ACTS | REPAIRS)[act], "queue.peek()")]
    assert len({str(told) for told in found}) == (1 if act in REPAIRS else 2)


def test_an_immediate_shutdown_killed_at_any_call_has_happened_or_not(name: str) -> None:
    """C15: it drops what is ready, delayed or leased, and keeps the dead letters."""
    act = "queue.shutdown(immediate=True)"
    found = kill_at_each_call(name, LETTERS + "held = queue.lease()", "", act, act)
    assert {len(told) for told, _ in found} == {3, 5}


def test_a_bound_of_failures_counts_the_death_of_the_holder(name: str) -> None:
    """C3: the message is a dead letter, with the reason of the holder or that of its death."""
    found = [told for told, _ in kill_at_each_call(name, SOME, ONE, "job.fail('mine')", max_deliveries=1)]
    reasons = [told[-1][-1] for told in found]
    assert [each[0] for each in pairwise(sorted(reasons)) if each[0] != each[1]] == ["its holder died"]
    assert set(reasons) == {"its holder died", "mine"}
