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
from ipcq._cli._signals import sleep_in_slices
from ipcq._process import private_directory

OK, NOTE, WARNING, ERROR = "ok", "note", "warning", "error"

SHARED_MEMORY = "/dev/shm"  # noqa: S108  # only inspected; nothing is created there
#: Shared memory that should be free: a few queues of the default size.
SPARE_BYTES = 8 << 20

#: The usual RLIMIT_NOFILE, in files; each queue needs at least one descriptor.
USUAL_DESCRIPTORS = 1024

#: Directories of logind.conf, highest precedence first (logind.conf(5)).
SYSTEMD_DIRECTORIES = tuple(map(Path, ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")))
#: Exists if systemd is running (sd_booted(3)).
SYSTEMD_RUNNING = Path("/run/systemd/system")
LINGERING_USERS = Path("/var/lib/systemd/linger")
LOGIN_DEFS = Path("/etc/login.defs")

#: A queue of `ipcq demo` or `ipcq bench`, with the pid of its creator.
OWN_NAME = re.compile(r"/ipcq-(demo|bench)-(\d+)-[0-9a-f]{8}")

#: A process should not hold the name lock for longer than this.
HOLD_SECONDS = 1.0


class Check(NamedTuple):
    """The result of one check."""

    severity: str
    subject: str
    text: str
    fix: str = ""
    """The command that fixes it; empty if nothing needs fixing."""


def check_name_lock() -> Iterator[Check]:
    """Check the directories of the name lock, and whether a process holds it for too long."""
    directories = private_directory.private_places()
    defects = [_defect_of(each) for each in directories]
    for directory, defect in zip(directories, defects, strict=True):
        if defect is None:
            yield _check_usable(directory)
        elif all(defects):
            yield defect._replace(
                severity=ERROR, text=f"{defect.text}; no other directory is usable, so no queue can be created"
            )
        elif os.path.isdir(os.path.dirname(directory)):
            yield defect
        else:  # common, and another directory is usable
            yield defect._replace(severity=OK, fix="")


def _check_usable(path: str) -> Check:
    if not os.path.lexists(path):
        return Check(OK, "name lock", f"{path} does not exist yet; it is created when needed")
    return _check_holder(os.path.join(path, "names.lock")) or Check(
        OK, "name lock", f"{path} belongs to this user and has mode 0700"
    )


def _defect_of(path: str) -> Check | None:
    """Return why the directory cannot hold the name lock, or None if it can."""
    base = os.path.dirname(path)
    try:
        found = os.lstat(path)
    except OSError:
        return _defect_of_parent(path, base)
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode):
        defect = "is not a directory"
    elif found.st_uid != os.geteuid():
        defect = f"belongs to user {found.st_uid}, not to this one ({os.geteuid()})"
    elif mode & 0o077:
        defect = f"has mode {mode:04o}, which grants access to other users"
    elif private_directory.writable(path):
        return None
    elif private_directory.read_only(path):
        return Check(NOTE, "name lock", f"{path} is on a read-only file system", _tmpfs(base))
    else:
        return Check(
            NOTE, "name lock", f"{path} has mode {mode:04o}, which denies this user access", f"chmod 700 {path}"
        )
    return Check(WARNING, "name lock", f"{path} {defect}", f"sudo rm -r {path}")


def _defect_of_parent(path: str, base: str) -> Check | None:
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
    before = _locks(path)
    if not before:
        return None
    sleep_in_slices(HOLD_SECONDS)
    if not before & _locks(path):
        return None
    return Check(
        WARNING,
        "name lock",
        f"a process has been creating or removing a queue for {HOLD_SECONDS:g} s or longer, perhaps because it is "
        "stopped, and blocks other processes on that name",
        f"sudo fuser -v {path}",
    )


def _locks(path: str) -> set[tuple[str, ...]]:
    """Return the locks that are held on a file (``proc_locks(5)``)."""
    try:
        found = os.stat(path)
        lines = [tuple(line.split()) for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return set()
    file = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    # Drop the sequence number, which changes. A line with an arrow is a waiter.
    return {line[1:] for line in lines if file in line and line[1] != "->"}


def check_descriptors() -> Iterator[Check]:
    """Check how many files a process may have open."""
    import resource

    soft, hard = (
        sys.maxsize if each == resource.RLIM_INFINITY else each for each in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    if soft >= USUAL_DESCRIPTORS:
        yield Check(OK, "open files", f"RLIMIT_NOFILE is {USUAL_DESCRIPTORS} or more")
    else:
        yield Check(
            WARNING,
            "open files",
            f"RLIMIT_NOFILE allows a process {soft} open files, and each queue needs at least one",
            f"ulimit -n {USUAL_DESCRIPTORS}"
            if hard >= USUAL_DESCRIPTORS
            else f"sudo prlimit --pid $$ --nofile={USUAL_DESCRIPTORS}",
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
    if free < SPARE_BYTES:
        larger = max(2 * size, 4 * SPARE_BYTES) >> 20
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
    if not SYSTEMD_RUNNING.is_dir():
        yield Check(OK, "RemoveIPC", "systemd is not running")
    elif user <= _last_system_user():
        yield Check(OK, "RemoveIPC", f"user {user} is a system user, so systemd keeps its queues")
    elif (LINGERING_USERS / _user_name(user)).exists():
        yield Check(OK, "RemoveIPC", f"user {user} lingers, so systemd keeps its queues")
    else:
        removes, origin = _remove_ipc()
        if removes:
            yield Check(
                WARNING,
                "RemoveIPC",
                f"systemd removes the queues of user {user} in the kernel and in {SHARED_MEMORY} when its last session "
                f"ends ({origin})",
                f"sudo loginctl enable-linger {_user_name(user)}",
            )
        else:
            yield Check(OK, "RemoveIPC", f"systemd keeps the queues of users ({origin})")


def _user_name(user: int) -> str:
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
    removes, origin = True, "RemoveIPC=yes by default"
    mains = [each / "logind.conf" for each in SYSTEMD_DIRECTORIES if (each / "logind.conf").exists()][:1]
    drop_ins: dict[str, Path] = {}
    for directory in SYSTEMD_DIRECTORIES:
        for path in directory.glob("logind.conf.d/*.conf"):
            drop_ins.setdefault(path.name, path)
    for path in (*mains, *(drop_ins[name] for name in sorted(drop_ins))):
        with suppress(OSError):
            for value in re.findall(r"^\s*RemoveIPC\s*=\s*(\w+)", path.read_text(errors="replace"), re.MULTILINE):
                removes = value.lower() in ("1", "yes", "y", "true", "t", "on")
                origin = f"RemoveIPC={value} in {path}"
    return removes, origin


def check_leftovers() -> Iterator[Check]:
    """Check for queues of demos and benchmarks that were killed together with every process that would clean up."""
    for name in (each.name for each in ipcq.queues()):
        if (match := OWN_NAME.fullmatch(name)) and _is_dead(int(match[2])):
            yield Check(
                WARNING,
                "leftover",
                f"queue {name} was left by a {match[1]} whose process {match[2]} is dead",
                f"ipcq rm --yes {name}",
            )


def _is_dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False
