"""The files of queues, and the directories that they are in.

A queue is a directory ``.ipcq-TOKEN`` with the database `db`, the FIFOs `messages` and `space`, and the file `owners`.
The queue's name is a symbolic link to it, which is made last: so a queue exists whole or not at all, and of any number
of creators one succeeds. A token is never used again. So SQLite never meets the journal of another database under a
name that it knows, and a channel recognises its queue by the link.
"""

import errno
import fcntl
import os
import pwd
import re
import secrets
import time
from contextlib import suppress
from functools import cache, partial
from time import monotonic
from typing import Final

from ipcq.backend import pause, reraise_from_handler, suppressed, translated
from ipcq.errors import InvalidArgument, PermissionDenied, QueueNotFound, TimedOutError, Unsupported
from ipcq_sqlite._descriptor import BriefFile

#: The database, and the files in which SQLite keeps the newest changes and their index.
DATABASE: Final = "db"
JOURNAL: Final = "db-wal"
INDEX: Final = "db-shm"
#: The FIFOs: one has bytes while a get would not wait, the other gets one when space becomes free.
MESSAGES: Final = "messages"
SPACE: Final = "space"
#: Its bytes are locked by the channels that have leases.
OWNERS: Final = "owners"

_TOKEN: Final = re.compile(r"\.ipcq-[0-9a-f]{32}")

