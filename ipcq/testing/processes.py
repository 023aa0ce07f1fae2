"""Unrelated processes for tests: started, watched, stopped and killed from outside, and judged by what they wrote down.

What a queue promises, it promises to processes that know nothing of one another, so here nothing is inherited but a
name. A *program* is a plain function of a module that another interpreter can import; a *peer* is a process that runs
one. Both sides talk in JSON lines, with `Peer.say` and `Peer.hear` here, `say` and `hear` there::

    def produce(name: str, backend: str) -> None:
        with ipcq.open(name, backend) as q:
            q.put("hello")
        say("done")

    with Peers() as peers:
        assert peers.spawn(produce, name, backend).hear() == "done"

`Peers.spawn` starts an interpreter of its own, `Peers.fork` forks from one that has imported everything and opened
nothing, which is some fifty times cheaper and meant for storms of kills, and `Peers.inherit` starts an interpreter to
which multiprocessing hands down queues that have no name. `Peers` is the watchdog as well: when its patience is over,
it has every peer write down where it stands, kills them all, and fails with those stacks. `ipcq demo`, `ipcq stress`
and `ipcq bench` start their processes by it too.

Everything random comes from a seed that is printed, and replayed by ``IPCQ_TEST_SEED``. What the processes did is
judged by `ipcq.testing.oracle`.
"""

import contextlib
import faulthandler
import importlib
import importlib.util
import json
import math
import multiprocessing
import os
import random
import runpy
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
from typing import Any, ClassVar, Final, ParamSpec, Self

import ipcq
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

#: Replays a run: the environment variable that fixes the seed.
SEED_VARIABLE: Final = "IPCQ_TEST_SEED"

#: Seconds after which a group of peers counts as hanging.
PATIENCE: Final = 60.0

#: Queues that have no name are made by it, where peers are to inherit them.
SPAWN: Final = multiprocessing.get_context("spawn")

P = ParamSpec("P")


class Hang(AssertionError):
    """The peers did not end in time; the text holds the stacks of all of them."""


class PeerDied(AssertionError):
    """A peer ended where something was still expected from it; the text holds what it wrote to its standard error."""

    def __init__(self, text: str, peer: "Peer") -> None:
        super().__init__(text)
        self.peer = peer


def fresh_name(prefix: str = "/ipcq-test") -> str:
    """Return a queue's name that nobody uses."""
    return f"{prefix}-{os.getpid()}-{secrets.token_hex(4)}"


def own_seed() -> int:
    """Return the seed to replay, or a new one, and print it."""
    seed = int(os.environ.get(SEED_VARIABLE) or secrets.randbits(32))
    print(f"replay with {SEED_VARIABLE}={seed}")
    return seed


def bound(trials: int) -> float:
    """Return what no failure in so many trials says: the rate is below this, with 95 % confidence."""
    return 3 / trials if trials else math.inf


def until(happened: Callable[[], object], timeout: float = 10.0, what: str = "it") -> None:
    """Look again and again until something has happened.

    Raises:
        Hang: It has not within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not happened():
        if time.monotonic() > deadline:
            raise Hang(f"{what} did not happen within {timeout} seconds")
        time.sleep(0.001)


def forget(*directories: str) -> None:  # pragma: no cover - see _main
    """Remove what a dead test left behind."""
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


# --- conversation -------------------------------------------------------------------------------------------------


def state_of(pid: int) -> str:
    """Return the kernel's letter for a process's state: ``"S"`` where it waits, ``"R"`` where it does not."""
    return _state(Path(f"/proc/{pid}"))


class _Line:
    """One end of a conversation in JSON lines."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        # Not one string, which would be copied for each part of a long report.
        self._parts: list[bytes] = []

    def say(self, value: object) -> None:
        self.end.sendall(json.dumps(value).encode() + b"\n")

    def hear(self, deadline: float = math.inf) -> Any:
        while not self.complete:
            left = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
            if not select.select([self.end], [], [], left)[0]:
                raise TimeoutError
            self.read()
        line, _, rest = b"".join(self._parts).partition(b"\n")
        self._parts = [rest]
        return json.loads(line)

    @property
    def complete(self) -> bool:
        """Whether something that was said is here as a whole."""
        return any(b"\n" in part for part in self._parts)

    def read(self) -> None:
        """Wait for the next part of what is said."""
        part = self.end.recv(1 << 16)
        if not part:
            raise EOFError
        self._parts.append(part)


