"""The user's private directories, at fixed paths that do not depend on the environment, so that all processes agree.

There are several, because no single one always exists: hardened containers have a read-only /tmp, others no /dev/shm.
Anything that must be unique (a name lock, a queue's socket) is looked up in all directories that exist.

A directory is skipped if it is missing, read-only, full, or not owned by this user. All processes must skip the same
ones, so a temporary failure, such as a full descriptor table, is an error instead.
"""

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from typing import Final, TypeVar

from ipcq._process.limits import too_many_descriptors
from ipcq._process.signals import reraise_from_handler, translating
from ipcq.errors import MessageQueueError, NoSpace, PermissionDenied

T = TypeVar("T")

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    def _roots() -> tuple[str, ...]:
        # Local application data, CSIDL 28, from the system and not from the variable %LOCALAPPDATA%.
        buffer = ctypes.create_unicode_buffer(wintypes.MAX_PATH)
        if ctypes.windll.shell32.SHGetFolderPathW(None, 28, None, 0, buffer):
            raise PermissionDenied("cannot find the folder for this user's local application data")
        return (f"{buffer.value}/ipcq",)

elif sys.platform == "linux":

    def _roots() -> tuple[str, ...]:
        return _roots_of(os.geteuid())  # looked up each time, because a process may change it

    @cache
    def _roots_of(user: int) -> tuple[str, ...]:
        return f"/tmp/ipcq-{user}", f"/dev/shm/ipcq-{user}", f"/run/user/{user}/ipcq"  # TMPDIR does not matter

else:  # neither Linux nor Windows

    def _roots() -> tuple[str, ...]:
        return (f"/tmp/ipcq-{os.geteuid()}",)


def private_places(part: str = "") -> tuple[str, ...]:
    """Return the possible paths of private directories in order of preference; they need not exist."""
    return tuple([_inside(root, part) for root in _roots()]) if part else _roots()


def private_directories(part: str = "") -> list[str]:
    """Return the private directories, or their subdirectories `part`, that exist and only this user can access.

    One of them may be on a read-only file system, and two of them may be the same directory.

    Raises:
        MessageQueueError: A system error leaves open whether a directory exists.
    """
    homes = [(root, _inside(root, part)) for root in _roots()]
    return [home for root, home in homes if is_private(root) and (home == root or _is_private(root, home))]


def private_files(file: str, part: str = "") -> list[str]:
    """Return the paths of all files of this name in the private directories; cheaper than listing each of them.

    Raises:
        MessageQueueError: A system error leaves open whether a file exists.
    """
    found = []
    for root in _roots():
        home = _inside(root, part)
        path = f"{home}/{file}"
        if _status(root, path) is not None and is_private(root) and (home == root or _is_private(root, home)):
            found.append(path)
    return found


def make_private_directories(part: str = "") -> list[str]:
    """Create the missing private directories, and return those that this process can write to.

    Args:
        part: Name of a subdirectory to create and return instead.

    Raises:
        PermissionDenied: None is usable: each is missing, read-only, owned by another user, or accessible to others.
        NoSpace: None is usable, and at least one of them is full.
        LimitExceeded: Too many files are open.
    """
    return list(each_usable(lambda root: _made(root, part)))


def make_private_directory(part: str = "") -> str:
    """Create the first usable private directory, and return its path; errors are those of `make_private_directories`.

    To find a file of another process, search all of `private_directories`: that process may use a different one.
    """
    return next(each_usable(lambda root: _made(root, part)))


def each_usable(attempt: Callable[[str], T]) -> Iterator[T]:
    """Call `attempt` with each private directory, and yield the results of those that are usable.

    Raises:
        MessageQueueError: None is usable; the text has the reasons. Or an attempt failed for a temporary reason.
    """
    # Not the errors themselves: a list of them would make a cycle with their tracebacks, which refer to this frame. The
    # cycle would keep alive the error that the caller is handling, and the objects in its frames.
    refusals: list[tuple[type[MessageQueueError], str, int | None]] = []
    roots = _roots()
    for root in roots:
        try:
            found = attempt(root)
        except (PermissionDenied, NoSpace) as error:
            if not is_lasting(error):
                raise
            refusals.append((type(error), error.detail, error.errno))
        else:
            yield found
    if len(refusals) == len(roots):
        raise _none_usable([kind(detail, errno=number) for kind, detail, number in refusals])


def is_lasting(error: MessageQueueError) -> bool:
    """Return whether a directory has to be skipped because of this error."""
    return isinstance(error, PermissionDenied) or (isinstance(error, NoSpace) and error.errno in _FULL)


