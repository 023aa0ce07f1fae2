"""``ipcq bench``: measurements, output, and failures."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import Result

import ipcq
import liars
from ipcq._bench import report as reports
from ipcq._bench import run as runs
from ipcq._bench.contestant import FLOOR, Declined, Failed, Sample
from ipcq._bench.markdown import markdown
from ipcq._bench.plot import svg
from ipcq._bench.queues import Queues
from ipcq._bench.workload import WORKLOADS, Workload
from ipcq._cli.verbs import bench as verb

Run = Callable[..., Result]

WATCHDOG_SECONDS = 60.0

#: One sample of each contestant, as short as it can be.
SHORT = ("bench", "--workload", "64B", "--rounds", "1", "--seconds", "0.01")


class Fixed(Queues):
    """A contestant with predetermined results."""

    def __init__(self, name: str, result: Any = 0.0, kind: str = "peer") -> None:
        self.name = name
        self.kind = kind
        self._result = result

    def sample(self, workload: Workload, seconds: float) -> Sample:
        if isinstance(self._result, Exception):
            raise self._result
        return Sample(self._result, 100, None if self.kind == FLOOR else 1.5, 2.5)


def report_on(*contestants: Fixed, workloads: tuple[str, ...] = ("64B", "ping-pong")) -> dict[str, Any]:
    """Return a report on contestants whose figures are known."""

    def nothing(*_: object) -> None:
        pass

    chosen = [WORKLOADS[each] for each in workloads]
    return runs.compare(contestants, chosen, rounds=2, seconds=0.1, begin=nothing, end=nothing)


ALL = (
    Fixed("ours", 5_000_000.0, "ours"),
    Fixed("slow", 100_000.0),
    Fixed("good & quick", 1_000_000.0),
    Fixed("unable", Declined("too large")),
    Fixed("broken", Failed("lost one")),
    Fixed("copying", 1e9, FLOOR),
)


# A run


def test_a_run_has_a_row_for_each_contestant(run: Run) -> None:
    """The first of them appears twice."""
    rows = [line.split("\t") for line in run(*SHORT).stdout.splitlines()]
    assert [row[1].split()[0] for row in rows] == ["ipcq", "ipcq", "multiprocessing.Queue"]
    assert rows[1][1] == f"{rows[0][1]} again"


def test_a_good_run_is_0(run: Run) -> None:
    """No message was lost."""
    assert run(*SHORT).exit_code == 0


def test_a_run_prints_its_progress_and_its_machine(run: Run) -> None:
    """On stderr, which is not for parsing."""
    lines = run(*SHORT).stderr.splitlines()
    assert lines[0].startswith("ipcq: 64 B: ")
    assert f"CPython {sys.version.split()[0]}" in lines[1]


def test_a_quiet_run_prints_only_the_result(run: Run) -> None:
    """Nothing is on stderr."""
    assert run(*SHORT, "-q").stderr == ""


def test_a_run_needs_no_peer(run: Run) -> None:
    """Then the base is ipcq itself."""
    result = json.loads(run(*SHORT, "-q", "--json", "--compare", "none").stdout)
    assert result["base"] == result["contestants"][0]["name"]


@pytest.mark.needs("socketpair")
@pytest.mark.needs("pyshm")
def test_backends_are_measured_side_by_side(run: Run) -> None:
    """Each has its name."""
    result = run(*SHORT, "-q", "--compare", "none", "--backend", "socketpair", "--backend", "pyshm")
    assert [line.split("\t")[1] for line in result.stdout.splitlines()] == [
        "ipcq socketpair",
        "ipcq socketpair again",
        "ipcq pyshm",
    ]


def test_json_has_stable_keys(run: Run) -> None:
    """One object, with the machine and the parameters."""
    report = json.loads(run(*SHORT, "-q", "--json", "--compare", "os.pipe").stdout)
    assert list(report) == [
        "format",
        "machine",
        "rounds",
        "seconds",
        "base",
        "contestants",
        "workloads",
        "load",
    ]
    assert list(report["workloads"][0]) == [
        "name",
        "title",
        "unit",
        "rising",
        "best_peer",
        "to_best_peer",
        "control",
        "results",
    ]
    assert list(report["workloads"][0]["results"][0]) == [
        "contestant",
        "median",
        "low",
        "high",
        "p99",
        "cpu",
        "messages",
        "samples",
        "to_base",
        "declined",
        "failed",
    ]


def test_markdown_is_a_table(run: Run) -> None:
    """With a column for each contestant."""
    lines = run(*SHORT, "-q", "--markdown").stdout.splitlines()
    assert "multiprocessing.Queue" in lines[2]
    assert lines[3].startswith("|---|")


def test_a_chart_is_drawn(run: Run, tmp_path: Path) -> None:
    """As a file that other programs can read."""
    run(*SHORT, "-q", "--plot", str(tmp_path / "chart.svg"))
    assert ET.parse(tmp_path / "chart.svg").getroot().tag.endswith("svg")


def test_a_run_removes_its_queues(run: Run) -> None:
    """All of them."""
    run(*SHORT, "-q", "--compare", "none")
    assert not [each.name for each in ipcq.queues() if each.name.startswith(f"/ipcq-bench-{os.getpid()}-")]


def test_a_terminal_has_a_bar(terminal: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows the current step; headings are over the table."""
    monkeypatch.setattr("ipcq._cli._progress.DELAY_SECONDS", 0.0)
    text = terminal(*SHORT).text
    assert "] " in text and "round 1 of 1" in text and "contestant" in text


