"""The owners of leases of pyshm: their table, those that died, and what is known of them."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from backends import pyshm
from backends.pyshm import Handle, attach, create, linux, write_file
from ipcq.errors import LimitExceeded
from ipcq_pyshm import _owners, _staged
from ipcq_pyshm._layout import LOOKED_AT, MOST_OWNERS, OWNER, OWNERS_AT

pytestmark = linux
name, leasing = pyshm.name, pyshm.leasing


def run(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a program of Python."""
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


LEASE_AND_DIE = """
import os, signal, sys, ipcq
jobs = ipcq.open(sys.argv[1], "pyshm", create=False, serializer="raw").lease_many(int(sys.argv[2]))
os.kill(os.getpid(), signal.SIGKILL)
"""


@contextmanager
def holding(name: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a process that holds a lease of a message."""
    with subprocess.Popen(
        [sys.executable, "-c", LEASE_AND_DIE.replace("os.kill", "print(flush=True); input(); os.kill"), name, "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        holder.stdout.readline()
        yield holder


def test_a_killed_holder_leaves_the_table_with_its_leases(leasing: Handle, name: str) -> None:
    """Clause 30: its slot is free again when its messages are back."""
    leasing.put(b"job")
    run(LEASE_AND_DIE, name, "1")
    with leasing.lease(timeout=20) as job:
        assert job.deliveries == 2
    numbers = leasing._channel._owners.numbers()
    assert [number for number in numbers if number] == [leasing._channel._owners._number]


def test_a_holder_that_a_signal_handler_has_entered_is_entered_once(leasing: Handle) -> None:
    """The handler leases after this call has looked whether it has a slot."""
    owners = leasing._channel._owners
    slot, owners.slot = owners.enter(), -1
    assert (owners.enter(), owners.numbers().count(owners._number)) == (slot, 1)


def test_a_closed_holder_leaves_the_table(leasing: Handle, name: str) -> None:
    """Clause 31: at its close."""
    leasing.put(b"job")
    with attach(name) as other:
        other.lease(timeout=0).ack()
        assert any(leasing._channel._owners.numbers())
    assert not any(leasing._channel._owners.numbers())


def test_a_full_table_makes_room_by_removing_the_dead(leasing: Handle, name: str) -> None:
    """C3: although nothing is leased, and so nobody looks for them."""
    leasing.put(b"job")
    write_file(name, OWNERS_AT, b"".join(OWNER.pack(number) for number in range(1, MOST_OWNERS + 1)))
    leasing.lease(timeout=0).ack()
    assert sum(map(bool, leasing._channel._owners.numbers())) == 1


def test_too_many_living_holders_are_refused(leasing: Handle, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C25: LimitExceeded says how many, and nothing is leased."""
    leasing.put(b"job")
    write_file(name, OWNERS_AT, b"".join(OWNER.pack(number) for number in range(1, MOST_OWNERS + 1)))
    monkeypatch.setattr(_owners._file, "is_byte_locked", lambda *_: True)
    with pytest.raises(LimitExceeded, match=f"handles with leases.*{MOST_OWNERS}"):
        leasing.lease(timeout=0)
    assert leasing.qsize() == 1


def test_a_torn_number_is_that_of_a_dead_owner(leasing: Handle, name: str) -> None:
    """C15, C28: as any number that nobody can lock."""
    leasing.put_many([b"job", b"other"])
    write_file(name, OWNERS_AT, OWNER.pack((1 << 64) - 1))
    write_file(name, OWNERS_AT + OWNER.size, OWNER.pack(5))
    job = leasing.lease(timeout=0)
    write_file(name, LOOKED_AT, bytes(8))
    leasing._channel._owners.next_look = 0
    leasing.qsize()
    assert sum(map(bool, leasing._channel._owners.numbers())) == 1
    job.ack()


def test_a_channel_that_is_in_the_table_is_not_entered_again(leasing: Handle) -> None:
    """C12: a call of a signal handler may have entered it in the middle of the same step."""
    leasing.put(b"job")
    leasing.lease(timeout=0).ack()
    owners = leasing._channel._owners
    slot, owners.slot = owners.slot, -1
    assert owners.enter() == slot


def test_a_death_is_looked_for_by_one_process_at_a_time(leasing: Handle, name: str) -> None:
    """Clause 30: a look by another process counts."""
    leasing.put(b"job")
    job = leasing.lease(timeout=0)
    now = time.monotonic_ns()
    owners = leasing._channel._owners
    owners.looked(now)
    assert owners.find_dead(now + 1) == set()
    assert owners.next_look == now + _owners.LOOK_NANOSECONDS
    job.ack()


@pytest.mark.parametrize("crowded", [100, 900])
def test_many_leases_of_a_dead_holder_return_in_several_steps(
    name: str, crowded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clause 30: so that others get the lock in between; all of them return."""
    with create(name, leases=True, max_messages=1000) as queue:
        queue.put_many([b"%d" % number for number in range(1000)])
        run(LEASE_AND_DIE, name, "1000")
        monkeypatch.setattr(_staged, "_CROWDED", crowded)
        time.sleep(2 * _owners.LOOK_NANOSECONDS / 1e9)
        leased = queue._channel.try_lease_many(1, 1000, None)
        assert [each.data for each in leased] == [b"%d" % number for number in range(1000)]
        assert queue.stats().returned == 1000


def test_a_waiting_process_notices_a_death(leasing: Handle, name: str) -> None:
    """C3: the aim is a tenth of a second; here ten times that."""
    leasing.put(b"job")
    with holding(name) as holder:
        assert leasing.stats().leased == 1
        holder.kill()
        holder.wait()
        began = time.monotonic()
        leasing.lease(timeout=20).ack()
        assert time.monotonic() - began < 1


def test_the_holders_are_known(leasing: Handle, name: str) -> None:
    """For doctor and stat: the process, since when, and how often the message has been delivered."""
    leasing.put_many([b"1", b"2"])
    mine = leasing.lease(timeout=0)
    with holding(name) as holder:
        held = leasing._channel.held(5)
        assert [(each.pid, each.deliveries) for each in held] == [(os.getpid(), 1), (holder.pid, 1)]
        assert 20 > held[0].seconds > held[1].seconds >= 0
        leasing.put(b"3")
        also = leasing.lease(timeout=0)
        assert [each.pid for each in leasing._channel.held(5)] == [os.getpid(), holder.pid, os.getpid()]
        also.ack()
        assert len(leasing._channel.held(1)) == 1
        holder.kill()
    mine.ack()


def test_the_holder_in_another_handle_of_this_process_is_unknown(leasing: Handle, name: str) -> None:
    """The kernel does not tell whose lock it is, and the other open files of this process are not searched."""
    leasing.put(b"1")
    with attach(name) as other:
        job = other.lease(timeout=0)
        assert [each.pid for each in leasing._channel.held(5)] == [None]
        job.ack()


def test_a_channel_without_leases_recalls_nothing(leasing: Handle) -> None:
    """Clause 25: and needs no lock for that."""
    leasing._channel._step = None
    leasing._channel.recall(1, 1)
