"""The built distributions: their contents, and what the package index shows of them."""

import re
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from building import ROOT, Built
from ipcq._distribution import DISTRIBUTION

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

#: Files that the build adds.
GENERATED = re.compile(r"PKG-INFO|setup\.cfg|.*\.egg-info/.*")


@pytest.fixture(scope="module")
def metadata(built: Built) -> Message:
    """Return the metadata for the package index."""
    with zipfile.ZipFile(built.wheel) as packed:
        (name,) = (name for name in packed.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(packed.read(name))


@pytest.fixture(scope="module")
def packed(built: Built) -> set[str]:
    """Return the files of the source distribution."""
    with tarfile.open(built.sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    return {name for name in names if not GENERATED.fullmatch(name)}


def test_the_source_distribution_has_every_file(packed: set[str], sources: Path) -> None:
    """Including tests, documentation, examples and change log: exactly the files of the repository."""
    written = {path.relative_to(sources).as_posix() for path in sources.rglob("*") if path.is_file()}
    assert packed == {name for name in written if not GENERATED.fullmatch(name)}


def test_the_extensions_are_stripped(built: Built) -> None:
    """They have no symbols and no debugger sections; only Linux has an extension."""
    with zipfile.ZipFile(built.wheel) as archive:
        compiled = [archive.read(name) for name in archive.namelist() if name.endswith(".so")]
    assert len(compiled) == (2 if sys.platform == "linux" else 0)
    # The file contains the names of its sections.
    assert [re.findall(rb"\.symtab|\.debug_\w+", code) for code in compiled if b".dynsym" in code] == [[]] * len(
        compiled
    )


def test_the_wheel_has_the_header_for_backends_in_c(built: Built) -> None:
    """`ipcq.backend.get_include` returns its directory."""
    with zipfile.ZipFile(built.wheel) as archive:
        assert "ipcq/include/ipcq/channel.h" in archive.namelist()


@pytest.fixture(scope="module")
def rendered(metadata: Message) -> str:
    """Return the README as the index shows it."""
    # Imported here, because test_elsewhere.py imports this module without much of the standard library.
    from readme_renderer import markdown

    return markdown.render(str(metadata.get_payload(decode=True), "utf-8")) or ""


def test_the_index_can_render_the_readme(metadata: Message, rendered: str) -> None:
    """`twine check` requires it."""
    assert (metadata["Description-Content-Type"], "<h1" in rendered) == ("text/markdown", True)


def test_no_link_of_the_readme_is_broken_on_the_index(rendered: str) -> None:
    """The index has no other file, so each link leads to the same page or to another host."""
    places = re.findall(r'(?:href|src)="([^"]*)"', rendered)
    assert places
    assert [place for place in places if not place.startswith(("https://", "#"))] == []


def test_pages_that_the_readme_names_on_the_index_are_in_the_source_distribution(
    metadata: Message, packed: set[str]
) -> None:
    """Where the README links to a page, the index shows the page's path."""
    links = set(re.findall(r"\]\((?!https?:)([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")))
    named = set(re.findall(r"\(`([^`]+)`\)", str(metadata.get_payload(decode=True), "utf-8")))
    assert links <= named & packed


def test_the_code_has_the_name_of_the_distribution(metadata: Message) -> None:
    """Every printed command is built from this one constant."""
    assert metadata["Name"] == PROJECT["name"] == DISTRIBUTION


def test_addresses_are_those_of_the_name() -> None:
    """The project has no other address."""
    assert {address.partition("#")[0] for address in PROJECT["urls"].values()} == {
        f"https://pypi.org/project/{DISTRIBUTION}/"
    }


def test_classifiers_are_known_to_the_index() -> None:
    """It refuses an upload with an unknown one."""
    from trove_classifiers import classifiers

    assert set(PROJECT["classifiers"]) <= classifiers


def test_classifiers_name_the_pythons_on_which_the_tests_run() -> None:
    """CI's workflow lists them."""
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    tried = {
        version for line in re.findall(r"python: \[(.*)\]", workflow) for version in re.findall(r'"(3\.\d+)', line)
    }
    named = {name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", name)}
    assert named == tried