#: File systems of other machines, as /proc/self/mountinfo names them: SQLite's shared memory does not reach those.
_REMOTE: Final = frozenset(
    (
        *("9p", "afs", "ceph", "cifs", "gfs2", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs"),
        *("fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
    )
)

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

#: Seconds for which an unlink waits for another one.
_PATIENCE: Final = 1.0

#: A leftover has not changed for so many seconds.
_YOUNG_SECONDS: Final = 10.0

#: For `translated`: what the system's errors mean here.
ERRORS: Final = {
    errno.EROFS: partial(PermissionDenied, "its file system is mounted read-only: remount it, or choose another place"),
}


def default() -> str:
    """Return the directory of this user's queues. No environment variable changes it, so all processes agree.

    Raises:
        PermissionDenied: This user has no home directory.
    """
    found = _default()
    if found is None:
        raise PermissionDenied(
            f"user {os.geteuid()} has no home directory in the user database: name a directory in the URL, "
            "such as sqlite:///var/lib/app/jobs"
        )
    return found


@cache
def _home_of(user: int) -> str:
    return pwd.getpwuid(user).pw_dir


def _default() -> str | None:
    try:
        home = _home_of(os.geteuid())  # looked up each time, because a process may change it
    except KeyError:
        return None
    return f"{home}/.local/state/ipcq/sqlite" if os.path.isabs(home) else None


def canonical(directory: str) -> str | None:
    """Return the real path of a directory; None if it is the default one."""
    real, default = os.path.realpath(directory), _default()
    return None if default is not None and real == os.path.realpath(default) else real


def link_of(directory: str, name: str) -> str:
    # In UTF-8, whatever the locale.
    return f"{directory}/{os.fsdecode(name[1:].encode())}"


def target_of(link: str) -> str | None:
    """Return the directory to which a queue's name leads, without its path; None if it is no queue's name."""
    try:
        target = os.readlink(link)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:  # it is no link
            raise
        return None
    return target if _TOKEN.fullmatch(target) else None


def missing_file(path: str) -> str:
    """Return a file that the directory of a queue lacks; empty if it has all that are made with the queue."""
    for file in (DATABASE, MESSAGES, SPACE):
        try:
            os.stat(f"{path}/{file}")
        except FileNotFoundError:
            return file
        except OSError:  # it may be there
            continue
    return ""


def exists(directory: str | None, name: str) -> bool:
    directory = directory or _default()
    if directory is None:
        return False
    with translated(ERRORS):
        return target_of(link_of(directory, name)) is not None


def names(directory: str | None) -> list[str]:
    directory = directory or _default()
    found = []
    for entry in [] if directory is None else listed(directory):
        with suppressed(OSError, UnicodeEncodeError, UnicodeDecodeError):
            name = "/" + os.fsencode(entry).decode()
            if target_of(link_of(directory or "", name)) is not None:
                found.append(name)
    return found


def listed(directory: str) -> list[str]:
    """Return the entries of a directory; none if it does not exist."""
    with translated(ERRORS):
        try:
            return os.listdir(directory)
        except (FileNotFoundError, NotADirectoryError):
            return []


def unlink(directory: str, name: str, incarnation: str = "") -> None:
    """Remove a queue; if an incarnation is given, only that one."""
    with translated(ERRORS):
        link = link_of(directory, name)
        try:
            file = BriefFile(directory, _DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            raise QueueNotFound from None
        with file as descriptor:
            _lock(descriptor)
            target = target_of(link)
            if target is None or incarnation not in ("", target):
                raise QueueNotFound
            os.unlink(link)
            os.fsync(descriptor)
    queue = f"{directory}/{target}"
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
    for fifo in (MESSAGES, SPACE):  # pollers look, and find that it is gone
        with (
            suppressed(OSError),
            BriefFile(f"{queue}/{fifo}", flags) as descriptor,
        ):  # nobody has it open, or it is full
            os.write(descriptor, b"!")
    remove(queue)


def _lock(descriptor: int) -> None:
    """Keep others from removing queues until the descriptor is closed: what is read and removed is the same queue.

    Raises:
        TimedOutError: Another process keeps the lock.
    """
    since = monotonic()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            reraise_from_handler(error)
            if monotonic() - since > _PATIENCE:
                raise TimedOutError(
                    f"another process has been removing a queue for {_PATIENCE:g} s: continue or end it"
                ) from error
            pause(since, since + _PATIENCE)
        else:
            return


def remove(path: str) -> None:
    """Remove the directory of a queue that has no name; what stays is a leftover."""
    # Not `shutil.rmtree`, which leaves a descriptor open if a signal handler raises.
    with suppressed(OSError), BriefFile(path, _DIRECTORY | os.O_NOFOLLOW) as descriptor:
        for file in os.listdir(descriptor):
            with suppressed(OSError):
                os.unlink(file, dir_fd=descriptor)
        os.rmdir(path)


def prepare(directory: str) -> None:
    """Make sure that a directory can have queues, and remove what killed processes left in it.

    Raises:
        InvalidArgument: It does not exist, and is not the default one, which is created.
        Unsupported: It is on a file system of another machine.
    """
    with translated(ERRORS):
        if directory == _default():
            _make(directory)
        check(directory)
        for leftover in leftovers(directory):
            remove_leftover(directory, leftover)


def check(directory: str) -> None:
    """Check that a directory can have queues.

    Raises:
        InvalidArgument: It does not exist.
        Unsupported: It is on a file system of another machine.
    """
    if not os.path.isdir(directory):
        raise InvalidArgument(f"{directory} is no directory: mkdir -p {directory}")
    kind = file_system(directory)
    if kind in _REMOTE:
        raise Unsupported(
            f"{directory} is on a network file system ({kind}), where SQLite cannot keep a queue safe: "
            "choose a directory on a disk of this machine"
        )


def _make(directory: str) -> None:
    parent = os.path.dirname(directory)
    if not os.path.isdir(directory):
        _make(parent)
        with suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        synced(parent)


def file_system(directory: str) -> str:
    """Return the type of the file system that has this directory; empty if it is unknown."""
    number = os.stat(directory).st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    # 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            words = line.split()
            if words[2] == device:
                return words[words.index("-") + 1]
    return ""


def new_directory(directory: str) -> str:
    """Create the directory of a new queue, and return its name."""
    target = f".ipcq-{secrets.token_hex(16)}"
    os.mkdir(f"{directory}/{target}", 0o700)
    os.chmod(f"{directory}/{target}", 0o700)  # the umask may have cleared bits
    return target


def publish(directory: str, name: str, target: str) -> None:
    """Give a queue its name.

    Raises:
        FileExistsError: The name is taken.
        PermissionDenied: Something that is not a queue has the name.
    """
    link = link_of(directory, name)
    try:
        os.symlink(target, link)
    except FileExistsError:
        if target_of(link) is None and os.path.lexists(link):
            raise PermissionDenied(f"{link} exists, but is no queue: choose another name or place") from None
        raise
    synced(directory)


def synced(path: str) -> None:
    """Write the entries of a directory to the disk."""
    with BriefFile(path, _DIRECTORY) as descriptor:
        os.fsync(descriptor)


def leftovers(directory: str) -> list[str]:
    """Return the directories without a name: killed processes left them, or they are being made or removed."""
    entries = listed(directory)  # in this order: a new queue gets its name after its directory
    targets = {entry for entry in entries if _TOKEN.fullmatch(entry) and not os.path.islink(f"{directory}/{entry}")}
    if targets:
        targets.difference_update(_named(directory))
    return sorted(targets)


def _named(directory: str) -> set[str | None]:
    return {target_of(f"{directory}/{entry}") for entry in listed(directory)}  # a name may look like a token


def remove_leftover(directory: str, target: str) -> None:
    """Remove such a directory, unless somebody is making it: its creator locks it, but not at once."""
    path = f"{directory}/{target}"
    with suppressed(OSError), BriefFile(path, _DIRECTORY) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if abs(time.time() - os.fstat(descriptor).st_mtime) > _YOUNG_SECONDS and target not in _named(directory):
            remove(path)
