"""Checks of `ipcq doctor` that concern queues with leases: dead letters, and messages that are held for long."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import ipcq
from ipcq._abilities.dead_letters import dead_command
from ipcq._cli._facts import opened_by
from ipcq._cli._machine_checks import ERROR, NOTE, WARNING, Check
from ipcq._handle.interface import on_channel
from ipcq._opening.address import AUTO
from ipcq._process.lock_holders import Holder, holder_of_thread
from ipcq.backend import Held, LeaseChannel
from ipcq.errors import MessageQueueError

#: A message that is held for longer is reported.
HELD_SECONDS = 600.0

#: The most leases of a queue that are looked at.
MAX_HELD = 1000


def check_leases(backend: str = AUTO) -> Iterator[Check]:
    """Check each queue with leases that this user can open, of a backend, a place or the machine."""
    able = {each.name for each in ipcq.backends() if each.capabilities is not None and each.capabilities.leases}
    for each in ipcq.queues() if backend == AUTO else ipcq.queues(backend):
        if each.backend in able or "://" in each.backend:
            try:
                with ipcq.open(each.name, opened_by(each, backend), create=False, write=False) as queue:
                    checks = list(_check_queue(queue)) if queue.capabilities.leases else []
            except MessageQueueError:
                continue  # unlinked since, or another user's; `ipcq ls` gives the reason
            yield from checks


def _check_queue(queue: ipcq.Queue[Any]) -> Iterator[Check]:
    subject = f"queue {queue.name}"
    if dead := queue.stats().dead:
        letters = "1 dead letter" if dead == 1 else f"{dead:,} dead letters"
        command = f"{dead_command(queue.name, queue.backend)}   # with --requeue or --drop, once you know why"
        if queue.full():
            text = f"it is full, because it has {letters}: puts wait or fail"
            yield Check(ERROR, subject, text, command)
        else:
            yield Check(WARNING, subject, f"it has {letters}", command)
    held = on_channel(queue, lambda channel: cast(LeaseChannel, channel).held(MAX_HELD))
    by_process: dict[int | None, list[Held]] = {}
    for each in held:
        by_process.setdefault(each.pid, []).append(each)
    for pid, leases in by_process.items():
        if (longest := max(each.seconds for each in leases)) >= HELD_SECONDS:
            yield _check_holder(subject, pid, leases, longest)


def _check_holder(subject: str, pid: int | None, leases: Sequence[Held], longest: float) -> Check:
    duration = _duration(longest)
    what = f"has held a message for {duration}"
    if len(leases) > 1:
        what = f"has held {len(leases)} messages for up to {duration}"
    if pid is None:
        return Check(NOTE, subject, f"an unknown process {what}")
    holder: Holder | None = holder_of_thread(pid, longest)
    who = f"process {pid}" if holder is None else f"process {pid} ({holder.name})"
    if holder is not None and holder.stopped:
        return Check(WARNING, subject, f"{who}, which is stopped, {what}", f"kill -CONT {pid}")
    return Check(NOTE, subject, f"{who} {what}", f"kill {pid}   # gives back what it holds, if it hangs")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
