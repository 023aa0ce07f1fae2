"""DESIGN 5, rule 3: one process at a time creates or unlinks a name, by a lock that the kernel releases."""

import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

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
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the private directory, which does not exist yet."""
    place = tmp_path / "private"
    monkeypatch.setattr(private_directory, "_roots", lambda: (str(place),))
    return place


Process = subprocess.Popen[str]
Launch = Callable[[str], Process]


@pytest.fixture
def launch(place: Path) -> Iterator[Launch]:
    """Return what starts a process that runs a script with the same private directory, ended after the test."""
    with ExitStack() as ending:

        def start(script: str) -> Process:
            process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(script), str(place)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )

            def end() -> None:
                # Its forked children are of its group.
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


HOLDS = """
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


# Excluding


def test_another_process_cannot_have_the_lock_meanwhile(launch: Launch) -> None:
    """Rule 3: creation and unlink are serialised per name."""
    holder = launch(HOLDS)
    assert (hear(holder), taken()) == ("held", True)


def test_another_process_can_have_the_lock_afterwards(launch: Launch) -> None:
    """The lock goes with its block."""
    holder = launch(HOLDS)
    hear(holder)
    tell(holder)
    assert (hear(holder), taken()) == ("free", False)


def test_another_name_is_free_meanwhile(launch: Launch) -> None:
    """Rule 3: per name."""
    hear(launch(HOLDS))
    assert not taken("/other")


def test_the_lock_of_a_killed_process_is_free_at_once(launch: Launch) -> None:
    """C16: released by the kernel when its holder is killed at any instruction."""
    holder = launch(HOLDS)
    hear(holder)
    holder.kill()
    holder.wait(HANG)
    assert not taken()


def test_threads_exclude_each_other(place: Path, start: Callable[..., Thread]) -> None:
    """C21: an open-file-description lock excludes threads, since each acquisition opens the file anew."""
    with name_lock("/jobs", NEVER):
        assert start(taken).outcome()


def test_who_waits_gets_the_lock_when_it_is_free(launch: Launch, start: Callable[..., Thread]) -> None:
    """Waiting ends with the other's block."""
    holder = launch(HOLDS)
    hear(holder)

    def wait() -> str:
        with name_lock("/jobs", NEVER):
            return "got it"

    waiter = start(wait)
    tell(holder)
    assert waiter.outcome() == "got it"


def test_waiting_ends_in_time(launch: Launch) -> None:
    """C10: never early, and TimedOutError then."""
    hear(launch(HOLDS))
    began = monotonic()
    with pytest.raises(TimedOutError), name_lock("/jobs", began + 0.05):
        pass
    assert 0.05 <= monotonic() - began < 0.55


def test_the_error_tells_whom_to_ask(launch: Launch, place: Path) -> None:
    """Who holds the lock can be found out."""
    hear(launch(HOLDS))
    words = f"queue '/jobs': .* the holder of {place}/names.lock with lslocks"
    with pytest.raises(TimedOutError, match=words), name_lock("/jobs", PASSED):
        pass


def test_opening_gives_up_after_its_time(launch: Launch) -> None:
    """Rule 3: waited for at most open_timeout."""
    hear(launch(HOLDS))
    best = next(info.name for info in ipcq.backends() if info.usable)
    with pytest.raises(TimedOutError, match=f"queue '/jobs' on backend {best!r}"):
        ipcq.open("/jobs", best, open_timeout=0.05)


def test_opening_within_a_process_needs_no_lock(launch: Launch) -> None:
    """Queues that others cannot reach are nobody else's business."""
    hear(launch(HOLDS))
    with ipcq.open("/jobs", "memory", open_timeout=0) as queue:
        assert queue.backend == "memory"


def test_a_lock_that_was_not_got_leaves_no_descriptor(launch: Launch) -> None:
    """C17: giving up gives back."""
    hear(launch(HOLDS))
    before = os.listdir("/proc/self/fd")
    taken()
    assert os.listdir("/proc/self/fd") == before


