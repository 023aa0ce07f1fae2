"""Rule 3 of `auto`: one process at a time creates or unlinks a name, under a lock that the kernel releases."""

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic
from types import FrameType

import pytest

import ipcq
from core.conftest import HANG, Run, Thread
from core.fakes import raising
from ipcq._opening import name_lock as _namelock
from ipcq._opening.name_lock import name_lock
from ipcq._process import forks, private_directory
from ipcq._process.deadline import NEVER, PASSED
from ipcq.errors import LimitExceeded, MessageQueueError, NoSpace, PermissionDenied, TimedOutError

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


# Mutual exclusion


def test_another_process_cannot_take_the_lock_meanwhile(launch: Launch) -> None:
    """Rule 3: the lock serialises creation and unlink."""
    holder = launch(HOLDER)
    assert (hear(holder), taken()) == ("held", True)


def test_another_process_can_take_the_lock_afterwards(launch: Launch) -> None:
    """The end of the block releases the lock."""
    holder = launch(HOLDER)
    hear(holder)
    tell(holder)
    assert (hear(holder), taken()) == ("free", False)


def test_another_name_is_free_meanwhile(launch: Launch) -> None:
    """Rule 3: each name has its own lock."""
    hear(launch(HOLDER))
    assert not taken("/other")


def test_the_lock_of_a_killed_process_is_free_at_once(launch: Launch) -> None:
    """C16: the kernel releases it, wherever its holder is killed."""
    holder = launch(HOLDER)
    hear(holder)
    holder.kill()
    holder.wait(HANG)
    assert not taken()


def test_threads_exclude_each_other(directory: Path, start: Callable[..., Thread]) -> None:
    """C21: an open-file-description lock excludes threads, because each acquisition opens the file again."""
    with name_lock("/jobs", NEVER):
        assert start(taken).outcome()


def test_a_waiter_gets_the_lock_when_it_is_free(launch: Launch, start: Callable[..., Thread]) -> None:
    """Waiting ends when the holder's block ends."""
    holder = launch(HOLDER)
    hear(holder)

    def wait() -> str:
        with name_lock("/jobs", NEVER):
            return "got it"

    waiter = start(wait)
    tell(holder)
    assert waiter.outcome() == "got it"


def test_waiting_ends_at_the_deadline(launch: Launch) -> None:
    """C10: never before it, and with TimedOutError."""
    hear(launch(HOLDER))
    began = monotonic()
    with pytest.raises(TimedOutError), name_lock("/jobs", began + 0.05):
        pass
    assert 0.05 <= monotonic() - began < 0.55


def test_the_error_shows_how_to_find_the_holder(launch: Launch, directory: Path) -> None:
    """`lslocks` lists the holder of the file."""
    hear(launch(HOLDER))
    words = f"queue '/jobs': .* the holder of {directory}/names.lock with lslocks"
    with pytest.raises(TimedOutError, match=words), name_lock("/jobs", PASSED):
        pass


def test_opening_gives_up_after_its_timeout(launch: Launch) -> None:
    """Rule 3: opening waits at most `open_timeout`."""
    hear(launch(HOLDER))
    best = next(info.name for info in ipcq.backends() if info.usable)
    with pytest.raises(TimedOutError, match=f"queue '/jobs' on backend {best!r}"):
        ipcq.open("/jobs", best, open_timeout=0.05)


def test_opening_within_a_process_needs_no_lock(launch: Launch) -> None:
    """Other processes cannot reach these queues."""
    hear(launch(HOLDER))
    with ipcq.open("/jobs", "memory", open_timeout=0) as queue:
        assert queue.backend == "memory"


def test_a_lock_that_timed_out_leaves_no_descriptor(launch: Launch) -> None:
    """C17: a failed attempt closes what it opened."""
    hear(launch(HOLDER))
    before = os.listdir("/proc/self/fd")
    taken()
    assert os.listdir("/proc/self/fd") == before


