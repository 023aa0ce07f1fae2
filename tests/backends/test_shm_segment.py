"""The file of a shm queue: its size and layout, who may use it, and hostile contents."""

import errno
import os
import random
import struct
import subprocess
import sys

import pytest

import ipcq
from backends import shm
from backends.shm import attach, create
from ipcq.testing.processes import fresh_name
from ipcq_shm import _segment

works, name = shm.works, shm.name


# The file


@pytest.mark.parametrize("buffer_size", [1 << 20, 32 << 20])
def test_the_file_is_little_larger_than_the_buffer(name: str, buffer_size: int) -> None:
    """C23: at most 64 KiB beside the buffer, and all of it allocated, even pages that no mapping has touched."""
    with create(name, max_messages=None, max_message_size=None, buffer_size=buffer_size):
        found = os.stat(_segment.path_of(name))
        assert buffer_size < found.st_size <= buffer_size + (64 << 10)
        assert found.st_blocks * 512 >= found.st_size


def test_a_file_system_that_fills_up_later_harms_no_queue() -> None:
    """C23: a queue has its memory from the start; if none is left, another queue cannot be created."""
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
    """C18: the layout in Python, which finds queues without the extension, is the one that the extension asserts."""
    with create(name, priorities=priorities, lifetime="last-close") as queue:
        header = _segment.read_header(queue._channel.descriptor)
        assert (header.version, header.word_size, header.max_messages, header.max_message_size) == (2, 8, 4, 512)
        assert header.pid_namespace == os.stat("/proc/self/ns/pid").st_ino
        assert header.flags == _segment.LAST_CLOSE | (_segment.ORDERED if priorities else 0)
        assert os.pread(queue._channel.descriptor, 256, _segment.NAME_AT).rstrip(b"\0").decode() == name


@pytest.mark.parametrize("rest", ["", "x" * 254, "ü" * 100])
def test_names_of_any_length_are_listed(rest: str) -> None:
    """C25: a name that is too long for a file name is stored in the file."""
    name = (fresh_name() + rest).encode()[:254].decode(errors="ignore")
    with create(name) as queue:
        assert [info.name for info in ipcq.queues() if info.name == name] == [name]
        assert queue.fileno() >= 0
        queue.unlink()
    assert name not in {info.name for info in ipcq.queues()}


def test_a_file_that_is_no_queue_is_not_listed(name: str) -> None:
    """C18: neither a foreign file nor one whose name does not match its contents."""
    path = f"{_segment.DIRECTORY}/ipcq-shm-{os.getpid()}"
    with open(path, "wb") as file:
        file.write(bytes(20_000))
    try:
        assert not [info for info in ipcq.queues() if str(os.getpid()) in info.name]
    finally:
        os.unlink(path)
    assert {_segment._name_of(file) for file in ("ipcq-shm-gone", "another")} == {""}


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
    found = os.lstat(path)  # everything except the access time
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
def test_a_squatter_is_refused_and_not_touched(name: str, kind: str) -> None:
    """C27: it counts as a queue that cannot be used, and stays unchanged."""
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
def test_a_squatter_can_be_unlinked(name: str, kind: str) -> None:
    """C16: the name is free afterwards."""
    squat(_segment.path_of(name), kind)
    ipcq.unlink(name, "shm")
    create(name).close()


def test_a_link_to_another_queue_is_not_followed(name: str) -> None:
    """C27: a user who may write to the directory must not be able to redirect one name to another queue."""
    with create(name + "-other") as other:
        os.symlink(_segment.path_of(name + "-other"), _segment.path_of(name))
        try:
            with pytest.raises(ipcq.PermissionDenied, match="symbolic link"):
                attach(name)
        finally:
            other.unlink()


def test_a_file_with_a_second_name_is_refused(name: str) -> None:
    """C27: its other owner could link it again under another queue's name."""
    with create(name):
        other = _segment.path_of(name) + ".kept"
        os.link(_segment.path_of(name), other)
        try:
            with pytest.raises(ipcq.PermissionDenied, match="second name"):
                attach(name)
        finally:
            os.unlink(other)


def test_a_file_that_this_user_may_not_open_exists(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 3: a name that this user may not open is taken, and neither attached to nor removed."""
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


# Hostile contents


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
    """C18, C28: the error says what is wrong, before anything is mapped."""
    create(name).close()
    with open(_segment.path_of(name), "r+b") as file:
        file.seek(offset)
        file.write(struct.pack("=I", value & 0xFFFFFFFF))
    with pytest.raises(error):
        attach(name)


def test_a_queue_of_another_pid_namespace_is_refused(name: str) -> None:
    """C18, C19: its locks would not work there."""
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
    """C19, C20: in the queue's own namespace, its thread ids belong to other threads."""
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
    """C29: whatever its length, the name is free afterwards, as the error of attaching promises."""
    create(name).close()
    os.truncate(_segment.path_of(name), size)
    ipcq.unlink(name, "shm")
    assert not ipcq.exists(name, "shm")


def test_a_truncated_file_is_corrupt(name: str) -> None:
    """C29: at any size."""
    create(name).close()
    whole = os.stat(_segment.path_of(name)).st_size
    for size in (whole - 1, 4096, 100, 40):
        os.truncate(_segment.path_of(name), size)
        with pytest.raises(ipcq.CorruptQueue):
            attach(name)


@pytest.mark.parametrize("priorities", [False, True])
def test_hostile_bytes_are_corrupt_or_harmless(name: str, priorities: bool) -> None:
    """C28: whatever follows the header, calls return or raise our errors, and in time."""
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
