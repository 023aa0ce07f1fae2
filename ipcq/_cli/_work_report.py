"""What `work` tells about its jobs: notes and progress on stderr, or JSON objects on stdout."""

from datetime import datetime
from typing import Any

from ipcq._cli import _items
from ipcq._cli._exits import complain, line_of
from ipcq._cli._job import Job
from ipcq._cli._printer import report_undecodable
from ipcq._cli._progress import Progress
from ipcq._cli._streams import stdout
from ipcq.errors import DecodeError


class Report:
    """Tells what happens to each job, and counts.

    Args:
        command: The command that shows the queue's dead letters.
        progress: Shows the counts on a terminal.
        as_json: Also print each event as one JSON object.
        quiet: Print no notes, only errors.
    """

    def __init__(self, command: str, progress: Progress, *, as_json: bool, quiet: bool) -> None:
        self._command = command
        self._progress = progress
        self._as_json = as_json
        self._quiet = quiet
        self._done = self._failures = self._dead = self._undecoded = 0

    @property
    def summary(self) -> str:
        """The counts, in words."""
        failures = "1 failure" if self._failures == 1 else f"{self._failures:,} failures"
        letters = "1 dead letter" if self._dead == 1 else f"{self._dead:,} dead letters"
        return f"{self._done:,} done, {failures}, {letters}"

    @property
    def has_errors(self) -> bool:
        """Whether a message became a dead letter here, or cannot be decoded."""
        return self._dead + self._undecoded > 0

    def started(self, job: Job) -> None:
        """Tell that a command was started."""
        self._event("started", job, item=job.lease.item)

    def acknowledged(self, job: Job) -> None:
        """Tell that a message was acknowledged."""
        self._done += 1
        self._event("acknowledged", job)

    def failed(self, job: Job, reason: str, delay: float) -> None:
        """Tell that a message was given back as a failure."""
        self._failures += 1
        if not self._quiet:
            self._complain(f"{job}: {reason}; given back for {delay:g} s")
        self._event("failed", job, reason=reason, delay=delay)

    def dead(self, job: Job, reason: str) -> None:
        """Tell that a message was made a dead letter."""
        self._dead += 1
        self._complain(f"{job}: {reason}; it is a dead letter now: `{self._command}`")
        self._event("dead", job, reason=reason)

    def returned(self, job: Job) -> None:
        """Tell that a message was given back because its command was killed here."""
        if not self._quiet:
            self._complain(f"{job}: killed and given back")
        self._event("returned", job)

    def lost(self, job: Job) -> None:
        """Tell that a lease ended before its command did."""
        self._complain(f"{job}: its lease ended before its command, so another worker may have run it too")
        self._event("lost", job)

    def undecodable(self, error: DecodeError) -> None:
        """Tell that no command was started for a message, because it cannot be decoded."""
        self._undecoded += 1
        self.hide()
        report_undecodable(error, "no command was run")
        self._event("undecodable", None, reason=line_of(error), item=error.data)

    def stopping(self, running: int) -> None:
        """Tell that a signal has arrived, and how many commands still run."""
        if running and not self._quiet:
            commands = "1 running command" if running == 1 else f"{running} running commands"
            self._complain(f"waiting for {commands}; a second signal kills")

    def hide(self) -> None:
        """Clear the progress line until its next update."""
        self._progress.hide()

    def show(self, running: int) -> None:
        """Update the progress line."""
        self._progress.show_text(None, f"{self.summary}, {running} running")

    def _complain(self, text: str) -> None:
        self.hide()
        complain(text)

    def _event(
        self, event: str, job: Job | None, *, reason: str | None = None, delay: float | None = None, item: Any = None
    ) -> None:
        if not self._as_json:
            return
        facts = {
            "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
            "event": event,
            "job": job and job.number,
            "delivery": job and job.lease.deliveries,
            "pid": job and job.pid,
            "status": job and job.status,
            "seconds": job and job.seconds and round(job.seconds, 3),
            "delay": delay,
            "reason": reason,
            "item": item,
        }
        out = stdout()
        out.write(_items.as_json(facts) + b"\n")
        out.flush()
