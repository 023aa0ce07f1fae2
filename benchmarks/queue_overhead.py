"""What `Queue.put` and `Queue.get` add to the channel's own cost, and what ``import ipcq`` adds to an interpreter.

Run ``python benchmarks/queue_overhead.py``. Wanted: at most 250 ns a call on the backend memory, 40 ms an import. The
calls are measured as pairs of put and get of 64 B in one thread, channel and queue in turn.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import harness

import ipcq

PAIRS = 20_000


def seconds(put: Callable[[bytes], object], get: Callable[[], object], item: bytes) -> float:
    begin = time.perf_counter()
    for _ in range(PAIRS):
        put(item)
        get()
    return time.perf_counter() - begin


def overhead(serializer: str, rounds: int) -> float:
    """Return what a call costs beyond the channel, in nanoseconds."""
    item = bytes(harness.SIZE)
    with ipcq.open("/ipcq-benchmark", "memory", max_messages=4, max_message_size=512, serializer=serializer) as queue:
        channel, data = queue._channel, queue._encode(item)
        measured = harness.rounds(
            {
                "channel": lambda: seconds(lambda each: channel.try_put(each, 0), channel.try_get, data),
                # A lambda here too, or the channel alone would pay for one.
                "queue": lambda: seconds(lambda each: queue.put(each), queue.get, item),  # noqa: PLW0108
            },
            rounds,
        )
        queue.unlink()
    differences = [ours - its for ours, its in zip(measured["queue"], measured["channel"], strict=True)]
    return statistics.median(differences) / PAIRS / 2 * 1e9


def start(statement: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    starts = harness.rounds({"bare": lambda: start("pass"), "ipcq": lambda: start("import ipcq")}, given.rounds)
    report = {
        "added to a call, raw (ns)": overhead("raw", given.rounds),
        "added to a call, msgpack (ns)": overhead("msgpack", given.rounds),
        "added to a start by import ipcq (ms)": statistics.median(
            [ours - bare for ours, bare in zip(starts["ipcq"], starts["bare"], strict=True)]
        )
        * 1e3,
    }
    if given.json:
        json.dump({"machine": harness.machine(), "rounds": given.rounds, "results": report}, sys.stdout, indent=2)
        return
    print(*harness.machine().values(), f"{given.rounds} rounds", sep=" · ")
    for what, figure in report.items():
        print(f"{what:<40}{figure:>8.0f}")


if __name__ == "__main__":
    main()
