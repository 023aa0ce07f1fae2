"""Private directories: where they are, which of them are created or found, and the way out if there is none."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core import locking
from core.conftest import Run
from core.fakes import raising
from core.locking import SQUATS, squat_with_a_file, taken
from ipcq._process import private_directory
from ipcq.errors import MessageQueueError, PermissionDenied

directory, directories = locking.directory, locking.directories


def test_no_environment_variable_moves_the_directory(run: Run, tmp_path: Path) -> None:
    """Rule 3: all processes of a user find the same lock."""
    moved = {name: str(tmp_path) for name in ("TMPDIR", "TEMP", "TMP", "HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME")}
    said = run(
        "from ipcq._process.private_directory import private_places; print(*private_places())", environment=moved
    )
    user = os.geteuid()
    assert said == f"/tmp/ipcq-{user} /dev/shm/ipcq-{user} /run/user/{user}/ipcq"


def test_the_private_directories_are_the_users_own() -> None:
    """Rule 3: each user has separate files."""
    assert all(str(os.geteuid()) in directory for directory in private_directory.private_places())


@pytest.mark.parametrize(
    ("number", "root", "way"),
    [
        (errno.EROFS, "/tmp/ipcq-7", "mount a tmpfs on /tmp"),
        (errno.ENOENT, "/tmp/ipcq-7", "mount a tmpfs on /tmp"),
        (errno.ENOENT, "/run/user/7/ipcq", "log in, or sudo loginctl enable-linger"),
        (errno.EACCES, "/tmp/ipcq-7", "to /tmp \\(see its permissions with ls -ld /tmp\\)"),
        (errno.ELOOP, "/tmp/ipcq-7", "remove it \\(sudo rm -r /tmp/ipcq-7\\), and ipcq creates it again"),
    ],
)
def test_each_refusal_has_its_own_way_out(number: int, root: str, way: str) -> None:
    """C24: each needs a different action."""
    error = private_directory.refusal(OSError(number, os.strerror(number)), "it failed", root, root)
    with pytest.raises(PermissionDenied, match=f"^it failed \\(.*\\): .*{way}"):
        raise error


def test_the_first_usable_directory_is_created(directories: list[Path]) -> None:
    """The subdirectory is created in it, and nothing elsewhere."""
    directories[0].parent.rmdir()
    assert private_directory.make_private_directory("part") == f"{directories[1]}/part"
    assert not directories[2].exists()


def test_all_usable_directories_are_created(directories: list[Path]) -> None:
    """Their order is kept."""
    squat_with_a_file(directories[1])
    assert private_directory.make_private_directories("part") == [f"{directories[0]}/part", f"{directories[2]}/part"]


def test_a_read_only_directory_is_found_but_not_created(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C31: files that others created there can be read."""
    private_directory.make_private_directories("part")
    monkeypatch.setattr(private_directory, "writable", lambda path: str(directories[0]) not in path)
    made, found = private_directory.make_private_directories("part"), private_directory.private_directories("part")
    assert (made, found) == (
        [f"{directory}/part" for directory in directories[1:]],
        [f"{directory}/part" for directory in directories],
    )


@pytest.mark.parametrize(("read_only", "way"), [(True, "mount a tmpfs on"), (False, "chmod 700")])
def test_the_error_for_an_unwritable_directory_has_the_way_out(
    directory: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool, way: str
) -> None:
    """Its file system may be read-only, or its mode may lack the bit."""
    monkeypatch.setattr(private_directory, "writable", lambda path: False)
    monkeypatch.setattr(private_directory, "read_only", lambda path: read_only)
    with pytest.raises(PermissionDenied, match=way):
        private_directory.make_private_directory()


@pytest.mark.parametrize("squat", SQUATS[:4])
def test_a_squatted_directory_is_not_found(directories: list[Path], squat: Callable[[Path], None]) -> None:
    """C27: ipcq does not search where others could have put files."""
    squat(directories[0])
    directories[1].mkdir(0o700)
    assert private_directory.private_directories() == [str(directories[1])]


def test_a_writable_file_system_is_not_read_only(tmp_path: Path) -> None:
    """`statvfs` shows it."""
    assert (private_directory.read_only(str(tmp_path)), private_directory.writable(str(tmp_path))) == (False, True)


@pytest.mark.parametrize(
    ("call", "look"),
    [
        ("lstat", private_directory.private_directories),
        ("lstat", lambda: private_directory.private_files("file")),
        ("fstat", taken),
        ("statvfs", private_directory.make_private_directory),
    ],
)
def test_an_error_of_inspecting_a_directory_is_translated(
    directory: Path, monkeypatch: pytest.MonkeyPatch, call: str, look: Callable[[], object]
) -> None:
    """C5: whichever call fails; the directory is not passed over because of it."""
    private_directory.make_private_directory()
    monkeypatch.setattr(private_directory, "writable", lambda path: False)
    with monkeypatch.context() as context, pytest.raises(MessageQueueError, match="worn out") as caught:
        context.setattr(private_directory.os, call, raising(OSError(errno.EIO, "worn out")))
        look()
    assert not isinstance(caught.value, PermissionDenied)
