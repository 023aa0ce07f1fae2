"""Hostile contents of a pyshm queue's file, and other files at its path."""

import os
import secrets
import stat
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import pytest

import ipcq
from backends import pyshm
from backends.pyshm import USES, Handle, attach, attach_and_get, both_orders, create, forge_state, read_file, write_file
from ipcq.backend import Request
from ipcq.errors import (
    CorruptQueue,
    MessageQueueError,
    PermissionDenied,
    QueueEmpty,
    QueueExists,
    QueueFull,
    QueueGone,
    QueueNotFound,
    Unsupported,
    VersionMismatch,
)
from ipcq_pyshm import PyshmBackend, _file, _place
from ipcq_pyshm._layout import CELL, DATA_AT, RECORD, STATE_ROOM, STATES_AT
from ipcq_pyshm._ring import Place, index_of

name, queue = pyshm.name, pyshm.queue


# Hostile files


@both_orders
def test_every_word_of_the_header_may_be_hostile(name: str, priorities: bool) -> None:
    """C28: a hostile value is refused by a named error, or has no effect."""
    with create(name, priorities=priorities) as queue:
        queue.put(b"item")
        whole = read_file(name)
        for at in range(0, 76, 4):
            for word in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
                write_file(name, at, struct.pack("<I", word))
                with suppress(CorruptQueue, VersionMismatch), attach(name) as other:
                    assert read_file(name)[:76] == whole[:76]
                    other.close()
                write_file(name, 0, whole[:STATES_AT])
        assert attach_and_get(name) == b"item"


