"""How the benchmarks measure: separate processes, taking turns in rounds, medians, and ratios paired by round.

A workload is a pair of functions, `produce(count)` and `consume(count)`, that a fresh interpreter each runs. The
consumer checks that every message came exactly once and in order, and reports the time from the first to the last.
"""

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: One message carries its number, so that loss and order can be checked; 64 bytes in all.
SIZE = 64


def message(number: int) -> bytes:
    return number.to_bytes(8) + bytes(SIZE - 8)


@dataclass(frozen=True)
class Sample:
    """What one consumer saw."""

    messages: int
    seconds: float

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds


def consume(get: Callable[[], bytes], count: int) -> None:
    """Take `count` messages, check them, and print the sample."""
    if get()[:8] != message(0)[:8]:
        raise SystemExit("the first message is not the first")
    begin = time.perf_counter()
    for number in range(1, count):
        if int.from_bytes(get()[:8]) != number:
            raise SystemExit(f"message {number} is lost, doubled or out of order")
    print(json.dumps({"messages": count - 1, "seconds": time.perf_counter() - begin}))


def produce(put: Callable[[bytes], object], count: int) -> None:
    for number in range(count):
        put(message(number))


def sample(script: str, implementation: str, name: str, count: int, inherited: Sequence[int] = ()) -> Sample:
    """Run one producer and one consumer of an implementation as processes of their own."""
    consumer, producer = (
        subprocess.Popen(
            [
                *(sys.executable, script, "--role", role, "--implementation", implementation),
                *("--name", name, "--count", str(count)),
            ],
            stdout=subprocess.PIPE,
            pass_fds=inherited,
        )
        for role in ("consume", "produce")
    )
    out, _ = consumer.communicate(timeout=120)
    producer.communicate(timeout=120)
    if consumer.returncode or producer.returncode:
        raise SystemExit(f"{implementation}: a process failed")
    return Sample(**json.loads(out))


def rounds(
    contestants: Mapping[str, Callable[[], float]], count: int, *, progress: bool = True
) -> dict[str, list[float]]:
    """Measure every contestant once in each round, in turn."""
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(count):
        for name, measure in contestants.items():
            if progress and sys.stderr.isatty():
                print(f"\rround {number + 1} of {count}: {name:<30}", end="", file=sys.stderr)
            measured[name].append(measure())
    if progress and sys.stderr.isatty():
        print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    return measured


def paired(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Return the lowest, the median and the highest ratio of two contestants, round by round."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return min(ratios), statistics.median(ratios), max(ratios)


def machine() -> dict[str, Any]:
    """Say what was measured on."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
