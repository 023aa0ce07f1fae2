"""A match: the contestants take turns in rounds, and what they did is compared round by round."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ipcq._bench.contestant import Contestant, Declined, Failed, Sample
from ipcq._bench.workload import Workload


@dataclass
class Result:
    """What one contestant did in all rounds of a workload, or why it did not."""

    contestant: Contestant
    samples: list[Sample] = field(default_factory=list)
    declined: str = ""
    failed: str = ""

    @property
    def values(self) -> list[float]:
        """Return the figures of the rounds; none where it failed in one of them."""
        return [] if self.failed else [sample.value for sample in self.samples]

    def middle(self, what: str) -> float | None:
        """Return the median over the rounds of a figure of the samples."""
        known = [each for sample in self.samples if (each := getattr(sample, what)) is not None]
        return statistics.median(known) if self.values and known else None


Seen = Callable[[int, Contestant], None]


def play(
    contestants: Sequence[Contestant], workload: Workload, rounds: int, seconds: float, seen: Seen = lambda *_: None
) -> list[Result]:
    """Let the contestants do a workload in rounds, in turn.

    Args:
        contestants: In the order in which they take turns.
        workload: What they do.
        rounds: How often.
        seconds: How long a sample lasts, about.
        seen: Called before each sample, with the number of the round and the contestant.
    """
    results = [Result(each) for each in contestants]
    for number in range(rounds):
        for result in results:
            if result.declined or result.failed:
                continue  # it will not be otherwise the next time, and a stall takes its time
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
    """How many times as good one contestant is as another: the median over the rounds, and the extremes."""

    median: float
    low: float
    high: float


def ratio(ours: Sequence[float], theirs: Sequence[float], workload: Workload) -> Ratio | None:
    """Compare two contestants round by round; None where either has nothing to show."""
    if not ours or not theirs:
        return None
    pairs = zip(ours, theirs, strict=True)
    ratios = [mine / other if workload.rising else other / mine for mine, other in pairs if mine > 0 and other > 0]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


def best(results: Sequence[Result], workload: Workload, kind: str) -> Result | None:
    """Return the best of a kind of contestants."""
    shown: Iterator[Any] = (each for each in results if each.contestant.kind == kind and each.values)
    choose = max if workload.rising else min
    return choose(shown, key=lambda each: statistics.median(each.values), default=None)
