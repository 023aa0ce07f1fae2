"""What users should know about a backend on this machine."""

from dataclasses import dataclass
from enum import Enum

from ipcq._process.lock_holders import Holder


class Severity(Enum):
    """How much a finding matters."""

    NOTE = "note"
    """Worth knowing."""
    WARNING = "warning"
    """Something will fail sooner or later."""
    ERROR = "error"
    """Something fails now."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing about this machine that a user of the backend should know."""

    severity: Severity
    text: str
    """What is so, with figures."""
    fix: str = ""
    """The command that changes it; empty where nothing needs to."""

    @classmethod
    def stuck(cls, name: str, holder: Holder) -> "Finding":
        """Return the finding that a process blocks others in a queue."""
        fix = f"kill -CONT {holder.pid}" if holder.stopped else ""
        return cls(severity=Severity.WARNING, text=f"queue {name!r}: {holder}", fix=fix)
