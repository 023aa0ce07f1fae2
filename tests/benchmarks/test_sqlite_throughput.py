"""The benchmark of durable queues: its contestants work, and its table has their figures."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import sqlite_throughput

sys.path.pop(0)

if sys.platform != "linux":
    pytest.skip("the backend needs Linux", allow_module_level=True)


@pytest.mark.parametrize("name", ["ipcq", "ipcq, normal, leases", "persist-queue, SQLiteAckQueue", "huey, fsync"])
def test_each_contestant_takes_what_was_put(name: str, tmp_path: Path) -> None:
    """Alone, with another process, and in batches if it has them."""
    figures = sqlite_throughput.round_of(name, 3, str(tmp_path))
    assert {"put", "take", "1 to 1"} <= figures.keys()
    assert ("in batches" in figures) == name.startswith("ipcq")
    assert all(value > 0 for value in figures.values())
    assert list(tmp_path.iterdir()) == []


def test_the_table_has_all_contestants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are not installed, too."""
    installed = sqlite_throughput.find_spec
    monkeypatch.setattr(sqlite_throughput, "find_spec", lambda name: None if name != "ipcq" else installed(name))
    run = CliRunner().invoke(
        sqlite_throughput.main,
        ["--rounds", "1", "--messages", "2", "--directory", str(tmp_path)],
        catch_exceptions=False,
    )
    lines = [line for line in run.output.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0].strip("| ") for line in lines[1:]] == list(sqlite_throughput.CONTESTANTS)
    assert [line.endswith(" not installed |") for line in lines[1:]].count(True) == 5
