"""What is particular to shared memory: the file that holds a queue, who may use it, and what it may hold."""

import builtins
import errno
import os
import random
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import ipcq
from ipcq.backend import Request
from ipcq.testing.processes import fresh_name
from processes.needs import usable

fcntl = pytest.importorskip("fcntl", reason="could not import 'fcntl', which only POSIX has")
_segment = pytest.importorskip("ipcq_shm._segment")
SMALL = {"max_messages": 4, "max_message_size": 512}


@pytest.fixture(autouse=True)
def works() -> None:
    """Skip where the extension was not built."""
    usable("shm")


@pytest.fixture
def name() -> Iterator[str]:
    """Return a name, whose queue or whatever else stands there is removed."""
    name = fresh_name()
    yield name
    path = _segment.path_of(name)
    if os.path.isdir(path) and not os.path.islink(path):
        os.rmdir(path)
    elif os.path.lexists(path):
        os.unlink(path)


def create(name: str, **options: Any) -> "ipcq.Queue[Any]":
    return ipcq.open(name, "shm", exclusive=True, **{"serializer": "raw", **SMALL, **options})


def attach(name: str, **options: Any) -> "ipcq.Queue[Any]":
    return ipcq.open(name, "shm", create=False, **{"serializer": "raw", **options})


# The file


@pytest.mark.parametrize("buffer_size", [1 << 20, 32 << 20])
def test_the_file_is_as_large_as_what_was_asked_for_and_little_more(name: str, buffer_size: int) -> None:
    """C23: at most 64 KiB beside the buffer, and all of it taken, also what mapping does not touch."""
    with create(name, max_messages=None, max_message_size=None, buffer_size=buffer_size):
        found = os.stat(_segment.path_of(name))
        assert buffer_size < found.st_size <= buffer_size + (64 << 10)
        assert found.st_blocks * 512 >= found.st_size


def test_what_others_fill_afterwards_harms_no_queue() -> None:
    """C23: a queue has its memory from the beginning; where there is none left, another cannot be made."""
    code = """
import ipcq, os
with ipcq.open("/full", "shm", buffer_size=17 << 20, serializer="raw") as queue:
    with open("/dev/shm/filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(1 << 16))
        except OSError:
            pass
    stored = 0
    while not queue.full():
        try:
            queue.put(bytes(1 << 20), timeout=0)
            stored += 1
        except ipcq.QueueFull:
            break
    try:
        ipcq.open("/other", "shm")
    except ipcq.NoSpace:
        print(stored, sum(queue.get() == bytes(1 << 20) for _ in range(stored)), ipcq.exists("/other", "shm"))
"""
    command = 'mount -t tmpfs -o size=20m none /dev/shm && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, sys.executable, code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "unshare" in done.stderr:
        pytest.skip("only root can mount")
    assert done.stdout.strip() == "16 16 False", done.stderr


@pytest.mark.parametrize("priorities", [False, True])
def test_python_reads_the_header_that_the_extension_wrote(name: str, priorities: bool) -> None:
    """C18: the layout that finds queues without the extension is the one that it asserts."""
    with create(name, priorities=priorities, lifetime="last-close") as queue:
        header = _segment.read_header(queue._channel.descriptor)
        assert (header.version, header.word_size, header.max_messages, header.max_message_size) == (1, 8, 4, 512)
        assert header.pid_namespace == os.stat("/proc/self/ns/pid").st_ino
        assert header.flags == _segment.LAST_CLOSE | (_segment.ORDERED if priorities else 0)
        assert os.pread(queue._channel.descriptor, 256, _segment.NAME_AT).rstrip(b"\0").decode() == name


@pytest.mark.parametrize("rest", ["", "x" * 254, "ü" * 100])
def test_names_of_any_length_are_listed(rest: str) -> None:
    """C25: a name that is too long for a file is kept in it."""
    name = (fresh_name() + rest).encode()[:254].decode(errors="ignore")
    with create(name) as queue:
        assert [info.name for info in ipcq.queues() if info.name == name] == [name]
        assert queue.fileno() >= 0
        queue.unlink()
    assert name not in {info.name for info in ipcq.queues()}


def test_what_has_nothing_to_do_with_a_queue_is_not_listed(name: str) -> None:
    """C18: neither another's file nor one whose name does not fit what it says."""
    path = f"{_segment.DIRECTORY}/ipcq-shm-{os.getpid()}"
    with open(path, "wb") as file:
        file.write(bytes(20_000))
    try:
        assert not [info for info in ipcq.queues() if str(os.getpid()) in info.name]
    finally:
        os.unlink(path)
    assert {_segment._name_of(file) for file in ("ipcq-shm-gone", "another")} == {""}