def test_an_error_in_the_block_frees_the_lock(directory: Path) -> None:
    """The lock is released in any case."""
    with pytest.raises(ZeroDivisionError), name_lock("/jobs", NEVER):
        raise ZeroDivisionError
    assert not taken()


# Forking

FORKED_CHILD_LIVES = """
with name_lock("/jobs", NEVER):
    if not os.fork():
        signal.pause()
say("free")
signal.pause()
"""


def test_a_child_forked_meanwhile_does_not_keep_the_lock(launch: Launch) -> None:
    """C20: a child that lives on does not hold its parent's lock."""
    assert (hear(launch(FORKED_CHILD_LIVES)), taken()) == ("free", False)


def test_a_child_forked_meanwhile_does_not_free_the_lock(launch: Launch) -> None:
    """C20: the end of the child does not release the parent's lock."""
    holder = launch(
        """
        with name_lock("/jobs", NEVER):
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
                say("child is gone")
                signal.pause()
        """
    )
    assert (hear(holder), taken()) == ("child is gone", True)


def test_a_forked_child_can_lock_for_itself(launch: Launch) -> None:
    """C20: nothing inherited from the parent blocks it."""
    forker = launch(
        """
        with name_lock("/jobs", NEVER):
            pass
        if not os.fork():
            with name_lock("/jobs", PASSED):
                say("child has it")
        """
    )
    assert hear(forker) == "child has it"


def test_a_fork_just_before_the_release_does_not_keep_the_lock(launch: Launch) -> None:
    """C20: another thread cannot fork between forgetting the descriptor and closing it."""
    forker = launch(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # about forking beside threads, which is the point
        forked = threading.Event()

        def fork():
            if not os.fork():
                signal.pause()
            forked.set()

        class Os:
            def __getattr__(self, name):
                return getattr(os, name)

            def close(self, descriptor):
                if armed:
                    armed.clear()
                    threading.Thread(target=fork).start()
                    forked.wait(1)  # the fork happens after closing if it is excluded before
                os.close(descriptor)

        _namelock.os = Os()
        armed = []
        with name_lock("/jobs", NEVER):
            armed.append(True)
        forked.wait()
        say("forked")
        signal.pause()
        """
    )
    assert (hear(forker), taken()) == ("forked", False)


def test_the_first_step_of_a_child_closes_its_parents_locks(directory: Path) -> None:
    """C20: the same, step by step in one process."""
    with name_lock("/jobs", NEVER):
        (descriptor,) = forks._descriptors
        forks.abandon_others(())
        with pytest.raises(OSError):
            os.fstat(descriptor)


def test_a_released_lock_is_not_recorded(directory: Path) -> None:
    """A child that is forked later has nothing to close."""
    with name_lock("/jobs", NEVER):
        pass
    assert not forks._descriptors


# The directory


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o177, 0o777])
def test_the_directory_is_private_under_any_umask(directory: Path, umask: int) -> None:
    """C27: the mode is exactly 0700."""
    before = os.umask(umask)
    try:
        taken()
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o177, 0o777])
def test_the_file_is_private_under_any_umask(directory: Path, umask: int) -> None:
    """C27: the mode is exactly 0600."""
    before = os.umask(umask)
    try:
        taken()
    finally:
        os.umask(before)
    assert stat.S_IMODE((directory / "names.lock").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o770, 0o701, 0o710, 0o1777])
def test_a_directory_that_is_open_to_others_is_refused(directory: Path, mode: int) -> None:
    """C27: others could have prepared a directory that they can enter."""
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(PermissionDenied, match=f"{mode:04o}: remove it \\(sudo rm -r {directory}\\)"):
        taken()


def test_a_directory_of_another_user_is_refused(directory: Path) -> None:
    """C27: the error names the owner."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away: run the tests as root")
    directory.mkdir(0o700)
    os.chown(directory, 12345, -1)
    with pytest.raises(PermissionDenied, match="directory of user 12345 with mode 0700"):
        taken()


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


