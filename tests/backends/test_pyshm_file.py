"""The file of a pyshm queue: its space, its limits, its removal, and errors of the system."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import ipcq
from backends import pyshm
from backends.pyshm import SMALL, USES, Handle, as_root, attach, attach_and_get, both_orders, create, drain, read_state
from ipcq._process import private_directory
from ipcq.backend import Attributes, Request, Severity, explained
from ipcq.errors import (
    InvalidArgument,
    LimitExceeded,
    MessageQueueError,
    NoSpace,
    PermissionDenied,
    QueueExists,
    QueueFull,
    QueueNotFound,
    Unsupported,
)
from ipcq_pyshm import PyshmBackend, _file, _place, _segment
from ipcq_pyshm._layout import STATE_ROOM, STATES_AT, Header, LeaseState, State, newest, newest_of_leases, place

name, queue = pyshm.name, pyshm.queue


# Space


@pytest.fixture
def small_file_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Put queues on a file system of 256 KiB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(tmp_path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr}")
    monkeypatch.setattr(_place, "SHARED", str(tmp_path))
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@as_root
def test_a_full_file_system_is_no_space_and_leaves_no_name(small_file_system: Path, name: str) -> None:
    """C23: at any size beyond the free space."""
    for size in (1 << 18, 1 << 19, 1 << 30, 1 << 40):
        with pytest.raises(NoSpace, match=r"no space for \d+ bytes"):
            ipcq.open(name, "pyshm", exclusive=True, buffer_size=size)
        assert not list(small_file_system.iterdir())


@as_root
def test_a_queue_needs_no_space_once_it_is_created(small_file_system: Path, name: str) -> None:
    """C23: a file that fills the file system afterwards takes nothing from the queue."""
    with ipcq.open(name, "pyshm", exclusive=True, max_messages=16, max_message_size=4096, serializer="raw") as queue:
        with pytest.raises(OSError), (small_file_system / "filler").open("wb") as filler:  # ENOSPC
            while True:
                filler.write(bytes(4096))
        for number in range(50):
            queue.put(bytes([number]) * 4096)
            assert queue.get_nowait() == bytes([number]) * 4096


@as_root
def test_space_that_is_used_up_meanwhile_is_no_space_too(
    small_file_system: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C23: the check of free space only protects other users of the file system; the allocation decides."""
    monkeypatch.delattr(os, "fstatvfs")
    with pytest.raises(NoSpace):
        ipcq.open(name, "pyshm", exclusive=True, buffer_size=1 << 20)
    assert not list(small_file_system.iterdir())


@as_root
def test_a_file_system_that_is_nearly_full_is_a_finding(small_file_system: Path) -> None:
    """The warning has the figures and a command."""
    (small_file_system / "filler").write_bytes(bytes(250 << 10))
    (finding,) = PyshmBackend().findings()
    assert finding.severity is Severity.WARNING
    assert "remount" in finding.fix


