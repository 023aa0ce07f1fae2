"""Imports ipcq, and collects its tests, in an interpreter that lacks what Windows lacks; run by test_elsewhere.py.

CI tests the behaviour on Windows itself. This program finds modules that cannot even be imported there. It first loads
the standard library and third-party packages, which are not under test. Then it removes the modules and names that
CPython has only on POSIX, and imports ipcq without them.
"""

import asyncio
import concurrent.futures
import ctypes
import importlib.metadata
import multiprocessing.managers
import os
import select
import shutil
import signal
import socket
import sqlite3
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import click.testing
import coverage
import hypothesis.stateful
import msgpack
import msgspec
import pluggy
import pytest
import pytest_timeout
import rich.console
import rich.live
import rich.table
import sybil.parsers.myst

LOADED = (asyncio, concurrent.futures, ctypes, importlib.metadata, multiprocessing.managers, click.testing, coverage)
LOADED += (hypothesis.stateful, msgpack, msgspec, pluggy, pytest_timeout, rich.console, rich.live, rich.table)
LOADED += (sybil.parsers.myst, sqlite3, find_spec)

#: Modules of the standard library that exist only on POSIX, and packages for such systems.
MODULES = ("fcntl", "grp", "posix_ipc", "pty", "pwd", "resource", "syslog", "termios", "tty")

#: Names that modules have only on POSIX (the manuals' "Availability: Unix"), as far as they matter here.
NAMES = {
    os: """
        fchmod fchown fork forkpty getegid geteuid getgid getgroups getpgid getuid killpg memfd_create mkfifo
        pidfd_open posix_fallocate pread pwrite register_at_fork setgid setsid setuid statvfs uname waitid
        O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_TMPFILE WNOHANG
    """,
    select: "epoll poll",
    signal: """
        SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGSTOP SIGUSR1 SIGUSR2 alarm getitimer setitimer pthread_kill
        pthread_sigmask sigtimedwait sigwait
    """,
    socket: "AF_UNIX CMSG_LEN CMSG_SPACE MSG_CMSG_CLOEXEC MSG_DONTWAIT SCM_RIGHTS SO_PEERCRED recv_fds send_fds",
    time: "CLOCK_MONOTONIC CLOCK_REALTIME clock_gettime",
}


def become_windows() -> None:
    """Remove what Windows lacks, and add stubs for what only Windows has."""
    for module in MODULES:
        sys.modules[module] = None  # type: ignore[assignment]  # None marks a module that cannot be imported
    for module, names in NAMES.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    sys.modules["msvcrt"] = ModuleType("msvcrt")
    # shutil.which uses it there, from 3.12 on.
    vars(shutil)["_winapi"] = SimpleNamespace(NeedCurrentDirectoryForExePath=bool)
    for flag in ("O_BINARY", "O_NOINHERIT", "O_TEMPORARY", "O_TEXT"):
        setattr(os, flag, 0)
    sys.platform = "win32"


def main() -> None:
    """Exit with the module that cannot be imported."""
    become_windows()
    for module in ("ipcq", "ipcq.aio", "ipcq.compat", "ipcq.testing", "ipcq._cli"):
        if find_spec(module) is not None:
            found = import_module(module)
            for name in getattr(found, "__all__", ()):
                getattr(found, name)
    ipcq = import_module("ipcq")
    cli = import_module("ipcq._cli").cli
    for info in ipcq.backends():
        print(info.name, info.usable, info.reason)
        if info.capabilities is None:
            sys.exit(f"backend {info.name} cannot be imported: {info.reason}")
    for arguments in (["--help"], ["--version"], ["backends"], *([verb, "--help"] for verb in cli.commands)):
        result = click.testing.CliRunner().invoke(cli, arguments)
        if result.exit_code:
            sys.exit(f"ipcq {' '.join(arguments)}: {result.output}{result.exception!r}")
    # The modules loaded above can no longer be rewritten, and need not be.
    loaded = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    code = pytest.main(["--collect-only", "-qq", "--capture=sys", "-p", "no:cacheprovider", *loaded, "tests"])
    if code:
        sys.exit(f"pytest cannot collect the tests: {code!r}")


if __name__ == "__main__":
    main()