def test_an_error_in_the_block_frees_the_lock(place: Path) -> None:
    """Whatever happens under the lock, it goes."""
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
    """C20: a surviving child does not keep its parent's lock."""
    assert (hear(launch(FORKED_CHILD_LIVES)), taken()) == ("free", False)


def test_a_child_forked_meanwhile_does_not_free_the_lock(launch: Launch) -> None:
    """C20: the child's end of the block is not the parent's."""
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
    """C20: what is left over of the parent's does not hinder it."""
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


def test_a_fork_just_before_the_lock_is_given_back_does_not_keep_it(launch: Launch) -> None:
    """C20: no fork of another thread comes between forgetting the descriptor and closing it."""
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
                    forked.wait(1)  # where no fork can come in between, it comes after
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


def test_what_a_child_does_first_closes_its_parents_locks(place: Path) -> None:
    """C20: as above, step by step in one process."""
    with name_lock("/jobs", NEVER):
        (descriptor,) = forks._descriptors
        forks.abandon_others(())
        with pytest.raises(OSError):
            os.fstat(descriptor)


def test_locks_are_noted_and_forgotten(place: Path) -> None:
    """Nothing is left to close in a child that is forked later."""
    with name_lock("/jobs", NEVER):
        pass
    assert not forks._descriptors


# The place


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o177, 0o777])
def test_the_directory_is_private_under_any_umask(place: Path, umask: int) -> None:
    """C27: exactly 0700."""
    before = os.umask(umask)
    try:
        taken()
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o177, 0o777])
def test_the_file_is_private_under_any_umask(place: Path, umask: int) -> None:
    """C27: exactly 0600."""
    before = os.umask(umask)
    try:
        taken()
    finally:
        os.umask(before)
    assert stat.S_IMODE((place / "names.lock").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o770, 0o701, 0o710, 0o1777])
def test_a_directory_that_is_open_to_others_is_refused(place: Path, mode: int) -> None:
    """C27: what others can enter, others can have prepared."""
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(PermissionDenied, match=f"{mode:04o}: remove it \\(sudo rm -r {place}\\)"):
        taken()


def test_a_directory_of_somebody_else_is_refused(place: Path) -> None:
    """C27: squatters are refused, and named."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away: run the tests as root")
    place.mkdir(0o700)
    os.chown(place, 12345, -1)
    with pytest.raises(PermissionDenied, match="directory of user 12345 with mode 0700"):
        taken()


def squat_with_a_link(place: Path) -> None:
    elsewhere = place.with_name("elsewhere")
    elsewhere.mkdir(0o700)
    place.symlink_to(elsewhere)


def squat_with_a_dangling_link(place: Path) -> None:
    place.symlink_to(place.with_name("nowhere"))


def squat_with_a_file(place: Path) -> None:
    place.write_text("")


def squat_with_a_pipe(place: Path) -> None:
    os.mkfifo(place, 0o700)


def squat_with_a_link_for_the_file(place: Path) -> None:
    place.mkdir(0o700)
    (place / "names.lock").symlink_to(place.with_name("victim"))


def squat_with_a_directory_for_the_file(place: Path) -> None:
    (place / "names.lock").mkdir(parents=True)
    place.chmod(0o700)


SQUATS = [
    squat_with_a_link,
    squat_with_a_dangling_link,
    squat_with_a_file,
    squat_with_a_pipe,
    squat_with_a_link_for_the_file,
    squat_with_a_directory_for_the_file,
]


@pytest.mark.parametrize("squat", SQUATS)
def test_what_squats_in_its_place_is_refused(place: Path, squat: Callable[[Path], None]) -> None:
    """C27: a link, a file, a pipe in place of the directory, or a link or directory in place of the file."""
    squat(place)
    with pytest.raises(PermissionDenied, match="sudo rm -r"):
        taken()


@pytest.mark.parametrize("squat", SQUATS)
def test_what_squats_leaves_no_descriptor(place: Path, squat: Callable[[Path], None]) -> None:
    """C17: a refusal gives back."""
    squat(place)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(PermissionDenied):
        taken()
    assert os.listdir("/proc/self/fd") == before


def test_the_place_is_refused_with_the_systems_number(place: Path) -> None:
    """An OSError has an errno."""
    squat_with_a_file(place)
    with pytest.raises(PermissionDenied) as caught:
        taken()
    assert caught.value.errno == errno.ENOTDIR


def test_a_link_for_the_file_makes_nothing_elsewhere(place: Path) -> None:
    """C27: a link in place of the file is not followed."""
    squat_with_a_link_for_the_file(place)
    with pytest.raises(PermissionDenied):
        taken()
    assert not place.with_name("victim").exists()


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
def test_each_condition_of_the_system_is_its_own_class(
    place: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    """C24: a full descriptor table is a limit, a full disk no space, the rest no permission."""

    def mkdir(path: str, mode: int) -> None:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(_namelock.os, "mkdir", mkdir)
    with pytest.raises(kind) as caught:
        taken()
    assert caught.value.errno == number  # type: ignore[attr-defined]


def refuse(*_: object) -> None:
    raise OSError(errno.EIO, "broken")


def test_a_file_whose_mode_cannot_be_set_leaves_no_descriptor(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: the system's refusal is our error, with its number."""
    taken()
    (place / "names.lock").chmod(0o644)  # it is set only where it is wrong
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(_namelock.os, "fchmod", refuse)
    with pytest.raises(MessageQueueError) as caught:
        taken()
    assert (caught.value.errno, os.listdir("/proc/self/fd")) == (errno.EIO, before)


