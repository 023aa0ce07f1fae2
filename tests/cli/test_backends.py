"""``ipcq backends``."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

import ipcq

Run = Callable[..., Result]


def test_each_backend_has_a_line(run: Run) -> None:
    """In the order in which auto prefers them."""
    assert [line.split("\t")[0] for line in run("backends").stdout.splitlines()] == [
        each.name for each in ipcq.backends()
    ]


@pytest.mark.needs("memory")
def test_line_names_the_capabilities(run: Run) -> None:
    """The capabilities that are true."""
    (line,) = (line for line in run("backends").stdout.splitlines() if line.startswith("memory\t"))
    assert "shutdown" in line.split("\t")[5].split(",")


def test_terminal_has_a_table(terminal: Callable[..., Any]) -> None:
    """With headings."""
    assert terminal("backends").text.split()[:2] == ["backend", "usable"]


def test_json_has_stable_keys(run: Run) -> None:
    """One object on each line."""
    first = json.loads(run("backends", "--json").stdout.splitlines()[0])
    assert list(first) == ["name", "usable", "reason", "rank", "distribution", "capabilities"]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install one backend whose plugin cannot be loaded."""
    info = ipcq.backends()[0]
    facts = {"name": "broken", "usable": False, "reason": "ImportError: no", "rank": None, "distribution": ""}
    monkeypatch.setattr(ipcq, "backends", lambda: [type(info)(**facts, capabilities=None)])


def test_broken_plugin_is_a_line(run: Run, broken: None) -> None:
    """With its reason."""
    assert run("backends").stdout == "broken\tno\t-\t-\t-\t-\t-\tImportError: no\n"


def test_broken_plugin_is_an_object(run: Run, broken: None) -> None:
    """With null for unknown values."""
    assert json.loads(run("backends", "--json").stdout)["capabilities"] is None
