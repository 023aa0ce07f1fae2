"""The time to encode and decode a message in one thread, compared with msgpack and msgspec.

Run ``python benchmarks/codec.py``. The libraries take turns in rounds. The output has ipcq's time, and for the others
the median over the rounds of their time as a multiple of ipcq's. "without C" is the codec of a default handle without
the extension. Goals for dicts: at least twice as fast as msgpack, and no slower than msgspec.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import msgpack
import msgspec
from same_thread import RECORD

from ipcq._bench.machine import machine
from ipcq._process.shortcuts import SHORTCUTS
from ipcq.serializers import codec_for

ITEMS: dict[str, Any] = {
    "int": 42,
    "text of 24 B": "a text of 24 characters!",
    "bytes of 64 B": bytes(64),
    "dict of 5 fields": RECORD,
    "nested dict": {"id": 1, "user": {"name": "ada", "mail": "ada@example.org"}, "tags": ["a", "b"], "at": 1.5},
    "10 dicts": [{**RECORD, "id": number} for number in range(10)],
    "1,000 ints": list(range(0, 1_000_000, 1000)),
    "dict with 1 MiB": {"id": 1, "data": bytes(1 << 20)},
}

#: Seconds for each figure of a round.
SAMPLE_SECONDS = 0.02


class Library(NamedTuple):
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def ours(switch: str) -> Library:
    os.environ[SHORTCUTS] = switch
    codec = codec_for("msgpack")
    return Library(codec.encode, codec.decode)


def seconds(call: Callable[[Any], Any], argument: Any, times: int) -> float:
    """Return the seconds that `times` successive calls take; their results are freed."""
    begin = time.perf_counter()
    for _ in range(times):
        call(argument)
    return time.perf_counter() - begin


def measure(libraries: dict[str, Library], item: Any, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return the nanoseconds of a call in each round, by verb and library."""
    data = msgpack.packb(item)
    calls = {
        verb: {name: partial(seconds, getattr(library, verb), given) for name, library in libraries.items()}
        for verb, given in (("encode", item), ("decode", data))
    }
    measured: dict[str, dict[str, list[float]]] = {verb: {name: [] for name in libraries} for verb in calls}
    for verb, by_name in calls.items():
        once = max(next(iter(by_name.values()))(times=10) / 10, 1e-8)
        times = max(3, int(SAMPLE_SECONDS / once))
        for _ in range(rounds):
            for name, call in by_name.items():
                measured[verb][name].append(call(times=times) / times * 1e9)
    return measured


def figures(measured: dict[str, list[float]]) -> dict[str, float]:
    """Return ipcq's nanoseconds, and the others' times as multiples of ipcq's."""
    mine = measured["ipcq"]
    ratios = {
        name: statistics.median([other / own for other, own in zip(others, mine, strict=True)])
        for name, others in measured.items()
        if name != "ipcq"
    }
    return {"ns": statistics.median(mine), **ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    decoder = partial(msgpack.unpackb, strict_map_key=False, timestamp=3)
    libraries = {
        "ipcq": ours("1"),
        "without C": ours("0"),
        "msgpack": Library(msgpack.Packer(datetime=True).pack, decoder),
        "msgspec": Library(msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode),
    }
    results = {
        what: {verb: figures(each) for verb, each in measure(libraries, item, given.rounds).items()}
        for what, item in ITEMS.items()
    }
    if given.json:
        json.dump({"machine": machine(), "rounds": given.rounds, "results": results}, sys.stdout, indent=2)
        return
    print(*machine().values(), f"{given.rounds} rounds", sep=" · ")
    print(f"{'':<18}{'':<8}{'ipcq (ns)':>10}{'without C':>11}{'msgpack':>9}{'msgspec':>9}")
    for what, verbs in results.items():
        for verb, each in verbs.items():
            ratios = "".join(
                f"{each[name]:>{width}.2f}×" for name, width in (("without C", 10), ("msgpack", 8), ("msgspec", 8))
            )
            print(f"{what:<18}{verb:<8}{each['ns']:>10.0f}{ratios}")


if __name__ == "__main__":
    main()
