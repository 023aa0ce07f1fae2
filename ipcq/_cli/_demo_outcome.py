"""The result of ``ipcq demo``: the verdict, and the errors that ended the run early."""

from collections.abc import Sequence
from dataclasses import dataclass

from ipcq.testing.oracle import Verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one run."""

    verdict: Verdict
    errors: Sequence[str] = ()
    stacks: str = ""
    """Stacks of all processes, if the run hung."""

    @property
    def ok(self) -> bool:
        """Whether nothing was wrong."""
        return not (self.errors or self.verdict.faults)

    @property
    def damaged(self) -> int:
        """Number of received objects that no producer put in that form."""
        return len(self.verdict.torn) + len(self.verdict.invented)

    def sentence(self) -> str:
        """Return the verdict as one line."""
        if self.ok:
            return "PASS: every object arrived exactly once, intact, and in order per producer"
        verdict = self.verdict
        counts = {
            "received more than once": len(verdict.duplicated),
            "out of order": len(verdict.reordered),
            "damaged, or put by another program": self.damaged,
        }
        lost = [verdict.losses] if verdict.lost else []
        faults = [*self.errors, *lost, *(f"{count} {what}" for what, count in counts.items() if count)]
        return f"FAIL: {'; '.join(faults)}"