class _Other:
    """The test, as a program sees it."""

    line: ClassVar[_Line | None] = None


def say(value: object) -> None:  # pragma: no cover - see _main
    """Tell the test something, from within a program."""
    assert _Other.line is not None, "say() belongs into a program that Peers runs"
    _Other.line.say(value)


def hear() -> Any:  # pragma: no cover - see _main
    """Wait for what the test says, from within a program."""
    assert _Other.line is not None, "hear() belongs into a program that Peers runs"
    return _Other.line.hear()


class Peer:
    """One process under test, seen from outside."""

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
        self._line = _Line(end)
        self._reap = reap

    def __repr__(self) -> str:
        return f"<Peer {self.label} pid {self.pid} returncode {self.returncode}>"

    def say(self, value: object) -> None:
        """Tell the program something, as JSON."""
        try:
            self._line.say(value)
        except OSError as error:
            raise PeerDied(f"{self} does not listen\n{self.complaint()}", self) from error

    def hear(self, timeout: float | None = None) -> Any:
        """Wait for what the program says next.

        Raises:
            PeerDied: It ended without a word.
            Hang: It said nothing for `timeout` seconds.
        """
        timeout = self.patience if timeout is None else timeout
        try:
            return self._line.hear(time.monotonic() + timeout)
        except TimeoutError:
            raise Hang(f"{self} said nothing for {timeout} seconds\n{self.stacks()}") from None
        except (EOFError, OSError) as error:
            raise self._speechless() from error

    def send(self, number: int) -> None:
        """Send a signal, unless the process was waited for already."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> int:
        """Kill the process at once, as ``kill -9`` does, and return its exit code."""
        self.send(signal.SIGKILL)
        return self.wait()

    def stop(self) -> None:
        """Stop the process with SIGSTOP, and return once it stands still."""
        self.send(signal.SIGSTOP)
        until(lambda: self.state() in "TtZX", what=f"stopping {self}")

    def resume(self) -> None:
        """Let a stopped process go on."""
        self.send(signal.SIGCONT)

    def state(self) -> str:
        """Return the kernel's letter for the state of the process, such as ``"S"`` for one that waits."""
        return state_of(self.pid)

    def asleep(self) -> bool:
        """Tell whether the process waits inside the kernel."""
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
        """Wait for the end of the process and see that it ended well.

        Raises:
            PeerDied: Its exit code is not 0.
            Hang: It has not ended within `timeout` seconds.
        """
        if self.wait(timeout):
            raise PeerDied(f"{self}\n{self.complaint()}", self)

    def death(self) -> str:
        """Say how the process ended, in one line."""
        code = self.returncode
        if code is None:
            return "closed its line, and runs on"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        last = self.complaint().strip().rpartition("\n")[2]
        return f"ended with exit code {code}{': ' if last else ''}{last}"

    def _speechless(self) -> PeerDied:
        with contextlib.suppress(Hang):
            self.wait(5.0)
        return PeerDied(f"{self} ended without a word\n{self.complaint()}", self)

    def complaint(self) -> str:
        """Return what the process wrote to its standard output and error so far."""
        try:
            return self.errors.read_text(errors="replace")
        except OSError as error:
            return f"(nothing to read: {error})"

    def where(self) -> str:
        """Say where the kernel has each thread of the process: its state, and where it waits."""
        said = []
        for task in sorted(Path(f"/proc/{self.pid}/task").glob("*")):
            # The last one is root's to read.
            told = {name: _told(task / name) for name in ("wchan", "syscall", "stack")}
            waits = "; ".join(f"{name} {' '.join(text.split())}" for name, text in told.items() if text)
            said.append(f"thread {task.name} {_state(task)}: {waits}")
        return "\n".join(said)

    def stacks(self) -> str:
        """End the process with SIGABRT, on which it writes the stacks of its threads, and return what it wrote."""
        where = self.where()
        with contextlib.suppress(ProcessLookupError):
            self.send(signal.SIGABRT)
            self.send(signal.SIGCONT)
        if self.returncode is None:
            self.returncode = self._reap(5.0)
        return f"--- {self} ---\n{where}\n{self.complaint()}"


