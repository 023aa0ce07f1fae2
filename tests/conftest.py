"""For every test: it leaves nothing behind, and in CI it is not skipped because a prerequisite is missing."""

import gc
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from leftovers import described, left, mqueues, remove
from processes.needs import WITHOUT

# Here, because this must happen before the first import, in whichever test that is.
pytest.register_assert_rewrite("ipcq.testing.contract")

CI = os.environ.get("CI") == "true"

#: Seconds that leftovers get to disappear on their own.
GRACE = 5.0

#: The reasons of skips that are not gaps: a capability that the backend does not claim, in the words of the contract
#: suite; a feature of a later Python or of another platform; and pairs of parameters that leave nothing to test.
BY_DESIGN = re.compile(
    r"(Skipped: )?(capabilities\.|.* came with Python 3\.\d+$|opening and closing need no step|msgspec writes "
    r"|backend '\w+' cannot be used here: it works on .*, this is \w+$|could not import '(pty|resource)'"
    r"|Windows has no |(peers are|PyInstaller is|the server is) installed on Linux alone|\S+ has wheels for x86-64 "
    r"|the ratios were measured with |got empty parameter set for \(pair\))"
)

#: The reason of a skip because of a library that was hidden on purpose.
LEFT_OUT = re.compile(rf"cannot be used here without ({'|'.join(WITHOUT)})$") if WITHOUT else None

#: The error text for a backend that was requested by name and is hidden.
HIDDEN = re.compile(rf"backend '({'|'.join(WITHOUT)})': no installed distribution provides it") if WITHOUT else None


#: Set for a test that failed before its leftovers were checked.
FAILED = pytest.StashKey[bool]()


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a descriptor, a process, a message queue or a file behind.

    Leftovers are removed, so that later tests do not fail because of them. A test that has already failed does not
    fail again.
    """
    mqueues()
    # Outside CI, others may use ipcq at the same time: only names with this process's pid are certainly ours.
    ours = None if CI else os.getpid()
    before = left(ours)
    yield
    over = left(ours) - before
    if over:
        until = time.monotonic() + (0 if request.node.stash.get(FAILED, False) else GRACE)
        gc.collect()
        while over and time.monotonic() < until:
            time.sleep(0.01)
            gc.collect()  # again: a thread may keep a cycle until it has ended
            over = left(ours) - before
    if over:
        told = ", ".join(sorted(map(described, over)))
        remove(over)
        if not request.node.stash.get(FAILED, False):
            pytest.fail(f"the test left behind: {told}")


def pytest_addoption(parser: pytest.Parser) -> None:
    # Here, because pytest takes options from the top conftest only.
    parser.addoption("--kills", type=int, help="kills per storm")
    parser.addoption("--operations", type=int, help="operations per long history")


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background job ignores SIGINT, and a program under nohup ignores SIGHUP. Programs that a test starts
    # and interrupts would inherit that.
    for name, handler in {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}.items():
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture
def memory() -> str:
    """Return the name of the in-process backend; tests with this fixture are left out if that backend is hidden."""
    return "memory"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Ignore the test files that are named after a hidden backend."""
    return True if any(re.fullmatch(rf"test_{name}(_\w+)?\.py", collection_path.name) for name in WITHOUT) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests that use a hidden backend: as a parameter, as a fixture, or in a `needs` mark."""
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
    item.stash[FAILED] = report.failed or item.stash.get(FAILED, False)
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
