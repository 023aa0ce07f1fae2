"""For the tests of the lock for names: private directories of the test, programs that use them, and squatted paths."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from core.conftest import HANG
from ipcq._opening.name_lock import name_lock
from ipcq._process import private_directory
from ipcq._process.deadline import PASSED
from ipcq.errors import TimedOutError

PRELUDE = """
import os, signal, sys, threading
from ipcq._process import forks
from ipcq._opening import name_lock as _namelock
from ipcq._process import private_directory
from ipcq._process.deadline import NEVER, PASSED
from ipcq._opening.name_lock import name_lock
private_directory._roots = lambda: (sys.argv[1],)
def say(word):
    os.write(1, (word + "\\n").encode())
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the private directory, which does not exist yet."""
    directory = tmp_path / "private"
    monkeypatch.setattr(private_directory, "_roots", lambda: (str(directory),))
    return directory


Process = subprocess.Popen[str]
Launch = Callable[[str], Process]


@pytest.fixture
def launch(directory: Path) -> Iterator[Launch]:
    """Return a function that starts a script with the same private directory; it is killed after the test."""
    with ExitStack() as ending:

        def start(script: str) -> Process:
            process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(script), str(directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )

            def end() -> None:
                # Its forked children are in its process group.
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                process.communicate(timeout=HANG)

            ending.callback(end)
            return process

        yield start


def hear(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


HOLDER = """
with name_lock("/jobs", NEVER):
    say("held")
    sys.stdin.readline()
say("free")
sys.stdin.readline()
"""


def taken(name: str = "/jobs") -> bool:
    try:
        with name_lock(name, PASSED):
            return False
    except TimedOutError:
        return True


def squat_with_a_link(directory: Path) -> None:
    elsewhere = directory.with_name("elsewhere")
    elsewhere.mkdir(0o700)
    directory.symlink_to(elsewhere)


def squat_with_a_dangling_link(directory: Path) -> None:
    directory.symlink_to(directory.with_name("nowhere"))


def squat_with_a_file(directory: Path) -> None:
    directory.write_text("")


def squat_with_a_pipe(directory: Path) -> None:
    os.mkfifo(directory, 0o700)


def squat_with_a_link_for_the_file(directory: Path) -> None:
    directory.mkdir(0o700)
    (directory / "names.lock").symlink_to(directory.with_name("victim"))


def squat_with_a_directory_for_the_file(directory: Path) -> None:
    (directory / "names.lock").mkdir(parents=True)
    directory.chmod(0o700)


SQUATS = [
    squat_with_a_link,
    squat_with_a_dangling_link,
    squat_with_a_file,
    squat_with_a_pipe,
    squat_with_a_link_for_the_file,
    squat_with_a_directory_for_the_file,
]


@pytest.fixture
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the paths of three private directories, which do not exist yet."""
    directories = [tmp_path / each / "private" for each in ("first", "second", "third")]
    for directory in directories:
        directory.parent.mkdir()
    use(monkeypatch, *directories)
    return directories


def use(monkeypatch: pytest.MonkeyPatch, *directories: Path) -> None:
    monkeypatch.setattr(private_directory, "_roots", lambda: tuple(map(str, directories)))
