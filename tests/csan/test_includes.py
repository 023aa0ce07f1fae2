"""The files of the C core are layered: each includes only lower ones, in the order that the essay in queue.h gives."""

import re
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[2] / "backends" / "ipcq_shm" / "csrc"
FILES = sorted(file for file in CORE.iterdir() if file.suffix in {".c", ".h"})


def order() -> list[str]:
    """Return the names of the files, lowest first."""
    listed = re.search(r"lowest first:\n \*\n(.+?)\n \*\n", (CORE / "queue.h").read_text(), re.DOTALL)
    assert listed is not None
    return [name for line in listed[1].splitlines() for name in re.split(" {2,}", line[3:].strip())[0].split()]


def included(file: Path) -> set[str]:
    """Return the names of the core's files that a file includes, without the header of its own."""
    return set(re.findall(r'^\s*#\s*include\s+"(\w+)\.h"', file.read_text(), re.MULTILINE)) - {file.stem}


def test_the_essay_lists_every_file_once() -> None:
    """A new file needs a place."""
    assert sorted(order()) == sorted({file.stem for file in FILES})


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_includes_only_lower_ones(file: Path) -> None:
    """So there is no circle, and a file can be read when those below it are known."""
    names = order()
    assert included(file) <= set(names[: names.index(file.stem)])


def test_the_layout_includes_none_of_ours() -> None:
    """It is the ground: what processes share depends on nothing else."""
    assert included(CORE / "layout.h") == set()
