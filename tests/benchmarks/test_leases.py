"""The benchmark of leases: its contestants work, and its report has their figures."""

import sys
from pathlib import Path
from typing import Any

import pytest

import ipcq
from ipcq._bench.contestant import Declined

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import leases

sys.path.pop(0)

FIGURES = {"pairs", "batches", "plain", "to plain", "held"}


def test_backend_with_leases_has_all_figures(memory: str) -> None:
    """But that of a second process, which backend memory cannot have."""
    report = leases.report(1, 200, 2, 3, [leases.Ipcq(memory)])
    assert set(report["results"]["ipcq memory"]) == FIGURES


@pytest.mark.skipif(sys.platform != "linux", reason="peers are installed on Linux alone")
@pytest.mark.parametrize("rival", [leases.PersistQueue, leases.Huey])
def test_peer_has_its_figure(rival: type[Any]) -> None:
    """Each message was taken."""
    report = leases.report(1, 5, 0, 0, [rival()])
    assert report["results"][rival.name]["pairs"] > 0


def test_backend_without_leases_is_not_measured(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason."""

    def refuse(*_: Any, **__: Any) -> None:
        raise ipcq.Unsupported("it cannot")

    monkeypatch.setattr(ipcq, "open", refuse)
    report = leases.report(1, 5, 2, 3, [leases.Ipcq(memory)])
    assert report["results"] == {"ipcq memory": {"declined": "it cannot"}}


def test_peer_that_is_not_installed_is_not_measured() -> None:
    """With the reason."""
    with pytest.raises(Declined, match="it is not installed"):
        leases.needs("no_such_module")


def test_peer_without_its_server_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setattr(leases.shutil, "which", lambda _: None)
    with pytest.raises(Declined, match="sudo apt-get install redis-server"), leases.server():
        pass


def test_table_has_what_was_measured_and_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    """A figure that is missing has a dash."""
    leases.show({"a": {"pairs": 1234567.8, "held": 1.5}, "b": {"declined": "it is not installed"}})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["a", "1,234,568", "-", "-", "-", "-", "1.50"],
        ["not", "measured:", "b:", "it", "is", "not", "installed"],
    ]
