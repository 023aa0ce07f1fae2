"""How the benchmarks measure: separate processes, taking turns in rounds, medians, and ratios paired by round.

A contestant is a function of a role, ``"produce"`` or ``"consume"``, the name of a queue, and a number of messages. A
fresh interpreter runs it for each role. The consumer checks that every message came exactly once and in order, and
reports the time from the first to the last.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

Contestant = Callable[[str, str, int], None]

NAME = "/ipcq-benchmark"

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


def ipcq(role: str, name: str, count: int, *, backend: str, serializer: str = "msgpack") -> None:
    """Be a contestant: ipcq's public API on a queue that exists."""
    import ipcq

    with ipcq.open(name, backend, create=False, serializer=serializer) as queue:
        if role == "produce":
            produce(queue.put, count)
        else:
            consume(queue.get, count)


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


def sample_ipcq(script: str, implementation: str, count: int, backend: str, **options: Any) -> float:
    """Create a queue, run a contestant on it, and return messages a second."""
    import ipcq

    with ipcq.open(NAME, backend, exclusive=True, **options) as queue:
        try:
            return sample(script, implementation, NAME, count).rate
        finally:
            queue.unlink()


_IDLE = """
import resource, sys, ipcq
with ipcq.open(sys.argv[1], sys.argv[2], exclusive=True) as queue:
    queue.put(1)
    queue.get()
    before = resource.getrusage(resource.RUSAGE_SELF)
    try:
        queue.get(timeout=2)
    except ipcq.QueueEmpty:
        pass
    after = resource.getrusage(resource.RUSAGE_SELF)
    queue.unlink()
print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
"""


def idle(url: str) -> float:
    """Return the processor time of a get that waits for 2 s, in milliseconds."""
    backend, _, options = url.partition("?")
    address = f"{backend}://{NAME}?{options}" if options else NAME
    run = subprocess.run([sys.executable, "-c", _IDLE, address, backend], capture_output=True, text=True, check=True)
    return float(run.stdout) * 1000


def compare(
    doc: str,
    contestants: Mapping[str, Contestant],
    measure: Callable[[str, int], float],
    *,
    waiting: Sequence[str],
    count: int = 200_000,
) -> None:
    """Be the program of a benchmark: measure all contestants in rounds, each against the first of them.

    Args:
        doc: What ``--help`` says.
        contestants: By name; the first is what the others are compared with.
        measure: Runs a contestant with that many messages, and returns messages a second.
        waiting: Backends whose waiting get is measured, each with its options as in a URL.
        count: Messages in a sample, unless told otherwise.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=count, help="messages in a sample")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--role", choices=("produce", "consume"), help=argparse.SUPPRESS)
    parser.add_argument("--implementation", help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        contestants[given.implementation](given.role, given.name, given.count)
        return
    base = next(iter(contestants))
    rates = rounds({name: partial(measure, name, given.count) for name in contestants}, given.rounds)
    report = {
        name: {"rate": statistics.median(of), f"ratio to {base}": paired(of, rates[base])} for name, of in rates.items()
    }
    costs = {each: statistics.median(idle(each) for _ in range(5)) for each in waiting}
    if given.json:
        results = {"machine": machine(), "rounds": given.rounds, "results": report, "idle ms in 2 s": costs}
        json.dump(results, sys.stdout, indent=2)
        return
    print(*machine().values(), f"{given.rounds} rounds, messages of {SIZE} B", sep=" · ")
    for name, figures in report.items():
        low, median, high = figures[f"ratio to {base}"]
        print(f"{name:<26}{figures['rate']:>12,.0f}/s   {median:.2f} x {base} ({low:.2f} to {high:.2f})")
    for each, spent in costs.items():
        print(f"a get that waits for 2 s on {each}: {spent:.1f} ms of processor time")
