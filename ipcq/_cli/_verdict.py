"""What ``ipcq demo`` concludes: did everything that went in come out exactly once, in order and intact."""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: So many of the lost objects are named.
NAMED = 5


@dataclass(slots=True)
class Verdict:
    """The counts of one run, in objects, and the troubles that ended it early."""

    sent: int
    received: int
    lost: int = 0
    repeated: int = 0
    reordered: int = 0
    damaged: int = 0
    missing: list[str] = field(default_factory=list)
    """The first of the lost ones, by name."""
    troubles: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was wrong."""
        return not (self.lost or self.repeated or self.reordered or self.damaged or self.troubles)

    def sentence(self) -> str:
        """Say it in one line."""
        if self.ok:
            return "ok: every object came out exactly once, in order per producer, and intact"
        faults = list(self.troubles)
        if self.lost:
            more = ", …" if self.lost > len(self.missing) else ""
            faults.append(f"{self.lost} lost ({', '.join(self.missing)}{more})")
        if self.repeated:
            faults.append(f"{self.repeated} came out more than once")
        if self.reordered:
            faults.append(f"{self.reordered} out of order")
        if self.damaged:
            faults.append(f"{self.damaged} damaged, or put by somebody else")
        return f"FAILED: {'; '.join(faults)}"


def judge(sent: Sequence[int], reports: Sequence[Mapping[str, Any]], received: int) -> Verdict:
    """Compare what the producers put with what the consumers saw.

    Args:
        sent: For each producer, how many objects it put: their numbers are 0 to that, less one.
        reports: For each consumer its report; the bitmaps in ``seen`` have one bit for each number of each producer.
        received: How many objects the consumers took.
    """
    verdict = Verdict(sum(sent), received)
    for report in reports:
        verdict.repeated += report["repeated"]
        verdict.reordered += report["reordered"]
        verdict.damaged += report["damaged"]
    for producer, count in enumerate(sent):
        union = 0
        for report in reports:
            # One large int for a bitmap: the set operations are then single steps over all its bits.
            seen = int.from_bytes(b64decode(report["seen"][producer]), "little")
            verdict.repeated += (union & seen).bit_count()
            union |= seen
        missing = ((1 << count) - 1) & ~union
        verdict.lost += missing.bit_count()
        while missing and len(verdict.missing) < NAMED:
            lowest = missing & -missing
            verdict.missing.append(f"no. {lowest.bit_length() - 1} of producer {producer}")
            missing ^= lowest
    return verdict