@pytest.mark.parametrize("squat", SQUATS)
def test_a_squatted_path_is_refused(directory: Path, squat: Callable[[Path], None]) -> None:
    """C27: a link, a file, a pipe in directory of the directory, or a link or directory in directory of the file."""
    squat(directory)
    with pytest.raises(PermissionDenied, match="sudo rm -r"):
        taken()


@pytest.mark.parametrize("squat", SQUATS)
def test_a_refused_path_leaves_no_descriptor(directory: Path, squat: Callable[[Path], None]) -> None:
    """C17: a refusal closes what it opened."""
    squat(directory)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(PermissionDenied):
        taken()
    assert os.listdir("/proc/self/fd") == before


def test_a_refusal_has_the_errno_of_the_system(directory: Path) -> None:
    """PermissionDenied is an OSError."""
    squat_with_a_file(directory)
    with pytest.raises(PermissionDenied) as caught:
        taken()
    assert caught.value.errno == errno.ENOTDIR


def test_a_link_for_the_file_creates_nothing_elsewhere(directory: Path) -> None:
    """C27: a link in directory of the file is not followed."""
    squat_with_a_link_for_the_file(directory)
    with pytest.raises(PermissionDenied):
        taken()
    assert not directory.with_name("victim").exists()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EMFILE, LimitExceeded),
        (errno.ENFILE, LimitExceeded),
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.ENOMEM, NoSpace),
        (errno.EIO, MessageQueueError),
        (errno.EROFS, PermissionDenied),
        (errno.EACCES, PermissionDenied),
    ],
)
def test_each_error_number_has_its_own_class(
    directory: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    """C24: a lack of descriptors is a limit, a full disk is no space, a refusal is no permission."""

    def mkdir(path: str, mode: int) -> None:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(_namelock.os, "mkdir", mkdir)
    with pytest.raises(kind) as caught:
        taken()
    assert caught.value.errno == number


def refuse(*_: object) -> None:
    raise OSError(errno.EIO, "broken")


def test_a_file_whose_mode_cannot_be_set_leaves_no_descriptor(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: the system's error becomes one of ipcq, with its number."""
    taken()
    (directory / "names.lock").chmod(0o644)  # it is set only if it is wrong
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(_namelock.os, "fchmod", refuse)
    with pytest.raises(MessageQueueError) as caught:
        taken()
    assert (caught.value.errno, os.listdir("/proc/self/fd")) == (errno.EIO, before)


def test_an_error_of_locking_is_translated(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: the number is kept, and no descriptor is left."""
    taken()
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(_namelock, "_try_lock", refuse)
    with pytest.raises(MessageQueueError, match="cannot be locked") as caught:
        taken()
    assert (caught.value.errno, os.listdir("/proc/self/fd")) == (errno.EIO, before)


def test_a_lock_whose_release_fails_is_released_with_its_descriptor(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C5: the block has succeeded, and the lock is free."""
    with monkeypatch.context() as patch:
        patch.setattr(_namelock, "_unlock", refuse)
        taken()
    taken()


def test_no_environment_variable_moves_the_directory(run: Run, tmp_path: Path) -> None:
    """Rule 3: all processes of a user find the same lock."""
    moved = {name: str(tmp_path) for name in ("TMPDIR", "TEMP", "TMP", "HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME")}
    said = run(
        "from ipcq._process.private_directory import private_places; print(*private_places())", environment=moved
    )
    user = os.geteuid()
    assert said == f"/tmp/ipcq-{user} /dev/shm/ipcq-{user} /run/user/{user}/ipcq"


def test_a_waiting_thread_does_not_block_a_fork(launch: Launch) -> None:
    """C20: a fork does not wait for threads that wait for a lock."""
    forker = launch(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # about forking beside threads, which is the point
        with name_lock("/jobs", NEVER):
            def wait():
                with name_lock("/jobs", NEVER):
                    pass
            threading.Thread(target=wait).start()
            while len(forks._descriptors) < 2:
                pass
            if not os.fork():
                say("child")
                os._exit(0)
        """
    )
    assert hear(forker) == "child"


def test_the_private_directories_are_the_users_own() -> None:
    """Rule 3: each user has separate files."""
    assert all(str(os.geteuid()) in directory for directory in private_directory.private_places())


def test_waiting_threads_take_turns(directory: Path) -> None:
    """Rule 3: at most one thread holds the lock."""
    inside: list[int] = []
    most: list[int] = []

    def take() -> None:
        for _ in range(20):
            with name_lock("/jobs", NEVER):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert max(most) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of this kind to name")
@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.EMFILE, LimitExceeded),
        (errno.ENFILE, LimitExceeded),
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
    ],
)
def test_an_error_of_opening_the_lock_file_is_translated(
    directory: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    """C24: the directory exists already, so only the file needs a descriptor and space."""
    with name_lock("/jobs", PASSED):
        pass

    def refuse(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as context, pytest.raises(error):
        context.setattr(_namelock.os, "open", refuse)
        with name_lock("/jobs", PASSED):
            pass


def test_a_directory_that_another_process_creates_meanwhile_is_used(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C16: two processes may start at the same time."""
    mkdir = os.mkdir

    def overtaken(path: str, mode: int) -> None:
        mkdir(path, mode)
        raise FileExistsError(errno.EEXIST, "somebody was faster", path)

    monkeypatch.setattr(_namelock.os, "mkdir", overtaken)
    assert not taken()


# Several directories


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


def let_read_only(monkeypatch: pytest.MonkeyPatch, *directories: Path) -> None:
    """Let files in these directories be opened for reading only."""
    system_open = os.open

    def open_it(path: str, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR and Path(path).parent in directories:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return system_open(path, flags, *mode)

    monkeypatch.setattr(_namelock.os, "open", open_it)


def taken_from(monkeypatch: pytest.MonkeyPatch, *directories: Path, read_only: tuple[Path, ...] = ()) -> bool:
    """Return whether the lock is taken for a process that uses these directories."""
    with monkeypatch.context() as context:
        use(context, *directories)
        let_read_only(context, *read_only)
        return taken()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_lock_is_taken_in_every_directory(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """C31: another process is excluded, whichever of them it can use."""
    with name_lock("/jobs", PASSED):
        assert taken_from(monkeypatch, directories[number])


def test_the_lock_is_released_in_every_directory(directories: list[Path]) -> None:
    """Afterwards, the lock is free."""
    with name_lock("/jobs", PASSED):
        pass
    assert not taken()


def test_a_lock_that_timed_out_in_one_directory_is_released_in_the_others(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C17: a failed attempt releases what it took."""
    with monkeypatch.context() as context:
        use(context, directories[2])
        with name_lock("/jobs", PASSED):
            assert taken_from(monkeypatch, *directories)
            assert not taken_from(monkeypatch, *directories[:2])


def test_an_exception_of_a_signal_handler_during_the_release_leaves_no_file_locked(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C12: and no descriptor is left open."""
    before = os.listdir("/proc/self/fd")
    close = _namelock._close_lock

    def close_and_strike(descriptor: int) -> None:
        close(descriptor)
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(_namelock, "_close_lock", close_and_strike)
        with name_lock("/jobs", PASSED):
            pass
    assert os.listdir("/proc/self/fd") == before
    assert not taken()


def test_an_exception_of_a_signal_handler_before_the_release_leaves_no_file_locked(directories: list[Path]) -> None:
    """C12: a profiler interrupts at the points where a signal handler can."""

    def strike(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is _namelock._NameLock.__exit__.__code__:
            sys.setprofile(None)
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt), name_lock("/jobs", PASSED):
        sys.setprofile(strike)
    assert not taken()


@pytest.mark.parametrize("mine", [0, 1])
def test_processes_that_can_only_read_each_others_file_exclude_each_other(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch, mine: int
) -> None:
    """C31: neither process can write where the other can."""
    one, two = directories[mine], directories[1 - mine]
    taken_from(monkeypatch, one)
    taken_from(monkeypatch, two)
    with monkeypatch.context() as context:
        let_read_only(context, two)
        use(context, *directories[:2])
        with name_lock("/jobs", PASSED):
            context.undo()
            assert taken_from(monkeypatch, *directories[:2], read_only=(one,))


def test_one_directory_at_two_paths_is_locked_once(directories: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may mount one volume at both paths; a second lock would wait for the first."""
    assert not taken_from(monkeypatch, directories[0], directories[0])


def test_a_missing_directory_is_passed_over(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """C31: another directory is enough."""
    assert not taken_from(monkeypatch, tmp_path / "missing" / "private", directories[1])


def test_a_squatted_directory_is_passed_over(directories: list[Path]) -> None:
    """C31: another directory is enough."""
    squat_with_a_file(directories[0])
    assert not taken()


def failing_in(directory: Path, number: int) -> Callable[..., int]:
    system_open = os.open

    def open_it(path: str, flags: int, *mode: int) -> int:
        if Path(path).parent == directory:
            raise OSError(number, os.strerror(number), path)
        return system_open(path, flags, *mode)

    return open_it


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_directory_with_a_lasting_refusal_is_passed_over(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """C31: it is read-only, forbidden or full for other processes too."""
    monkeypatch.setattr(_namelock.os, "open", failing_in(directories[0], number))
    assert not taken()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO])
def test_a_temporary_refusal_is_an_error(directories: list[Path], monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """C31: another process could take the lock there, and this one would not see it."""
    monkeypatch.setattr(_namelock.os, "open", failing_in(directories[1], number))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(MessageQueueError) as caught:
        taken()
    assert (caught.value.errno, os.listdir("/proc/self/fd")) == (number, before)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_a_temporary_refusal_of_reading_is_an_error(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """C31: the same applies to a file that can only be read."""
    taken()
    let_read_only(monkeypatch, directories[0])
    read_only = os.open

    def refuse(path: str, flags: int, *mode: int) -> int:
        if not flags & os.O_RDWR:
            raise OSError(number, os.strerror(number), path)
        return read_only(path, flags, *mode)

    monkeypatch.setattr(_namelock.os, "open", refuse)
    with pytest.raises(MessageQueueError) as caught:
        taken()
    assert caught.value.errno == number


def test_a_read_only_directory_without_a_file_is_passed_over(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process can hold a lock there, and one that can write there also locks a directory that this one sees."""
    directories[0].mkdir(0o700)
    assert not taken_from(monkeypatch, *directories, read_only=(directories[0],))


def test_if_no_directory_can_be_used_each_is_named_with_its_reason(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error shows what to change."""
    let_read_only(monkeypatch, directories[0])
    squat_with_a_file(directories[1])
    directories[2].parent.rmdir()
    with pytest.raises(PermissionDenied) as caught:
        taken()
    one, two, three = caught.value.detail.partition("but none is usable: ")[2].split("; ")
    assert one.endswith(f"(Read-only file system): mount a tmpfs on {directories[0].parent}")
    assert two.endswith(f"remove it (sudo rm -r {directories[1]}), and ipcq creates it again")
    assert three.endswith(f"(No such file or directory): mount a tmpfs on {directories[2].parent}")


def test_if_no_directory_can_be_used_and_one_is_full_it_is_no_space(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C24: the way out is to free space."""
    for directory in directories[:2]:
        directory.parent.rmdir()
    monkeypatch.setattr(_namelock.os, "open", failing_in(directories[2], errno.ENOSPC))
    with pytest.raises(NoSpace, match=f"free some space in {directories[2].parent}") as caught:
        taken()
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    ("number", "root", "way"),
    [
        (errno.EROFS, "/tmp/ipcq-7", "mount a tmpfs on /tmp"),
        (errno.ENOENT, "/tmp/ipcq-7", "mount a tmpfs on /tmp"),
        (errno.ENOENT, "/run/user/7/ipcq", "log in, or sudo loginctl enable-linger"),
        (errno.EACCES, "/tmp/ipcq-7", "to /tmp \\(see its permissions with ls -ld /tmp\\)"),
        (errno.ELOOP, "/tmp/ipcq-7", "remove it \\(sudo rm -r /tmp/ipcq-7\\), and ipcq creates it again"),
    ],
)
def test_each_refusal_has_its_own_way_out(number: int, root: str, way: str) -> None:
    """C24: each needs a different action."""
    error = private_directory.refusal(OSError(number, os.strerror(number)), "it failed", root, root)
    with pytest.raises(PermissionDenied, match=f"^it failed \\(.*\\): .*{way}"):
        raise error


# The directories for backends


def test_the_first_usable_directory_is_created(directories: list[Path]) -> None:
    """The subdirectory is created in it, and nothing elsewhere."""
    directories[0].parent.rmdir()
    assert private_directory.make_private_directory("part") == f"{directories[1]}/part"
    assert not directories[2].exists()


def test_all_usable_directories_are_created(directories: list[Path]) -> None:
    """Their order is kept."""
    squat_with_a_file(directories[1])
    assert private_directory.make_private_directories("part") == [f"{directories[0]}/part", f"{directories[2]}/part"]


def test_a_read_only_directory_is_found_but_not_created(
    directories: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C31: files that others created there can be read."""
    private_directory.make_private_directories("part")
    monkeypatch.setattr(private_directory, "writable", lambda path: str(directories[0]) not in path)
    made, found = private_directory.make_private_directories("part"), private_directory.private_directories("part")
    assert (made, found) == (
        [f"{directory}/part" for directory in directories[1:]],
        [f"{directory}/part" for directory in directories],
    )


@pytest.mark.parametrize(("read_only", "way"), [(True, "mount a tmpfs on"), (False, "chmod 700")])
def test_the_error_for_an_unwritable_directory_has_the_way_out(
    directory: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool, way: str
) -> None:
    """Its file system may be read-only, or its mode may lack the bit."""
    monkeypatch.setattr(private_directory, "writable", lambda path: False)
    monkeypatch.setattr(private_directory, "read_only", lambda path: read_only)
    with pytest.raises(PermissionDenied, match=way):
        private_directory.make_private_directory()


@pytest.mark.parametrize("squat", SQUATS[:4])
def test_a_squatted_directory_is_not_found(directories: list[Path], squat: Callable[[Path], None]) -> None:
    """C27: ipcq does not search where others could have put files."""
    squat(directories[0])
    directories[1].mkdir(0o700)
    assert private_directory.private_directories() == [str(directories[1])]


def test_a_writable_file_system_is_not_read_only(tmp_path: Path) -> None:
    """`statvfs` shows it."""
    assert (private_directory.read_only(str(tmp_path)), private_directory.writable(str(tmp_path))) == (False, True)


@pytest.mark.parametrize(
    ("call", "look"),
    [
        ("lstat", private_directory.private_directories),
        ("lstat", lambda: private_directory.private_files("file")),
        ("fstat", taken),
        ("statvfs", private_directory.make_private_directory),
    ],
)
def test_an_error_of_inspecting_a_directory_is_translated(
    directory: Path, monkeypatch: pytest.MonkeyPatch, call: str, look: Callable[[], object]
) -> None:
    """C5: whichever call fails; the directory is not passed over because of it."""
    private_directory.make_private_directory()
    monkeypatch.setattr(private_directory, "writable", lambda path: False)
    with monkeypatch.context() as context, pytest.raises(MessageQueueError, match="worn out") as caught:
        context.setattr(private_directory.os, call, raising(OSError(errno.EIO, "worn out")))
        look()
    assert not isinstance(caught.value, PermissionDenied)
