"""What README and documentation say about the code is what the code says."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

import ipcq

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLE = ROOT / "examples" / "ipcq_file" / "ipcq_file.py"

SETUP = (
    "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/ipcq demo",
    "python3 -m venv .venv && .venv/bin/pip install nox && .venv/bin/nox",
)


def test_the_readme_begins_with_the_two_commands() -> None:
    """The first block sets everything up and runs it; CI takes its commands from there."""
    (first, *_) = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    assert tuple(first.splitlines()) == SETUP


def test_the_readmes_table_of_capabilities_is_true() -> None:
    """Each cell is what the descriptor says."""
    able = {info.name: info.capabilities for info in ipcq.backends()}
    (head,) = re.findall(r"^\| \| (`mqueue`.*) \|$", README, re.MULTILINE)
    names = [cell.strip(" `") for cell in head.split("|")]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", README, re.MULTILINE))
    assert set(rows) == {field.name for field in fields(ipcq.Capabilities)}
    for ability, row in rows.items():
        for name, cell in zip(names, row.split(" | "), strict=True):
            assert cell == shown(getattr(able[name], ability)), f"{ability} of {name}"


def shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "as memory allows"
    return str(getattr(value, "name", value)).lower()


def test_the_example_of_a_backend_has_60_lines() -> None:
    """Not counting blank ones and the docstring, as the page about it says."""
    lines = [line for line in EXAMPLE.read_text().splitlines() if line.strip()]
    assert len(lines) - 1 <= 60


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(str(p) for p in (ROOT / "docs").rglob("*.md"))])
def test_links_lead_somewhere(page: str) -> None:
    """Each relative link in the README and the pages leads to a file."""
    place = ROOT / page
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", place.read_text()):
        assert (place.parent / target).exists(), target