# Failures


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--compare", "os.pip"], 2, "unknown peer 'os.pip': did you mean 'os.pipe'?"),
        (["--compare", "os.pipe,faster-fifo"], 2, "other libraries are measured by `nox -s benchmarks`"),
        (["--workload", "64"], 2, "'64' is not one of"),
        (["--rounds", "0"], 2, "0 is not in the range"),
        (["--json", "--markdown"], 2, "are mutually exclusive"),
        (["--backend", "nosuch"], 2, "nosuch"),
        pytest.param(["--backend", "memory"], 1, "inside one process", marks=pytest.mark.needs("memory")),
    ],
)
def test_impossible_arguments_are_errors(run: Run, arguments: list[str], code: int, told: str) -> None:
    """Before anything is measured."""
    result = run("bench", *arguments)
    assert (result.exit_code, told in result.stderr) == (code, True), result.stderr


def test_the_help_lists_the_peers(run: Run) -> None:
    """Those of Python itself; the others need a checkout."""
    told = " ".join(run("bench", "--help").stdout.split())
    assert "multiprocessing.Queue, os.pipe, socketpair; or none" in told
    assert "To measure other libraries, run `nox -s benchmarks`" in told


@pytest.mark.parametrize(("fault", "said"), [("loses", "the consumer failed: message"), ("dies", "killed by SIGKILL")])
def test_a_contestant_that_fails_fails_the_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, fault: str, said: str
) -> None:
    """The others are measured nevertheless."""
    monkeypatch.setitem(verb.REFERENCES, "liar", lambda: liars.Liar(fault))
    result = run(*SHORT, "-q", "--compare", "os.pipe,liar")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"ipcq: {fault}, 64 B: round 1: ") and said in result.stderr
    assert [line.split("\t")[-1] == "-" for line in result.stdout.splitlines()] == [True, True, True, False]


def begin(start: Callable[..., Any], place: Path) -> tuple[Any, list[int]]:
    """Start a long run as a program, and return it and its workers once they have started."""
    command = "bench", "--backend", "socketpair", "--workload", "idle", "--rounds", "100"
    process = start(*command, start_new_session=True, env={**os.environ, "TMPDIR": str(place)})
    until = monotonic() + WATCHDOG_SECONDS
    while monotonic() < until:
        tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
        pids = [int(pid) for task in tasks for pid in task.read_text().split()]
        if len(pids) >= 3:  # with multiprocessing's own
            return process, pids
        sleep(0.01)
    raise AssertionError("no worker was started")