def _none_usable(refusals: list[MessageQueueError]) -> MessageQueueError:
    # Report a full directory first: it is the easiest to fix.
    first = next((error for error in refusals if isinstance(error, NoSpace)), refusals[0])
    if len(refusals) == 1:
        return first
    reasons = "; ".join(error.detail for error in refusals)
    return type(first)(f"ipcq needs a directory for its locks, but none is usable: {reasons}", errno=first.errno)


def make(root: str, part: str = "") -> None:
    """Create one private directory, or its subdirectory `part`, if it is missing.

    Raises:
        PermissionDenied: It cannot be created, or it belongs to another user or is accessible to others.
        NoSpace: The file system is full.
    """
    path = _inside(root, part)
    try:  # without `refused`, for speed: each creation calls this several times
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            try:
                os.mkdir(path, 0o700)
                os.chmod(path, 0o700)  # the umask may have cleared bits
            except FileExistsError:
                pass
            found = os.lstat(path)
    except OSError as error:
        reraise_from_handler(error)
        raise refusal(error, f"{path} cannot be created", root, path) from error
    # The parent directory is sticky, so no other user can replace the directory after this check.
    _check(path, found)


def _made(root: str, part: str) -> str:
    path = _inside(root, part)
    for each in dict.fromkeys(("", part)):
        make(root, each)
    if writable(path):
        return path
    with refused(f"{path} cannot be written to", root, path):
        if read_only(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    raise PermissionDenied(f"{path} cannot be written to: chmod 700 {path}", errno=errno.EACCES)


def _inside(root: str, part: str) -> str:
    return f"{root}/{part}" if part else root


def is_private(root: str) -> bool:
    """Return whether a private directory exists and only this user can access it.

    Raises:
        MessageQueueError: A system error leaves that open.
    """
    return _is_private(root, root)


def _is_private(root: str, path: str) -> bool:
    found = _status(root, path)
    if found is None:
        return False
    try:
        _check(path, found)
    except PermissionDenied:
        return False
    return True


def _status(root: str, path: str) -> os.stat_result | None:
    """Return the status of a path, or None if it does not exist or this user may not look it up."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except OSError as error:  # without `refused`, for speed: each open calls this several times
        reraise_from_handler(error)
        raise refusal(error, f"{path} cannot be read", root, path) from error


def writable(path: str) -> bool:
    """Return whether this process may create files in a directory."""
    return os.access(path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def read_only(path: str) -> bool:
    """Return whether a directory is on a read-only file system."""
    return hasattr(os, "statvfs") and bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def refused(what: str, root: str, path: str) -> AbstractContextManager[None]:
    """Return a context manager that converts system errors to ours with `refusal`."""
    return translating(OSError, lambda error: refusal(error, what, root, path))


def refusal(error: OSError, what: str, root: str, path: str) -> MessageQueueError:
    """Convert a system error at a private directory, or at a path in it, to our error."""
    number, base = error.errno, os.path.dirname(root)
    if number in (errno.EMFILE, errno.ENFILE):
        return too_many_descriptors(number)
    if number == errno.ENOMEM:
        return NoSpace(f"{what}: free some memory and try again", errno=number)
    if number in _FULL:
        return NoSpace(f"{what} ({error.strerror}): free some space in {base}", errno=number)
    way = f"remove it (sudo rm -r {path}), and ipcq creates it again"
    if number == errno.EROFS:
        way = f"mount a tmpfs on {base}"
    elif number == errno.ENOENT and path == root:
        way = f"mount a tmpfs on {base}"
        if base.startswith("/run/user/"):
            way = f"log in, or sudo loginctl enable-linger {_user()}"
    elif number in (errno.EACCES, errno.EPERM) and path == root:
        way = f"let user {_user()} write to {base} (see its permissions with ls -ld {base})"
    elif number not in (errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO):
        return MessageQueueError(f"{what}: {error.strerror}", errno=number)
    return PermissionDenied(f"{what} ({error.strerror}): {way}", errno=number)


def _user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0


if sys.platform == "win32":

    def _check(path: str, found: os.stat_result) -> None:
        """Check that a path is a directory; the system already keeps other users out of its parent.

        Raises:
            PermissionDenied: It is not.
        """
        if not stat.S_ISDIR(found.st_mode):
            raise PermissionDenied(f"{path} must be a directory: remove it, and ipcq creates it again")

else:

    def _check(path: str, found: os.stat_result) -> None:
        """Check that a path is a directory that only this user can access.

        Raises:
            PermissionDenied: It is not.
        """
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or mode & 0o077:
            kind = "directory" if stat.S_ISDIR(found.st_mode) else "file"
            raise PermissionDenied(
                f"{path} must be a directory of this user ({os.geteuid()}) with mode 0700, but is a {kind} of user "
                f"{found.st_uid} with mode {mode:04o}: remove it (sudo rm -r {path}), and ipcq creates it again",
                errno=errno.EACCES if stat.S_ISDIR(found.st_mode) else errno.ENOTDIR,
            )
