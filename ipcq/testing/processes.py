"""A harness that starts, watches, stops and kills unrelated processes, and judges the records that they leave.

A queue's promises hold between unrelated processes, so a process inherits nothing but the queue's name. A *program* is
a plain function of a module that another interpreter can import; a *peer* is a process that runs one. Both sides
exchange JSON lines, with `Peer.say` and `Peer.hear` on this side, and `say` and `hear` in the program::

    def produce(name: str, backend: str) -> None:
        with ipcq.open(name, backend) as q:
            q.put("hello")
        say("done")

    with Peers() as peers:
        assert peers.spawn(produce, name, backend).hear() == "done"

- `Peers.spawn` starts a new interpreter, and so does `Peers.script`, for a program given as source text.
- `Peers.fork` forks from an interpreter that has imported everything and opened nothing. It is some fifty times
  cheaper, for storms of kills.
- `Peers.inherit` starts an interpreter that inherits queues without a name by multiprocessing.

`Peers` is also a watchdog: when its patience is over, it makes every peer print its stacks, kills them all, and fails
with those stacks. `ipcq demo`, `ipcq stress` and `ipcq bench` use it too.

All random choices come from a seed, which is printed; ``IPCQ_TEST_SEED`` replays it. `ipcq.testing.oracle` judges the
processes' ledgers.
"""

import contextlib
import json
import math
import multiprocessing
import os
import random
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, ParamSpec, Self

from ipcq.testing._program import FUNCTION, Connection, forget, hear, run_inherited, run_script, say
from ipcq.testing.oracle import Verdict, judge

__all__ = (
    "Hang",
    "Peer",
    "PeerDied",
    "Peers",
    "bound",
    "fresh_name",
    "hear",
    "listen",
    "own_seed",
    "say",
    "state_of",
    "until",
)

#: The environment variable that sets the seed, to replay a run.
SEED_VARIABLE: Final = "IPCQ_TEST_SEED"

#: Seconds after which a group of peers counts as hanging.
PATIENCE: Final = 60.0

#: The context for queues without a name that peers inherit.
SPAWN: Final = multiprocessing.get_context("spawn")

P = ParamSpec("P")


class Hang(AssertionError):
    """The peers did not end in time; the text has all their stacks."""


class PeerDied(AssertionError):
    """A peer ended although more was expected from it; the text has its output and errors."""

    def __init__(self, text: str, peer: "Peer") -> None:
        super().__init__(text)
        self.peer = peer


def fresh_name(prefix: str = "/ipcq-test") -> str:
    """Return a unique name for a queue."""
    return f"{prefix}-{os.getpid()}-{secrets.token_hex(4)}"


def own_seed() -> int:
    """Return the seed to replay, or a new one, and print it."""
    seed = int(os.environ.get(SEED_VARIABLE) or secrets.randbits(32))
    print(f"replay with {SEED_VARIABLE}={seed}")
    return seed


def bound(trials: int) -> float:
    """Return the upper bound of a failure rate, with 95 % confidence, after so many trials without a failure."""
    return 3 / trials if trials else math.inf


def until(happened: Callable[[], object], timeout: float = 10.0, what: str = "it") -> None:
    """Poll until `happened` returns a true value.

    Raises:
        Hang: It returned none within `timeout` seconds; `what` names the event.
    """
    deadline = time.monotonic() + timeout
    while not happened():
        if time.monotonic() > deadline:
            raise Hang(f"{what} did not happen within {timeout} seconds")
        time.sleep(0.001)


# --- peers --------------------------------------------------------------------------------------------------------


def state_of(pid: int) -> str:
    """Return the kernel's letter for a process's state, such as ``"S"`` for waiting and ``"R"`` for running."""
    return _state(Path(f"/proc/{pid}"))


