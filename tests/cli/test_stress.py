"""``ipcq stress``: its report, its failures, and its cleanup."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from types import SimpleNamespace

import pytest
from click.testing import Result

import ipcq
from ipcq._cli import _progress
from ipcq._cli.verbs import stress as verb
from ipcq.testing import storm
from ipcq.testing.storm import MODES

Run = Callable[..., Result]
Start = Callable[..., "subprocess.Popen[str]"]

TINY = ("stress", "--kills", "4", "--producers", "1", "--consumers", "1")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")


@pytest.fixture
def pyshm() -> str:
    """Return the name of a backend without prerequisites."""
    return "pyshm"


def test_a_storm_ends_with_a_verdict(run: Run, pyshm: str) -> None:
    """And with the figures behind it, one line each."""
    result = run(*TINY, "--backend", pyshm, "--seed", "7")
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert list(lines) == ["queue", "get", "messages", "wrong", "lost", "stall", "verdict"], result.stdout
    assert lines["queue"] == "on pyshm, 1 producers, 1 consumers, --seed 7"
    assert lines["verdict"].startswith("PASS: ")
    assert result.exit_code == 0


def test_every_mode_has_its_object(run: Run, pyshm: str) -> None:
    """With ``--json``; the reference lists its keys."""
    result = run(*TINY, "--backend", pyshm, "--mode", "all", "--json")
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [each["mode"] for each in told] == list(MODES) == list(verb.MODES)
    assert all(each["ok"] and each["backend"] == pyshm for each in told)
    page = (Path(__file__).parents[2] / "docs/reference/commands.md").read_text()
    listed = page[page.index("(ipcq-stress)=") :]
    assert all(f"`{key}`" in listed for key in told[0])


def test_each_mode_has_its_own_figures(run: Run, pyshm: str) -> None:
    """The number of stops, and the slowest open in the mode with changing names."""
    text = run(*TINY, "--backend", pyshm, "--mode", "stops", "--mode", "names", "--quiet").stdout
    assert " stops\n" in text and "\nopening   " in text
    assert not text.startswith("queue")


def test_a_mode_with_leases_has_the_redeliveries(run: Run, pyshm: str) -> None:
    """Those of killed consumers among them."""
    assert "\nleases    " in run(*TINY, "--backend", pyshm, "--mode", "lease", "--quiet").stdout


def test_a_storm_ends_when_its_time_is_over(run: Run, pyshm: str) -> None:
    """With the kills so far."""
    told = json.loads(run(*TINY, "--backend", pyshm, "--seconds", "0", "--json").stdout)
    assert told["ok"] and told["kills"] < 4


def test_a_storm_needs_several_processes(run: Run, memory: str) -> None:
    """Within a single process there is nothing to kill."""
    result = run(*TINY, "--backend", memory)
    assert (result.exit_code, "the stress test needs several" in result.stderr) == (1, True)


def test_a_terminal_shows_the_progress(
    terminal: Callable[..., SimpleNamespace], pyshm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar, and the kills so far."""
    monkeypatch.setattr(_progress, "DELAY_SECONDS", 0.0)
    told = terminal(*TINY, "--backend", pyshm)
    assert told.code == 0
    assert "%   " in told.text and " kills   " in told.text


# Faults


def test_a_broken_promise_fails_the_run(
    program: Callable[..., "subprocess.CompletedProcess[str]"], wrong: dict[str, str], pyshm: str
) -> None:
    """A backend that returns messages twice: the verdict has the fault, and the exit code is 1."""
    result = program("stress", "--kills", "20", "--backend", "doubles", env=wrong)
    assert result.returncode == 1, result.stderr
    assert " duplicated" in result.stdout.splitlines()[-1]
    assert result.stdout.splitlines()[-1].startswith("verdict   FAIL: ")


def test_a_hang_fails_the_run_with_the_stacks_of_all(
    program: Callable[..., "subprocess.CompletedProcess[str]"], wrong: dict[str, str], pyshm: str
) -> None:
    """A backend whose get never returns: the report has each process's stack and its wait in the kernel."""
    result = program("stress", "--kills", "400", "--patience", "1", "--backend", "hangs", "--json", env=wrong)
    told = json.loads(result.stdout)
    assert (result.returncode, told["ok"]) == (1, False), result.stderr
    assert "no progress for" in told["verdict"]
    assert "in get_that_hangs" in told["stacks"]
    assert "nanosleep" in told["stacks"]
    assert told["stacks"].count("--- <Peer ") >= 8


def test_trouble_is_reported_with_the_output_of_the_processes(
    run: Run, pyshm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict names it, and the stacks follow."""
    report = storm.Report(mode="get", seed=1, seconds=1.0, kills=3, trouble="nobody got on", stacks="in a get")
    monkeypatch.setattr(storm, "stress", lambda *_, **__: report)
    result = run(*TINY, "--backend", pyshm)
    assert result.stdout.endswith("verdict   FAIL: nobody got on\nin a get\n")
    assert result.exit_code == 1


# Cleanup


def queues(pid: int) -> list[str]:
    """Return the existing queues of a storm."""
    return [queue.name for queue in ipcq.queues() if queue.name.startswith(f"/ipcq-stress-{pid}-")]


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGKILL", -9)])
def test_a_storm_that_is_ended_leaves_nothing(number: str, code: int, start: Start, pyshm: str, tmp_path: Path) -> None:
    """Ended by Ctrl-C, or by a kill, which its processes notice."""
    process = start("stress", "--backend", pyshm, env={**os.environ, "TMPDIR": str(tmp_path)})
    deadline = monotonic() + 20
    while not list(tmp_path.glob("ipcq-peers-*/consumer-*.ledger")) and monotonic() < deadline:
        sleep(0.01)
    assert queues(process.pid)
    process.send_signal(getattr(signal, number))
    assert process.wait(20) == code
    deadline = monotonic() + 20
    while (queues(process.pid) or list(tmp_path.iterdir())) and monotonic() < deadline:
        sleep(0.01)
    assert not queues(process.pid)
    assert not list(tmp_path.iterdir())


# Without a shutdown


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "names"])
def test_a_storm_needs_no_shutdown(
    program: Callable[..., "subprocess.CompletedProcess[str]"], wrong: dict[str, str], pyshm: str, mode: str
) -> None:
    """On a backend without a shutdown, a file ends the processes, and the remaining messages are taken afterwards."""
    result = program(*TINY, "--backend", "endless", "--mode", mode, env=wrong)
    assert result.returncode == 0, result.stdout + result.stderr
