"""Errors of the system calls that lock a name: each becomes one of ipcq, and no descriptor is left."""

import errno
import os
import sys
from pathlib import Path

import pytest

from core import locking
from core.locking import taken
from ipcq._opening import name_lock as _namelock
from ipcq._opening.name_lock import name_lock
from ipcq._process.deadline import PASSED
from ipcq.errors import LimitExceeded, MessageQueueError, NoSpace, PermissionDenied

directory = locking.directory


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EMFILE, LimitExceeded),
        (errno.ENFILE, LimitExceeded),
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.ENOMEM, NoSpace),
        (errno.EIO, MessageQueueError),
        (errno.EROFS, PermissionDenied),
        (errno.EACCES, PermissionDenied),
    ],
)
def test_each_error_number_has_its_own_class(
    directory: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    """C24: a lack of descriptors is a limit, a full disk is no space, a refusal is no permission."""

    def mkdir(path: str, mode: int) -> None:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(_namelock.os, "mkdir", mkdir)
    with pytest.raises(kind) as caught:
        taken()
    assert caught.value.errno == number


def refuse(*_: object) -> None:
    raise OSError(errno.EIO, "broken")


def test_a_file_whose_mode_cannot_be_set_leaves_no_descriptor(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: the system's error becomes one of ipcq, with its number."""
    taken()
    (directory / "names.lock").chmod(0o644)  # it is set only if it is wrong
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(_namelock.os, "fchmod", refuse)
    with pytest.raises(MessageQueueError) as caught:
        taken()
    assert (caught.value.errno, os.listdir("/proc/self/fd")) == (errno.EIO, before)


def test_an_error_of_locking_is_translated(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: the number is kept, and no descriptor is left."""
    taken()
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(_namelock, "_try_lock", refuse)
    with pytest.raises(MessageQueueError, match="cannot be locked") as caught:
        taken()
    assert (caught.value.errno, os.listdir("/proc/self/fd")) == (errno.EIO, before)


def test_a_lock_whose_release_fails_is_released_with_its_descriptor(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C5: the block has succeeded, and the lock is free."""
    with monkeypatch.context() as patch:
        patch.setattr(_namelock, "_unlock", refuse)
        taken()
    taken()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of this kind to name")
@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.EMFILE, LimitExceeded),
        (errno.ENFILE, LimitExceeded),
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
    ],
)
def test_an_error_of_opening_the_lock_file_is_translated(
    directory: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    """C24: the directory exists already, so only the file needs a descriptor and space."""
    with name_lock("/jobs", PASSED):
        pass

    def refuse(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as context, pytest.raises(error):
        context.setattr(_namelock.os, "open", refuse)
        with name_lock("/jobs", PASSED):
            pass