def test_a_lock_that_the_system_refuses_is_our_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: with its number, and no descriptor is left."""
    taken()
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(_namelock, "_try_lock", refuse)
    with pytest.raises(MessageQueueError, match="cannot be locked") as caught:
        taken()
    assert (caught.value.errno, os.listdir("/proc/self/fd")) == (errno.EIO, before)


def test_a_lock_that_cannot_be_given_back_goes_with_its_descriptor(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C5: what was done under it is done, and the lock is free."""
    with monkeypatch.context() as patch:
        patch.setattr(_namelock, "_unlock", refuse)
        taken()
    taken()


def test_no_environment_variable_moves_the_place(run: Run, tmp_path: Path) -> None:
    """Rule 3: at a place no environment variable moves."""
    moved = {name: str(tmp_path) for name in ("TMPDIR", "TEMP", "TMP", "HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME")}
    said = run(
        "from ipcq._process.private_directory import private_places; print(*private_places())", environment=moved
    )
    user = os.geteuid()
    assert said == f"/tmp/ipcq-{user} /dev/shm/ipcq-{user} /run/user/{user}/ipcq"


def test_a_thread_that_waits_does_not_hinder_a_fork(launch: Launch) -> None:
    """C20: forking waits for nobody who waits for a lock."""
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
    """Rule 3: files for each user."""
    assert all(str(os.geteuid()) in place for place in private_directory.private_places())