def test_an_allocation_completes_under_a_fast_timer(name: str) -> None:
    """C23: a call that a signal interrupts starts again, so each call has to be short."""
    script = f"""
import signal, ipcq
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
queue = ipcq.open({name!r}, "pyshm", exclusive=True, buffer_size=32 << 20)
signal.setitimer(signal.ITIMER_REAL, 0)
queue.close()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert os.path.getsize(_place.path_of(name)) > 32 << 20


@pytest.mark.parametrize("limits", [{"buffer_size": 1 << 49}, {"max_messages": 1 << 61, "max_message_size": 1}])
def test_a_size_beyond_any_machine_is_no_space(name: str, limits: dict[str, int]) -> None:
    """Clause 6: refused before anything is allocated."""
    with pytest.raises(NoSpace):
        ipcq.open(name, "pyshm", exclusive=True, **limits)


# Limits

LIMITS = [
    ({}, (None, 1 << 18, 1 << 20)),
    ({"max_messages": 3}, (3, 1 << 18, 1 << 20)),
    ({"max_message_size": 1 << 20}, (None, 1 << 20, 1 << 22)),
    ({"buffer_size": 1}, (None, 1, 1)),
    ({"max_messages": 3, "max_message_size": 1000}, (3, 1000, None)),
    ({"max_message_size": 1000, "buffer_size": 1000}, (None, 1000, 1000)),
    ({"max_messages": 3, "max_message_size": 1000, "buffer_size": 3000}, (3, 1000, 3000)),
]


@pytest.mark.parametrize(("limits", "attributes"), LIMITS)
@both_orders
def test_limits_that_were_not_given_follow_from_the_others(
    name: str, limits: dict[str, int], attributes: tuple[int | None, ...], priorities: bool
) -> None:
    """DESIGN 4: as in the table, and one message of the maximum size always fits."""
    with ipcq.open(name, "pyshm", exclusive=True, priorities=priorities, serializer="raw", **limits) as queue:
        assert (queue.max_messages, queue.max_message_size, queue.buffer_size) == attributes
        queue.put_nowait(bytes(queue.max_message_size))
        assert len(queue.get_nowait()) == queue.max_message_size


@pytest.mark.parametrize("limits", [{"max_message_size": 9, "buffer_size": 8}, {**SMALL, "buffer_size": 255}])
def test_a_buffer_too_small_for_the_other_limits_is_refused(name: str, limits: dict[str, Any]) -> None:
    """Clause 6: limits are never rounded."""
    with pytest.raises(InvalidArgument):
        ipcq.open(name, "pyshm", **limits)


@pytest.mark.parametrize("messages", [3, 40])
@pytest.mark.parametrize("size", [1, 511, 512, 1500])
@both_orders
def test_bounds_in_messages_and_bytes_are_exact(name: str, messages: int, size: int, priorities: bool) -> None:
    """Clause 6: with all three limits given, in any order of gets."""
    limits = {"max_messages": messages, "max_message_size": size, "buffer_size": messages * size}
    with ipcq.open(name, "pyshm", exclusive=True, priorities=priorities, serializer="raw", **limits) as queue:
        for turn in range(4):
            for number in range(messages):
                queue.put_nowait(bytes([number]) * size) if not priorities else queue.put(
                    bytes([number]) * size, False, priority=number * 7 % 5
                )
            assert queue.full()
            with pytest.raises(QueueFull):
                queue.put_nowait(b"")
            taken = sorted(queue.get_nowait() for _ in range(messages - turn))
            assert len(taken) + queue.clear() == messages
            assert queue.stats().bytes == 0


@pytest.mark.parametrize(("kind", "read"), [(State, newest), (LeaseState, newest_of_leases)])
def test_a_state_is_read_as_it_was_written(kind: type[State], read: Callable[[bytes], State | None]) -> None:
    """C15: each number in its field, although the order is written out for both directions."""
    state = kind.first(0)
    fields = {*State.__slots__, *kind.__slots__} - {"cut_off"} - ({"head", "tail"} if kind is LeaseState else set())
    for number, field in enumerate(sorted(fields)):
        setattr(state, field, number)
    raw = bytearray(2 * STATE_ROOM)
    at = place(state.sequence) - STATES_AT
    raw[at : at + len(state.packed())] = state.packed()
    found = read(bytes(raw))
    assert [getattr(found, field) for field in sorted(fields)] == list(range(len(fields)))


def test_large_messages_of_many_blocks_come_back_whole(name: str) -> None:
    """C7, clause 10: through chains that are scattered over the file."""
    import random

    chance = random.Random(1)
    with ipcq.open(name, "pyshm", exclusive=True, priorities=True, serializer="raw") as queue:
        there: list[tuple[int, int, bytes]] = []
        for number in range(400):
            data = chance.randbytes(chance.choice((0, 1, 495, 496, 497, 5000, 100_000)))
            priority = chance.randrange(4)
            try:
                queue.put_nowait(data) if not priority else queue.put(data, False, priority=priority)
                there.append((-priority, number, data))
            except QueueFull:
                pass
            if chance.random() < 0.5 and there:
                there.sort()
                message = queue.get_message()
                assert (-message.priority, message.item) == (there[0][0], there[0][2])
                del there[0]
        there.sort()
        assert [queue.get_nowait() for _ in there] == [data for _, _, data in there]


# Last-close queues and leftover files


def leave_file(name: str) -> None:
    """Leave the file of a last-close queue whose holders were killed."""
    attributes = Attributes(mode=0o600, max_messages=1, max_message_size=1, lifetime="last-close")
    os.close(_segment.make(Header(name, attributes, "file", bytes(8))))
    assert os.path.exists(_place.path_of(name))


@pytest.mark.parametrize(
    ("look", "answer"),
    [
        (lambda name: ipcq.exists(name, "pyshm"), False),
        (lambda name: name in PyshmBackend().names(), False),
        (lambda name: create(name).close(), None),
        (lambda name: PyshmBackend().create(name, Request()).close(), None),
    ],
)
def test_a_file_left_by_killed_holders_is_no_queue(name: str, look: Callable[[str], object], answer: object) -> None:
    """Clause 5: the first process that looks removes it."""
    leave_file(name)
    inode = os.lstat(_place.path_of(name)).st_ino
    assert look(name) is answer
    assert not os.path.exists(_place.path_of(name)) or os.lstat(_place.path_of(name)).st_ino != inode


@pytest.mark.parametrize("verb", ["attach", "unlink"])
def test_a_file_left_by_killed_holders_is_not_found(name: str, verb: str) -> None:
    """Clause 5: and removed by that look."""
    leave_file(name)
    with pytest.raises(QueueNotFound):
        getattr(PyshmBackend(), verb)(name, *[Request()][: verb == "attach"])
    assert not os.path.exists(_place.path_of(name))


def test_a_last_close_queue_that_is_being_removed_is_not_found(name: str) -> None:
    """Clause 5: a process that found no holder keeps others out until the file is removed."""
    leave_file(name)
    descriptor = os.open(_place.path_of(name), os.O_RDWR)
    assert _file.try_to_own(descriptor)
    with pytest.raises(QueueNotFound):
        PyshmBackend().attach(name, Request())
    assert ipcq.exists(name, "pyshm")
    os.unlink(_place.path_of(name))
    os.close(descriptor)


def test_closing_leaves_a_successor_alone(name: str) -> None:
    """Clause 4: the name may belong to another queue by now."""
    with create(name, lifetime="last-close") as old:
        ipcq.unlink(name, "pyshm")
        with create(name) as new:
            old.close()
            new.put(b"kept")
            assert new.get() == b"kept"


def test_closing_an_unlinked_queue_raises_nothing(name: str) -> None:
    """C14: in either order."""
    queue = create(name, lifetime="last-close")
    queue.unlink()
    queue.close()
    assert not os.path.exists(_place.path_of(name))


def test_leftover_files_are_findings(name: str) -> None:
    """The findings name the file and the command."""
    leave_file(name)
    half = f"{_place.path_of(name)}.{'0' * 16}"
    Path(half).touch()
    squat = _place.path_of(f"{name}-squat")
    os.symlink(os.devnull, squat)
    with create(f"{name}-alive", lifetime="last-close"):
        fixes = [finding.fix for finding in PyshmBackend().findings()]
    assert f"rm {_place.path_of(name)}" in fixes
    assert f"rm {half}" in fixes
    assert f"rm {squat}" not in fixes
    os.unlink(squat)
    assert not any(_place.path_of(f"{name}-alive") in fix for fix in fixes)


def test_a_queue_unlinked_during_an_attach_is_not_found(
    queue: Handle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C14: between opening the file and checking it."""
    monkeypatch.setattr(_segment, "check_owner", lambda *_, **__: os.unlink(_place.path_of(name)))
    with pytest.raises(QueueNotFound):
        PyshmBackend().attach(name, Request())


