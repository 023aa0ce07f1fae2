"""The README and the documentation agree with the code."""

import re
import tomllib
from dataclasses import fields
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

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
    """The first block sets up an environment and runs the demo; CI takes its commands from there."""
    (first, *_) = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    assert tuple(first.splitlines()) == SETUP


#: The README's table of capabilities: the cells of each line.
TABLE = [re.split(r" *\| *", line)[1:-1] for line in re.findall(r"^\|.*\|$", README, re.MULTILINE)]
BUNDLED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["ipcq.backends"]


def test_the_readmes_table_has_all_bundled_backends() -> None:
    """One column for each, in the order in which auto prefers them."""
    ranks = [info.rank or 0 for name in TABLE[0][1:] for info in ipcq.backends() if f"`{info.name}`" == name]
    assert sorted(TABLE[0][1:]) == sorted(f"`{name}`" for name in BUNDLED)
    assert ranks == sorted(ranks, reverse=True)


def test_the_readmes_table_has_all_capabilities() -> None:
    """One line for each, below the platforms."""
    assert [line[0] for line in TABLE[2:]] == ["platforms", *(f"`{field.name}`" for field in fields(ipcq.Capabilities))]


@pytest.mark.parametrize("backend", BUNDLED)
def test_the_readmes_table_of_capabilities_is_true(backend: str) -> None:
    """Each cell agrees with the descriptor, and with the reference."""
    (info,) = (info for info in ipcq.backends() if info.name == backend)
    column = TABLE[0].index(f"`{backend}`")
    assert [f"| {line[0]} | {line[column]} |" for line in TABLE[2:]] == list(load_extension().table([info]))[2:]


def test_the_readmes_figures_are_those_that_were_measured() -> None:
    """They come from the summary that the documentation shows."""
    assert load_extension("benchmark_table").written_anew(README) == README


def load_extension(name: str = "capability_table") -> ModuleType:
    """Return the module that builds a table of the documentation."""
    spec = spec_from_file_location(name, ROOT / "docs" / "_ext" / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_of_a_backend_has_130_lines() -> None:
    """Not counting blank ones and the docstring, as its page says."""
    lines = [line for line in EXAMPLE.read_text().splitlines() if line.strip()]
    assert len(lines) - 1 <= 130


def test_each_error_has_its_paragraph() -> None:
    """The page of errors has every class, and what to do."""
    page = (ROOT / "docs" / "reference" / "errors.md").read_text()
    paragraphs = re.findall(r"^### (\w+)\n(.*?)(?=^##)", page, re.MULTILINE | re.DOTALL)
    classes = {getattr(ipcq.errors, name).__name__ for name in ipcq.errors.__all__}
    assert {name for name, text in paragraphs if "*What to do:*" in text} == classes


@pytest.mark.parametrize("beginning", ["README.md", "docs/index.md"])
def test_every_page_can_be_reached(beginning: str) -> None:
    """By links alone, both from the README and from the documentation's first page."""
    reached, ahead = set(), [ROOT / beginning]
    while ahead:
        page = ahead.pop().resolve()
        if page not in reached:
            reached.add(page)
            text = page.read_text()
            targets = re.findall(r"\]\((?!https?://|#)([^)#]+\.md)", text)
            for tree in re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL):
                targets += [f"{line}.md" for line in tree.split() if not line.startswith(":") and not line.isdigit()]
            ahead += [page.parent / target for target in targets]
    pages = {page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts}
    assert not pages - reached


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(str(p) for p in (ROOT / "docs").rglob("*.md"))])
def test_links_lead_somewhere(page: str) -> None:
    """Each relative link in the README and the pages leads to a file."""
    place = ROOT / page
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", place.read_text()):
        assert (place.parent / target).exists(), target
