"""The benchmark of the backend redis: its contestants work, and its report has their figures."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from processes.needs import library

if sys.platform != "linux":
    pytest.skip("the server is installed on Linux alone", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import leases
import redis_throughput

sys.path.pop(0)

library("redis")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with leases.server() as port:
        yield port


@pytest.mark.parametrize("name", ["ipcq", "ipcq, leases", "redis-py"])
def test_each_contestant_takes_what_was_put(name: str, port: int) -> None:
    """Alone, with other processes, and in batches."""
    figures = redis_throughput.round_of(name, 3, port)
    assert figures.keys() == redis_throughput.COLUMNS.keys()
    assert all(value > 0 for value in figures.values())


@pytest.mark.parametrize("taken", [[b"1"], [b"1", b"2", b"2"], [b"2", b"1"]])
def test_a_lost_or_doubled_message_is_noticed(taken: list[bytes]) -> None:
    """Or one in another order."""
    redis_throughput.check("a", [b"1", b"2"], [b"1", b"2"])
    with pytest.raises(RuntimeError, match=f"{len(taken)} of 2 came"):
        redis_throughput.check("a", taken, [b"1", b"2"])


def test_the_report_has_all_contestants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are not installed, too; and the ratios of the goals."""
    installed = redis_throughput.find_spec
    monkeypatch.setattr(redis_throughput, "find_spec", lambda name: installed(name) if name == "redis" else None)
    run = CliRunner().invoke(
        redis_throughput.main, ["--rounds", "1", "--messages", "2", "--appendfsync", "no"], catch_exceptions=False
    )
    lines = [line for line in run.output.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0].strip("| ") for line in lines[1:]] == list(redis_throughput.CONTESTANTS)
    assert [line.endswith(" not installed |") for line in lines[1:]].count(True) == 2
    ratios = [line.split(": ")[0] for line in run.output.splitlines() if " times " in line]
    assert ratios == ["ipcq"] * 3 + ["ipcq, leases"] * 3


def test_ratios_are_those_of_each_round() -> None:
    """And hiredis counts as redis-py's best if it is installed."""
    figures = {"put": 2.0, "take": 4.0, "server": 6.0, "one": 2.0, "batches": 50.0}
    half = {"put": 1.0, "take": 2.0, "server": 9.0}
    found = {"ipcq": [figures], "ipcq, leases": [], "redis-py": [figures], "redis-py, hiredis": [half]}
    assert list(redis_throughput.comparisons(found)) == [
        "ipcq: 2.00 times the processor time of the client of redis-py, hiredis",
        "ipcq: 1.00 times the processor time of client and server of redis-py, hiredis",
        "ipcq: 25.0 times as many messages a second in batches as one by one",
    ]