def test_a_last_close_queue_that_is_removed_during_an_attach_is_not_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clause 5: the process that found no holder came first."""
    with create(name, lifetime="last-close"):
        monkeypatch.setattr(_file, "hold", lambda descriptor: False)
        with pytest.raises(QueueNotFound):
            PyshmBackend().attach(name, Request())


def test_a_file_that_is_removed_while_names_are_listed_is_left_out(queue: Handle, name: str) -> None:
    """Clause 2: looking raises no error."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(_segment, "_reaped", lambda path: False)
        assert _segment.header_of("/nowhere/at/all") is None
    assert name in PyshmBackend().names()


# Systems other than Linux


@pytest.fixture
def other_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Simulate a system without /dev/shm and without O_TMPFILE."""
    home = tmp_path / "pyshm"
    monkeypatch.setattr(_place, "SHARED", None)
    monkeypatch.setattr(private_directory, "_roots", lambda: (str(tmp_path),))
    monkeypatch.delattr(os, "O_TMPFILE")
    monkeypatch.delattr(os, "posix_fallocate")
    return home


def test_on_other_systems_a_queue_is_in_a_private_directory(other_system: Path, name: str) -> None:
    """C27: created with mode 0700, and the file ends up with one name."""
    assert PyshmBackend().probe().usable
    with create(name) as queue:
        queue.put(b"x")
        assert attach_and_get(name) == b"x"
        assert other_system.stat().st_mode & 0o777 == 0o700
        assert len(list(other_system.iterdir())) == 1
        assert PyshmBackend().findings() == []
        with pytest.raises(QueueExists):
            create(name)
        assert len(list(other_system.iterdir())) == 1
        queue.unlink()


def test_a_private_directory_that_is_not_private_is_refused(other_system: Path, name: str) -> None:
    """C27: as any squatter's."""
    other_system.mkdir(mode=0o755)
    with pytest.raises(PermissionDenied, match="0700"):
        create(name)
    other_system.chmod(0o700)


