"""The user's private directories, at places that no environment variable moves, so that all processes agree on them.

There are several, because no place can be relied on: hardened containers have a read-only /tmp, others no /dev/shm.
What must not be in two of them at a time (the lock of a name, a queue's socket) is looked for in all that are there.

A place that is missing, read-only or full, or that belongs to somebody else, is passed over. Every process must decide
that alike, so a refusal that may be gone a moment later, such as a full descriptor table, is an error.
"""

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Final, TypeVar

from ipcq._process.limits import too_many_descriptors
from ipcq._process.signals import reraise_from_handler
from ipcq.errors import MessageQueueError, NoSpace, PermissionDenied

T = TypeVar("T")

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)

if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    def _roots() -> tuple[str, ...]:
        # Local application data, CSIDL 28, as the system knows it and not as %LOCALAPPDATA% has it.
        buffer = ctypes.create_unicode_buffer(wintypes.MAX_PATH)
        if ctypes.windll.shell32.SHGetFolderPathW(None, 28, None, 0, buffer):
            raise PermissionDenied("the folder for this user's local application data is not to be found")
        return (f"{buffer.value}/ipcq",)

elif sys.platform == "linux":

    def _roots() -> tuple[str, ...]:
        return _roots_of(os.geteuid())  # which a process may change

    @cache
    def _roots_of(user: int) -> tuple[str, ...]:
        return f"/tmp/ipcq-{user}", f"/dev/shm/ipcq-{user}", f"/run/user/{user}/ipcq"  # whatever TMPDIR says

else:  # neither Linux nor Windows

    def _roots() -> tuple[str, ...]:
        return (f"/tmp/ipcq-{os.geteuid()}",)


def private_places(part: str = "") -> tuple[str, ...]:
    """Return where private directories may be, the first choice first; none of them has to exist."""
    return tuple(_inside(root, part) for root in _roots())


def private_directories(part: str = "") -> list[str]:
    """Return the private directories, or those of a part, that exist and are nobody else's.

    One of them may be on a read-only file system, and two of them may be the same directory.

    Raises:
        MessageQueueError: The system does not tell whether one exists.
    """
    homes = [(root, _inside(root, part)) for root in _roots()]
    return [home for root, home in homes if is_private(root) and (home == root or _is_private(root, home))]


def private_files(file: str, part: str = "") -> list[str]:
    """Return the paths of a file of this name in the private directories; cheaper than a look into each of them.

    Raises:
        MessageQueueError: The system does not tell whether it exists.
    """
    found = []
    for root in _roots():
        home = _inside(root, part)
        path = f"{home}/{file}"
        if _status(root, path) is not None and is_private(root) and (home == root or _is_private(root, home)):
            found.append(path)
    return found


def make_private_directories(part: str = "") -> list[str]:
    """Make the private directories where they are missing, and return those that this process can write to.

    Args:
        part: Name of a directory inside each, which is made as well and returned.

    Raises:
        PermissionDenied: None can be used: each is missing, read-only, somebody else's or open to others.
        NoSpace: None can be used, and one of them is only full.
        LimitExceeded: Too many files are open.
    """
    return list(each_usable(lambda root: _made(root, part)))


def make_private_directory(part: str = "") -> str:
    """Make the first private directory that can be used, and return its path; otherwise as `make_private_directories`.

    What others have to find is looked for in all of `private_directories`: they may not be able to use this one.
    """
    return next(each_usable(lambda root: _made(root, part)))


def each_usable(attempt: Callable[[str], T]) -> Iterator[T]:
    """Yield what an attempt returns in each place that can be used.

    Raises:
        MessageQueueError: None can be used, with the reasons; or an attempt failed for a reason that may be gone soon.
    """
    # What makes the errors anew: their tracebacks lead to this frame and so to this list. That cycle would keep alive
    # the error that the caller is handling, and all that hangs on it.
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
    """Tell whether a refusal is a reason to pass a place over."""
    return isinstance(error, PermissionDenied) or (isinstance(error, NoSpace) and error.errno in _FULL)


