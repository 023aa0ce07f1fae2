"""The figures in the documentation: for every peer, short, from one program, and marked if they come from a trial."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ipcq._bench.references import REFERENCES
from ipcq._bench.workload import WORKLOADS

ROOT = Path(__file__).parents[2]
GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
COMPILED = {each.partition("==")[0] for each in GROUPS["bench-compiled"]}

sys.path[:0] = str(ROOT / "docs" / "_ext"), str(ROOT / "benchmarks")
import benchmark_table  # noqa: E402 - it is no package, as Sphinx imports it by its place
from rivals import RIVALS  # noqa: E402 - as its scripts import it

del sys.path[:2]

SUMMARY = json.loads(benchmark_table.SUMMARY.read_text())
#: The reports on the Python that has all workloads.
KEPT = SUMMARY[benchmark_table.PYTHONS[0]]


def changed(name: str = "peers", **heading: Any) -> dict[str, Any]:
    """Return a report of the summary with a changed heading."""
    return {**benchmark_table.read(name), **heading}


#: Peers that must be in the summary: all but those that few machines can compile.
REQUIRED = [*REFERENCES, *(each for each in RIVALS if each not in COMPILED)]

MEASURED = {"rounds": benchmark_table.ROUNDS, "seconds": benchmark_table.SECONDS}


@pytest.mark.parametrize("peer", REQUIRED)
def test_each_peer_is_in_the_summary(peer: str) -> None:
    """With figures: it was installed on the machine that was measured."""
    figures = [
        result["median"]
        for workload in KEPT["peers"]["workloads"]
        for result in workload["results"]
        if result["contestant"].partition(",")[0] == peer
    ]
    assert any(figures)


@pytest.mark.parametrize("peer", REQUIRED[len(REFERENCES) :])
def test_each_peer_was_measured_in_the_version_that_is_pinned(peer: str) -> None:
    """In the group `bench`."""
    (pin,) = (each for each in GROUPS["bench"] if each.partition("==")[0] == peer)
    assert f"{peer} {pin.partition('==')[2]}" in benchmark_table.versions(KEPT["peers"])


def test_the_tests_measure_the_same_versions() -> None:
    """The group `tests` pins the versions of the group `bench`."""
    pinned = {each for each in GROUPS["bench"] if "==" in each}
    peers = {each.partition("==")[0] for each in pinned}
    tested = {each.partition(";")[0] for each in GROUPS["tests"] if each.partition("==")[0] in peers}
    # The tests use any redis-py, and neither hiredis nor RQ.
    assert tested == pinned - {"baseplate==2.7.1", "hiredis==3.5.0", "redis==8.1.0", "rq==3.0.0"}


def test_the_summary_has_every_workload() -> None:
    """Every workload of `ipcq bench`."""
    assert [each["name"] for each in KEPT["peers"]["workloads"]] == list(WORKLOADS)


@pytest.mark.parametrize("python", benchmark_table.PYTHONS)
def test_the_readmes_workloads_are_measured_on_each_python(python: str) -> None:
    """They are figures of the same version of ipcq."""
    measured = SUMMARY[python]["peers"]
    assert {each["name"] for each in measured["workloads"]} >= set(benchmark_table.SAID)
    assert measured["contestants"][0] == KEPT["peers"]["contestants"][0]


@pytest.mark.parametrize("python", benchmark_table.PYTHONS)
def test_the_summary_has_the_floors_in_one_thread(python: str) -> None:
    """Beside ipcq's ring."""
    assert {"ring, C", "ipcq shm"} <= set(SUMMARY[python]["same_thread"]["results"]["64B"])


def test_the_summary_has_leases_beside_those_of_peers() -> None:
    """On the Python that has all workloads."""
    measured = {name for name, each in KEPT["leases"]["results"].items() if "declined" not in each}
    assert {"ipcq shm", "ipcq pyshm", "ipcq memory"} < measured


def test_the_summary_is_short_and_written_by_its_program() -> None:
    """Writing it again changes nothing."""
    assert benchmark_table.SUMMARY.read_text() == benchmark_table.dump(SUMMARY) + "\n"


def test_a_summary_keeps_three_digits_and_no_samples() -> None:
    """Nor contestants without a figure."""
    result = {"contestant": "a", "median": 123456.7, "samples": [1.0], "messages": 3, "p99": None}
    nothing = {**result, "contestant": "floor", "median": None}
    kinds = [{"name": "a", "kind": "ours"}, {"name": "floor", "kind": "floor"}]
    report = {"contestants": kinds, "workloads": [{"name": "64B", "results": [result, nothing]}]}
    assert benchmark_table.short(report)["workloads"] == [
        {"name": "64B", "results": [{"contestant": "a", "median": 123500.0}]}
    ]


@pytest.mark.parametrize("name", sorted(set(KEPT) - {"same_thread", "leases"}))
def test_a_page_has_a_row_for_each_workload(name: str) -> None:
    """In its first table."""
    rows = [line.split(" | ")[0] for line in benchmark_table.page(changed(name))]
    assert [f"| {each['title']}, {each['unit']}" for each in KEPT[name]["workloads"]] == [
        row for row in rows if re.match(r"\| .*, (messages/s|µs|ms)$", row)
    ]


