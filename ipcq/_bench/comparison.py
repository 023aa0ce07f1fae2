"""Rounds in which the contestants take turns, and ratios paired by round."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ipcq._bench.contestant import Contestant, Declined, Failed, Sample
from ipcq._bench.workload import Workload


@dataclass
class Result:
    """The samples of one contestant in one workload, or why there are none."""

    contestant: Contestant
    samples: list[Sample] = field(default_factory=list)
    declined: str = ""
    failed: str = ""

    @property
    def values(self) -> list[float]:
        """Return the figure of each round; none at all if it failed in any round."""
        return [] if self.failed else [sample.value for sample in self.samples]

    def middle(self, what: str) -> float | None:
        """Return the median over the rounds of the field `what` of the samples."""
        known = [each for sample in self.samples if (each := getattr(sample, what)) is not None]
        return statistics.median(known) if self.values and known else None


Seen = Callable[[int, Contestant], None]


def play(
    contestants: Sequence[Contestant], workload: Workload, rounds: int, seconds: float, seen: Seen = lambda *_: None
) -> list[Result]:
    """Run a workload in rounds, in which the contestants take turns.

    Args:
        contestants: The contestants, in order.
        workload: The workload.
        rounds: Number of rounds.
        seconds: Approximate duration of a sample.
        seen: Called before each sample, with the number of the round and the contestant.
    """
    results = [Result(each) for each in contestants]
    for number in range(rounds):
        for result in results:
            if result.declined or result.failed:
                continue  # it would fail again, and a stall takes long
            seen(number, result.contestant)
            try:
                result.samples.append(result.contestant.sample(workload, seconds))
            except Declined as reason:
                result.declined = str(reason)
            except Failed as reason:
                result.failed = f"round {number + 1}: {reason}"
    return results


@dataclass(frozen=True)
class Ratio:
    """How many times better one contestant is than another: median, lowest and highest over the rounds."""

    median: float
    low: float
    high: float


def ratio(ours: Sequence[float], theirs: Sequence[float], workload: Workload) -> Ratio | None:
    """Compare two contestants round by round; None if either has no figures."""
    if not ours or not theirs:
        return None
    pairs = zip(ours, theirs, strict=True)
    ratios = [mine / other if workload.rising else other / mine for mine, other in pairs if mine > 0 and other > 0]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


def best(results: Sequence[Result], workload: Workload, kind: str) -> Result | None:
    """Return the best contestant of a kind, or None."""
    shown: Iterator[Any] = (each for each in results if each.contestant.kind == kind and each.values)
    choose = max if workload.rising else min
    return choose(shown, key=lambda each: statistics.median(each.values), default=None)
