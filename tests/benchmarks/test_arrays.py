"""The benchmark of arrays has all its figures."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import arrays

sys.path.pop(0)


def test_each_size_has_all_figures(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time, and the ratios to the others."""
    monkeypatch.setattr(arrays, "SAMPLE_SECONDS", 0.0)
    results = arrays.report(1, memory, {"1 KiB": 1024})
    assert set(results["1 KiB"]) == {"us", "pickle", "raw", "two copies"}
    assert all(figure > 0 for figure in results["1 KiB"].values())


def test_the_table_has_a_line_for_each_size(
    memory: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the backend in the heading."""
    monkeypatch.setattr(arrays, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(sys, "argv", ["arrays.py", "--rounds", "1", "--backend", memory])
    arrays.main()
    heading, _, *lines = capsys.readouterr().out.splitlines()
    assert "memory" in heading
    assert [line.partition("B ")[0] + "B" for line in lines] == list(arrays.SIZES)
