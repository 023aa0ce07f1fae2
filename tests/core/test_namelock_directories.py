"""C31: the lock for a name is taken in every private directory that the process can use."""

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

import pytest

from core import locking
from core.locking import squat_with_a_file, taken, use
from ipcq._opening import name_lock as _namelock
from ipcq._opening.name_lock import name_lock
from ipcq._process.deadline import PASSED
from ipcq.errors import MessageQueueError, NoSpace, PermissionDenied

directories = locking.directories


def let_read_only(monkeypatch: pytest.MonkeyPatch, *directories: Path) -> None:
    """Let files in these directories be opened for reading only."""
    system_open = os.open

    def open_it(path: str, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR and Path(path).parent in directories:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return system_open(path, flags, *mode)

    monkeypatch.setattr(_namelock.os, "open", open_it)


def taken_from(monkeypatch: pytest.MonkeyPatch, *directories: Path, read_only: tuple[Path, ...] = ()) -> bool:
    """Return whether the lock is taken for a process that uses these directories."""
    with monkeypatch.context() as context:
        use(context, *directories)
        let_read_only(context, *read_only)
        return taken()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_lock_is_taken_in_every_directory(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """C31: another process is excluded, whichever of them it can use."""
    with name_lock("/jobs", PASSED):
        assert taken_from(monkeypatch, directories[number])


def test_the_lock_is_released_in_every_directory(directories: list[Path]) -> None:
    """Afterwards, the lock is free."""
    with name_lock("/jobs", PASSED):
        pass
    assert not taken()


def test_a_lock_that_timed_out_in_one_directory_is_released_in_the_others(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C17: a failed attempt releases what it took."""
    with monkeypatch.context() as context:
        use(context, directories[2])
        with name_lock("/jobs", PASSED):
            assert taken_from(monkeypatch, *directories)
            assert not taken_from(monkeypatch, *directories[:2])


def test_an_exception_of_a_signal_handler_during_the_release_leaves_no_file_locked(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C12: and no descriptor is left open."""
    before = os.listdir("/proc/self/fd")
    close = _namelock._close_lock

    def close_and_strike(descriptor: int) -> None:
        close(descriptor)
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(_namelock, "_close_lock", close_and_strike)
        with name_lock("/jobs", PASSED):
            pass
    assert os.listdir("/proc/self/fd") == before
    assert not taken()


def test_an_exception_of_a_signal_handler_before_the_release_leaves_no_file_locked(directories: list[Path]) -> None:
    """C12: a profiler interrupts at the points where a signal handler can."""

    def strike(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is _namelock._NameLock.__exit__.__code__:
            sys.setprofile(None)
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt), name_lock("/jobs", PASSED):
        sys.setprofile(strike)
    assert not taken()


@pytest.mark.parametrize("mine", [0, 1])
def test_processes_that_can_only_read_each_others_file_exclude_each_other(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch, mine: int
) -> None:
    """C31: neither process can write where the other can."""
    one, two = directories[mine], directories[1 - mine]
    taken_from(monkeypatch, one)
    taken_from(monkeypatch, two)
    with monkeypatch.context() as context:
        let_read_only(context, two)
        use(context, *directories[:2])
        with name_lock("/jobs", PASSED):
            context.undo()
            assert taken_from(monkeypatch, *directories[:2], read_only=(one,))


def test_one_directory_at_two_paths_is_locked_once(directories: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may mount one volume at both paths; a second lock would wait for the first."""
    assert not taken_from(monkeypatch, directories[0], directories[0])


def test_a_missing_directory_is_passed_over(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """C31: another directory is enough."""
    assert not taken_from(monkeypatch, tmp_path / "missing" / "private", directories[1])


def test_a_squatted_directory_is_passed_over(directories: list[Path]) -> None:
    """C31: another directory is enough."""
    squat_with_a_file(directories[0])
    assert not taken()


def failing_in(directory: Path, number: int) -> Callable[..., int]:
    system_open = os.open

    def open_it(path: str, flags: int, *mode: int) -> int:
        if Path(path).parent == directory:
            raise OSError(number, os.strerror(number), path)
        return system_open(path, flags, *mode)

    return open_it


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_directory_with_a_lasting_refusal_is_passed_over(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """C31: it is read-only, forbidden or full for other processes too."""
    monkeypatch.setattr(_namelock.os, "open", failing_in(directories[0], number))
    assert not taken()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO])
def test_a_temporary_refusal_is_an_error(directories: list[Path], monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """C31: another process could take the lock there, and this one would not see it."""
    monkeypatch.setattr(_namelock.os, "open", failing_in(directories[1], number))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(MessageQueueError) as caught:
        taken()
    assert (caught.value.errno, os.listdir("/proc/self/fd")) == (number, before)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_a_temporary_refusal_of_reading_is_an_error(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """C31: the same applies to a file that can only be read."""
    taken()
    let_read_only(monkeypatch, directories[0])
    read_only = os.open

    def refuse(path: str, flags: int, *mode: int) -> int:
        if not flags & os.O_RDWR:
            raise OSError(number, os.strerror(number), path)
        return read_only(path, flags, *mode)

    monkeypatch.setattr(_namelock.os, "open", refuse)
    with pytest.raises(MessageQueueError) as caught:
        taken()
    assert caught.value.errno == number


def test_a_read_only_directory_without_a_file_is_passed_over(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process can hold a lock there, and one that can write there also locks a directory that this one sees."""
    directories[0].mkdir(0o700)
    assert not taken_from(monkeypatch, *directories, read_only=(directories[0],))


def test_if_no_directory_can_be_used_each_is_named_with_its_reason(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error shows what to change."""
    let_read_only(monkeypatch, directories[0])
    squat_with_a_file(directories[1])
    directories[2].parent.rmdir()
    with pytest.raises(PermissionDenied) as caught:
        taken()
    one, two, three = caught.value.detail.partition("but none is usable: ")[2].split("; ")
    assert one.endswith(f"(Read-only file system): mount a tmpfs on {directories[0].parent}")
    assert two.endswith(f"remove it (sudo rm -r {directories[1]}), and ipcq creates it again")
    assert three.endswith(f"(No such file or directory): mount a tmpfs on {directories[2].parent}")


def test_if_no_directory_can_be_used_and_one_is_full_it_is_no_space(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C24: the way out is to free space."""
    for directory in directories[:2]:
        directory.parent.rmdir()
    monkeypatch.setattr(_namelock.os, "open", failing_in(directories[2], errno.ENOSPC))
    with pytest.raises(NoSpace, match=f"free some space in {directories[2].parent}") as caught:
        taken()
    assert caught.value.errno == errno.ENOSPC
