"""Commands that do not outlive this process.

A command that outlived its worker would work on a message that another worker has by then. So a command and the
processes that it has started end when this process ends, whatever ends it:

- Each command leads a process group. The *guard*, another process, is told of the groups through a pipe. When this
  process has ended, the kernel closes the pipe, and the guard kills the groups.
- On Linux, the kernel also kills the command itself (PR_SET_PDEATHSIG of prctl(2)). This covers a guard that was killed
  as well, as by ``pkill -9 -f``. Only this thread may start commands, because the signal follows the end of the thread.

A child does both before it executes the command. If its parent dies before, either the guard still hears of the group,
because it reads until the child, too, has closed the pipe; or the child finds that it has another parent, and ends.

What is not covered: processes that leave the group of their command (``setsid``), and the children of a command if the
guard was killed.
"""

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import BinaryIO, Final, Self

#: From prctl(2).
_PR_SET_PDEATHSIG: Final = 1


class Command:
    """A command that was started."""

    def __init__(self, process: "subprocess.Popen[bytes]", forget: Callable[[], None]) -> None:
        self._process = process
        self._forget = forget
        self.pid = process.pid

    def poll(self) -> int | None:
        """Return its exit code if it has ended, negative for the signal that killed it."""
        if not self._has_ended():
            return None
        self._forget()  # before the process is reaped, because then the system may use its number again
        return self._process.wait()

    def _has_ended(self) -> bool:
        if not hasattr(os, "waitid"):  # macOS, before Python 3.13
            return self._process.poll() is not None
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill(self) -> None:
        """Kill it and the processes of its group, unless `poll` has returned its exit code."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):  # it has just ended
                os.killpg(self.pid, signal.SIGKILL)


class Children:
    """Starts commands; a context manager. Enter it before anything is open that a forked process must not have."""

    def __init__(self) -> None:
        self.guard = 0
        """The guard's process id."""
        self._parent = os.getpid()
        self._number = 0
        self._stack = ExitStack()
        self._die_with_parent = _death_signal()
        self._to_guard = self._wake = -1

    def start(
        self, arguments: Sequence[str], data: bytes, environment: Mapping[str, str], *, output: int | None = None
    ) -> Command:
        """Start a command.

        Args:
            arguments: The command and its arguments.
            data: What it has on standard input.
            environment: Its environment.
            output: The descriptor that becomes its standard output; None: this process's.

        Raises:
            OSError: It cannot be started.
        """
        self._number += 1
        forget = partial(self._tell, f"-{self._number}")
        with _file_of(data) as file:
            try:
                process = subprocess.Popen(  # noqa: S603  # the user's command, without a shell
                    arguments,
                    stdin=file,
                    stdout=output,
                    env=environment,
                    process_group=0,
                    preexec_fn=partial(self._prepare, self._number),  # noqa: PLW1509  # it takes no lock
                )
            except BaseException:
                forget()
                raise
        return Command(process, forget)

    def _prepare(self, number: int) -> None:
        """Bind the child to its parent; it runs in the child."""
        self._die_with_parent()
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # the guard may have been killed
        self._tell(f"+{number} {os.getpid()}")
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        if os.getppid() != self._parent:
            os._exit(1)

    def _tell(self, line: str) -> None:
        with suppress(BrokenPipeError):  # the guard was killed
            os.write(self._to_guard, f"{line}\n".encode())  # atomic, see pipe(7)

    def wait(self, seconds: float) -> None:
        """Wait until a command may have ended, a signal has arrived, or the time is over."""
        if select.select([self._wake], [], [], seconds)[0]:
            os.read(self._wake, 1 << 16)

    def __enter__(self) -> Self:
        self._stack.enter_context(self._guarded())
        self._stack.enter_context(self._woken())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        reading, self._to_guard = os.pipe()
        self.guard = os.fork()
        if self.guard == 0:
            try:
                os.close(self._to_guard)
                stand_guard(reading)
            finally:
                os._exit(0)
        os.close(reading)
        try:
            yield
        finally:
            os.close(self._to_guard)
            os.waitpid(self.guard, 0)

    @contextmanager
    def _woken(self) -> Iterator[None]:
        """Let signals, also that of a child that has ended, wake `wait`."""
        self._wake, waking = os.pipe()
        os.set_blocking(waking, False)
        before = signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler, the signal wakes nobody
        descriptor_before = signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor_before)
            signal.signal(signal.SIGCHLD, before)
            os.close(waking)
            os.close(self._wake)


def stand_guard(pipe: int) -> None:
    """Wait until the other end of the pipe is closed, and then kill the process groups that it has named.

    A line ``+N GROUP`` names a group, and ``-N`` withdraws it.
    """
    os.setsid()  # Ctrl-C in the terminal is not for the guard
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    groups: dict[bytes, int] = {}
    with open(pipe, "rb") as lines:
        for line in lines:
            key, *group = line[1:].split()
            if line[:1] == b"+":
                groups[key] = int(group[0])
            else:
                groups.pop(key, None)
    for leader in groups.values():
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)


def _death_signal() -> Callable[[], object]:
    """Return a function that lets the kernel kill the calling process when its parent dies, where it can do that."""
    if sys.platform == "linux":
        try:
            import ctypes

            number, *zeros = map(ctypes.c_ulong, (signal.SIGKILL, 0, 0, 0))
            return partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, number, *zeros)
        except (ImportError, OSError, AttributeError):
            pass  # Python without ctypes: the guard is enough unless it is killed as well
    return lambda: None


def _file_of(data: bytes) -> BinaryIO:
    """Return a file with the data: unlike a pipe, it needs nobody who writes while the command reads, or does not."""
    with ExitStack() as stack:
        file: BinaryIO = stack.enter_context(_new_file())
        file.write(data)
        file.seek(0)
        stack.pop_all()  # the caller closes it
    return file


def _new_file() -> BinaryIO:
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("ipcq-message"), "w+b")
    return tempfile.TemporaryFile()