# Limits


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"max_message_size": 2**32}, ipcq.Unsupported),
        ({"max_message_size": 2**40, "max_messages": 1}, ipcq.Unsupported),
        ({"max_message_size": 512, "max_messages": 4, "buffer_size": 2000}, ipcq.InvalidArgument),
        ({"max_message_size": 512, "max_messages": None, "buffer_size": 512}, ipcq.InvalidArgument),
        ({"max_messages": None, "max_message_size": None, "buffer_size": 10}, ipcq.InvalidArgument),
        ({"max_messages": None, "max_message_size": 1, "buffer_size": 1 << 47}, ipcq.Unsupported),
        ({"max_messages": 2**64, "max_message_size": None}, ipcq.Unsupported),
        ({"max_messages": 1 << 16, "max_message_size": 1 << 28}, ipcq.NoSpace),
        ({"mode": 0o622}, ipcq.Unsupported),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(name: str, limits: dict[str, Any], error: type[Exception]) -> None:
    """C24, contract clause 6: with the limit, and nothing is left behind."""
    with pytest.raises(error):
        create(name, **limits)
    assert not ipcq.exists(name, "shm")


def test_a_full_file_system_is_no_space(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C23: also where it becomes full while the file is made, and nothing of it is left."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(ipcq.NoSpace):
        create(name)
    assert not ipcq.exists(name, "shm")


@pytest.mark.parametrize("limits", [{"buffer_size": 4096}, {"max_messages": 2, "max_message_size": 100}], ids=str)
@pytest.mark.parametrize("priorities", [False, True])
def test_limits_are_the_same_on_every_handle(name: str, limits: dict[str, int], priorities: bool) -> None:
    """C18, contract clause 6: what was given is as given, what was not is None or what was made of it."""
    none = dict.fromkeys(SMALL)
    with create(name, **{**none, **limits}, priorities=priorities) as queue, attach(name, **limits) as other:
        assert queue._channel.attributes == other._channel.attributes
        assert {limit: getattr(other, limit) for limit in limits} == limits


@pytest.mark.parametrize(("priorities", "reason"), [(False, "free"), (True, "at most")])
def test_a_queue_with_priorities_is_not_larger_than_its_numbers(name: str, priorities: bool, reason: str) -> None:
    """C24: those of cells have 32 bits, so that this limit comes before the lack of space."""
    with pytest.raises((ipcq.Unsupported, ipcq.NoSpace), match=reason):
        create(name, buffer_size=1 << 39, max_messages=None, max_message_size=512, priorities=priorities)


def test_a_file_larger_than_this_process_may_make_is_a_limit(name: str) -> None:
    """C24: with its name, its value, and what was asked."""
    code = f"""
import errno, ipcq, resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))
try:
    ipcq.open({name!r}, "shm")
except ipcq.LimitExceeded as error:
    print(error.limit, error.value, error.asked > 1 << 20, error.errno == errno.EFBIG)
"""
    assert told(code) == "RLIMIT_FSIZE 524288 True True"


def test_too_many_mappings_are_a_limit(name: str) -> None:
    """C24: which the kernel calls a want of memory."""
    code = f"""
import errno, ipcq, mmap
from ipcq_shm import _channel
create, most = ipcq.open, int(open("/proc/sys/vm/max_map_count").read())
create({name + "-first"!r}, "shm").unlink()
space = mmap.mmap(-1, 2 * most * mmap.PAGESIZE)
import ctypes
protect = ctypes.CDLL(None, use_errno=True).mprotect
start = ctypes.addressof(ctypes.c_char.from_buffer(space))
page = 0
while protect(ctypes.c_void_p(start + 2 * page * mmap.PAGESIZE), mmap.PAGESIZE, mmap.PROT_READ) == 0:
    page += 1
try:
    create({name!r}, "shm")
except ipcq.LimitExceeded as error:
    print(error.limit, error.value == most, error.asked > most, error.errno == errno.ENOMEM)
"""
    assert told(code) == "vm.max_map_count True True True"


def test_an_allocation_ends_under_a_fast_timer(name: str) -> None:
    """C23: a call that a signal interrupts starts anew, and so must be short."""
    code = f"""
import signal, ipcq
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
queue = ipcq.open({name!r}, "shm", exclusive=True, buffer_size=32 << 20)
signal.setitimer(signal.ITIMER_REAL, 0)
queue.close()
"""
    told(code)
    assert os.path.getsize(_segment.path_of(name)) > 32 << 20


def told(code: str, *arguments: str) -> str:
    """Return what a program of its own printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HANDLES = """
import ctypes, sys, tracemalloc
import ipcq

class Information(ctypes.Structure):
    # mallinfo2(3)
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

def used():
    # What Python has and, where glibc can tell it, what else has been allocated.
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return tracemalloc.get_traced_memory()[0]
    mallinfo.restype = Information
    found = mallinfo()
    return tracemalloc.get_traced_memory()[0] + found.uordblks + found.hblkhd

def opened(count):
    return [ipcq.open(sys.argv[1], "shm") for _ in range(count)]

first = opened(2)
tracemalloc.start()
before = used()
handles = opened(100)
print((used() - before) // 100)
for handle in first + handles:
    handle.close()
"""


def test_a_handle_takes_little_memory(name: str) -> None:
    """At most 64 KiB of heap."""
    create(name).close()
    assert 0 < int(told(HANDLES, name)) <= 64 << 10


# Squatters


def squat(path: str, kind: str) -> None:
    if kind == "link":
        os.symlink("/etc/passwd", path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        os.mkdir(path)
    else:
        with open(path, "wb") as file:
            file.write(b"x" * 30_000 if kind == "text" else b"")


def unread(path: str) -> tuple[int, ...]:
    found = os.lstat(path)  # all but when it was read last
    return (
        found.st_mode,
        found.st_ino,
        found.st_nlink,
        found.st_uid,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "text", "empty"])
def test_what_stands_in_the_way_is_refused_and_not_touched(name: str, kind: str) -> None:
    """C27: it is taken for a queue that cannot be used, and is as it was."""
    path = _segment.path_of(name)
    squat(path, kind)
    before = unread(path)
    assert ipcq.exists(name, "shm")
    with pytest.raises((ipcq.CorruptQueue, ipcq.PermissionDenied, ipcq.MessageQueueError)):
        attach(name)
    with pytest.raises(ipcq.QueueExists):
        create(name)
    assert unread(path) == before


@pytest.mark.parametrize("kind", ["link", "fifo", "text"])
def test_what_stands_in_the_way_can_be_unlinked(name: str, kind: str) -> None:
    """C16: the name is free then."""
    squat(_segment.path_of(name), kind)
    ipcq.unlink(name, "shm")
    create(name).close()


def test_a_link_to_another_queue_is_not_followed(name: str) -> None:
    """C27: who may write to the directory must not lead one name to what another holds."""
    with create(name + "-other") as other:
        os.symlink(_segment.path_of(name + "-other"), _segment.path_of(name))
        try:
            with pytest.raises(ipcq.PermissionDenied, match="symbolic link"):
                attach(name)
        finally:
            other.unlink()


def test_a_file_with_a_second_name_is_refused(name: str) -> None:
    """C27: somebody keeps it, who could give it back under another queue's name."""
    with create(name):
        other = _segment.path_of(name) + ".kept"
        os.link(_segment.path_of(name), other)
        try:
            with pytest.raises(ipcq.PermissionDenied, match="another name"):
                attach(name)
        finally:
            os.unlink(other)


# What it may hold


@pytest.mark.parametrize(
    ("offset", "value", "error"),
    [
        (0, 1, ipcq.CorruptQueue),
        (8, 9, ipcq.VersionMismatch),
        (12, 4, ipcq.VersionMismatch),
        (40, 1 << 40, ipcq.CorruptQueue),
        (76, 0, ipcq.CorruptQueue),
    ],
)
def test_a_header_that_is_not_ours_is_refused(name: str, offset: int, value: int, error: type[Exception]) -> None:
    """C18, C28: with what is wrong, before anything is mapped."""
    create(name).close()
    with open(_segment.path_of(name), "r+b") as file:
        file.seek(offset)
        file.write(struct.pack("=I", value & 0xFFFFFFFF))
    with pytest.raises(error):
        attach(name)


def test_a_queue_of_another_pid_namespace_is_refused(name: str) -> None:
    """C18, C19: its locks would not work, so there is no guess."""
    create(name).close()
    code = f"import ipcq; ipcq.open({name!r}, 'shm', create=False)"
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "unshare" in done.stderr:
        pytest.skip("only root can make a PID namespace")
    assert "VersionMismatch" in done.stderr


def test_a_handle_is_refused_in_a_child_of_another_pid_namespace(name: str) -> None:
    """C19, C20: the numbers of its threads are other threads' in the queue's own."""
    code = f"""
import ctypes, os, ipcq
queue = ipcq.open({name!r}, "shm", create=False)
if ctypes.CDLL(None).unshare(0x20000000):
    raise SystemExit("only root can make a PID namespace")
if os.fork() == 0:
    try:
        queue.put("item")
    except ipcq.MessageQueueError as error:
        print(type(error).__name__, flush=True)
    os._exit(0)
os.wait()
"""
    with create(name) as queue:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        if "only root" in done.stderr:
            pytest.skip("only root can make a PID namespace")
        assert done.stdout.strip() == "QueueClosed"
        assert queue.empty()


@pytest.mark.parametrize("size", [0, 8, 100, 290, 4096])
def test_a_truncated_file_can_be_removed(name: str, size: int) -> None:
    """C29: wherever it ends, the name is free afterwards, as the error of attaching promises."""
    create(name).close()
    os.truncate(_segment.path_of(name), size)
    ipcq.unlink(name, "shm")
    assert not ipcq.exists(name, "shm")


def test_a_truncated_file_is_corrupt(name: str) -> None:
    """C29: at whatever size."""
    create(name).close()
    whole = os.stat(_segment.path_of(name)).st_size
    for size in (whole - 1, 4096, 100, 40):
        os.truncate(_segment.path_of(name), size)
        with pytest.raises(ipcq.CorruptQueue):
            attach(name)


@pytest.mark.parametrize("priorities", [False, True])
def test_bytes_that_mean_harm_are_corrupt_or_harmless(name: str, priorities: bool) -> None:
    """C28: whatever stands behind the header, calls return or raise our errors, and in time."""
    dice = random.Random(4711)
    for _ in range(40):
        with create(name, priorities=priorities) as queue:
            queue.put_many([b"one", b"two" * 100])
            for _ in range(20):
                place = dice.randrange(128, 30_000 if dice.random() < 0.3 else 1200)
                value = dice.choice((0, 1, 7, 255, 1 << 31, (1 << 32) - 1, dice.getrandbits(32)))
                os.pwrite(queue._channel.descriptor, struct.pack("=I", value), place & ~3)
                for call in (lambda: queue.put(b"x" * 100, False), lambda: queue.get_many(block=False), queue.qsize):
                    try:
                        call()
                    except (ipcq.MessageQueueError, MemoryError):
                        pass
            queue.unlink()


# Last close


def test_a_queue_whose_last_holder_was_killed_is_not_there(name: str) -> None:
    """C14, C17: it is neither found nor listed, its name can be taken at once, and its file is gone."""
    code = f"import ipcq, os; q = ipcq.open({name!r}, 'shm', lifetime='last-close'); os.kill(os.getpid(), 9)"
    for look in (
        lambda: ipcq.exists(name, "shm"),
        lambda: name in {info.name for info in ipcq.queues()},
        lambda: _raises(ipcq.QueueNotFound, lambda: _segment_opened(name)),
        lambda: _raises(ipcq.QueueNotFound, lambda: _unlinked(name)),
    ):
        subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
        assert os.path.exists(_segment.path_of(name))
        assert not look()
        assert not os.path.exists(_segment.path_of(name))
    subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    with create(name) as queue:
        assert queue.empty()


def _raises(error: type[Exception], call: Callable[[], object]) -> bool:
    with pytest.raises(error):
        call()
    return False


def _segment_opened(name: str) -> int:
    with _segment.explained():
        return int(_segment.opened(name, Request()))


def _unlinked(name: str) -> None:
    with _segment.explained():
        _segment.unlink(name)


def test_a_creator_removes_what_a_killed_holder_left(name: str) -> None:
    """C16: also where it comes into being between its looking and its publishing."""
    from ipcq_shm import ShmBackend

    code = f"import ipcq, os; q = ipcq.open({name!r}, 'shm', lifetime='last-close'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    channel = ShmBackend().create(name, Request())
    assert channel.empty()
    with pytest.raises(ipcq.QueueExists):
        ShmBackend().create(name, Request())
    channel.close()


def test_who_cannot_wait_for_another_that_removes_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C11: a process that is stopped while it removes a name holds nobody for more than a second."""
    monkeypatch.setattr(_segment, "_PATIENCE", 0.05)
    with create(name):
        descriptor = os.open(_segment.path_of(name), os.O_RDWR)
        try:
            _segment._lock(descriptor, 1, _segment._REMOVAL, 1)
            with pytest.raises(ipcq.TimedOutError, match="removing"):
                ipcq.unlink(name, "shm")
        finally:
            os.close(descriptor)


def test_a_file_that_was_removed_is_not_removed_again(name: str) -> None:
    """C14: neither it nor what has its name since."""
    with create(name) as queue:
        descriptor = os.dup(queue._channel.descriptor)
        ipcq.unlink(name, "shm")
        assert not _segment.remove(descriptor, name)
        create(name).close()
        assert not _segment.remove(descriptor, name)
        os.close(descriptor)
        assert ipcq.exists(name, "shm")


def test_a_name_that_goes_by_rm_is_noticed(name: str) -> None:
    """C14: who puts now and then learns it within a second, also where nobody tells."""
    with create(name) as queue:
        os.unlink(_segment.path_of(name))
        time.sleep(0.3)
        with pytest.raises(ipcq.QueueGone):
            queue.put(b"item")


def test_a_queue_that_went_while_it_was_opened_is_not_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C16: between the file and the slot, the queue may be unlinked."""
    from ipcq_shm import ShmBackend, _channel

    create(name).close()
    opened = _segment.opened

    def slowly(name: str, request: Request) -> int:
        descriptor = opened(name, request)
        os.unlink(_segment.path_of(name))
        return int(descriptor)

    monkeypatch.setattr(_channel._segment, "opened", slowly)
    with pytest.raises(ipcq.QueueNotFound):
        ShmBackend().attach(name, Request())


# Being without


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.EACCES, ipcq.PermissionDenied),
        (errno.EEXIST, ipcq.QueueExists),
        (errno.EMFILE, ipcq.LimitExceeded),
        (errno.ENOMEM, ipcq.NoSpace),
        (errno.EIO, ipcq.MessageQueueError),
    ],
)
def test_what_the_system_refuses_is_told(
    name: str, number: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C24: by one class for each condition, with the error number."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_segment, "nameless", refuse)
    with pytest.raises(error) as caught:
        create(name)
    assert isinstance(caught.value, ipcq.MessageQueueError)


def test_a_mapping_too_many_is_told(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """C24: the kernel has one number for that and for a want of memory."""
    from ipcq_shm import _core

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    (tmp_path / "limit").write_text("10\n")
    monkeypatch.setattr(_segment, "_MAPPINGS_LIMIT", tmp_path / "limit")
    monkeypatch.setattr(_core, "format", refuse)
    with pytest.raises(ipcq.LimitExceeded, match="max_map_count=20"):
        create(name)


def test_a_file_too_large_is_told_before_it_is_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: the kernel would send SIGXFSZ."""
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 1000))
    with pytest.raises(ipcq.LimitExceeded, match="RLIMIT_FSIZE is 1000"):
        create(name)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_what_fails_behind_the_attaching_gives_all_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: the descriptor is the ring's by then, and is closed by it alone."""
    from ipcq_shm import _channel

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    create(name).close()
    before = descriptors()
    monkeypatch.setattr(_channel, "_attributes", refuse)
    with pytest.raises(ipcq.MessageQueueError):
        attach(name)
    assert descriptors() == before


def test_no_memory_is_no_space(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: Python's own error for it is ours."""

    def refuse(*_: object) -> int:
        raise MemoryError

    monkeypatch.setattr(_segment, "nameless", refuse)
    with pytest.raises(ipcq.NoSpace):
        create(name)


def test_a_failed_look_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: that a name cannot be looked at does not mean that it is free."""
    create(name).close()
    _open = os.open

    def refuse(path: str, *rest: int, **where: int) -> int:
        if path == _segment.path_of(name):
            raise OSError(errno.EIO, "broken")
        return _open(path, *rest, **where)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ipcq.MessageQueueError):
        ipcq.exists(name, "shm")
    with pytest.raises(ipcq.MessageQueueError):
        ipcq.unlink(name, "shm")


def probe() -> str:
    from ipcq_shm import ShmBackend

    return ShmBackend().probe().reason


def test_another_system_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract clause 19."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "this is darwin" in probe()


def test_another_system_has_no_such_queues(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract clause 3: looking there is no error, and finds nothing."""
    from ipcq_shm import ShmBackend

    with create(name):
        monkeypatch.setattr(sys, "platform", "darwin")
        backend = ShmBackend()
        assert (backend.exists(name), backend.names(), backend.findings()) == (False, [], [])
        with pytest.raises(ipcq.QueueNotFound):
            backend.unlink(name)
        monkeypatch.undo()


def test_a_missing_extension_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract clause 19: with what would build it."""
    import_ = builtins.__import__

    def refuse(module: str, *rest: Any) -> Any:
        if rest[2:] and rest[2] == ("_core",):
            raise ImportError("no module")
        return import_(module, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert "install a C compiler" in probe()


def test_a_missing_proc_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract clause 19: in a chroot, say; else a queue would seem not to be there."""
    exists = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: not str(path).startswith("/proc") and exists(path))
    assert "/proc" in probe()


def test_locks_that_cannot_be_tried_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract clause 19: a want of threads says nothing about the kernel."""
    from ipcq_shm import _core

    def refuse() -> bool:
        raise OSError(errno.EAGAIN, "too many")

    monkeypatch.setattr(_core, "works", refuse)
    assert "no thread" in probe()


def test_a_missing_directory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract clause 19."""
    monkeypatch.setattr(_segment, "DIRECTORY", "/nonesuch")
    assert "/nonesuch" in probe()


def test_a_kernel_that_keeps_the_locks_of_the_dead_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract clause 19."""
    from ipcq_shm import _core

    monkeypatch.setattr(_core, "works", lambda: False)
    assert "robust" in probe()


def test_little_space_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator learns it before a queue cannot be made."""
    from ipcq_shm import ShmBackend

    assert ShmBackend().findings() == []
    monkeypatch.setattr(_segment, "BUFFER_SIZE", 1 << 60)
    (finding,) = ShmBackend().findings()
    assert "remount" in finding.fix
    monkeypatch.setattr(_segment, "DIRECTORY", "/nonesuch")
    assert ShmBackend().findings() == []


# Forks and notices


def test_a_handle_has_a_slot_of_its_own_in_a_child(name: str) -> None:
    """C20: whoever inherits it is another participant, in the eyes of a queue that goes with its last one."""
    with create(name, lifetime="last-close") as queue:
        queue.put(b"item")
        channel = queue._channel
        assert channel.after_fork()
        assert not channel.shared()
        assert queue.get(timeout=5) == b"item"


def test_a_handle_that_cannot_have_a_slot_in_a_child_is_refused(name: str) -> None:
    """Contract clause 17: without descriptors to be had, it must not be used."""
    import resource

    with create(name) as queue:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            assert not queue._channel.after_fork()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        with pytest.raises(ipcq.QueueClosed):
            queue.put(b"item")


def test_a_notice_that_was_given_needs_no_withdrawing(name: str) -> None:
    """Contract clause 20: closing after it is nothing special."""
    import threading

    told = threading.Event()
    with create(name) as queue:
        queue.notify(told.set)
        queue.put(b"item")
        assert told.wait(10)
        queue.notify()


def test_a_notice_of_a_dead_process_stands_in_nobodys_way(name: str) -> None:
    """C19: its place is taken by who asks next."""
    import threading

    told = threading.Event()
    with create(name) as queue:
        code = (
            f"import ipcq, os; q = ipcq.open({name!r}, 'shm', create=False); q.notify(print); os.kill(os.getpid(), 9)"
        )
        subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
        queue.notify(told.set)
        queue.put(b"item")
        assert told.wait(10)


def test_a_notice_can_be_a_signal_to_this_process(name: str) -> None:
    """Contract clause 20."""
    import signal

    told: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: told.append(number))
    try:
        with create(name) as queue:
            queue.notify(signal=signal.SIGUSR2)
            queue.put(b"item")
            until = time.monotonic() + 10
            while not told and time.monotonic() < until:
                time.sleep(0.01)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert told == [signal.SIGUSR2]


def test_the_mode_of_the_doorbell_is_the_queues(name: str) -> None:
    """C27: who may use the queue may ring."""
    with create(name, mode=0o660, other_users=True) as queue:
        assert stat.S_IMODE(os.fstat(queue.fileno()).st_mode) == 0o660
        queue.unlink()
    assert not os.path.exists(_segment.bell_of(name))


def test_many_large_messages_come_back_as_they_were(name: str) -> None:
    """Contract clause 10: those that are copied without the lock, in batches, alone, and with priorities."""
    for priorities in (False, True):
        with create(name, max_messages=4, max_message_size=1 << 20, priorities=priorities) as queue:
            messages = [random.Random(size).randbytes(size) for size in (1 << 20, 40_000, 32_768, 32_767)]
            for take in (queue.get_many, lambda: [queue.get(timeout=5) for _ in range(4)]):
                for message in messages:
                    queue.put(message)
                taken: list[bytes] = []
                while len(taken) < 4:
                    taken += take()  # type: ignore[operator]
                assert taken == messages
            assert queue.put_many(messages) == 4
            assert queue.peek() == messages[0]
            assert queue.clear() == 4
            queue.unlink()


def test_what_is_no_message_is_a_type_error(name: str) -> None:
    """Contract clause 8: the extension takes bytes alone, and says so."""
    with create(name) as queue:
        channel = queue._channel
        for call in (
            lambda: channel.try_put("text", 0),
            lambda: channel.try_put(b"text"),
            lambda: channel.try_put(b"text", None),
            lambda: channel.try_put_many([b"fine", 1]),
            lambda: channel.try_put_many(1),
            lambda: channel.try_get_many("many"),
            lambda: channel.wait_readable(1),
            lambda: channel.wait_readable(None, 1.0),
            lambda: channel.wait_writable(0, 1.0, None),
            lambda: channel.wait_writable(None, 1.0, 1.0),
        ):
            with pytest.raises(TypeError):
                call()
        assert queue.empty()


def test_a_ring_that_cannot_be_mapped_leaves_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: a failure behind the file's making gives its memory and its descriptor back."""
    from ipcq_shm import _core

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(_core, "format", refuse)
    with pytest.raises(ipcq.NoSpace):
        create(name)
    assert not ipcq.exists(name, "shm")


def test_a_queue_that_goes_while_it_is_opened_is_not_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C16: between the opening of its file and the look at it."""
    create(name).close()
    _open = _segment._open

    def late(name: str, how: int) -> int:
        descriptor = int(_open(name, how))
        os.unlink(_segment.path_of(name))
        return descriptor

    monkeypatch.setattr(_segment, "_open", late)
    with pytest.raises(ipcq.QueueNotFound):
        _segment_opened(name)
    with pytest.raises(ipcq.QueueNotFound):
        _segment_opened(name)


def test_what_may_not_be_looked_into_exists(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract clause 3: a name that this user may not open is taken, and neither attached to nor removed."""
    create(name).close()
    _open = os.open

    def refuse(path: str, *rest: int, **where: int) -> int:
        if path == _segment.path_of(name):
            raise OSError(errno.EACCES, "not yours")
        return _open(path, *rest, **where)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        assert ipcq.exists(name, "shm")
        for call in (attach, lambda name: ipcq.unlink(name, "shm")):
            with pytest.raises(ipcq.PermissionDenied):
                call(name)


def test_who_is_removing_is_waited_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C14: an attacher that the remover did not see learns that there is no queue and gets none without a name."""
    locked = _segment._locked

    def stop_behind_the_look(descriptor: int, start: int, length: int) -> bool:
        found = bool(locked(descriptor, start, length))
        if length == _segment._SLOTS and not found and not attaching.is_alive() and attacher == []:
            monkeypatch.setattr(_segment, "_locked", locked)
            attaching.start()
            attaching.join(0.3)
        return found

    def attach_late() -> None:
        attacher.append("began")
        try:
            attacher.append(str(attach(name).closed))
        except ipcq.QueueNotFound:
            attacher.append("not found")

    attacher: list[str] = []
    attaching = threading.Thread(target=attach_late)
    queue = create(name, lifetime="last-close")
    # Not its abandonment but the attacher's own slot is what the attacher has to be kept from relying on.
    monkeypatch.setattr(_segment, "_abandoned", lambda _: False)
    monkeypatch.setattr(_segment, "_locked", stop_behind_the_look)
    queue.close()
    attaching.join(10)
    assert attacher == ["began", "not found"]


def test_a_doorbell_that_is_made_while_the_name_goes_goes_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C17: no file of a queue outlives it."""
    unlink = os.unlink

    def arm_in_between(path: str) -> None:
        try:
            unlink(path)
        finally:
            if path == _segment.bell_of(name) and queue._channel.descriptor >= 0 and not armed:
                armed.append(queue.fileno())

    armed: list[int] = []
    with create(name) as queue:
        monkeypatch.setattr(os, "unlink", arm_in_between)
        queue.unlink()
        monkeypatch.undo()
    left = os.path.exists(_segment.bell_of(name))
    with suppress(FileNotFoundError):
        unlink(_segment.bell_of(name))
    assert armed
    assert not left


def test_who_has_no_descriptor_for_the_doorbell_cannot_put(name: str) -> None:
    """C5, C24: nothing is put by who cannot wake those who sleep on the doorbell."""
    code = f"""
import errno, ipcq, resource
with ipcq.open({name!r}, "shm") as queue, ipcq.open({name!r}, "shm") as other:
    queue.fileno()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    for put in (lambda: other.put(b"item"), lambda: other.put_many([b"item"]), other.fileno):
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            put()
        except ipcq.LimitExceeded as error:
            refused = error
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        print(refused.limit, refused.value, refused.errno == errno.EMFILE, queue.empty())
    queue.unlink()
"""
    assert told(code).splitlines() == ["RLIMIT_NOFILE 3 True True"] * 3


# A program of its own, because the tracer of coverage does not survive this.
STRUCK = """
import gc, os, sys
from types import SimpleNamespace
from ipcq.backend import Request
from ipcq_shm import ShmBackend, _channel, _segment

def struck_at(instruction, call):
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if not frame.f_code.co_filename.startswith(os.path.dirname(_segment.__file__)):
            return None
        frame.f_trace_opcodes = True
        if event in ("line", "opcode"):  # 3.12 may leave out those of a frame that has begun
            count += 1
            if count > instruction:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False

def descriptors():
    # The listing's own is gone again.
    return {int(each) for each in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{each}")}

def close_and_reuse(descriptor):
    os.close(descriptor)
    reused.append(os.open("/dev/null", os.O_RDONLY))

reused = []
before = descriptors()
_segment.os = _channel.os = SimpleNamespace(**{**vars(os), "close": close_and_reuse})
strikes = 0
while struck_at(strikes, lambda: ShmBackend().attach(sys.argv[1], Request()).close()):
    strikes += 1
    for descriptor in reused:
        os.fstat(descriptor)  # fails where somebody else has closed it
    reused.clear()
    gc.collect()
    # Ours, and what a call had returned and nobody had stored yet, which Python cannot help.
    for left in descriptors() - before:
        os.close(left)
print(strikes)
"""


def test_a_descriptor_is_closed_once_whenever_an_exception_strikes(name: str) -> None:
    """C5: a handler that raises in the middle of opening must not have another's descriptor closed."""
    create(name).close()
    assert int(told(STRUCK, name)) > 50


def test_no_memory_loses_no_message(name: str) -> None:
    """C5: a batch that cannot be handed out has not been taken, at whichever allocation memory ends."""
    pytest.importorskip("_testcapi", reason="_testcapi came with Python 3.0")
    code = f"""
import _testcapi, ipcq
messages = [bytes([number]) * 40 for number in range(12)]
failed = 0
with ipcq.open({name!r}, "shm", max_messages=16, max_message_size=64, serializer="raw") as queue:
    channel = queue._channel
    for verb, arguments in (("try_get_many", (12,)), ("try_get_many", (1,)), ("try_get", ()), ("peek", ())):
        take = getattr(channel, verb)
        for allocation in range(40):
            queue.put_many(messages)
            taken = None
            _testcapi.set_nomemory(allocation, allocation + 3)
            try:
                taken = take(*arguments)
            except MemoryError:
                pass
            _testcapi.remove_mem_hooks()
            failed += taken is None
            got = 0 if taken is None or verb == "peek" else len(taken) if verb == "try_get_many" else 1
            left = queue.clear()
            assert left == 12 - got, (verb, allocation, taken, left)
print(failed > 5)
"""
    assert told(code) == "True"


DYING = """
import errno, fcntl, os, signal, sys
from types import SimpleNamespace
import ipcq
from ipcq.backend import Request
from ipcq_shm import ShmBackend, _channel, _core, _segment

name, verb, lifetime = sys.argv[1:]
calls = last = 0

def dying(function):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

def arm():
    functions = "open close fchmod posix_fallocate pread pwrite link unlink stat fstat statvfs listdir".split()
    theirs = SimpleNamespace(**{**vars(os), **{each: dying(getattr(os, each)) for each in functions}})
    _segment.os = _channel.os = theirs
    _segment.fcntl = SimpleNamespace(**{**vars(fcntl), "fcntl": dying(fcntl.fcntl)})
    _channel._core = SimpleNamespace(**{**vars(_core), "format": dying(_core.format)})
    for each in "attach", "named", "detach":
        setattr(_channel.ShmChannel, each, dying(getattr(_channel.ShmChannel, each)))

backend = ShmBackend()
request = Request(max_messages=4, max_message_size=512, lifetime=lifetime)
survived = False
while not survived:
    last += 1
    queue = None if verb == "create" else backend.create(name, request)
    other = backend.attach(name, request) if verb == "attach" else None
    (ready, say), (gone, go) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        if verb == "close":
            queue.after_fork()
            os.write(say, b"1")
            os.close(go)
            os.read(gone, 1)  # the parent's handle is closed, and this is the last one
        arm()
        if verb == "create":
            backend.create(name, request)
        elif verb == "attach":
            backend.attach(name, request).close()
        elif verb == "unlink":
            backend.unlink(name)
        else:
            queue.close()
        os._exit(0)
    if verb == "close":
        os.read(ready, 1)
        queue.close()
    for end in (ready, say, gone, go):
        os.close(end)
    survived = os.WIFEXITED(os.waitpid(child, 0)[1])
    for each in (queue, other):
        if each is not None and verb != "close":
            each.close()
    # Whoever comes next, without cleaning up by hand.
    with ipcq.open(name, "shm", serializer="raw", max_messages=4, max_message_size=512, lifetime=lifetime) as found:
        found.put(b"item")
        assert found.get(timeout=5) == b"item"
        found.unlink()
    left = [file for file in os.listdir("/dev/shm") if name[1:] in file]
    assert not left, (last, left)
print(last)
"""


@pytest.mark.parametrize("lifetime", ["persistent", "last-close"])
@pytest.mark.parametrize("verb", ["create", "attach", "unlink", "close"])
def test_a_kill_between_any_two_calls_of_the_system_leaves_the_name_usable(name: str, verb: str, lifetime: str) -> None:
    """C16: before and after each step of making, attaching, unlinking, and of the last one's closing."""
    program = [sys.executable, "-W", "ignore", "-c", DYING, name, verb, lifetime]
    done = subprocess.run(program, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    print(f"{verb}, {lifetime}: {int(done.stdout) - 1} kills")
    assert int(done.stdout) > 1


def test_who_comes_between_keeps_its_queue(name: str) -> None:
    """C14: a file that somebody holds again is not removed as abandoned."""
    with create(name, lifetime="last-close") as queue:
        descriptor = os.open(_segment.path_of(name), os.O_RDWR)
        assert not _segment.remove(descriptor, name, unless_held=True)
        os.close(descriptor)
        assert queue.empty()


@pytest.mark.parametrize("broken", ["read_header", "unlock"])
def test_a_name_that_is_gone_is_gone_whatever_fails_behind_it(
    name: str, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C5: unlinking has happened, so it does not raise, and other handles see it by themselves."""
    lock = _segment._lock

    def refuse(descriptor: int, kind: int, *rest: int) -> None:
        if kind == fcntl.F_UNLCK:
            raise OSError(errno.EIO, "broken")
        lock(descriptor, kind, *rest)

    def unreadable(_: int) -> None:
        raise OSError(errno.EIO, "broken")

    with create(name) as queue:
        descriptor = os.open(_segment.path_of(name), os.O_RDWR)
        with monkeypatch.context() as patch:
            if broken == "unlock":
                patch.setattr(_segment, "_lock", refuse)
            else:
                patch.setattr(_segment, "read_header", unreadable)
            assert _segment.remove(descriptor, name)
        os.close(descriptor)
        time.sleep(0.3)
        with pytest.raises(ipcq.QueueGone):
            queue.put(b"item")


@pytest.mark.parametrize("slots", [(30, 20, 10), (10, 20, 30), (20, 30, 10), (1, 2, 3), (4095, 1, 0)], ids=str)
def test_handles_are_counted_in_whatever_order_they_took_their_slots(name: str, slots: tuple[int, ...]) -> None:
    """C25: the kernel names any one of several locks."""
    queue = create(name)
    opened = [os.open(_segment.path_of(name), os.O_RDWR) for _ in slots]
    for descriptor, slot in zip(opened, slots, strict=True):
        if slot:  # the first one is the queue's own
            _segment._lock(descriptor, fcntl.F_WRLCK, _segment._LOCKS + slot, 1)
    count = queue.stats().handles
    for descriptor in opened:
        os.close(descriptor)
    queue.close()
    assert count == 1 + sum(slot > 0 for slot in slots)