def test_the_second_name_of_a_creator_that_was_killed_is_removed(other_system: Path, name: str) -> None:
    """C16: between the link and the unlink that follows, the file has two names."""
    create(name).close()
    path = _place.path_of(name)
    os.link(path, f"{path}.{'0' * 16}")
    (other_system / f"{Path(path).name}.{'1' * 16}").touch()
    attach(name).close()
    assert sorted(each.name for each in other_system.iterdir()) == [Path(path).name, f"{Path(path).name}.{'1' * 16}"]


def test_a_file_system_without_o_tmpfile_works(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems answer O_TMPFILE with EOPNOTSUPP, old kernels with EISDIR."""
    whole = os.open

    def refuse(path: str, flags: int, *arguments: int, **named: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no")
        return whole(path, flags, *arguments, **named)

    monkeypatch.setattr(os, "open", refuse)
    with create(name) as queue:
        queue.put(b"x")
        assert drain(queue) == [b"x"]


def test_without_the_directory_there_are_no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe gives the reason, and no other call fails."""
    monkeypatch.setattr(_place, "SHARED", "/nowhere")
    assert PyshmBackend().names() == []
    assert PyshmBackend().findings() == []
    assert "/nowhere is missing" in PyshmBackend().probe().reason


def test_a_directory_that_cannot_be_listed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """C27: PermissionDenied has the path."""
    monkeypatch.setattr(_place, "SHARED", os.devnull)
    with pytest.raises(PermissionDenied, match=os.devnull):
        PyshmBackend().names()


@pytest.mark.parametrize("option", ["other_users", "last_close"])
def test_options_that_the_system_lacks_are_unsupported(name: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 20: the system may lack locks of open file descriptions, or modes."""
    import ipcq_pyshm

    backend = PyshmBackend()
    less = ipcq.Capabilities(**{**vars(ipcq_pyshm.CAPABILITIES), option: False})
    monkeypatch.setattr(ipcq_pyshm, "CAPABILITIES", less)
    request = Request(mode=0o666, other_users=True) if option == "other_users" else Request(lifetime="last-close")
    with pytest.raises(Unsupported):
        backend.create(name, request)
    assert not backend.exists(name)


# Errors of the system


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, QueueNotFound),
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.EFBIG, NoSpace),
        (errno.EMFILE, LimitExceeded),
        (errno.ENFILE, LimitExceeded),
        (errno.EACCES, PermissionDenied),
        (errno.EPERM, PermissionDenied),
        (errno.ELOOP, PermissionDenied),
        (errno.EISDIR, PermissionDenied),
        (errno.EIO, MessageQueueError),
    ],
)
def test_each_error_number_is_one_class(number: int, kind: type[MessageQueueError]) -> None:
    """STYLE 31: one table translates foreign errors and keeps their number."""
    error = explained(OSError(number, os.strerror(number)), _segment.ERRORS)
    assert (type(error), error.errno) == (kind, number)


@pytest.mark.parametrize("verb", ["create", "attach"])
def test_a_full_descriptor_table_is_a_limit(
    queue: Handle, name: str, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C24: LimitExceeded names RLIMIT_NOFILE."""

    def refuse(*arguments: object, **named: object) -> int:
        raise OSError(errno.EMFILE, "too many")

    with monkeypatch.context() as context, pytest.raises(LimitExceeded, match="RLIMIT_NOFILE"):
        context.setattr(os, "open", refuse)
        getattr(PyshmBackend(), verb)(f"{name}-other" if verb == "create" else name, Request())


def test_short_writes_are_continued(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """pwrite(2) may write less than it was given."""
    whole = _file.pwrite
    monkeypatch.setattr(_file, "pwrite", lambda descriptor, data, at: whole(descriptor, data[:7], at))
    queue.put(b"x" * 64)
    assert queue.get() == b"x" * 64


def test_an_error_of_the_system_is_raised(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: the error has the number, and nothing was stored."""

    def refuse(*arguments: object) -> int:
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as context:
        context.setattr(_file, "pwrite", refuse)
        with pytest.raises(MessageQueueError) as caught:
            queue.put(b"x")
        context.setattr(_file, "pread", refuse)
        with pytest.raises(MessageQueueError):
            queue.qsize()
        now = time.monotonic()
        queue._channel.wait_readable(now, now + 60)  # returns at the first failed look; the next try raises the error
    assert caught.value.errno == errno.EIO
    assert queue.empty()


@pytest.mark.parametrize("use", ["put", "get", "put_many", "clear"])
@both_orders
def test_any_call_that_fails_leaves_the_queue_as_it_was(
    name: str, use: str, priorities: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C5, clause 11: the n-th write fails, for all n up to the commit."""
    with create(name, priorities=priorities) as queue:
        queue.put_many([b"a" * 50, b"b" * 50])
        whole, before = _file.pwrite, read_state(name).sequence
        failing = 0
        while True:
            failing += 1
            calls = 0

            def fail(descriptor: int, data: bytes, at: int) -> int:
                nonlocal calls
                calls += 1
                if calls == failing:  # noqa: B023  # called in this turn
                    raise OSError(errno.ENOSPC, "full")
                return whole(descriptor, data, at)

            with monkeypatch.context() as context:
                context.setattr(_file, "pwrite", fail)
                with suppress(NoSpace):
                    USES[use](queue)
            if read_state(name).sequence != before:
                break
            assert [queue.peek(), queue.qsize()] == [b"a" * 50, 2]
        assert failing > 1
