"""The benchmark of arrays has all its figures."""

import sys
from pathlib import Path

import pytest

from processes.needs import library

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import arrays

sys.path.pop(0)


@pytest.fixture
def libraries() -> None:
    """Skip without the libraries of tables; in CI, fail."""
    for library_name in ("pandas", "polars", "pyarrow"):
        library(library_name)


def test_each_size_has_all_figures(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time, and the ratios to the others."""
    monkeypatch.setattr(arrays, "SAMPLE_SECONDS", 0.0)
    results = arrays.report(1, memory, {"1 KiB": 1024})
    assert set(results["1 KiB"]) == {"us", "pickle", "raw", "two copies"}
    assert all(figure > 0 for figure in results["1 KiB"].values())


def test_each_table_has_all_figures(memory: str, libraries: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time, and the ratios to the others."""
    monkeypatch.setattr(arrays, "SAMPLE_SECONDS", 0.0)
    results = arrays.report_tables(1, memory, {"1 KiB": 1024})
    assert set(results) == {"1 KiB pandas", "1 KiB Polars", "1 KiB Arrow"}
    assert all(set(each) == {"us", "pickle", "pickle in band"} for each in results.values())


def test_the_table_has_a_line_for_each_size(
    memory: str, libraries: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the backend in the heading."""
    monkeypatch.setattr(arrays, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(sys, "argv", ["arrays.py", "--rounds", "1", "--backend", memory])
    arrays.main()
    first, _, second = capsys.readouterr().out.partition("\n\n")
    heading, _, *lines = first.splitlines()
    assert "memory" in heading
    assert [line.partition("B ")[0] + "B" for line in lines] == list(arrays.SIZES)
    assert len(second.splitlines()) == 7
