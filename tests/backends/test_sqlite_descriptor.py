"""Descriptors that close themselves, and that no forked child keeps."""

import os
from pathlib import Path

import pytest

from backends.sqlite import run
from ipcq_sqlite import _descriptor
from ipcq_sqlite._descriptor import BriefFile, open_file


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_a_dropped_owner_closes_its_descriptor(tmp_path: Path) -> None:
    """C16: whatever has dropped it."""
    owner = open_file(str(tmp_path / "file"), os.O_CREAT | os.O_RDWR, 0o600)
    descriptor = owner.fileno()
    assert is_open(descriptor)
    del owner
    assert not is_open(descriptor)


def test_a_file_that_cannot_be_opened_is_an_error_of_the_system(tmp_path: Path) -> None:
    """STYLE 31: the table of the backend translates it."""
    with pytest.raises(FileNotFoundError):
        open_file(str(tmp_path / "none"), os.O_RDONLY)


def test_a_brief_file_is_closed_afterwards(tmp_path: Path) -> None:
    """C16: also if the block raises."""
    with pytest.raises(KeyError), BriefFile(str(tmp_path), os.O_RDONLY) as descriptor:
        raise KeyError
    assert not is_open(descriptor)


def test_a_child_closes_brief_files(tmp_path: Path) -> None:
    """C17: and what it interrupted closes them once more without an error."""
    with BriefFile(str(tmp_path), os.O_RDONLY) as descriptor:
        _descriptor._in_child()
        assert not is_open(descriptor)


def test_a_fork_closes_brief_files_in_the_child_alone() -> None:
    """C17: else the lock of a directory would outlive its process."""
    script = """
import os
from ipcq_sqlite._descriptor import BriefFile

with BriefFile("/", os.O_RDONLY) as descriptor:
    child = os.fork()
    try:
        os.fstat(descriptor)
        found = 1
    except OSError:
        found = 0
    if not child:
        os._exit(found)
    print(found, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(script) == "1 0\n"
