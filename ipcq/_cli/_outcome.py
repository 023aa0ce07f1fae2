"""What ``ipcq demo`` concludes: the judge's verdict, and the troubles that ended a run early, in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from ipcq.testing.oracle import Verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one run."""

    verdict: Verdict
    troubles: Sequence[str] = ()
    stacks: str = ""
    """Where every process stood, if nothing moved any more."""

    @property
    def ok(self) -> bool:
        """Whether nothing was wrong."""
        return not (self.troubles or self.verdict.faults)

    @property
    def damaged(self) -> int:
        """How many objects came out that no producer put, as they came."""
        return len(self.verdict.torn) + len(self.verdict.invented)

    def sentence(self) -> str:
        """Say it in one line."""
        if self.ok:
            return "ok: every object came out exactly once, in order per producer, and intact"
        verdict = self.verdict
        counts = {
            "came out more than once": len(verdict.duplicated),
            "out of order": len(verdict.reordered),
            "damaged, or put by somebody else": self.damaged,
        }
        lost = [verdict.losses] if verdict.lost else []
        faults = [*self.troubles, *lost, *(f"{count} {what}" for what, count in counts.items() if count)]
        return f"FAILED: {'; '.join(faults)}"