def listen(peers: Sequence[Peer], timeout: float) -> list[tuple[Peer, Any]]:
    """Wait until one of these peers says something, and return all that has been said, none where it takes too long.

    Raises:
        PeerDied: One ended without a word.
    """
    ends = {peer._line.end: peer for peer in peers}
    deadline = time.monotonic() + timeout
    while not any(peer._line.complete for peer in peers):
        if gone := [peer for peer in peers if peer.returncode is not None]:
            raise gone[0]._speechless()
        ready, _, _ = select.select(ends, [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return []
        for end in ready:
            try:
                ends[end]._line.read()
            except (EOFError, OSError) as error:
                raise ends[end]._speechless() from error
    return [(peer, peer._line.hear()) for peer in peers if peer._line.complete]


def _state(place: Path) -> str:
    stat = _told(place / "stat")
    return stat.rpartition(")")[2].split()[0] if stat else "X"


def _told(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


# --- the group ----------------------------------------------------------------------------------------------------


class Peers:
    """A group of processes under test: starts them, watches over them, and leaves none behind.

    Args:
        patience: Seconds after which the group counts as hanging; None where the test sees to that itself.
        seed: Where `random` starts; by default what ``IPCQ_TEST_SEED`` says, or a new one. It is printed.
        directory: Where ledgers and the peers' words go; by default a new one that goes with the group.
        farewell: A program and its arguments, run where this process died and left forked peers behind.
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
        # Programs that have given up root still write their ledgers here.
        self.directory.chmod(0o777)
        program, args = farewell or (forget, ())
        self._legacy = {
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
        except Hang:  # pragma: no cover - where the signal comes in these two lines
            # The watchdog did not see in time that the test was through.
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
        """Run a program in an interpreter of its own."""
        return self._spawn(program.__name__, _call_of(program, args, kwargs))

    def fork(self, program: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> Peer:
        """Run a program in a child of an interpreter that has imported everything and opened nothing."""
        if self._nursery is None:
            self._nursery = self._spawn("nursery", self._legacy)
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
                raise nursery._speechless() from error
            pid = nursery.hear()
            stack.pop_all()

        def reap(timeout: float) -> int | None:
            nursery.say({"reap": pid, "timeout": timeout})
            code: int | None = nursery.hear()
            return code

        return self._welcome(Peer(label, pid, ours, path, reap, self._patience))

    def inherit(self, program: Callable[..., object], *args: object) -> Peer:
        """Run a program in an interpreter of its own that inherits what multiprocessing can hand down.

        Its arguments are pickled, so they may be queues and pipes of multiprocessing's, which have no name. It ends
        with this process, whatever it is waiting for.
        """
        ours, theirs = socket.socketpair()
        label, path = self._label(program.__name__)
        with theirs:
            # A daemon in multiprocessing's sense: it is ended at the latest when this process ends.
            process = SPAWN.Process(target=_be_heir, args=(theirs, str(path), program, args), daemon=True)
            try:
                with _signals_put_off():
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

        return self._welcome(Peer(label, process.pid or 0, ours, path, reap, self._patience))

    def stacks(self) -> str:
        """End every peer as `Peer.stacks` does, and return what they wrote."""
        living = [peer for peer in self.peers if peer.returncode is None and peer is not self._nursery]
        return "\n".join(peer.stacks() for peer in living)

    def ledger(self, role: str, number: int) -> str:
        """Return the path of a ledger, for `Ledger` in a program; `role` is ``"producer"`` or ``"consumer"``."""
        return str(self.directory / f"{role}-{number}.ledger")

    def ledgers(self, role: str) -> list[Path]:
        """Return the paths of the ledgers that were written."""
        return sorted(self.directory.glob(f"{role}-*.ledger"))

    def judge(self) -> Verdict:
        """Judge what the ledgers of this group say."""
        return judge(self.ledgers("producer"), self.ledgers("consumer"))

    def _label(self, role: str) -> tuple[str, Path]:
        self._started += 1
        label = f"{role}#{self._started}"
        return label, self.directory / f"{label}.err"

    def _spawn(self, role: str, call: dict[str, Any]) -> Peer:
        ours, theirs = socket.socketpair()
        label, path = self._label(role)
        with theirs, path.open("ab") as errors:
            process = subprocess.Popen(
                [
                    sys.executable,
                    # A file of the working directory must not stand in for a module.
                    "-P",
                    "-X",
                    "faulthandler",
                    "-c",
                    "from ipcq.testing.processes import _main; _main()",
                    str(theirs.fileno()),
                    json.dumps(call),
                ],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=[theirs.fileno()],
                # Ctrl-C on a terminal is for this process, which ends its peers.
                process_group=0,
                # What is importable here shall be so there, however it came to be.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

        def reap(timeout: float) -> int | None:
            try:
                return process.wait(timeout)
            except subprocess.TimeoutExpired:
                return None

        return self._welcome(Peer(label, process.pid, ours, path, reap, self._patience))

    @property
    def _patience(self) -> float:
        return PATIENCE if self.patience is None else self.patience

    def _welcome(self, peer: Peer) -> Peer:
        self.peers.append(peer)
        return peer

    def _watch(self) -> None:
        if self._over.wait(self.patience):
            return
        # What is forked is asked before its nursery, which has to reap it.
        waiting = [peer for peer in self.peers if peer.returncode is None]
        where = [peer.where() for peer in waiting]
        self.hang = f"the peers did not end within {self.patience} seconds (seed {self.seed})"
        for peer in waiting:
            with contextlib.suppress(ProcessLookupError):
                os.kill(peer.pid, signal.SIGABRT)
                os.kill(peer.pid, signal.SIGCONT)
        time.sleep(1.0)
        told = zip(waiting, where, strict=True)
        self.hang += "".join(f"\n--- {peer} ---\n{place}\n{peer.complaint()}" for peer, place in told)
        if self._over.wait(2.0):
            return
        # It is not a peer that this test waits for, but the queue.
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
                # Where the nursery is dead, its children are init's to reap.
                with contextlib.suppress(PeerDied, Hang):
                    peer.wait(5.0)
            peer._line.end.close()


@contextlib.contextmanager
def _signals_put_off() -> Iterator[None]:
    """Put off what signals do while multiprocessing starts a peer, or they would end it while it is half started.

    The peer inherits that Ctrl-C is blocked: it is for this process, which ends its peers.
    """
    if sys.platform == "win32":
        yield
        return
    from multiprocessing import resource_tracker

    # The first process would start it, and that lets signals in again.
    resource_tracker.ensure_running()
    came: list[int] = []
    # Not by a mask alone: another thread of this process may be the one that takes a signal.
    mine = [each for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if callable(signal.getsignal(each))]
    before = {each: signal.signal(each, lambda number, _: came.append(number)) for each in mine}
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        for each, handler in before.items():
            signal.signal(each, handler)
        for number in came:
            signal.raise_signal(number)


# --- the other side -----------------------------------------------------------------------------------------------


#: The key that marks a function among a program's arguments.
_FUNCTION: Final = "ipcq.testing function"


def _call_of(program: Callable[..., object], args: Iterable[object], kwargs: Mapping[str, object]) -> dict[str, Any]:
    return {
        **_name_of(program),
        "args": [{_FUNCTION: _name_of(arg)} if callable(arg) else arg for arg in args],
        "kwargs": dict(kwargs),
    }


def _name_of(program: Callable[..., object]) -> dict[str, str]:
    function: Any = program
    return {
        "module": function.__module__,
        "file": str(Path(function.__code__.co_filename).resolve()),
        "function": function.__qualname__,
    }


_loaded: dict[str, Mapping[str, Any]] = {}


def _prepare(call: Mapping[str, Any]) -> Callable[[], object]:  # pragma: no cover - see _main
    """Find a program and the functions among its arguments."""
    program = _load(call)
    args = [_load(arg[_FUNCTION]) if isinstance(arg, dict) and _FUNCTION in arg else arg for arg in call["args"]]
    return lambda: program(*args, **call["kwargs"])


def _load(call: Mapping[str, Any]) -> Callable[..., object]:  # pragma: no cover - see _main
    """Find a function by its module where that leads to the same file, by the file otherwise (a test module)."""
    file = call["file"]
    if file not in _loaded:
        try:
            spec = importlib.util.find_spec(call["module"])
        except (ImportError, ValueError):
            spec = None
        if spec is not None and spec.origin is not None and str(Path(spec.origin).resolve()) == file:
            _loaded[file] = vars(importlib.import_module(call["module"]))
        else:
            # Its neighbours are what it may import.
            sys.path.insert(0, str(Path(file).parent))
            _loaded[file] = runpy.run_path(file)
    program: Callable[..., object] = _loaded[file][call["function"]]
    return program


def _main() -> None:  # pragma: no cover - in the program's process, which is not measured
    call = json.loads(sys.argv[2])
    end = socket.socket(fileno=int(sys.argv[1]))
    end.set_inheritable(False)
    _Other.line = line = _Line(end)
    program = _nurse(line, **call) if "farewell" in call else _prepare(call)
    program()


def _be_heir(
    end: socket.socket, path: str, program: Callable[..., object], args: tuple[object, ...]
) -> None:  # pragma: no cover - see _main
    """Be a peer that multiprocessing started."""
    errors = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    os.close(errors)
    faulthandler.enable()
    _leave_with_parent()
    _Other.line = _Line(end)
    # Where the test is gone, nobody wants to know what became of it.
    with contextlib.suppress(EOFError):
        program(*args)


def _leave_with_parent() -> None:  # pragma: no cover - see _main
    """Let the death of the test end this process, however deep inside a wait it is."""
    parent = multiprocessing.parent_process()
    if parent is None or sys.platform == "win32":
        return
    import fcntl  # which only POSIX has

    # The other end of this pipe is the test's alone. The default action of SIGIO is to end the process.
    pipe = parent.sentinel
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([pipe], [], [], 0)[0]:
        raise SystemExit(1)


def _nurse(
    line: _Line, farewell: dict[str, Any], directories: list[str]
) -> Callable[[], object]:  # pragma: no cover - see _main
    """Fork children and reap them as told, until the test is gone; return in a child with what it shall run."""
    ipcq.backends()
    line.say("ready")
    children: set[int] = set()
    with contextlib.suppress(ConnectionError):  # which is how the end of the test looks in the middle of an order
        while order := _order(line):
            asked, fds = order
            if "fork" in asked:
                program = _prepare(asked["fork"])
                pid = os.fork()
                if not pid:
                    line.end.close()
                    _Other.line = _Line(socket.socket(fileno=fds[0]))
                    os.dup2(fds[1], 1)
                    os.dup2(fds[1], 2)
                    os.close(fds[1])
                    return program
                children.add(pid)
                for fd in fds:
                    os.close(fd)
                line.say(pid)
            else:
                code = _reaped(asked["reap"], asked["timeout"])
                if code is not None:
                    children.discard(asked["reap"])
                line.say(code)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    forget(*directories)
    return _prepare(farewell)


def _order(line: _Line) -> tuple[dict[str, Any], list[int]] | None:  # pragma: no cover - see _main
    order, fds, _, _ = socket.recv_fds(line.end, 1 << 20, 2)
    while order and not order.endswith(b"\n"):
        order += line.end.recv(1 << 20)
    return (json.loads(order), fds) if order else None


def _reaped(pid: int, timeout: float) -> int | None:  # pragma: no cover - see _main
    deadline = time.monotonic() + timeout
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.0005)
