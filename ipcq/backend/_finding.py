"""What users should know about a backend on this machine."""

from dataclasses import dataclass
from enum import Enum

from ipcq._process.lock_holders import Holder


class Severity(Enum):
    """How severe a finding is."""

    NOTE = "note"
    """No action is needed."""
    WARNING = "warning"
    """Something will fail later."""
    ERROR = "error"
    """Something fails now."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing about this machine that a user of the backend should know."""

    severity: Severity
    text: str
    """What was found, with figures."""
    fix: str = ""
    """The command that fixes it; empty if no action is needed."""

    @classmethod
    def stuck(cls, name: str, holder: Holder) -> "Finding":
        """Return a finding that a process blocks others in a queue."""
        fix = f"kill -CONT {holder.pid}" if holder.stopped else ""
        return cls(severity=Severity.WARNING, text=f"queue {name!r}: {holder}", fix=fix)
