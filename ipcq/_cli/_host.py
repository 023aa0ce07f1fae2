"""Checks of `ipcq doctor` that concern every backend."""

import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import ipcq
from ipcq._cli._signals import rest
from ipcq._process import private_directory

OK, NOTE, WARNING, ERROR = "ok", "note", "warning", "error"

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - only inspected; nothing is created there
#: Bytes of shared memory that should be free: a few queues of the default size.
SPARE = 8 << 20

#: The usual RLIMIT_NOFILE; each queue needs at least one descriptor.
DESCRIPTORS = 1024

#: Directories of logind.conf, highest precedence first (logind.conf(5)).
SYSTEMD = tuple(map(Path, ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")))
#: Exists if systemd is running (sd_booted(3)).
BOOTED = Path("/run/systemd/system")
LINGER = Path("/var/lib/systemd/linger")
LOGIN_DEFS = Path("/etc/login.defs")

#: A queue of `ipcq demo` or `ipcq bench`, with the pid of its creator.
OURS = re.compile(r"/ipcq-(demo|bench)-(\d+)-[0-9a-f]{8}")

#: Seconds within which creating or unlinking a name should finish.
BRIEF = 1.0


class Check(NamedTuple):
    """The result of one check."""

    severity: str
    subject: str
    text: str
    fix: str = ""
    """The command that fixes it; empty if nothing needs fixing."""


def check_name_lock() -> Iterator[Check]:
    """Check the directories of the name lock, and whether a process holds it for too long."""
    places = private_directory.private_places()
    checks = [_wrong(place) for place in places]
    for place, wrong in zip(places, checks, strict=True):
        if wrong is None:
            yield _check_usable(place)
        elif all(checks):
            yield wrong._replace(
                severity=ERROR, text=f"{wrong.text}; no other directory is usable, so no queue can be created"
            )
        elif os.path.isdir(os.path.dirname(place)):
            yield wrong
        else:  # common, and another directory is usable
            yield wrong._replace(severity=OK, fix="")


def _check_usable(path: str) -> Check:
    if not os.path.lexists(path):
        return Check(OK, "name lock", f"{path} does not exist yet; it is created when needed")
    return _check_holder(os.path.join(path, "names.lock")) or Check(
        OK, "name lock", f"{path} belongs to this user and has mode 0700"
    )


def _wrong(path: str) -> Check | None:
    """Return why the directory cannot hold the name lock, or None if it can."""
    base = os.path.dirname(path)
    try:
        found = os.lstat(path)
    except OSError:
        return _wrong_base(path, base)
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode):
        wrong = "is not a directory"
    elif found.st_uid != os.geteuid():
        wrong = f"belongs to user {found.st_uid}, not to this one ({os.geteuid()})"
    elif mode & 0o077:
        wrong = f"has mode {mode:04o}, which grants access to other users"
    elif private_directory.writable(path):
        return None
    elif private_directory.read_only(path):
        return Check(NOTE, "name lock", f"{path} is on a read-only file system", _tmpfs(base))
    else:
        return Check(
            NOTE, "name lock", f"{path} has mode {mode:04o}, which denies this user access", f"chmod 700 {path}"
        )
    return Check(WARNING, "name lock", f"{path} {wrong}", f"sudo rm -r {path}")


def _wrong_base(path: str, base: str) -> Check | None:
    if not os.path.isdir(base):
        linger = f"sudo loginctl enable-linger {os.geteuid()}"
        fix = linger if base.startswith("/run/user/") else f"sudo mkdir -p {base} && {_tmpfs(base)}"
        return Check(NOTE, "name lock", f"{path} cannot be created: {base} does not exist", fix)
    if private_directory.writable(base):
        return None
    if private_directory.read_only(base):
        return Check(NOTE, "name lock", f"{path} cannot be created: {base} is read-only", _tmpfs(base))
    text = f"{path} cannot be created: this user may not write to {base}"
    return Check(NOTE, "name lock", text, f"sudo chmod 1777 {base}")


def _tmpfs(base: str) -> str:
    return f"sudo mount -t tmpfs -o mode=1777 tmpfs {base}   # in a container: --tmpfs {base}"


def _check_holder(path: str) -> Check | None:
    held = _locks(path)
    if not held:
        return None
    rest(BRIEF)
    if not held & _locks(path):
        return None
    return Check(
        WARNING,
        "name lock",
        f"a process has been creating or removing a queue for {BRIEF:g} s or longer, perhaps because it is stopped, "
        "and blocks other processes on that name",
        f"sudo fuser -v {path}",
    )


def _locks(path: str) -> set[tuple[str, ...]]:
    """Return the locks that are held on a file (``proc_locks(5)``)."""
    try:
        found = os.stat(path)
        lines = [tuple(line.split()) for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return set()
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    # Drop the sequence number, which changes. A line with an arrow is a waiter.
    return {line[1:] for line in lines if place in line and line[1] != "->"}


def check_descriptors() -> Iterator[Check]:
    """Check how many files a process may have open."""
    import resource

    most, hard = (
        sys.maxsize if each == resource.RLIM_INFINITY else each for each in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    if most >= DESCRIPTORS:
        yield Check(OK, "open files", f"RLIMIT_NOFILE is {DESCRIPTORS} or more")
    else:
        yield Check(
            WARNING,
            "open files",
            f"RLIMIT_NOFILE allows a process {most} open files, and each queue needs at least one",
            f"ulimit -n {DESCRIPTORS}" if hard >= DESCRIPTORS else f"sudo prlimit --pid $$ --nofile={DESCRIPTORS}",
        )


def check_shared_memory() -> Iterator[Check]:
    """Check size and free space of /dev/shm."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError as error:
        yield Check(
            NOTE,
            "shared memory",
            f"{SHARED_MEMORY} is not accessible ({error.strerror}), so no queue can use shared memory",
            f"sudo mkdir -p {SHARED_MEMORY} && sudo mount -t tmpfs -o mode=1777 tmpfs {SHARED_MEMORY}",
        )
        return
    size, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    text = f"{SHARED_MEMORY} has {free >> 20:,} MiB of {size >> 20:,} MiB free"
    if free < SPARE:
        larger = max(2 * size, 4 * SPARE) >> 20
        yield Check(
            WARNING,
            "shared memory",
            text,
            f"sudo mount -o remount,size={larger}M {SHARED_MEMORY}   # in a container: --shm-size={larger}m",
        )
    elif private_directory.read_only(SHARED_MEMORY):
        yield Check(
            WARNING, "shared memory", f"{SHARED_MEMORY} is read-only", f"sudo mount -o remount,rw {SHARED_MEMORY}"
        )
    elif not os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
        yield Check(
            WARNING,
            "shared memory",
            f"{SHARED_MEMORY} is not writable by this user",
            f"sudo chmod 1777 {SHARED_MEMORY}",
        )
    else:
        yield Check(OK, "shared memory", text)


def check_remove_ipc() -> Iterator[Check]:
    """Check whether systemd removes this user's queues when the last session ends (``logind.conf(5)``)."""
    user = os.geteuid()
    if not BOOTED.is_dir():
        yield Check(OK, "RemoveIPC", "systemd is not running")
    elif user <= _last_system_user():
        yield Check(OK, "RemoveIPC", f"user {user} is a system user, so systemd keeps its queues")
    elif (LINGER / _name(user)).exists():
        yield Check(OK, "RemoveIPC", f"user {user} lingers, so systemd keeps its queues")
    else:
        removes, where = _remove_ipc()
        if removes:
            yield Check(
                WARNING,
                "RemoveIPC",
                f"systemd removes the queues of user {user} in the kernel and in {SHARED_MEMORY} when its last session "
                f"ends ({where})",
                f"sudo loginctl enable-linger {_name(user)}",
            )
        else:
            yield Check(OK, "RemoveIPC", f"systemd keeps the queues of users ({where})")


def _name(user: int) -> str:
    try:
        import pwd  # here, because not every platform has it

        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _last_system_user() -> int:
    with suppress(OSError):
        if found := re.search(r"^\s*SYS_UID_MAX\s+(\d+)", LOGIN_DEFS.read_text(errors="replace"), re.MULTILINE):
            return int(found[1])
    return 999


def _remove_ipc() -> tuple[bool, str]:
    """Return the setting and its origin. The last occurrence wins; drop-ins, sorted by name, follow the main file."""
    removes, where = True, "RemoveIPC=yes by default"
    mains = [place / "logind.conf" for place in SYSTEMD if (place / "logind.conf").exists()][:1]
    drops: dict[str, Path] = {}
    for place in SYSTEMD:
        for path in place.glob("logind.conf.d/*.conf"):
            drops.setdefault(path.name, path)
    for path in (*mains, *(drops[name] for name in sorted(drops))):
        with suppress(OSError):
            for value in re.findall(r"^\s*RemoveIPC\s*=\s*(\w+)", path.read_text(errors="replace"), re.MULTILINE):
                removes = value.lower() in ("1", "yes", "y", "true", "t", "on")
                where = f"RemoveIPC={value} in {path}"
    return removes, where


def check_leftovers() -> Iterator[Check]:
    """Check for queues of demos and benchmarks that were killed together with every process that would clean up."""
    for name in (each.name for each in ipcq.queues()):
        if (made := OURS.fullmatch(name)) and _dead(int(made[2])):
            yield Check(
                WARNING,
                "leftover",
                f"queue {name} was left by a {made[1]} whose process {made[2]} is dead",
                f"ipcq rm --yes {name}",
            )


def _dead(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False