class Peer:
    """A process under test."""

    def __init__(
        self,
        label: str,
        pid: int,
        end: socket.socket,
        errors: Path,
        reap: Callable[[float], int | None],
        patience: float,
    ) -> None:
        self.label = label
        self.pid = pid
        self.errors = errors
        self.patience = patience
        self.returncode: int | None = None
        self._line = Connection(end)
        self._reap = reap

    def __repr__(self) -> str:
        return f"<Peer {self.label} pid {self.pid} returncode {self.returncode}>"

    def say(self, value: object) -> None:
        """Send a JSON value to the program.

        Raises:
            PeerDied: The program has closed its connection.
        """
        try:
            self._line.say(value)
        except OSError as error:
            raise PeerDied(f"{self} has closed its connection\n{self.complaint()}", self) from error

    def hear(self, timeout: float | None = None) -> Any:
        """Wait for the next value that the program sends.

        Raises:
            PeerDied: The program ended and sent nothing.
            Hang: It sent nothing for `timeout` seconds.
        """
        timeout = self.patience if timeout is None else timeout
        try:
            return self._line.hear(time.monotonic() + timeout)
        except TimeoutError:
            raise Hang(f"{self} sent nothing for {timeout} seconds\n{self.stacks()}") from None
        except (EOFError, OSError) as error:
            raise self._silent_death() from error

    def rest(self, timeout: float | None = None) -> list[Any]:
        """Return the values that the program sends until it ends.

        Raises:
            Hang: It has not ended within `timeout` seconds.
        """
        timeout = self.patience if timeout is None else timeout
        deadline = time.monotonic() + timeout
        values = []
        with contextlib.suppress(EOFError, ConnectionError):
            try:
                while True:
                    values.append(self._line.hear(deadline))
            except TimeoutError:
                raise Hang(f"{self} did not end within {timeout} seconds\n{self.stacks()}") from None
        return values

    def send(self, number: int) -> None:
        """Send a signal, unless the process has been reaped."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> int:
        """Kill the process with SIGKILL, and return its exit code."""
        self.send(signal.SIGKILL)
        return self.wait()

    def stop(self) -> None:
        """Stop the process with SIGSTOP, and return once it is stopped."""
        self.send(signal.SIGSTOP)
        until(lambda: self.state() in "TtZX", what=f"stopping {self}")

    def resume(self) -> None:
        """Let a stopped process continue."""
        self.send(signal.SIGCONT)

    def state(self) -> str:
        """Return the kernel's letter for the state of the process, such as ``"S"`` for waiting."""
        return state_of(self.pid)

    def asleep(self) -> bool:
        """Return whether the process waits inside the kernel."""
        return self.state() == "S"

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process and return its exit code, negative for the signal that ended it.

        Raises:
            Hang: It has not ended within `timeout` seconds.
        """
        if self.returncode is None:
            timeout = self.patience if timeout is None else timeout
            self.returncode = self._reap(timeout)
            if self.returncode is None:
                raise Hang(f"{self} did not end within {timeout} seconds\n{self.stacks()}")
            self._line.end.close()
        return self.returncode

    def done(self, timeout: float | None = None) -> None:
        """Wait for the end of the process, and check its exit code.

        Raises:
            PeerDied: The exit code is not 0.
            Hang: It has not ended within `timeout` seconds.
        """
        if self.wait(timeout):
            raise PeerDied(f"{self}\n{self.complaint()}", self)

    def death(self) -> str:
        """Return one line that says how the process ended."""
        code = self.returncode
        if code is None:
            return "closed its connection but still runs"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        last = self.complaint().strip().rpartition("\n")[2]
        return f"ended with exit code {code}{': ' if last else ''}{last}"

    def _silent_death(self) -> PeerDied:
        with contextlib.suppress(Hang):
            self.wait(5.0)
        return PeerDied(f"{self} ended and sent nothing\n{self.complaint()}", self)

    def complaint(self) -> str:
        """Return the text that the process has written to stdout and stderr so far."""
        try:
            return self.errors.read_text(errors="replace")
        except OSError as error:
            return f"(cannot be read: {error})"

    def where(self) -> str:
        """Return the kernel's view of each thread: its state, and where it waits."""
        lines = []
        for task in sorted(Path(f"/proc/{self.pid}/task").glob("*")):
            # Only root can read the last one.
            texts = {name: _text_of(task / name) for name in ("wchan", "syscall", "stack")}
            waits = "; ".join(f"{name} {' '.join(text.split())}" for name, text in texts.items() if text)
            lines.append(f"thread {task.name} {_state(task)}: {waits}")
        return "\n".join(lines)

    def stacks(self) -> str:
        """End the process with SIGABRT, on which it prints the stacks of its threads, and return its output."""
        where = self.where()
        with contextlib.suppress(ProcessLookupError):
            self.send(signal.SIGABRT)
            self.send(signal.SIGCONT)
        if self.returncode is None:
            self.returncode = self._reap(5.0)
        return f"--- {self} ---\n{where}\n{self.complaint()}"