@pytest.mark.needs("socketpair")
@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGKILL", -9)])
def test_a_stopped_run_leaves_no_process(start: Callable[..., Any], number: str, code: int, tmp_path: Path) -> None:
    """Only the exit code shows what ended it."""
    process, pids = begin(start, tmp_path)
    process.send_signal(signal.Signals[number])
    _, complaint = process.communicate(timeout=WATCHDOG_SECONDS)
    until = monotonic() + WATCHDOG_SECONDS
    while [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert monotonic() < until
        sleep(0.01)
    assert process.returncode == code
    if number != "SIGKILL":  # a worker that was only half started then may print an error
        assert complaint == ""
        assert not list(tmp_path.iterdir())


@pytest.mark.needs("socketpair")
def test_ctrl_c_of_a_terminal_is_quiet(start: Callable[..., Any], tmp_path: Path) -> None:
    """It reaches the whole process group; the workers ignore it, and their parent ends them."""
    process, _ = begin(start, tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    _, complaint = process.communicate(timeout=WATCHDOG_SECONDS)
    assert (process.returncode, complaint) == (130, "")


@pytest.mark.needs("socketpair")
def test_a_killed_worker_is_a_failure_of_its_contestant(start: Callable[..., Any]) -> None:
    """The run continues, and ends with 1."""
    process = start(
        *("bench", "--backend", "socketpair", "--workload", "idle", "--rounds", "1", "--compare", "none", "-q")
    )
    until = monotonic() + WATCHDOG_SECONDS
    while True:
        tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
        pids = [int(pid) for task in tasks for pid in task.read_text().split()]
        workers = [pid for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if len(workers) == 2:
            break
        assert monotonic() < until
        sleep(0.01)
    os.kill(workers[0], signal.SIGKILL)
    _, complaint = process.communicate(timeout=WATCHDOG_SECONDS)
    assert process.returncode == 1
    assert "was killed by SIGKILL" in complaint


# Reports


def test_the_best_peer_is_named() -> None:
    """With the ratio of ours to it."""
    workload = report_on(*ALL)["workloads"][0]
    assert (workload["best_peer"], workload["to_best_peer"]["median"]) == ("good & quick", 5.0)


def test_the_base_is_the_first_peer() -> None:
    """All ratios are relative to it."""
    report = report_on(*ALL)
    first, *_ = report["workloads"][0]["results"]
    assert (report["base"], first["to_base"]["median"]) == ("slow", 50.0)


def test_the_control_is_ours_to_itself() -> None:
    """It is 1 if there is no noise."""
    assert report_on(*ALL)["workloads"][0]["control"]["median"] == 1.0


def test_failures_are_listed() -> None:
    """With contestant, workload and round."""
    assert reports.failures(report_on(*ALL)) == [
        "broken, 64 B: round 1: lost one",
        "broken, ping-pong, 64 B, round trip: round 1: lost one",
    ]


def test_markdown_has_medians_ratios_costs_floors_and_gaps() -> None:
    """Each gap has its reason."""
    text = "\n".join(markdown(report_on(*ALL)))
    for part in (
        "| 64 B, messages/s | 5.00 M | 100 k | 1.00 M | – | failed | 50.0 × (50.0 to 50.0) |",
        "| 64 B | 1.50 | 1.50 | 1.50 | – | – |",
        "- 64 B: 1000 M messages/s by copying",
        "- unable is left out: too large (64 B; ping-pong, 64 B, round trip)",
        "- broken failed: round 1: lost one (64 B; ping-pong, 64 B, round trip)",
    ):
        assert part in text


def test_markdown_leaves_out_empty_sections() -> None:
    """No costs, no floors, no gaps, no peers, and no load if the system has none."""
    report = report_on(Fixed("alone", 1.0, FLOOR), workloads=("64B",))
    report["contestants"][0]["kind"] = "ours"
    lines = list(markdown({**report, "load": None}))
    assert len(lines) == 5
    assert "load" not in lines[0]


def test_a_contestant_that_took_no_part_has_an_empty_cell() -> None:
    """For example in a report that was merged from several."""
    report = report_on(*ALL[:2])
    report["contestants"].append({"name": "late", "kind": "peer", "version": ""})
    assert "| 5.00 M | 100 k | – |" in "\n".join(markdown(report))


def test_a_chart_has_a_bar_for_each_contestant_with_a_figure() -> None:
    """The best first; the control is left out."""
    root = ET.fromstring(svg(report_on(*ALL, workloads=("64B",))))
    names = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text") if each.get("text-anchor") == "end"]
    assert names == ["copying", "ours", "good & quick", "slow"]


def test_a_chart_leaves_out_a_workload_without_figures() -> None:
    """An empty panel would be useless."""
    assert "64 B" not in svg(report_on(ALL[3], workloads=("64B",)))


def test_a_chart_shows_small_figures() -> None:
    """Its scale goes below 1."""
    assert ">0.1<" in svg(report_on(Fixed("ours", 0.3, "ours"), Fixed("slow", 2.0), workloads=("idle",)))


def test_a_report_can_be_read_again(tmp_path: Path) -> None:
    """As it was written."""
    report = report_on(*ALL)
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert reports.read(str(tmp_path / "report.json")) == report


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": 0}'])
def test_another_file_is_no_report(tmp_path: Path, text: str) -> None:
    """The error says so."""
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ValueError, match="is not a report"):
        reports.read(str(tmp_path / "report.json"))
