"""Commands that do not outlive ``ipcq work``."""

import errno
import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipcq._cli import _children
from ipcq._cli._children import Children, stand_guard
from ipcq.testing.processes import state_of, until

if sys.platform == "win32":
    pytest.skip("Windows has neither fork nor process groups", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

#: A command that starts another process and writes its number into a file.
FAMILY = ("sh", "-c", 'sleep 1000 & echo $! > "$1.new"; mv "$1.new" "$1"; wait', "sh")

#: Runs that command, and prints the numbers of the guard, the command and the other process.
PARENT = """
import os, pathlib, sys, time
from ipcq._cli._children import Children

*words, file = sys.argv[1:]
with Children() as children:
    command = children.start([*words, file], b"", os.environ)
    while not os.path.exists(file):
        time.sleep(0.001)
    print(children.guard, command.pid, pathlib.Path(file).read_text(), flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def children() -> Iterator[Children]:
    """Return what starts commands."""
    with Children() as children:
        yield children


@pytest.fixture
def family(tmp_path: Path) -> Iterator[tuple[int, ...]]:
    """Start a process with a command, and return the numbers of process, guard, command and the command's child."""
    words = [sys.executable, "-c", PARENT, *FAMILY, str(tmp_path / "child")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        numbers = [int(word) for word in process.stdout.readline().split()]
        yield process.pid, *numbers
        process.kill()
        for pid in numbers:
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)


def is_gone(pid: int) -> bool:
    return state_of(pid) in "ZX"


def run(children: Children, *arguments: str, data: bytes = b"", **options: Any) -> int:
    """Run a command to its end, and return its exit code."""
    command = children.start(arguments, data, os.environ, **options)
    while (status := command.poll()) is None:
        children.wait(60)
    return status


def in_shell(children: Children, script: str, *arguments: object, **options: Any) -> int:
    return run(children, "sh", "-c", script, "sh", *map(str, arguments), **options)


def test_exit_code_is_that_of_the_command(children: Children) -> None:
    """Whatever it is."""
    assert in_shell(children, "exit 7") == 7


def test_exit_code_of_a_killed_command_is_negative(children: Children) -> None:
    """The number of the signal."""
    assert in_shell(children, "kill -KILL $$") == -signal.SIGKILL


@pytest.mark.parametrize("lacking", ["", "memfd_create"])
def test_data_is_on_standard_input(
    children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    """More than a pipe holds, and without memfd_create in a temporary file."""
    if lacking:
        monkeypatch.delattr(os, lacking, raising=False)
    in_shell(children, 'cat > "$1"', tmp_path / "copy", data=bytes(1 << 20))
    assert (tmp_path / "copy").read_bytes() == bytes(1 << 20)


def test_command_need_not_read_its_input(children: Children) -> None:
    """A pipe would break, or block who writes."""
    assert run(children, "true", data=bytes(1 << 20)) == 0


def test_input_is_closed_if_it_cannot_be_written(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be no space for it."""
    files: list[Any] = []

    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            files.append(self)
            raise OSError(errno.ENOSPC, "no space")

    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with pytest.raises(OSError, match="no space"):
        run(children, "true")
    assert [file.closed for file in files] == [True]


def test_output_may_go_to_another_descriptor(children: Children, tmp_path: Path) -> None:
    """Stdout of this process may have something else."""
    with (tmp_path / "out").open("wb") as file:
        run(children, "echo", "hello", output=file.fileno())
    assert (tmp_path / "out").read_text() == "hello\n"


def test_missing_command_is_an_error(children: Children) -> None:
    """As the system says it."""
    with pytest.raises(FileNotFoundError):
        run(children, "/no/such/command")


def test_guard_forgets_a_command_that_did_not_start(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may soon belong to another process."""
    told: list[str] = []
    monkeypatch.setattr(children, "_tell", told.append)
    with pytest.raises(FileNotFoundError):
        run(children, "/no/such/command")
    assert told == ["-1"]


@pytest.mark.parametrize("lacking", ["", "waitid"])
def test_guard_forgets_a_command_that_has_ended(
    children: Children, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    """Also where the system cannot tell that a process has ended without reaping it."""
    if lacking:
        monkeypatch.delattr(os, lacking, raising=False)
    told: list[str] = []
    monkeypatch.setattr(children, "_tell", told.append)
    run(children, "true")
    assert told == ["-1"]


def test_guard_forgets_a_command_before_it_is_reaped(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only then does the system use the number again."""
    if not hasattr(os, "waitid"):
        pytest.skip("os.waitid does not exist on macOS before Python 3.13")
    states: list[str] = []
    pids: list[int] = []  # empty while the child announces itself
    monkeypatch.setattr(children, "_tell", lambda _: states.extend(map(state_of, pids)))
    command = children.start(["true"], b"", os.environ)
    pids.append(command.pid)
    while command.poll() is None:
        children.wait(60)
    assert states == ["Z"]


def test_killed_command_takes_its_children_along(children: Children, tmp_path: Path) -> None:
    """The whole process group."""
    command = children.start([*FAMILY, str(tmp_path / "child")], b"", os.environ)
    until((tmp_path / "child").exists)
    command.kill()
    until(lambda: is_gone(int((tmp_path / "child").read_text())))
    while command.poll() is None:
        children.wait(60)


def test_command_that_has_ended_is_not_killed(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may belong to another process."""
    command = children.start(["true"], b"", os.environ)
    while command.poll() is None:
        children.wait(60)
    monkeypatch.setattr(os, "killpg", lambda *_: pytest.fail("killed"))
    command.kill()


def test_kill_of_a_command_that_is_just_ending_is_no_error(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some systems refuse to signal a process that has ended and was not reaped."""

    def refuse(*_: int) -> None:
        raise PermissionError

    command = children.start(["true"], b"", os.environ)
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", refuse)
        command.kill()
    while command.poll() is None:
        children.wait(60)


def test_end_of_a_command_ends_the_wait(children: Children) -> None:
    """The wait alone would take an hour."""
    command = children.start(["sleep", "0.2"], b"", os.environ)
    while command.poll() is None:
        children.wait(3600)


def test_signal_ends_the_wait(children: Children) -> None:
    """So that it is handled at once; the wait alone would take an hour."""
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        signal.raise_signal(signal.SIGUSR1)
        children.wait(3600)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_wait_ends_without_an_event(children: Children) -> None:
    """After the given time."""
    children.wait(0.001)


def test_signals_are_as_before_afterwards() -> None:
    """Handler and descriptor."""
    handler, descriptor = signal.getsignal(signal.SIGCHLD), signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    with Children():
        pass
    after = signal.set_wakeup_fd(descriptor)
    assert (signal.getsignal(signal.SIGCHLD), after) == (handler, descriptor)


# What ends with this process


def test_command_dies_with_its_parent(family: tuple[int, ...]) -> None:
    """The parent is killed, and the command and its child are."""
    parent, guard, command, child = family
    os.kill(parent, signal.SIGKILL)
    until(lambda: is_gone(command) and is_gone(child) and is_gone(guard))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process when its parent dies")
def test_command_dies_with_its_parent_without_the_guard(family: tuple[int, ...]) -> None:
    """As if all processes of one name were killed."""
    parent, guard, command, _ = family
    os.kill(guard, signal.SIGKILL)
    os.kill(parent, signal.SIGKILL)
    until(lambda: is_gone(command))


def test_guard_survives_signals_that_ask_it_to_end(family: tuple[int, ...]) -> None:
    """It is there for its parent's end, and ends then."""
    parent, guard, command, child = family
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(guard, number)
    os.kill(parent, signal.SIGKILL)
    until(lambda: is_gone(command) and is_gone(child))


def test_guard_is_not_in_the_group_of_its_parent(family: tuple[int, ...]) -> None:
    """The keys of a terminal end or stop the processes of that group."""
    parent, guard, *_ = family
    assert os.getpgid(guard) != os.getpgid(parent)


def test_commands_start_without_the_guard(children: Children) -> None:
    """It may have been killed."""
    os.kill(children.guard, signal.SIGKILL)
    until(lambda: is_gone(children.guard))
    assert run(children, "true") == 0


def test_guard_kills_the_groups_that_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were named and not withdrawn."""
    killed: list[int] = []
    monkeypatch.setattr(os, "setsid", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(os, "killpg", lambda group, _: killed.append(group))
    reading, writing = os.pipe()
    os.write(writing, b"+1 1001\n+2 1002\n-1\n-3\n+4 1004\n")
    os.close(writing)
    stand_guard(reading)
    assert killed == [1002, 1004]


def test_guard_kills_all_groups_though_one_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have ended at the same moment."""
    killed: list[int] = []

    def kill(group: int, _: int) -> None:
        killed.append(group)
        raise ProcessLookupError

    monkeypatch.setattr(os, "setsid", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(os, "killpg", kill)
    reading, writing = os.pipe()
    os.write(writing, b"+1 1001\n+2 1002\n")
    os.close(writing)
    stand_guard(reading)
    assert killed == [1001, 1002]


class Ended(BaseException):
    """Stands for the end of the process."""


def end_instead(_: int) -> None:
    raise Ended


def test_guard_ends_without_cleaning_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a copy of its parent, and must not run the parent's cleanup."""
    guarded: list[int] = []
    monkeypatch.setattr(os, "fork", lambda: 0)
    monkeypatch.setattr(os, "_exit", end_instead)
    monkeypatch.setattr(_children, "stand_guard", guarded.append)
    with pytest.raises(Ended), Children():
        pass
    os.close(guarded[0])


def test_child_of_a_dead_parent_ends(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent may have died before the child asked to die with it."""
    monkeypatch.setattr(os, "getppid", lambda: 1)
    monkeypatch.setattr(os, "_exit", end_instead)
    monkeypatch.setattr(children, "_die_with_parent", lambda: None)
    monkeypatch.setattr(children, "_tell", lambda _: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(Ended):
        children._prepare(1)


def test_child_announces_its_group_before_it_looks_for_its_parent(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Afterwards the parent may die at any instant."""
    told: list[str] = []
    monkeypatch.setattr(os, "getppid", lambda: told.append("parent") or os.getpid())
    monkeypatch.setattr(children, "_die_with_parent", lambda: told.append("death"))
    monkeypatch.setattr(children, "_tell", told.append)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    children._prepare(1)
    assert told == ["death", f"+1 {os.getpid()}", "parent"]


def test_python_without_ctypes_has_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some builds lack it."""
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert _children._death_signal()() is None