def listen(peers: Sequence[Peer], timeout: float) -> list[tuple[Peer, Any]]:
    """Wait until one of these peers sends a value, and return one value of each that has sent; none after a timeout.

    Raises:
        PeerDied: A peer ended and sent nothing.
    """
    ends = {peer._line.end: peer for peer in peers}
    deadline = time.monotonic() + timeout
    while not any(peer._line.complete for peer in peers):
        if gone := [peer for peer in peers if peer.returncode is not None]:
            raise gone[0]._silent_death()
        ready, _, _ = select.select(ends, [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return []
        for end in ready:
            try:
                ends[end]._line.read()
            except (EOFError, OSError) as error:
                raise ends[end]._silent_death() from error
    return [(peer, peer._line.hear()) for peer in peers if peer._line.complete]


def _state(directory: Path) -> str:
    stat = _text_of(directory / "stat")
    return stat.rpartition(")")[2].split()[0] if stat else "X"


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


# --- the group ----------------------------------------------------------------------------------------------------


class Peers:
    """A group of processes under test, which a ``with`` block watches and ends.

    Args:
        patience: Seconds after which the group counts as hanging; None sets no limit.
        seed: Seed of `random`; by default ``IPCQ_TEST_SEED`` or a new one, which is printed.
        directory: Directory of the ledgers and of the peers' output; by default a temporary one, removed at the end.
        farewell: A program and its arguments, which cleans up if this process dies and leaves forked peers.
    """

    def __init__(
        self,
        *,
        patience: float | None = PATIENCE,
        seed: int | None = None,
        directory: Path | None = None,
        farewell: tuple[Callable[..., object], tuple[object, ...]] | None = None,
    ) -> None:
        self.patience = patience
        self.seed = own_seed() if seed is None else seed
        self.random = random.Random(self.seed)
        self.peers: list[Peer] = []
        self.hang = ""
        self._own = directory is None
        self.directory = Path(tempfile.mkdtemp(prefix="ipcq-peers-")) if directory is None else directory
        # Programs that have dropped root privileges must write their ledgers here too.
        self.directory.chmod(0o777)
        program, args = farewell or (forget, ())
        self._nursery_call = {
            "farewell": _call_of(program, args, {}),
            "directories": [str(self.directory)] if self._own else [],
        }
        self._nursery: Peer | None = None
        self._started = 0
        self._over = threading.Event()
        self._guard = threading.Lock()
        self._watchdog = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._owner = threading.get_ident()
        self._interrupted: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._interrupted = signal.signal(signal.SIGINT, self._interrupt)
        self._watchdog.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with self._guard:
                self._over.set()
        except Hang:  # pragma: no cover - if the signal comes in these two lines
            # The watchdog fired just before the test ended.
            self._over.set()
        self._watchdog.join()
        if self._interrupted is not None:
            signal.signal(signal.SIGINT, self._interrupted)
        try:
            self._end()
        finally:
            if self._own:
                shutil.rmtree(self.directory, ignore_errors=True)
        if self.hang and not isinstance(error, Hang):
            raise Hang(self.hang) from error

    def spawn(self, program: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> Peer:
        """Run a program in a new interpreter."""
        return self._spawn(program.__name__, _call_of(program, args, kwargs))

    def script(self, source: str, *arguments: str) -> Peer:
        """Run Python source in a new interpreter, with these command-line arguments, and with warnings as errors."""
        return self.spawn(run_script, source, list(arguments))

    def fork(self, program: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> Peer:
        """Run a program in a child of an interpreter that has imported everything and opened nothing."""
        if self._nursery is None:
            self._nursery = self._spawn("nursery", self._nursery_call)
            self._nursery.hear()
        nursery = self._nursery
        ours, theirs = socket.socketpair()
        label, path = self._label(program.__name__)
        with contextlib.ExitStack() as stack, theirs, path.open("ab") as errors:
            stack.callback(ours.close)
            order = json.dumps({"fork": _call_of(program, args, kwargs)}).encode() + b"\n"
            try:
                socket.send_fds(nursery._line.end, [order], [theirs.fileno(), errors.fileno()])
            except OSError as error:
                raise nursery._silent_death() from error
            pid = nursery.hear()
            stack.pop_all()

        def reap(timeout: float) -> int | None:
            nursery.say({"reap": pid, "timeout": timeout})
            code: int | None = nursery.hear()
            return code

        return self._add(Peer(label, pid, ours, path, reap, self._patience))

    def inherit(self, program: Callable[..., object], *args: object) -> Peer:
        """Run a program in a new interpreter that multiprocessing starts.

        The arguments are pickled, so they may be queues and pipes of multiprocessing, which have no name. The program
        ends when this process ends, even during a wait.
        """
        ours, theirs = socket.socketpair()
        label, path = self._label(program.__name__)
        with theirs:
            # A daemon, so that multiprocessing ends it at the latest when this process exits.
            process = SPAWN.Process(target=run_inherited, args=(theirs, str(path), program, args), daemon=True)
            try:
                with _signals_deferred():
                    process.start()
            except BaseException:
                ours.close()
                raise

        def reap(timeout: float) -> int | None:
            process.join(timeout)
            code = process.exitcode
            if code is not None:
                process.close()
            return code

        return self._add(Peer(label, process.pid or 0, ours, path, reap, self._patience))

    def stacks(self) -> str:
        """End every peer as `Peer.stacks` does, and return their output."""
        living = [peer for peer in self.peers if peer.returncode is None and peer is not self._nursery]
        return "\n".join(peer.stacks() for peer in living)

    def ledger(self, role: str, number: int) -> str:
        """Return the path of a ledger, for `Ledger` in a program; `role` is ``"producer"`` or ``"consumer"``."""
        return str(self.directory / f"{role}-{number}.ledger")

    def ledgers(self, role: str) -> list[Path]:
        """Return the paths of the existing ledgers."""
        return sorted(self.directory.glob(f"{role}-*.ledger"))

    def judge(self) -> Verdict:
        """Judge the ledgers of this group."""
        return judge(self.ledgers("producer"), self.ledgers("consumer"))

    def _label(self, role: str) -> tuple[str, Path]:
        self._started += 1
        label = f"{role}#{self._started}"
        return label, self.directory / f"{label}.err"

    def _spawn(self, role: str, call: dict[str, Any]) -> Peer:
        ours, theirs = socket.socketpair()
        label, path = self._label(role)
        with theirs, path.open("ab") as errors, tempfile.TemporaryFile() as text:
            # Not an argument, because those are visible to all users, and an address may have a password.
            text.write(json.dumps(call).encode())
            text.seek(0)
            process = subprocess.Popen(
                [
                    sys.executable,
                    # So that no file in the working directory shadows a module.
                    "-P",
                    "-X",
                    "faulthandler",
                    "-c",
                    "from ipcq.testing._program import main; main()",
                    str(theirs.fileno()),
                ],
                stdin=text,
                stdout=errors,
                stderr=errors,
                pass_fds=[theirs.fileno()],
                # Ctrl-C on a terminal must reach only this process, which ends its peers.
                process_group=0,
                # So that the same modules can be imported there as here.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

        def reap(timeout: float) -> int | None:
            try:
                return process.wait(timeout)
            except subprocess.TimeoutExpired:
                return None

        return self._add(Peer(label, process.pid, ours, path, reap, self._patience))

    @property
    def _patience(self) -> float:
        return PATIENCE if self.patience is None else self.patience

    def _add(self, peer: Peer) -> Peer:
        self.peers.append(peer)
        return peer

    def _watch(self) -> None:
        if self._over.wait(self.patience):
            return
        # Forked peers come before their nursery, which must reap them.
        waiting = [peer for peer in self.peers if peer.returncode is None]
        where = [peer.where() for peer in waiting]
        self.hang = f"the peers did not end within {self.patience} seconds (seed {self.seed})"
        for peer in waiting:
            with contextlib.suppress(ProcessLookupError):
                os.kill(peer.pid, signal.SIGABRT)
                os.kill(peer.pid, signal.SIGCONT)
        time.sleep(1.0)
        self.hang += "".join(
            f"\n--- {peer} ---\n{place}\n{peer.complaint()}" for peer, place in zip(waiting, where, strict=True)
        )
        if self._over.wait(2.0):
            return
        # The test still waits, so it waits for the queue and not for a peer.
        frame = sys._current_frames().get(self._owner)
        while frame is not None:
            self.hang += f"\n{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
            frame = frame.f_back
        with self._guard:
            if not self._over.is_set() and self._interrupted is not None:
                signal.pthread_kill(self._owner, signal.SIGINT)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.hang:
            raise Hang(self.hang)
        if callable(self._interrupted):
            self._interrupted(number, frame)

    def _end(self) -> None:
        nursery = self._nursery
        for peer in [peer for peer in reversed(self.peers) if peer is not nursery] + ([nursery] if nursery else []):
            if peer.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    peer.send(signal.SIGKILL)
                # If the nursery is dead, init reaps its children.
                with contextlib.suppress(PeerDied, Hang):
                    peer.wait(5.0)
            peer._line.end.close()


@contextlib.contextmanager
def _signals_deferred() -> Iterator[None]:
    """Defer signal handlers while multiprocessing starts a peer, which must not be interrupted half started.

    The peer inherits a blocked SIGINT, because Ctrl-C must reach only this process, which ends its peers.
    """
    if sys.platform == "win32":
        yield
        return
    from multiprocessing import resource_tracker

    # Start it now: otherwise the first process would start it, which unblocks signals.
    resource_tracker.ensure_running()
    deferred: list[int] = []
    # A mask is not enough, because another thread of this process may receive the signal.
    handled = [each for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if callable(signal.getsignal(each))]
    before = {each: signal.signal(each, lambda number, _: deferred.append(number)) for each in handled}
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        for each, handler in before.items():
            signal.signal(each, handler)
        for number in deferred:
            signal.raise_signal(number)


# --- programs by name ---------------------------------------------------------------------------------------------


def _call_of(program: Callable[..., object], args: Iterable[object], kwargs: Mapping[str, object]) -> dict[str, Any]:
    return {
        **_name_of(program),
        "args": [{FUNCTION: _name_of(arg)} if callable(arg) else arg for arg in args],
        "kwargs": dict(kwargs),
    }


def _name_of(program: Callable[..., object]) -> dict[str, str]:
    function: Any = program
    return {
        "module": function.__module__,
        "file": str(Path(function.__code__.co_filename).resolve()),
        "function": function.__qualname__,
    }
