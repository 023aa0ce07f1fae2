"""For every test: nothing of it is left behind, and where CI runs, nothing is skipped for want of a prerequisite."""

import ctypes
import gc
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

# Whichever test imports it first.
pytest.register_assert_rewrite("ipcq.testing.contract")

CI = os.environ.get("CI") == "true"

#: How long what is on its way out may take, in seconds.
GRACE = 5.0

#: The private directories of the lock for names stay, one for each user.
LOCKS = re.compile(r"ipcq-\d+")

#: A skip that is no gap, by its reason: an ability that a backend does not claim, as the suite for backends says it;
#: what only a later Python or another platform has; and pairs of parameters between which there is nothing to test.
BY_DESIGN = re.compile(
    r"(Skipped: )?(capabilities\.|.* came with Python 3\.\d+$|opening and closing need no step|msgspec writes "
    r"|backend '\w+' cannot be used here: it works on .*, this is \w+$|could not import '(pty|resource)'"
    r"|Windows has no |peers are installed on Linux alone|got empty parameter set for \(pair\))"
)

#: Bundled backends and libraries whose tests are left out, as `nox -s bare` and `nox -s hidden` ask for, separated by
#: blanks.
WITHOUT = os.environ.get("IPCQ_TESTS_WITHOUT", "").split()

#: A skip for want of such a library.
LEFT_OUT = re.compile(rf"cannot be used here without ({'|'.join(WITHOUT)})$") if WITHOUT else None

#: What an error says of a backend that was asked for by name and is not installed.
HIDDEN = re.compile(rf"backend '({'|'.join(WITHOUT)})': no installed distribution offers it") if WITHOUT else None


@cache
def mqueues() -> int | None:
    """Return a descriptor of the directory of the kernel's message queues, without mounting it anywhere.

    None where that needs a right that this user does not have, and it is not mounted either.
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


def left() -> set[str]:
    """Say what this process, its children and its queues hold of the system now."""
    found = {f"descriptor {each}" for each in descriptors()}
    found |= {f"process {each}" for each in children()}
    directory = mqueues()
    names = [] if directory is None else [("message queue ", name) for name in os.listdir(directory)]
    for place in ("/dev/shm", "/tmp"):
        with suppress(FileNotFoundError):
            names += [(f"{place}/", name) for name in os.listdir(place) if name.startswith("ipcq")]
    # Elsewhere than in CI others may be at work: then only what bears this process's number is ours for certain.
    ours = "" if CI else str(os.getpid())
    found |= {kind + name for kind, name in names if ours in name and not LOCKS.fullmatch(name)}
    return found


def descriptors() -> set[str]:
    if sys.platform == "win32":  # which has no list of them
        return set()
    place = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    listed = os.listdir(place)
    # The listing's own is among them, and its number may be something else's by the next time.
    return {each for each in listed if os.path.exists(f"{place}/{each}")} - kept("_fd", "_forkserver_alive_fd")


def children() -> set[str]:
    pids = set()
    for task in Path("/proc/self/task").glob("*"):  # Linux alone has it
        with suppress(OSError):
            pids |= set((task / "children").read_text().split())
    return {each for each in pids - kept("_pid", "_forkserver_pid") if not ended(each)}


def kept(tracker: str, server: str) -> set[str]:
    """Return what multiprocessing starts once and keeps: it is its own."""
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
    """Tell whether it is the netlink socket that glibc opens at a process's first mq_notify(3) and keeps."""
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


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fail a test that leaves a descriptor, a process, a message queue or a file behind."""
    mqueues()
    before = left()
    yield
    over = {thing for thing in left() - before if not kept_by_the_c_library(thing)}
    if over:
        gc.collect()
        until = time.monotonic() + GRACE
        while over and time.monotonic() < until:
            time.sleep(0.01)
            over = {thing for thing in left() - before if not kept_by_the_c_library(thing)}
    if over:
        pytest.fail("the test left behind: " + ", ".join(sorted(map(described, over))))


def pytest_addoption(parser: pytest.Parser) -> None:
    # Here, because pytest asks no conftest further down.
    parser.addoption("--kills", type=int, help="so many kills in each storm")
    parser.addoption("--operations", type=int, help="so many operations in each long history")


def pytest_configure(config: pytest.Config) -> None:
    # What a shell starts in the background ignores SIGINT, and what nohup starts SIGHUP, and so would each program that
    # a test starts and interrupts.
    for name, handler in {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}.items():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture
def memory() -> str:
    """Return the name of the backend within one process, for tests that may be left out where it is hidden."""
    return "memory"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out the files that are called after a backend that is left out."""
    return True if any(re.fullmatch(rf"test_{name}(_\w+)?\.py", collection_path.name) for name in WITHOUT) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that have a backend that is left out as a parameter, as a fixture, or as what they need."""
    concerned = [item for item in items if concerns(item, WITHOUT)]
    if concerned:
        config.hook.pytest_deselected(items=concerned)
        items[:] = [item for item in items if item not in set(concerned)]


def concerns(item: pytest.Item, backends: list[str]) -> bool:
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    # A parameter may be a pair of backends.
    named = [name for each in parameters for name in (each if isinstance(each, tuple) else (each,))]
    named += [*getattr(item, "fixturenames", ()), *(mark.args[0] for mark in item.iter_markers("needs"))]
    return any(name in named for name in backends)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    hidden = HIDDEN.search(report.longreprtext) if HIDDEN is not None and report.failed else None
    if hidden is not None:
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1] or 0, f"Skipped: backend {hidden[1]!r} is hidden")
        return report
    if CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not BY_DESIGN.match(reason) and not (LEFT_OUT and LEFT_OUT.search(reason)):
            report.outcome = "failed"
            report.longrepr = f"CI has every prerequisite, so nothing is skipped: {reason}"
    return report