def test_waiting_threads_take_turns(place: Path) -> None:
    """Rule 3: never two at a time, however many want it."""
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
def test_what_the_system_refuses_the_file_of_the_lock_is_told(
    place: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    """C24: with the directory there, which needs neither a descriptor nor space any more."""
    with name_lock("/jobs", PASSED):
        pass

    def refuse(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as context, pytest.raises(error):
        context.setattr(_namelock.os, "open", refuse)
        with name_lock("/jobs", PASSED):
            pass


def test_a_directory_that_another_process_makes_meanwhile_is_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C16: two begin at once."""
    mkdir = os.mkdir

    def overtaken(path: str, mode: int) -> None:
        mkdir(path, mode)
        raise FileExistsError(errno.EEXIST, "somebody was faster", path)

    monkeypatch.setattr(_namelock.os, "mkdir", overtaken)
    assert not taken()


# Several places


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the paths of three private directories, which do not exist yet."""
    places = [tmp_path / each / "private" for each in ("first", "second", "third")]
    for place in places:
        place.parent.mkdir()
    use(monkeypatch, *places)
    return places


def use(monkeypatch: pytest.MonkeyPatch, *places: Path) -> None:
    monkeypatch.setattr(private_directory, "_roots", lambda: tuple(map(str, places)))


def let_read_only(monkeypatch: pytest.MonkeyPatch, *places: Path) -> None:
    """Let the files in these places be there for reading alone."""
    system_open = os.open

    def open_it(path: str, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR and Path(path).parent in places:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return system_open(path, flags, *mode)

    monkeypatch.setattr(_namelock.os, "open", open_it)


def taken_from(monkeypatch: pytest.MonkeyPatch, *places: Path, read_only: tuple[Path, ...] = ()) -> bool:
    """Tell whether the lock is taken for a process that has these places."""
    with monkeypatch.context() as context:
        use(context, *places)
        let_read_only(context, *read_only)
        return taken()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_lock_is_taken_in_every_place(places: list[Path], monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """C31: whichever of them another process can use, it is excluded."""
    with name_lock("/jobs", PASSED):
        assert taken_from(monkeypatch, places[number])


def test_the_lock_is_given_back_in_every_place(places: list[Path]) -> None:
    """Nothing is left of it."""
    with name_lock("/jobs", PASSED):
        pass
    assert not taken()


def test_a_lock_that_was_not_got_in_one_place_is_given_back_in_the_others(
    places: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C17: giving up gives back."""
    with monkeypatch.context() as context:
        use(context, places[2])
        with name_lock("/jobs", PASSED):
            assert taken_from(monkeypatch, *places)
            assert not taken_from(monkeypatch, *places[:2])


@pytest.mark.parametrize("mine", [0, 1])
def test_who_can_only_read_the_file_of_another_is_excluded_by_him(
    places: list[Path], monkeypatch: pytest.MonkeyPatch, mine: int
) -> None:
    """C31: two processes, neither of which can write where the other can."""
    one, two = places[mine], places[1 - mine]
    taken_from(monkeypatch, one)
    taken_from(monkeypatch, two)
    with monkeypatch.context() as context:
        let_read_only(context, two)
        use(context, *places[:2])
        with name_lock("/jobs", PASSED):
            context.undo()
            assert taken_from(monkeypatch, *places[:2], read_only=(one,))


def test_one_directory_in_two_places_is_locked_once(places: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may mount one volume on both; the lock would wait for itself."""
    assert not taken_from(monkeypatch, places[0], places[0])


def test_a_place_that_is_missing_is_passed_over(
    places: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """C31: another place does."""
    assert not taken_from(monkeypatch, tmp_path / "missing" / "private", places[1])


def test_a_squatted_place_is_passed_over(places: list[Path]) -> None:
    """C31: another place does."""
    squat_with_a_file(places[0])
    assert not taken()


def failing_in(place: Path, number: int) -> Callable[..., int]:
    system_open = os.open

    def open_it(path: str, flags: int, *mode: int) -> int:
        if Path(path).parent == place:
            raise OSError(number, os.strerror(number), path)
        return system_open(path, flags, *mode)

    return open_it


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_lasting_refusal_passes_the_place_over(
    places: list[Path], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """C31: read-only, forbidden and full places are so for others, too."""
    monkeypatch.setattr(_namelock.os, "open", failing_in(places[0], number))
    assert not taken()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO])
def test_a_refusal_that_may_pass_is_an_error(places: list[Path], monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """C31: another process would take the lock there, and this one would not notice."""
    monkeypatch.setattr(_namelock.os, "open", failing_in(places[1], number))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(MessageQueueError) as caught:
        taken()
    assert (caught.value.errno, os.listdir("/proc/self/fd")) == (number, before)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_such_a_refusal_of_a_file_for_reading_is_an_error(
    places: list[Path], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """C31: the same for what is only shared."""
    taken()
    let_read_only(monkeypatch, places[0])
    read_only = os.open

    def refuse(path: str, flags: int, *mode: int) -> int:
        if not flags & os.O_RDWR:
            raise OSError(number, os.strerror(number), path)
        return read_only(path, flags, *mode)

    monkeypatch.setattr(_namelock.os, "open", refuse)
    with pytest.raises(MessageQueueError) as caught:
        taken()
    assert caught.value.errno == number


def test_a_read_only_place_without_a_file_is_passed_over(places: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can have locked it, and nobody who could is without a lock that this process sees."""
    places[0].mkdir(0o700)
    assert not taken_from(monkeypatch, *places, read_only=(places[0],))


def test_where_no_place_can_be_used_each_is_named_with_its_reason(
    places: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads the error knows what to change."""
    let_read_only(monkeypatch, places[0])
    squat_with_a_file(places[1])
    places[2].parent.rmdir()
    with pytest.raises(PermissionDenied) as caught:
        taken()
    one, two, three = caught.value.detail.partition("but none is usable: ")[2].split("; ")
    assert one.endswith(f"(Read-only file system): mount a tmpfs on {places[0].parent}")
    assert two.endswith(f"remove it (sudo rm -r {places[1]}), and ipcq creates it again")
    assert three.endswith(f"(No such file or directory): mount a tmpfs on {places[2].parent}")


def test_where_no_place_can_be_used_and_one_is_full_it_is_no_space(
    places: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C24: freeing space is the way out."""
    for place in places[:2]:
        place.parent.rmdir()
    monkeypatch.setattr(_namelock.os, "open", failing_in(places[2], errno.ENOSPC))
    with pytest.raises(NoSpace, match=f"free some space in {places[2].parent}") as caught:
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
    """C24: what helps against one of them does not help against another."""
    error = private_directory.refusal(OSError(number, os.strerror(number)), "it failed", root, root)
    with pytest.raises(PermissionDenied, match=f"^it failed \\(.*\\): .*{way}"):
        raise error


# The directories as backends get them


def test_the_first_directory_that_can_be_used_is_made(places: list[Path]) -> None:
    """With the part, and nothing elsewhere."""
    places[0].parent.rmdir()
    assert private_directory.make_private_directory("part") == f"{places[1]}/part"
    assert not places[2].exists()


def test_all_directories_that_can_be_used_are_made(places: list[Path]) -> None:
    """In their order."""
    squat_with_a_file(places[1])
    assert private_directory.make_private_directories("part") == [f"{places[0]}/part", f"{places[2]}/part"]


def test_a_directory_that_cannot_be_written_to_is_found_and_not_made(
    places: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C31: what others made there can be read."""
    private_directory.make_private_directories("part")
    monkeypatch.setattr(private_directory, "writable", lambda path: str(places[0]) not in path)
    made, found = private_directory.make_private_directories("part"), private_directory.private_directories("part")
    assert (made, found) == ([f"{place}/part" for place in places[1:]], [f"{place}/part" for place in places])


@pytest.mark.parametrize(("read_only", "way"), [(True, "mount a tmpfs on"), (False, "chmod 700")])
def test_a_directory_that_cannot_be_written_to_says_what_to_do(
    place: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool, way: str
) -> None:
    """Its file system may be read-only, or its mode be without the bit."""
    monkeypatch.setattr(private_directory, "writable", lambda path: False)
    monkeypatch.setattr(private_directory, "read_only", lambda path: read_only)
    with pytest.raises(PermissionDenied, match=way):
        private_directory.make_private_directory()


@pytest.mark.parametrize("squat", SQUATS[:4])
def test_a_squatted_directory_is_not_found(places: list[Path], squat: Callable[[Path], None]) -> None:
    """C27: nothing is looked for where others can have put it."""
    squat(places[0])
    places[1].mkdir(0o700)
    assert private_directory.private_directories() == [str(places[1])]


def test_a_file_system_for_writing_is_not_read_only(tmp_path: Path) -> None:
    """As `statvfs` says."""
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
def test_a_look_that_the_system_refuses_is_our_error(
    place: Path, monkeypatch: pytest.MonkeyPatch, call: str, look: Callable[[], object]
) -> None:
    """C5: whichever system call fails, and no place is passed over for it."""
    private_directory.make_private_directory()
    monkeypatch.setattr(private_directory, "writable", lambda path: False)
    with monkeypatch.context() as context, pytest.raises(MessageQueueError, match="worn out") as caught:
        context.setattr(private_directory.os, call, raising(OSError(errno.EIO, "worn out")))
        look()
    assert not isinstance(caught.value, PermissionDenied)
