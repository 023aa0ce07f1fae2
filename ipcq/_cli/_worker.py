"""Running a command for each message of a queue, for `work`.

A message is leased only when a command can start at once. So at the end there is nothing to give back but the messages
of commands that were killed.
"""

import errno
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

import ipcq
from ipcq._cli._children import Children
from ipcq._cli._exits import Failure
from ipcq._cli._job import Job
from ipcq._cli._placeholders import Unfit, filled
from ipcq._cli._signals import Stop
from ipcq._cli._work_report import Report
from ipcq._process.deadline import SLICE
from ipcq.errors import DecodeError, LeaseLost, MessageQueueError, QueueEmpty, QueueShutDown, TimedOutError

#: The longest delay before another try, unless the first is longer.
MAX_DELAY_SECONDS: Final = 3600.0

#: After so many doublings, every delay is longer than that.
_MAX_DOUBLINGS: Final = 64

#: The part of a hold after which it is extended.
_EXTENDED_AFTER: Final = 1 / 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run for each message, and what to do when it fails."""

    words: Sequence[str]
    """The command and its arguments, with placeholders."""
    text_of: Callable[[Any], bytes]
    """Returns what the command gets on standard input."""
    jobs: int = 1
    """Number of commands at a time."""
    hold: float | None = None
    """Seconds after which a lease ends if this process does not extend it; None: it need not."""
    max_failures: int = 1
    """Failures after which a message is a dead letter."""
    delay: float = 0.0
    """Seconds before the first retry; each further one comes after twice that time."""
    until_done: bool = False
    """Whether to end when nothing in the queue is ready, leased or delayed."""
    output: int | None = None
    """Descriptor that becomes the standard output of a command; None: that of this process."""

    def delay_after(self, failures: int) -> float:
        """Return the seconds before the next try, after so many failures."""
        longest = max(self.delay, MAX_DELAY_SECONDS)
        return min(self.delay * 2.0 ** min(failures - 1, _MAX_DOUBLINGS), longest)


class Worker:
    """Leases messages, runs a command for each, and settles the leases.

    Args:
        queue: The queue.
        children: Starts the commands.
        stop: The signals received so far. The first ends the leasing, the second kills the commands.
        plan: What to run.
        report: Tells what happens.
    """

    def __init__(self, queue: ipcq.Queue[Any], children: Children, stop: Stop, plan: Plan, report: Report) -> None:
        self._queue = queue
        self._children = children
        self._stop = stop
        self._plan = plan
        self._report = report
        self._running: list[Job] = []
        self._begun = 0
        self._has_ended = False
        self._was_told_to_stop = False

    def run(self) -> None:
        """Work until the queue has ended, all is done, or a signal has arrived; then wait for the commands.

        Raises:
            Failure: The command cannot be started.
            QueueGone: The queue was unlinked.
        """
        try:
            while self._takes_more() or self._running:
                self._step()
        finally:
            self._give_up()

    def _takes_more(self) -> bool:
        return not (self._has_ended or self._stop.number)

    def _step(self) -> None:
        if self._takes_more() and len(self._running) < self._plan.jobs:
            self._take()
        else:
            self._children.wait(SLICE)
        if self._stop.number and not self._was_told_to_stop:
            self._was_told_to_stop = True
            self._report.stopping(len(self._running))
        if self._stop.count > 1:
            self._kill()
        self._extend_holds()
        self._settle_ended()
        self._report.show(len(self._running))

    def _take(self) -> None:
        """Start the command for the next message, if one arrives in time."""
        try:
            lease = self._queue.lease(timeout=SLICE, hold=self._plan.hold)
        except QueueEmpty:
            self._has_ended = self._plan.until_done and not self._running and self._is_done()
        except QueueShutDown:
            self._has_ended = True
        except DecodeError as error:
            self._report.undecodable(error)
        else:
            self._begin(lease)

    def _is_done(self) -> bool:
        try:
            self._queue.join(timeout=0)
        except TimedOutError:
            return False
        return True

    def _begin(self, lease: ipcq.Lease[Any]) -> None:
        if self._stop.number:
            lease.release()
            return
        self._begun += 1
        job, plan = Job(self._begun, lease), self._plan
        if lease.failures >= plan.max_failures:
            self._reject(job, f"{lease.failures} failures before")  # its workers died, or allow more
            return
        try:
            self._start(job)
        except Unfit as error:
            self._reject(job, str(error))
        except (OSError, subprocess.SubprocessError) as error:
            if isinstance(error, OSError) and error.errno == errno.E2BIG:
                self._reject(job, "its arguments are too long")
                return
            lease.release()
            raise Failure(f"cannot run {plan.words[0]}, the message was given back: {error}") from error
        else:
            self._running.append(job)
            self._report.started(job)

    def _start(self, job: Job) -> None:
        self._report.hide()  # the command may write to the same terminal
        item = job.lease.item
        environment = {**os.environ, "IPCQ_DELIVERY": str(job.lease.deliveries)}
        arguments, data = filled(self._plan.words, item), self._plan.text_of(item)
        job.command = self._children.start(arguments, data, environment, output=self._plan.output)
        job.pid, job.began = job.command.pid, monotonic()
        self._extend_later(job)

    def _extend_later(self, job: Job) -> None:
        if self._plan.hold is not None:
            job.extend_at = monotonic() + self._plan.hold * _EXTENDED_AFTER

    def _extend_holds(self) -> None:
        hold = self._plan.hold
        for job in self._running:
            if hold is not None and monotonic() >= job.extend_at:
                self._extend_later(job)
                try:
                    job.lease.extend(hold)
                except LeaseLost:
                    job.command.kill()  # another worker may have the message by now

    def _settle_ended(self) -> None:
        for job in [job for job in self._running if job.has_ended()]:
            self._running.remove(job)
            try:
                self._settle(job, job.status or 0)
            except LeaseLost:
                self._report.lost(job)

    def _settle(self, job: Job, status: int) -> None:
        lease, failures = job.lease, job.lease.failures + 1
        reason = f"exit {status}" if status > 0 else f"killed by signal {-status}"
        if status == 0:
            lease.ack()
            self._report.acknowledged(job)
        elif self._stop.count > 1:
            lease.release()  # killed by `_kill`, which is no failure
            self._report.returned(job)
        elif failures >= self._plan.max_failures:
            self._reject(job, reason)
        else:
            delay = self._plan.delay_after(failures)
            lease.fail(reason, delay)
            self._report.failed(job, reason, delay)

    def _reject(self, job: Job, reason: str) -> None:
        job.lease.reject(reason)
        self._report.dead(job, reason)

    def _kill(self) -> None:
        for job in self._running:
            job.command.kill()

    def _give_up(self) -> None:
        """After an error, end the commands, and only then give their messages back."""
        self._kill()
        for job in self._running:
            while not job.has_ended():
                self._children.wait(SLICE)
            try:
                job.lease.release()
            except MessageQueueError:
                pass  # the error may be that the queue is gone