@both_orders
def test_every_word_of_a_header_with_a_valid_checksum_may_be_hostile(name: str, priorities: bool) -> None:
    """C28: a checksum proves nothing."""
    with create(name, priorities=priorities) as queue:
        queue.put(b"item")
        whole = read_file(name)[:STATES_AT]
        for at in range(16, 76, 4):
            for word in (0, 1, 5, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
                raw = whole[:at] + struct.pack("<I", word) + whole[at + 4 :]
                write_file(name, 0, raw[:12] + struct.pack("<I", crc32(raw[16:])) + raw[16:])
                try:
                    attach(name).close()
                except (CorruptQueue, QueueNotFound, VersionMismatch):
                    pass
                if os.path.exists(_place.path_of(name)):
                    write_file(name, 0, whole)
                else:  # the forged lifetime was last-close, so closing removed the file
                    return
                with suppress(QueueGone):
                    assert queue.qsize() == 1


NUMBERS = (
    "flags",
    "count",
    "bytes",
    "head",
    "tail",
    "free",
    "spare",
    "redo",
    "puts",
    "gets",
    "high_water_mark",
    "waits",
)
WORDS = (0, 1, 3, 64, 0xFFFFFFFF, 1 << 32, (1 << 32) - 1, (1 << 62) - 1, 1 << 62, (1 << 64) - 1)


@pytest.mark.parametrize("use", USES)
@both_orders
def test_every_number_of_the_state_may_be_hostile(name: str, priorities: bool, use: str) -> None:
    """C28: with a valid checksum, each use returns or raises an error of ours, and the file keeps its size."""
    with create(name, priorities=priorities) as queue:
        for data in (b"a" * 40, b"b", b"c" * 64):
            queue.put(data)
        whole = read_file(name)
        for number in NUMBERS:
            for word in WORDS:
                forge_state(name, **{number: word})
                with suppress(MessageQueueError):
                    USES[use](queue)
                assert os.path.getsize(_place.path_of(name)) == len(whole)
                write_file(name, 0, whole)


@pytest.mark.parametrize("seed", range(4))
@both_orders
def test_bytes_may_be_hostile_anywhere(name: str, priorities: bool, seed: int) -> None:
    """C28: only errors of ours, no message above the limit, no file that grows."""
    import random

    chance = random.Random(seed)
    with create(name, priorities=priorities) as queue:
        for number in range(3):
            queue.put(bytes([number]) * 50)
        whole = read_file(name)
        for _ in range(300):
            data = bytearray(whole)
            for _ in range(chance.randint(1, 6)):
                data[chance.randrange(STATES_AT, len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            write_file(name, 0, bytes(data))
            use = chance.choice(list(USES.values()))
            with suppress(MessageQueueError):
                result = use(queue)
                assert not isinstance(result, bytes) or len(result) <= 64
            assert os.path.getsize(_place.path_of(name)) == len(whole)


@both_orders
def test_a_file_that_changes_during_calls_does_no_harm(name: str, priorities: bool) -> None:
    """C28: every number is checked on the copy that is used."""
    import random

    with create(name, priorities=priorities) as queue:
        over = threading.Event()

        def spoil() -> None:
            descriptor = os.open(_place.path_of(name), os.O_RDWR)
            size = os.fstat(descriptor).st_size
            while not over.is_set():
                os.pwrite(descriptor, random.randbytes(8), random.randrange(STATES_AT, size))
                time.sleep(0)
            os.close(descriptor)

        spoiler = threading.Thread(target=spoil)
        spoiler.start()
        try:
            for _ in range(300):
                for use in USES.values():
                    with suppress(MessageQueueError):
                        use(queue)
        finally:
            over.set()
            spoiler.join()
        assert os.path.getsize(_place.path_of(name)) == len(read_file(name))


@both_orders
def test_a_file_truncated_at_any_length_is_corrupt(name: str, priorities: bool) -> None:
    """C29: CorruptQueue at every length, never SIGBUS, on old handles and on new ones."""
    with create(name, priorities=priorities) as queue:
        queue.put(b"item")
        whole = read_file(name)
        for length in [*range(0, len(whole), 97), len(whole) - 1]:
            os.truncate(_place.path_of(name), length)
            for use in USES.values():
                with pytest.raises(CorruptQueue):
                    use(queue)
            with pytest.raises(CorruptQueue):
                attach(name)
            os.truncate(_place.path_of(name), len(whole))
            write_file(name, 0, whole)
        assert queue.get_nowait() == b"item"


def test_a_file_truncated_while_it_is_used_is_corrupt(queue: Handle, name: str) -> None:
    """C29: 1,000 times, at random instants, until a use has met one of the cuts."""
    whole, over = read_file(name), threading.Event()
    raised: set[type[MessageQueueError]] = set()

    def cut() -> None:
        cuts = 0
        while cuts < 1000 or (CorruptQueue not in raised and cuts < 200_000):
            os.truncate(_place.path_of(name), secrets.randbelow(len(whole)))
            os.truncate(_place.path_of(name), len(whole))
            write_file(name, 0, whole)
            cuts += 1
        over.set()

    cutter = threading.Thread(target=cut)
    cutter.start()
    while not over.is_set():
        for use in USES.values():
            try:
                use(queue)
            except MessageQueueError as error:
                raised.add(type(error))
    cutter.join()
    assert raised <= {CorruptQueue, QueueEmpty, QueueFull}
    assert CorruptQueue in raised


@pytest.mark.parametrize("version", [0, 3, 1 << 31])
def test_another_version_of_the_layout_is_refused(queue: Handle, name: str, version: int) -> None:
    """C18: VersionMismatch names both versions."""
    write_file(name, 8, struct.pack("<I", version))
    with pytest.raises(VersionMismatch, match=f"version {version}, but this ipcq supports version 2"):
        attach(name)


def test_a_file_of_another_name_is_refused(queue: Handle, name: str) -> None:
    """C27: a copy of a queue's file under another name is not a queue."""
    other = f"{name}-other"
    Path(_place.path_of(other)).write_bytes(read_file(name))
    with pytest.raises(CorruptQueue, match=name):
        attach(other)
    os.unlink(_place.path_of(other))


def test_a_state_that_stays_torn_is_corrupt(queue: Handle, name: str) -> None:
    """C28: a look that fails is repeated under the lock, where no other process can be writing."""
    write_file(name, STATES_AT, bytes(2 * STATE_ROOM))
    with pytest.raises(CorruptQueue):
        queue.qsize()


@pytest.mark.parametrize("redo", [1 << 32, 65 << 32, 1])
def test_an_invalid_redo_record_is_corrupt(name: str, redo: int) -> None:
    """C28: its checksum and its size are checked."""
    with create(name, priorities=True) as queue:
        queue.put(b"x")
        forge_state(name, redo=redo)
        with pytest.raises(CorruptQueue):
            queue.get_nowait()


@pytest.mark.parametrize("cell", [(4, 0, 0), (1 << 62, 0, 0)])
def test_a_redo_record_that_points_outside_is_corrupt(name: str, cell: tuple[int, int, int]) -> None:
    """C28: also with a valid checksum."""
    with create(name, priorities=True) as queue:
        queue.put(b"x")
        raw = CELL.pack(*cell)
        write_file(name, DATA_AT, raw)
        forge_state(name, redo=1 << 32 | crc32(raw))
        with pytest.raises(CorruptQueue):
            queue.get_nowait()


def test_a_plain_queue_has_no_redo_record(queue: Handle, name: str) -> None:
    """C28: a state that claims otherwise is forged."""
    queue.put(b"x")
    raw = queue._channel._read(DATA_AT, CELL.size)
    forge_state(name, redo=1 << 32 | crc32(raw))
    with pytest.raises(CorruptQueue):
        queue.get_nowait()


def test_a_batch_ends_before_a_forged_record(queue: Handle, name: str) -> None:
    """C9, C28: the sound messages are taken, and the next get reports the forged one."""
    queue.put_many([b"sound", b"forged"])
    write_file(name, DATA_AT + RECORD.size + 5, bytes(RECORD.size))
    assert queue._channel.try_get_many(2) == [(b"sound", 0)]


def test_a_file_truncated_in_the_middle_of_a_step_is_corrupt(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C29: between the check of its size and the read."""
    monkeypatch.setattr(_file, "pread", lambda descriptor, size, at: b"")
    with pytest.raises(CorruptQueue, match="truncated"):
        queue.get_nowait()


def test_a_file_truncated_between_two_reads_of_a_step_is_corrupt(
    queue: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C29: the states are read, but the message is gone."""
    queue.put(b"x")
    read = _file.pread
    monkeypatch.setattr(
        _file, "pread", lambda descriptor, size, at: read(descriptor, size, at) if at < DATA_AT else b""
    )
    with pytest.raises(CorruptQueue, match="truncated"):
        queue.get_nowait()


@pytest.mark.parametrize(("key", "block"), [((1 << 64) - 1, 0), (0, 4), (0, 1 << 40)])
def test_an_entry_of_the_heap_may_be_hostile(name: str, key: int, block: int) -> None:
    """C28: priorities and blocks that do not exist."""
    with create(name, priorities=True) as queue:
        queue.put(b"x")
        write_file(name, queue._channel._order._geometry.heap_at, struct.pack("<QQ", key, block))
        for use in (queue.get_nowait, lambda: queue.get_latest(block=False)):
            with pytest.raises(CorruptQueue):
                use()


def test_an_entry_that_is_gone_is_corrupt() -> None:
    """C28: between two reads of a step."""
    with pytest.raises(CorruptQueue):
        index_of([(1, 2)], Place(1, 3, 0))


def test_a_link_may_be_hostile(name: str) -> None:
    """C28: a chain that leads outside the file."""
    with ipcq.open(name, "pyshm", exclusive=True, priorities=True, serializer="raw") as queue:
        queue.put(bytes(5000))
        write_file(name, queue._channel._order._geometry.links_at, b"\xff" * 4)
        with pytest.raises(CorruptQueue):
            queue.get_nowait()


# Squatters

SQUATS: dict[str, tuple[Callable[[str], object], type[MessageQueueError]]] = {
    "nothing in it": (lambda path: Path(path).touch(), CorruptQueue),
    "a text": (lambda path: Path(path).write_text("x" * 8192), CorruptQueue),
    "a directory": (os.mkdir, PermissionDenied),
    "a FIFO": (lambda path: os.mkfifo(path), PermissionDenied),
    "a symlink": (lambda path: os.symlink("/dev/null", path), PermissionDenied),
    "a dangling symlink": (lambda path: os.symlink("/nowhere", path), PermissionDenied),
}


@pytest.mark.parametrize("kind", SQUATS)
def test_a_file_that_is_no_queue_is_refused(name: str, kind: str) -> None:
    """C27: neither attached to nor replaced, and the name counts as taken."""
    squat, error = SQUATS[kind]
    path = _place.path_of(name)
    squat(path)
    before = os.lstat(path)
    assert ipcq.exists(name, "pyshm")
    with pytest.raises(error):
        ipcq.open(name, "pyshm")
    with pytest.raises(QueueExists):
        PyshmBackend().create(name, Request())
    assert not any(listed == name for listed in PyshmBackend().names())
    assert os.lstat(path).st_mtime_ns == before.st_mtime_ns
    if stat.S_ISDIR(before.st_mode):
        with pytest.raises(PermissionDenied):
            ipcq.unlink(name, "pyshm")
        os.rmdir(path)
    else:
        ipcq.unlink(name, "pyshm")


def test_a_file_with_a_second_name_is_refused(queue: Handle, name: str) -> None:
    """C27: a process with another link to the file could keep it forever."""
    other = f"{_place.path_of(name)}-link"
    os.link(_place.path_of(name), other)
    with pytest.raises(PermissionDenied, match="2 names"):
        attach(name)
    os.unlink(other)
    attach(name).close()


def test_modes_that_grant_access_to_others_require_other_users(name: str) -> None:
    """C27: a user who may write can forge and destroy messages, so the option has to be given."""
    with pytest.raises(Unsupported, match="other_users=True"):
        create(name, mode=0o660)
