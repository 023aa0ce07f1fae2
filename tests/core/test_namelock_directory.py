"""C27: the directory and the file of the lock for names are private, and a squatted path is refused."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from core import locking
from core.locking import SQUATS, squat_with_a_file, squat_with_a_link_for_the_file, taken
from ipcq._opening import name_lock as _namelock
from ipcq.errors import PermissionDenied

directory = locking.directory


def lock_under(umask: int) -> None:
    """Lock a name for a moment with this umask."""
    before = os.umask(umask)
    try:
        taken()
    finally:
        os.umask(before)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o177, 0o777])
def test_the_directory_is_private_under_any_umask(directory: Path, umask: int) -> None:
    """C27: the mode is exactly 0700."""
    lock_under(umask)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o177, 0o777])
def test_the_file_is_private_under_any_umask(directory: Path, umask: int) -> None:
    """C27: the mode is exactly 0600."""
    lock_under(umask)
    assert stat.S_IMODE((directory / "names.lock").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o770, 0o701, 0o710, 0o1777])
def test_a_directory_that_is_open_to_others_is_refused(directory: Path, mode: int) -> None:
    """C27: others could have prepared a directory that they can enter."""
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(PermissionDenied, match=f"{mode:04o}: remove it \\(sudo rm -r {directory}\\)"):
        taken()


def test_a_directory_of_another_user_is_refused(directory: Path) -> None:
    """C27: the error names the owner."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away: run the tests as root")
    directory.mkdir(0o700)
    os.chown(directory, 12345, -1)
    with pytest.raises(PermissionDenied, match="directory of user 12345 with mode 0700"):
        taken()


@pytest.mark.parametrize("squat", SQUATS)
def test_a_squatted_path_is_refused(directory: Path, squat: Callable[[Path], None]) -> None:
    """C27: a link, a file or a pipe in place of the directory, or a link or a directory in place of the file."""
    squat(directory)
    with pytest.raises(PermissionDenied, match="sudo rm -r"):
        taken()


@pytest.mark.parametrize("squat", SQUATS)
def test_a_refused_path_leaves_no_descriptor(directory: Path, squat: Callable[[Path], None]) -> None:
    """C17: a refusal closes what it opened."""
    squat(directory)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(PermissionDenied):
        taken()
    assert os.listdir("/proc/self/fd") == before


def test_a_refusal_has_the_errno_of_the_system(directory: Path) -> None:
    """PermissionDenied is an OSError."""
    squat_with_a_file(directory)
    with pytest.raises(PermissionDenied) as caught:
        taken()
    assert caught.value.errno == errno.ENOTDIR


def test_a_link_for_the_file_creates_nothing_elsewhere(directory: Path) -> None:
    """C27: a link in place of the file is not followed."""
    squat_with_a_link_for_the_file(directory)
    with pytest.raises(PermissionDenied):
        taken()
    assert not directory.with_name("victim").exists()


def test_a_directory_that_another_process_creates_meanwhile_is_used(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C16: two processes may start at the same time."""
    mkdir = os.mkdir

    def overtaken(path: str, mode: int) -> None:
        mkdir(path, mode)
        raise FileExistsError(errno.EEXIST, "somebody was faster", path)

    monkeypatch.setattr(_namelock.os, "mkdir", overtaken)
    assert not taken()