def test_a_replacement_is_shown_beside_the_library_that_it_replaces() -> None:
    """With the ratio, also if it is below 1."""
    report = changed("compat_multiprocessing", **MEASURED)
    for workload in report["workloads"]:
        if workload["name"] == "1MiB":
            workload["results"][0]["to_base"] = {"median": 0.5, "low": 0.4, "high": 0.6}
    assert "0.50 × (0.40 to 0.60) |" in "\n".join(benchmark_table.ratios(report))


def test_a_contestant_that_took_no_part_is_not_compared() -> None:
    """A table without it would be misleading."""
    report = changed("compat_multiprocessing")
    report["workloads"] = [{**report["workloads"][0], "results": []}]
    with pytest.raises(ValueError, match="was not measured"):
        list(benchmark_table.ratios(report))


def test_a_peer_without_a_figure_is_not_listed() -> None:
    """For example one that could not be compiled on the machine that was measured."""
    absent = {"name": "absent", "kind": "peer", "version": "1.0"}
    report = changed()
    report["contestants"] = [*report["contestants"], absent]
    results = [*report["workloads"][0]["results"], {"contestant": "absent", "median": None}]
    report["workloads"] = [{**report["workloads"][0], "results": results}, *report["workloads"][1:]]
    assert benchmark_table.versions(report) == benchmark_table.versions(changed())


@pytest.mark.parametrize("less", [{"rounds": 1}, {"seconds": 0.05}])
def test_the_figures_of_a_trial_are_marked(less: dict[str, Any]) -> None:
    """A trial has too few rounds, or too short ones."""
    assert "do not rely on them" in "\n".join(benchmark_table.page(changed(**MEASURED | less)))


def test_the_figures_of_a_whole_run_are_not_marked() -> None:
    """The machine and its load are still given above them."""
    assert "do not rely on them" not in "\n".join(benchmark_table.page(changed(**MEASURED)))


def test_the_readme_has_no_figure_of_a_trial() -> None:
    """It lists the peers that will be measured."""
    lines = list(benchmark_table.readme([changed(**MEASURED), changed(rounds=1)]))
    assert (len(lines), "cloudtoid-interprocess 3.0.2" in lines[-1]) == (3, True)


def test_the_readme_names_the_fastest_peer_of_each_line() -> None:
    """A line that only mentions a peer is not enough."""
    lines = list(benchmark_table.readme([changed(**MEASURED)]))[2:]
    peers = {each["name"]: each["best_peer"].partition(",")[0] for each in KEPT["peers"]["workloads"]}
    assert [peers[name] in line for name, line in zip(benchmark_table.SAID, lines, strict=False)] == [True] * 5


def test_the_readme_has_the_figures_of_each_python() -> None:
    """And it names each peer once."""
    other = changed(**MEASURED, machine={**KEPT["peers"]["machine"], "python": "CPython 3.99.0"})
    lines = list(benchmark_table.readme([changed(**MEASURED), other]))
    assert [line for line in lines if line.startswith("On ")] == [
        f"On {KEPT['peers']['machine']['python']}:",
        "On CPython 3.99.0:",
    ]
    assert lines[-1].count("pyzmq") == 1


def test_a_table_of_one_thread_has_a_row_for_each_measured_contestant() -> None:
    """The row has times and ratios."""
    figures = {"put": 15.0, "get": 28.0, "put to floor": 1.0, "get to floor": 1.0}
    results = {"64B": {"ring, C": figures, "hyperq": {"declined": "it is not installed"}}}
    report = {"format": 1, "machine": KEPT["peers"]["machine"], "rounds": 5, "results": results}
    assert list(benchmark_table.same_thread(report))[4:] == ["| ring, C | 15.0 | 28.0 | 1.00 | 1.00 |"]


def test_a_table_of_leases_has_a_row_for_each_measured_contestant() -> None:
    """With a dash where there is no figure."""
    results = {"ipcq shm": {"pairs": 1.5e6, "held": 1.25}, "RQ": {"declined": "it is not installed"}}
    report = {"format": 1, "machine": KEPT["peers"]["machine"], "rounds": 5, "results": results}
    assert list(benchmark_table.leases(report))[4:] == ["| ipcq shm | 1.50 M | – | – | – | 1.25 |"]


def test_a_report_of_another_format_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its meaning is not guessed."""
    other = tmp_path / "summary.json"
    other.write_text(json.dumps({benchmark_table.PYTHONS[0]: {"peers": {"format": 0}}}))
    monkeypatch.setattr(benchmark_table, "SUMMARY", other)
    with pytest.raises(ValueError, match="not a report of format"):
        benchmark_table.read("peers")
    with pytest.raises(ValueError, match="not a report of format"):
        benchmark_table.read("absent")


def test_no_text_mentions_the_best_peer_without_its_name() -> None:
    """Nor that no other queue survives: the text names what was measured."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    vague = re.compile("the best peer|no other queue|none survives|at least fifty times", re.IGNORECASE)
    assert not [str(page) for page in pages if "_build" not in page.parts and vague.search(page.read_text())]


def test_the_program_that_measures_the_summary_starts() -> None:
    """It finds its peers and its reports; its output is tested above."""
    program = [sys.executable, ROOT / "benchmarks" / "summary.py", "--help"]
    # It imports scripts from its own directory.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    vague = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True, env=env).stdout
    assert "--rounds" in vague
