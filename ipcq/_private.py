"""The user's private directory, at a place that no environment variable moves, so that all processes agree on it."""

import errno
import os
import stat
import sys

from ipcq._foreign import let_through
from ipcq._limits import too_many_descriptors
from ipcq.errors import MessageQueueError, NoSpace, PermissionDenied

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    def _root() -> str:
        # Local application data, CSIDL 28, as the system knows it and not as %LOCALAPPDATA% has it.
        buffer = ctypes.create_unicode_buffer(wintypes.MAX_PATH)
        if ctypes.windll.shell32.SHGetFolderPathW(None, 28, None, 0, buffer):
            raise PermissionDenied("the folder for this user's local application data is not to be found")
        return f"{buffer.value}/ipcq"

else:

    def _root() -> str:
        return f"/tmp/ipcq-{os.geteuid()}"  # whatever TMPDIR says


def private_directory(part: str = "") -> str:
    """Return the path of this user's private directory, or of a part of it, which need not be there."""
    return f"{_root()}/{part}" if part else _root()


def has_private_directory(part: str = "") -> bool:
    """Tell whether the user's private directory, and the part, are there and nobody else's."""
    try:
        for path in {private_directory(), private_directory(part)}:
            _check(path, os.lstat(path))
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # also if it is somebody else's
        return False
    return True


def make_private_directory(part: str = "") -> str:
    """Make the user's private directory where it is missing, and return its path.

    Args:
        part: Name of a directory inside it, which is made as well and returned.

    Raises:
        PermissionDenied: Something is there that belongs to somebody else, or is open to others.
        NoSpace: The file system is full.
        LimitExceeded: Too many files are open.
    """
    for path in (private_directory(), private_directory(part)):
        _make(path)
    return path


def _make(path: str) -> None:
    try:
        try:
            os.mkdir(path, 0o700)
            os.chmod(path, 0o700)  # the umask may have taken bits away
        except FileExistsError:
            pass
        # Whoever may not write to /tmp's entries of others, which is sticky, cannot exchange it after this look.
        found = os.lstat(path)
    except OSError as error:
        let_through(error)
        raise refusal(error, f"{path} cannot be made", path) from error
    _check(path, found)


def refusal(error: OSError, what: str, path: str) -> MessageQueueError:
    """Return what the system's refusal means at a path in the private directory, or of that directory."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return too_many_descriptors(error.errno)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"{what}: free some space there", errno=error.errno)
    if error.errno == errno.ENOMEM:
        return NoSpace(f"{what}: free some memory and try again", errno=error.errno)
    if error.errno in (errno.EIO, errno.EAGAIN, errno.EINTR):  # nobody's rights
        return MessageQueueError(f"{what}: {error.strerror}", errno=error.errno)
    return PermissionDenied(
        f"{what} ({error.strerror}): have it removed (sudo rm -r {path}), ipcq makes it anew", errno=error.errno
    )


if sys.platform == "win32":

    def _check(path: str, found: os.stat_result) -> None:
        """See that a directory is one; others are kept out of the folder that it is in."""
        if not stat.S_ISDIR(found.st_mode):
            raise PermissionDenied(f"{path} must be a directory: remove it, ipcq makes it anew")

else:

    def _check(path: str, found: os.stat_result) -> None:
        """See that a directory is this user's alone.

        Raises:
            PermissionDenied: It is not.
        """
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or mode & 0o077:
            kind = "directory" if stat.S_ISDIR(found.st_mode) else "file"
            raise PermissionDenied(
                f"{path} must be a directory of this user ({os.geteuid()}) with mode 0700, but is a {kind} of user "
                f"{found.st_uid} with mode {mode:04o}: have it removed (sudo rm -r {path}), ipcq makes it anew",
                errno=errno.EACCES if stat.S_ISDIR(found.st_mode) else errno.ENOTDIR,
            )
