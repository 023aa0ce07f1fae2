"""Finds and removes what a test or a program leaves behind: descriptors, processes, queues and files."""

import ctypes
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

#: The private directories of the name locks, one for each user; ipcq never removes them.
LOCKS = re.compile(r"ipcq-\d+")


@cache
def mqueues() -> int | None:
    """Return a descriptor of the root of the kernel's mqueue file system, without mounting it anywhere.

    None if this user may not do that and it is not mounted at /dev/mqueue either.
    """
    if sys.platform != "linux":
        return None
    system = ctypes.CDLL(None, use_errno=True).syscall
    context = system(430, b"mqueue", 1)  # fsopen(2), FSOPEN_CLOEXEC
    if context >= 0:
        mount = -1
        if system(431, context, 6, None, None, 0) == 0:  # fsconfig(2), FSCONFIG_CMD_CREATE
            mount = system(432, context, 1, 0)  # fsmount(2), FSMOUNT_CLOEXEC
        os.close(context)
        if mount >= 0:
            root = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount)
            os.close(mount)
            return root
    with suppress(OSError):
        return os.open("/dev/mqueue", os.O_RDONLY | os.O_DIRECTORY)
    return None


#: Pids of servers that a fixture of a module starts, and tests restart.
servers: set[str] = set()


def left(owner: int | None = None) -> set[str]:
    """Return the descriptors, children, queues and files that this process has now.

    Args:
        owner: A pid: only files and queues whose names contain it. None: all files and queues of ipcq.
    """
    found = {f"descriptor {each}" for each in descriptors()}
    found |= {f"process {each}" for each in children()}
    return {thing for thing in found if not kept_by_the_c_library(thing)} | named(owner)


def named(owner: int | None = None) -> set[str]:
    """Return the files and message queues that exist: those of one process, or all of ipcq."""
    directory = mqueues()
    names = [] if directory is None else [("message queue ", name) for name in os.listdir(directory)]
    for place in ("/dev/shm", "/tmp"):
        with suppress(FileNotFoundError):
            names += [(f"{place}/", name) for name in os.listdir(place) if name.startswith("ipcq")]
    ours = re.compile("" if owner is None else rf"(?<!\d){owner}(?!\d)")
    return {kind + name for kind, name in names if ours.search(name) and not LOCKS.fullmatch(name)}


def remove(things: Iterable[str]) -> None:
    """Remove the queues and files and kill the processes that `left` returned; descriptors stay open."""
    for thing in things:
        kind, _, which = thing.rpartition(" ")
        with suppress(OSError):
            if kind == "process":
                os.kill(int(which), signal.SIGKILL)
                os.waitpid(int(which), 0)
            elif kind == "message queue":
                os.unlink(which, dir_fd=mqueues())
            elif kind != "descriptor":
                shutil.rmtree(thing) if os.path.isdir(thing) else os.unlink(thing)


def descriptors() -> set[str]:
    if sys.platform == "win32":  # cannot list them
        return set()
    place = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    listed = os.listdir(place)
    # Leave out the descriptor of the listing itself: it is closed by now, and another file may get its number.
    return {each for each in listed if os.path.exists(f"{place}/{each}")} - kept("_fd", "_forkserver_alive_fd")


def children() -> set[str]:
    pids: set[str] = set()
    with suppress(OSError):  # only Linux has it
        for task in os.listdir("/proc/self/task"):
            with suppress(OSError), open(f"/proc/self/task/{task}/children", encoding="ascii") as file:
                pids |= set(file.read().split())
    return {each for each in pids - servers - kept("_pid", "_forkserver_pid") if not ended(each)}


def kept(tracker: str, server: str) -> set[str]:
    """Return the descriptors or pids of multiprocessing's resource tracker and fork server, which it keeps."""
    owners = (("resource_tracker", "_resource_tracker", tracker), ("forkserver", "_forkserver", server))
    modules = ((sys.modules.get(f"multiprocessing.{module}"), owner, fact) for module, owner, fact in owners)
    return {str(getattr(getattr(module, owner), fact, None)) for module, owner, fact in modules if module}


def ended(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def described(thing: str) -> str:
    kind, _, which = thing.rpartition(" ")
    with suppress(OSError):
        if kind == "descriptor":
            return f"{thing} of {os.readlink(f'/proc/self/fd/{which}')}"
        if kind == "process":
            command = Path("/proc", which, "cmdline").read_bytes().replace(b"\0", b" ")
            return f"{thing}: {command.decode(errors='replace')}"
    return thing


def kept_by_the_c_library(thing: str) -> bool:
    """Return whether it is the netlink socket that glibc opens at a process's first mq_notify(3) and keeps."""
    kind, _, which = thing.rpartition(" ")
    if kind != "descriptor":
        return False
    try:
        return os.readlink(f"/proc/self/fd/{which}").startswith("socket:") and is_netlink(int(which))
    except OSError:
        return False


def is_netlink(descriptor: int) -> bool:
    with socket.socket(fileno=os.dup(descriptor)) as end:
        return end.family == socket.AF_NETLINK