def _none_usable(refusals: list[MessageQueueError]) -> MessageQueueError:
    # A full place is the easiest to make usable.
    first = next((error for error in refusals if isinstance(error, NoSpace)), refusals[0])
    if len(refusals) == 1:
        return first
    told = "; ".join(error.detail for error in refusals)
    return type(first)(f"ipcq needs one directory for its locks and can use none of these: {told}", errno=first.errno)


def make(root: str) -> None:
    """Make one private directory where it is missing.

    Raises:
        PermissionDenied: It cannot be made, or something is there that belongs to somebody else or is open to others.
        NoSpace: The file system is full.
    """
    _make(root, root)


def _made(root: str, part: str) -> str:
    path = _inside(root, part)
    for each in dict.fromkeys((root, path)):
        _make(root, each)
    if writable(path):
        return path
    try:
        if read_only(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    except OSError as error:
        reraise_from_handler(error)
        raise refusal(error, f"{path} cannot be written to", root, path) from error
    raise PermissionDenied(f"{path} cannot be written to: chmod 700 {path}", errno=errno.EACCES)


def _inside(root: str, part: str) -> str:
    return f"{root}/{part}" if part else root


def _make(root: str, path: str) -> None:
    try:
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            try:
                os.mkdir(path, 0o700)
                os.chmod(path, 0o700)  # the umask may have taken bits away
            except FileExistsError:
                pass
            found = os.lstat(path)
        # The place is sticky, so nobody else can exchange the directory after this check.
    except OSError as error:
        reraise_from_handler(error)
        raise refusal(error, f"{path} cannot be made", root, path) from error
    _check(path, found)


def is_private(root: str) -> bool:
    """Tell whether a private directory is there and nobody else's.

    Raises:
        MessageQueueError: The system does not tell.
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
    """Return the status of what is at a path, or None if nothing is or this user may not see it."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except OSError as error:
        reraise_from_handler(error)
        raise refusal(error, f"{path} cannot be looked at", root, path) from error


def writable(path: str) -> bool:
    """Tell whether this process may make files in a directory."""
    return os.access(path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def read_only(path: str) -> bool:
    """Tell whether a directory is on a read-only file system."""
    return hasattr(os, "statvfs") and bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def refusal(error: OSError, what: str, root: str, path: str) -> MessageQueueError:
    """Return what the system's refusal means at a path in a private directory, or of that directory."""
    number, base = error.errno, os.path.dirname(root)
    if number in (errno.EMFILE, errno.ENFILE):
        return too_many_descriptors(number)
    if number == errno.ENOMEM:
        return NoSpace(f"{what}: free some memory and try again", errno=number)
    if number in _FULL:
        return NoSpace(f"{what} ({error.strerror}): free some space in {base}", errno=number)
    way = f"have it removed (sudo rm -r {path}), and ipcq makes it anew"
    if number == errno.EROFS:
        way = f"mount a tmpfs on {base}"
    elif number == errno.ENOENT and path == root:
        way = f"mount a tmpfs on {base}"
        if base.startswith("/run/user/"):
            way = f"log in, or sudo loginctl enable-linger {_user()}"
    elif number in (errno.EACCES, errno.EPERM) and path == root:
        way = f"let user {_user()} write to {base} (ls -ld {base} shows who may)"
    elif number not in (errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO):
        return MessageQueueError(f"{what}: {error.strerror}", errno=number)
    return PermissionDenied(f"{what} ({error.strerror}): {way}", errno=number)


def _user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0


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
                f"{found.st_uid} with mode {mode:04o}: have it removed (sudo rm -r {path}), and ipcq makes it anew",
                errno=errno.EACCES if stat.S_ISDIR(found.st_mode) else errno.ENOTDIR,
            )
