"""What only pyshm has: a file, whose every write may be its writer's last, and which others may have written."""

import errno
import os
import secrets
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

import ipcq
from ipcq import _private
from ipcq.backend import Attributes, Request, Severity
from ipcq.errors import (
    CorruptQueue,
    InvalidArgument,
    LimitExceeded,
    MessageQueueError,
    NoSpace,
    PermissionDenied,
    QueueEmpty,
    QueueExists,
    QueueFull,
    QueueGone,
    QueueMismatch,
    QueueNotFound,
    TimedOutError,
    Unsupported,
    VersionMismatch,
)
from ipcq_pyshm import PyshmBackend, _channel, _file, _lock, _place, _segment
from ipcq_pyshm._layout import CELL, DATA_AT, RECORD, STATE_ROOM, STATES_AT, Header, State, newest, place

Handle = ipcq.Queue[Any]

SMALL: dict[str, Any] = {"max_messages": 4, "max_message_size": 64, "serializer": "raw"}
HANG = 20.0

linux = pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux's")
as_root = pytest.mark.skipif(
    getattr(os, "geteuid", int)() != 0 or sys.platform != "linux", reason="only root can mount: run the tests as root"
)
with_shmlock = pytest.mark.skipif(not _lock.installed(), reason="lock='shmlock' cannot be used here without shmlock")
both_orders = pytest.mark.parametrize("priorities", [False, True], ids=["plain", "priorities"])
both_locks = pytest.mark.parametrize("lock", ["file", pytest.param("shmlock", marks=with_shmlock)])


@pytest.fixture
def name() -> Iterator[str]:
    """Return a name that no queue has after the test."""
    name = f"/pyshm-{os.getpid()}-{secrets.token_hex(4)}"
    yield name
    for leftover in Path(_place.directory()).glob(Path(_place.path_of(name)).name + "*"):
        with suppress(IsADirectoryError):
            leftover.unlink()


@pytest.fixture
def queue(name: str) -> Iterator[Handle]:
    """Return a handle to a new plain queue of 4 messages of 64 bytes."""
    with made(name) as queue:
        yield queue


def made(name: str, **options: Any) -> Handle:
    return ipcq.open(name, "pyshm", exclusive=True, **{**SMALL, **options})


def again(name: str, **options: Any) -> Handle:
    return ipcq.open(name, "pyshm", create=False, serializer="raw", **options)


def drained(queue: Handle) -> list[bytes]:
    items = []
    with suppress(QueueEmpty):
        while True:
            items.append(queue.get_nowait())
    return items


def peek_file(name: str) -> bytes:
    return Path(_place.path_of(name)).read_bytes()


def poke(name: str, at: int, data: bytes) -> None:
    descriptor = os.open(_place.path_of(name), os.O_RDWR)
    os.pwrite(descriptor, data, at)
    os.close(descriptor)


def state_of(name: str) -> State:
    state = newest(peek_file(name)[STATES_AT : STATES_AT + 2 * STATE_ROOM])
    assert state is not None
    return state


def poke_state(name: str, **numbers: int) -> None:
    """Forge the next state, with a checksum that holds."""
    state = state_of(name)
    state.sequence += 1
    for number, value in numbers.items():
        setattr(state, number, value)
    poke(name, place(state.sequence), state.packed())


# Killed at every call on the file

ENUMERATE = """
import json, os, signal, sys
import ipcq
from ipcq_pyshm import _file
name, options, prepare, act, repair = sys.argv[1], json.loads(sys.argv[2]), *sys.argv[3:6]

def struck(call, torn=False):
    def strike_or_call(*arguments):
        global calls
        calls += 1
        if calls == instant:  # before it
            os.kill(os.getpid(), signal.SIGKILL)
        if torn:
            calls += 1
            if calls == instant:  # in its midst
                descriptor, data, at = arguments
                call(descriptor, data[: len(data) // 2], at)
                os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)
    return strike_or_call

def killed(at, code):
    global calls, instant
    pid = os.fork()
    if not pid:
        other = ipcq.open(name, "pyshm", create=False, serializer="raw")
        calls, instant = 0, at
        _file.pread, _file.lock, _file.unlock = map(struck, (_file.pread, _file.lock, _file.unlock))
        _file.pwrite = struck(_file.pwrite, torn=True)
        exec(code, {"queue": other})
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL

def trial(first, second):
    queue = ipcq.open(name, "pyshm", exclusive=True, serializer="raw", max_messages=4, max_message_size=64, **options)
    exec(prepare)
    more = killed(first, act)
    more_again = killed(second, repair) if more and second else False
    figures = queue.stats()
    items = []
    while not queue.empty():
        message = queue.get_message()
        items.append([message.item.decode(), message.priority])
    sound = figures.depth == len(items) == figures.puts - figures.gets
    sound = sound and figures.bytes == sum(len(data) for data, _ in items)
    sound = sound and queue.stats().bytes == 0
    if not repair.startswith("queue.shut"):
        while not queue.full():
            queue.put_nowait(bytes(64))
        sound = sound and [queue.get_nowait() for _ in range(4)] == [bytes(64)] * 4
    print(json.dumps([items, sound, figures.recoveries]))
    queue.unlink()
    queue.close()
    return more, more_again

first = 1
while True:
    second = 1 if repair else 0
    while True:
        more, more_again = trial(first, second)
        if not more_again:
            break
        second += 1
    if not more:
        break
    first += 1
"""

#: Where the ring's end lies inside what is stored next, so that a record is cut in two.
WRAPPED = "\nfor _ in range(3): queue.put_nowait(bytes(50)); queue.get_nowait()\n"
FULL = "for letter in b'abcd': queue.put_nowait(bytes([letter]) * 64)"
RANKED = "for rank, letter in enumerate(b'abcd'): queue.put(bytes([letter]) * 60, priority=rank)"


def enumerated(name: str, prepare: str, act: str, repair: str = "", **options: Any) -> list[Any]:
    """Kill a process at each call of an act, and one that repairs at each of its own; return what is found after."""
    import json

    run = subprocess.run(
        [sys.executable, "-c", ENUMERATE, name, json.dumps(options), prepare, act, repair],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


KILLED: dict[str, tuple[str, str]] = {
    "put into an empty queue": ("", "queue.put_nowait(b'x' * 64)"),
    "put": ("queue.put_nowait(b'a')", "queue.put_nowait(b'x' * 64)"),
    "put over the end": (WRAPPED, "queue.put_nowait(b'x' * 64)"),
    "put nothing": ("queue.put_nowait(b'a')", "queue.put_nowait(b'')"),
    "get the only one": ("queue.put_nowait(b'a')", "queue.get_nowait()"),
    "get": (FULL, "queue.get_nowait()"),
    "get over the end": (WRAPPED + FULL, "queue.get_nowait()"),
    "put a batch": ("queue.put_nowait(b'a')", "queue.put_many([b'x' * 64, b'y' * 30, b'z'])"),
    "put a batch over the end": (WRAPPED, "queue.put_many([b'x' * 64, b'y' * 30, b'z'])"),
    "put half a batch": (FULL + "\nqueue.get(); queue.get()", "queue.put_many([b'x' * 64, b'y' * 30, b'z'], False)"),
    "clear": (FULL, "queue.clear()"),
}
RANKS: dict[str, tuple[str, str]] = {
    "put the highest": (RANKED + "\nqueue.get()", "queue.put(b'x' * 64, priority=9)"),
    "put between": (RANKED + "\nqueue.get()", "queue.put(b'x' * 64, priority=1)"),
    "put the lowest": (RANKED + "\nqueue.get()", "queue.put_nowait(b'x' * 64)"),
    "get the highest": (RANKED, "queue.get_nowait()"),
    "get the highest of two": (RANKED + "\nqueue.get(); queue.get()", "queue.get_nowait()"),
    "clear": (RANKED, "queue.clear()"),
}


def has_happened_or_not(found: list[Any]) -> None:
    """Expect one state before an instant and one from it on."""
    assert all(sound for _, sound, _ in found)
    items = [items for items, _, _ in found]
    turns = [(one, other) for one, other in pairwise(items) if one != other]
    assert len(turns) == 1, items
    assert len(found) > 5


@pytest.mark.parametrize("act", KILLED)
@both_locks
def test_a_process_killed_at_any_call_has_done_its_step_or_not(name: str, act: str, lock: str) -> None:
    """C15: of a plain queue, with writes cut off in their midst as well."""
    has_happened_or_not(enumerated(name, *KILLED[act], lock=lock))


@pytest.mark.parametrize("act", KILLED | RANKS)
def test_a_process_killed_at_any_call_has_done_its_step_or_not_with_priorities(name: str, act: str) -> None:
    """C15: of a queue with priorities."""
    has_happened_or_not(enumerated(name, *(KILLED | RANKS)[act], priorities=True))


def test_a_shutdown_killed_at_any_call_has_happened_or_not(name: str) -> None:
    """C15: the same for what ends a queue and drops what is in it."""
    found = enumerated(name, FULL, "queue.shutdown(immediate=True)", "queue.shutdown(immediate=True)")
    assert {len(items) for items, _, _ in found} == {0, 4}
    assert all(sound for _, sound, _ in found)


@pytest.mark.parametrize("act", ["put the highest", "get the highest"])
def test_who_repairs_may_be_killed_at_any_call_too(name: str, act: str) -> None:
    """C15: entries that a dead process was moving are moved again, as often as it takes."""
    found = enumerated(name, *RANKS[act], "queue.peek()", priorities=True)
    assert all(sound for _, sound, _ in found)
    assert len({str(items) for items, _, _ in found}) == 2
    assert {recoveries for _, _, recoveries in found} == {0, 1, 2}  # two where the repair was cut off as well


@with_shmlock
def test_a_block_that_a_dead_process_left_is_counted_as_a_recovery(name: str) -> None:
    """C15, C25: stats tell how often a queue was put in order."""
    assert 1 in {
        recoveries for *_, recoveries in enumerated(name, "", "queue.put_nowait(b'a')", "queue.clear()", lock="shmlock")
    }


def test_a_batch_under_way_is_all_or_nothing(name: str) -> None:
    """C9: what a batch stores at a time appears in one commit."""
    found = enumerated(name, *KILLED["put a batch"])
    assert {len(items) for items, _, _ in found} == {1, 4}


CREATING = """
import os, signal, sys
import ipcq
from ipcq_pyshm import _file, _segment
name, instant = sys.argv[1], int(sys.argv[2])
calls = 0
def struck(call):
    def strike_or_call(*arguments, **named):
        global calls
        calls += 1
        if calls == instant:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **named)
    return strike_or_call
for call in ("open", "link", "unlink", "fchmod", "posix_fallocate", "close", "fstat"):
    setattr(os, call, struck(getattr(os, call)))
_file.pwrite, _file.hold = struck(_file.pwrite), struck(_file.hold)
exec(sys.argv[3])
"""

MAKE = "ipcq.open(name, 'pyshm', exclusive=True, max_messages=4, max_message_size=64{})"


@pytest.mark.parametrize(
    "act",
    [
        MAKE.format(""),
        MAKE.format(", lifetime='last-close'"),
        MAKE.format(", priorities=True") + ".unlink()",
        MAKE.format(", lifetime='last-close'") + ".close()",
    ],
)
def test_a_process_killed_while_it_makes_or_unlinks_a_queue_leaves_the_name_usable(name: str, act: str) -> None:
    """C16: at each call there is a whole queue or none, and nothing else is left."""
    instant = 0
    while True:
        instant += 1
        run = subprocess.run([sys.executable, "-W", "ignore", "-c", CREATING, name, str(instant), act], check=False)
        with ipcq.open(name, "pyshm", **{**SMALL, "priorities": "priorities" in act}) as queue:
            queue.put(b"item")
            assert queue.get(timeout=HANG) == b"item"
            queue.unlink()
        assert not list(Path(_place.directory()).glob(Path(_place.path_of(name)).name + "*"))
        if run.returncode == 0:
            break
        assert run.returncode == -signal.SIGKILL
    assert instant > 10


# Hostile files


@both_orders
def test_every_word_of_the_header_may_be_hostile(name: str, priorities: bool) -> None:
    """C28: whatever stands there is refused by a named error, or is what stood there before."""
    with made(name, priorities=priorities) as queue:
        queue.put(b"item")
        whole = peek_file(name)
        for at in range(0, 64, 4):
            for word in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
                poke(name, at, struct.pack("<I", word))
                with suppress(CorruptQueue, VersionMismatch), again(name) as other:
                    assert peek_file(name)[:64] == whole[:64]
                    other.close()
                poke(name, 0, whole[:STATES_AT])
        assert again_and_close(name) == b"item"


def again_and_close(name: str) -> bytes:
    with again(name) as queue:
        return bytes(queue.get(timeout=HANG))


@both_orders
def test_every_word_of_a_header_with_a_true_checksum_may_be_hostile(name: str, priorities: bool) -> None:
    """C28: a checksum is no proof."""
    with made(name, priorities=priorities) as queue:
        queue.put(b"item")
        whole = peek_file(name)[:STATES_AT]
        for at in range(16, 64, 4):
            for word in (0, 1, 5, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
                raw = whole[:at] + struct.pack("<I", word) + whole[at + 4 :]
                poke(name, 0, raw[:12] + struct.pack("<I", crc32(raw[16:])) + raw[16:])
                try:
                    again(name).close()
                except (CorruptQueue, QueueNotFound):
                    pass
                if os.path.exists(_place.path_of(name)):
                    poke(name, 0, whole)
                else:  # it said that it goes with its last holder, and so it did
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
USES: dict[str, Callable[[Handle], object]] = {
    "get": lambda queue: queue.get_nowait(),
    "put": lambda queue: queue.put_nowait(b"x" * 60),
    "get_many": lambda queue: queue.get_many(block=False),
    "put_many": lambda queue: queue.put_many([b"x", b"y"], block=False),
    "peek": lambda queue: queue.peek(),
    "clear": lambda queue: queue.clear(),
    "qsize": lambda queue: queue.qsize(),
    "full": lambda queue: queue.full(),
    "stats": lambda queue: queue.stats(),
}


@pytest.mark.parametrize("use", USES)
@both_orders
def test_every_number_of_the_state_may_be_hostile(name: str, priorities: bool, use: str) -> None:
    """C28: with a checksum that holds, each use returns or raises an error of ours, and the file keeps its size."""
    with made(name, priorities=priorities) as queue:
        for data in (b"a" * 40, b"b", b"c" * 64):
            queue.put(data)
        whole = peek_file(name)
        for number in NUMBERS:
            for word in WORDS:
                poke_state(name, **{number: word})
                with suppress(MessageQueueError):
                    USES[use](queue)
                assert os.path.getsize(_place.path_of(name)) == len(whole)
                poke(name, 0, whole)


@pytest.mark.parametrize("seed", range(4))
@both_orders
def test_bytes_may_be_hostile_anywhere(name: str, priorities: bool, seed: int) -> None:
    """C28: nothing but errors of ours, no message above the limit, no file that grows."""
    import random

    chance = random.Random(seed)
    with made(name, priorities=priorities) as queue:
        for number in range(3):
            queue.put(bytes([number]) * 50)
        whole = peek_file(name)
        for _ in range(300):
            data = bytearray(whole)
            for _ in range(chance.randint(1, 6)):
                data[chance.randrange(STATES_AT, len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            poke(name, 0, bytes(data))
            use = chance.choice(list(USES.values()))
            with suppress(MessageQueueError):
                result = use(queue)
                assert not isinstance(result, bytes) or len(result) <= 64
            assert os.path.getsize(_place.path_of(name)) == len(whole)


@both_orders
def test_a_file_that_changes_all_the_while_hurts_nobody(name: str, priorities: bool) -> None:
    """C28: every number is checked on the copy that is used."""
    import random

    with made(name, priorities=priorities) as queue:
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
        assert os.path.getsize(_place.path_of(name)) == len(peek_file(name))


@both_orders
def test_a_file_cut_off_anywhere_is_told(name: str, priorities: bool) -> None:
    """C29: CorruptQueue at every length, never SIGBUS, on old handles and on new ones."""
    with made(name, priorities=priorities) as queue:
        queue.put(b"item")
        whole = peek_file(name)
        for length in [*range(0, len(whole), 97), len(whole) - 1]:
            os.truncate(_place.path_of(name), length)
            for use in USES.values():
                with pytest.raises(CorruptQueue):
                    use(queue)
            with pytest.raises(CorruptQueue):
                again(name)
            os.truncate(_place.path_of(name), len(whole))
            poke(name, 0, whole)
        assert queue.get_nowait() == b"item"


def test_a_file_cut_off_while_it_is_used_is_told(queue: Handle, name: str) -> None:
    """C29: 1,000 times, at random instants, and until one of them was met."""
    whole, over = peek_file(name), threading.Event()
    raised: set[type[MessageQueueError]] = set()

    def cut() -> None:
        cuts = 0
        while cuts < 1000 or (CorruptQueue not in raised and cuts < 200_000):
            os.truncate(_place.path_of(name), secrets.randbelow(len(whole)))
            os.truncate(_place.path_of(name), len(whole))
            poke(name, 0, whole)
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


@pytest.mark.parametrize("version", [0, 2, 1 << 31])
def test_another_version_of_the_layout_is_refused(queue: Handle, name: str, version: int) -> None:
    """C18: VersionMismatch that names both."""
    poke(name, 8, struct.pack("<I", version))
    with pytest.raises(VersionMismatch, match=f"version {version}, this ipcq knows version 1"):
        again(name)


def test_a_file_of_another_name_is_refused(queue: Handle, name: str) -> None:
    """C27: whoever copies a queue's file to another name has not made a queue."""
    other = f"{name}-other"
    Path(_place.path_of(other)).write_bytes(peek_file(name))
    with pytest.raises(CorruptQueue, match=name):
        again(other)
    os.unlink(_place.path_of(other))


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
def test_what_is_no_queues_file_is_refused(name: str, kind: str) -> None:
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
    """C27: whoever keeps another link to it would keep it for good."""
    other = f"{_place.path_of(name)}-link"
    os.link(_place.path_of(name), other)
    with pytest.raises(PermissionDenied, match="2 names"):
        again(name)
    os.unlink(other)
    again(name).close()


def test_modes_that_grant_others_want_other_users(name: str) -> None:
    """C27: whoever may write can forge and destroy, so it has to be said."""
    with pytest.raises(Unsupported, match="other_users=True"):
        made(name, mode=0o660)


# Space


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
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
def test_a_full_file_system_is_no_space_and_leaves_no_name(tiny: Path, name: str) -> None:
    """C23: at any size beyond what is there."""
    for size in (1 << 18, 1 << 19, 1 << 30, 1 << 40):
        with pytest.raises(NoSpace, match=r"no \d+ bytes left"):
            ipcq.open(name, "pyshm", exclusive=True, buffer_size=size)
        assert not list(tiny.iterdir())


@as_root
def test_a_queue_needs_no_space_once_it_is_made(tiny: Path, name: str) -> None:
    """C23: another file that fills the file system afterwards takes nothing from it."""
    with ipcq.open(name, "pyshm", exclusive=True, max_messages=16, max_message_size=4096, serializer="raw") as queue:
        with pytest.raises(OSError), (tiny / "filler").open("wb") as filler:  # what else
            while True:
                filler.write(bytes(4096))
        for number in range(50):
            queue.put(bytes([number]) * 4096)
            assert queue.get_nowait() == bytes([number]) * 4096


@as_root
def test_space_that_goes_meanwhile_is_no_space_too(tiny: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C23: the look before is for the neighbours' sake; what counts is the allocation."""
    monkeypatch.delattr(os, "fstatvfs")
    with pytest.raises(NoSpace):
        ipcq.open(name, "pyshm", exclusive=True, buffer_size=1 << 20)
    assert not list(tiny.iterdir())


@as_root
def test_a_space_that_is_nearly_full_is_a_finding(tiny: Path) -> None:
    """The warning has the figures and a command."""
    (tiny / "filler").write_bytes(bytes(250 << 10))
    (finding,) = PyshmBackend().findings()
    assert finding.severity is Severity.WARNING
    assert "remount" in finding.fix


def test_an_allocation_ends_under_a_fast_timer(name: str) -> None:
    """C23: a call that a signal interrupts starts anew, and so must be short."""
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
def test_what_no_machine_holds_is_no_space(name: str, limits: dict[str, int]) -> None:
    """Clause 6: refused before anything is allocated."""
    with pytest.raises(NoSpace):
        ipcq.open(name, "pyshm", exclusive=True, **limits)


# Locks


@pytest.fixture
def held(queue: Handle, name: str) -> Iterator[Callable[[], None]]:
    """Hold the lock as a stopped process would; return what lets it go."""
    descriptor = os.open(_place.path_of(name), os.O_RDWR)
    assert _file.lock(descriptor)
    yield lambda: _file.unlock(descriptor)
    os.close(descriptor)


def test_who_stopped_inside_the_lock_makes_a_queue_look_full_and_empty(queue: Handle, held: object) -> None:
    """C11: a put and a get end on time, and nothing was stored or taken."""
    for call, error in (
        (lambda: queue.put(b"x", timeout=0.05), QueueFull),
        (lambda: queue.put_many([b"x"], timeout=0.05), QueueFull),
        (lambda: queue.get(timeout=0.05), QueueEmpty),
    ):
        began = time.monotonic()
        with pytest.raises(error):
            call()
        assert time.monotonic() - began < 1.05
    assert queue.qsize() == 0


def test_a_batch_that_cannot_be_taken_on_is_what_was_taken(queue: Handle, held: Callable[[], None]) -> None:
    """C9: at least one item, then what is there, unless somebody stops inside the lock meanwhile."""
    channel = queue._channel
    assert channel.try_get_many(3) == []
    held()
    queue.put(b"x")
    assert channel.try_get_many(3) == [(b"x", 0)]


@pytest.mark.parametrize("use", ["peek", "clear", "shutdown"])
def test_what_has_no_time_of_its_own_says_that_the_lock_is_held(
    queue: Handle, held: object, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C11: after a second, with the way out."""
    monkeypatch.setattr(_channel, "LONG_PATIENCE", 0.05)
    with pytest.raises(TimedOutError, match="lslocks"):
        getattr(queue, use)()


def test_waits_that_could_not_be_counted_are_counted_later(queue: Handle, held: Callable[[], None]) -> None:
    """C25: by the next step that has the lock."""
    with pytest.raises(QueueEmpty):
        queue.get(timeout=0.1)
    assert queue.stats().waits == 0
    held()
    queue.put(b"x")
    figures = queue.stats()
    assert (figures.waits, figures.timeouts) == (1, 1)


def test_looking_needs_no_lock(queue: Handle, held: object) -> None:
    """C11: the state's checksum tells whether it is whole."""
    assert (queue.qsize(), queue.empty(), queue.full(), queue.stats().puts) == (0, True, False, 0)


def test_a_state_that_stays_torn_is_corrupt(queue: Handle, name: str) -> None:
    """C28: a look that fails is made again under the lock, and then it is not somebody's write under way."""
    poke(name, STATES_AT, bytes(2 * STATE_ROOM))
    with pytest.raises(CorruptQueue):
        queue.qsize()


def test_a_state_cut_off_by_a_dead_process_is_a_recovery(queue: Handle, name: str) -> None:
    """C15, C25: counted by the step that writes over it."""
    queue.put(b"x")
    state = state_of(name)
    state.sequence += 1
    poke(name, place(state.sequence), state.packed()[:60])
    assert queue.stats().recoveries == 0
    assert queue.get() == b"x"
    assert queue.stats().recoveries == 1


@pytest.mark.parametrize("redo", [1 << 32, 65 << 32, 1])
def test_a_redo_record_that_does_not_hold_is_corrupt(name: str, redo: int) -> None:
    """C28: its checksum and its size are checked."""
    with made(name, priorities=True) as queue:
        queue.put(b"x")
        poke_state(name, redo=redo)
        with pytest.raises(CorruptQueue):
            queue.get_nowait()


@pytest.mark.parametrize("cell", [(4, 0, 0), (1 << 62, 0, 0)])
def test_a_redo_record_that_points_outside_is_corrupt(name: str, cell: tuple[int, int, int]) -> None:
    """C28: with a checksum that holds."""
    with made(name, priorities=True) as queue:
        queue.put(b"x")
        raw = CELL.pack(*cell)
        poke(name, DATA_AT, raw)
        poke_state(name, redo=1 << 32 | crc32(raw))
        with pytest.raises(CorruptQueue):
            queue.get_nowait()


def test_a_plain_queue_has_no_redo_record(queue: Handle, name: str) -> None:
    """C28: whoever says so has forged it."""
    queue.put(b"x")
    raw = queue._channel._read(DATA_AT, CELL.size)
    poke_state(name, redo=1 << 32 | crc32(raw))
    with pytest.raises(CorruptQueue):
        queue.get_nowait()


def test_writes_that_the_system_cuts_short_are_finished(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """pwrite(2) may write less than it was given."""
    whole = _file.pwrite
    monkeypatch.setattr(_file, "pwrite", lambda descriptor, data, at: whole(descriptor, data[:7], at))
    queue.put(b"x" * 64)
    assert queue.get() == b"x" * 64


def test_what_the_system_refuses_is_told(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: with its number, and nothing was stored."""

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
        queue._channel.wait_readable(now, now + 60)  # ends at the first look, and leaves it to the next try to tell
    assert caught.value.errno == errno.EIO
    assert queue.empty()


@pytest.mark.parametrize("use", ["put", "get", "put_many", "clear"])
@both_orders
def test_any_call_that_fails_leaves_the_queue_as_it_was(
    name: str, use: str, priorities: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C5, clause 11: the n-th write fails, for all n up to the commit."""
    with made(name, priorities=priorities) as queue:
        queue.put_many([b"a" * 50, b"b" * 50])
        whole, before = _file.pwrite, state_of(name).sequence
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
            if state_of(name).sequence != before:
                break
            assert [queue.peek(), queue.qsize()] == [b"a" * 50, 2]
        assert failing > 1


@pytest.mark.parametrize("lock", ["flock", "", None])
def test_a_lock_that_there_is_not_is_refused(name: str, lock: str | None) -> None:
    """C25: InvalidArgument, and nothing is made."""
    with pytest.raises(InvalidArgument):
        made(name, lock=lock)
    assert not ipcq.exists(name, "pyshm")


@with_shmlock
def test_another_lock_than_the_queues_is_a_mismatch(name: str) -> None:
    """C18: the choice is kept with the queue."""
    with made(name, lock="shmlock"):
        with pytest.raises(QueueMismatch, match="lock is 'shmlock', asked for 'file'"):
            again(name, lock="file")
        again(name, lock="shmlock").close()
        again(name).close()


def test_shmlock_that_is_not_installed_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 19: Unsupported names the extra, for making a queue and for meeting one."""
    monkeypatch.setattr(_lock, "installed", lambda: False)
    with pytest.raises(Unsupported, match=r"pip install 'ipcq\[shmlock\]'"):
        made(name, lock="shmlock")
    _lock._shmlock.cache_clear()
    descriptor = _segment.make(
        Header(name, Attributes(mode=0o600, max_messages=1, max_message_size=1), "shmlock", b"8" * 8)
    )
    os.close(descriptor)
    with pytest.raises(Unsupported, match=r"pip install 'ipcq\[shmlock\]'"):
        again(name)


@with_shmlock
def test_shmlock_is_for_one_user(name: str) -> None:
    """Its blocks are, so nobody else could clear one away."""
    with pytest.raises(Unsupported, match="lock='file'"):
        made(name, lock="shmlock", mode=0o666, other_users=True)


@with_shmlock
def test_a_block_that_comes_back_is_told(name: str) -> None:
    """Who has the name of the lock for something else keeps it, and the queue says so."""
    with made(name, lock="shmlock") as queue:
        lock = queue._channel._lock
        lock._try = lambda: False
        with pytest.raises(MessageQueueError, match="cannot be made"):
            queue.put(b"x")


@with_shmlock
def test_a_block_removed_from_outside_hurts_nobody(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock on the file is what excludes; the block is made anew."""
    with made(name, lock="shmlock") as queue:
        step = _channel.PyshmChannel._put

        def put(channel: _channel.PyshmChannel, data: bytes, priority: int) -> bool:
            _lock._unlink(channel._lock._name)
            _lock._unlink(channel._lock._name)
            return step(channel, data, priority)

        monkeypatch.setattr(_channel.PyshmChannel, "_put", put)
        queue.put(b"x")
        queue.put(b"y")
        assert drained(queue) == [b"x", b"y"]


@with_shmlock
def test_a_handler_may_raise_while_the_block_is_made_anew(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C12: its exception is what comes out, and the next step makes the block."""

    def raise_mine() -> None:
        raise KeyError("mine")

    with made(name, lock="shmlock") as queue:
        lock = queue._channel._lock
        lock.forget()
        lock.forget()
        with monkeypatch.context() as context, pytest.raises(KeyError, match="mine"):
            context.setattr(lock, "_fresh", raise_mine)
            queue.put(b"x")
        queue.put(b"y")
        assert drained(queue) == [b"y"]


@with_shmlock
def test_what_a_handler_raised_is_not_shmlocks_error() -> None:
    """C12: shmlock puts errors of its own in the place of others'."""
    mine = KeyError("mine")
    with pytest.raises(KeyError) as caught, _lock._undisturbed():
        raise OSError("shmlock's") from mine
    assert caught.value is mine


# Forks


@pytest.mark.parametrize("lifetime", ["persistent", "last-close"])
@both_locks
def test_a_channel_after_a_fork_is_a_file_of_its_own(name: str, lock: str, lifetime: str) -> None:
    """C20, clause 17: opened anew under the same number, so that the parent's lock is not the child's."""
    with made(name, lock=lock, lifetime=lifetime) as queue:
        channel = queue._channel
        kept = os.dup(channel._descriptor)
        assert _file.lock(kept)
        assert channel.after_fork()
        assert not channel.try_put(b"x", 0)
        _file.unlock(kept)
        os.close(kept)
        queue.put(b"x")
        assert drained(queue) == [b"x"]


def test_a_step_that_a_fork_interrupted_does_nothing_in_the_child(queue: Handle) -> None:
    """C20: the parent's goes on; the child's has no lock, and fails."""
    channel = queue._channel

    def fork_inside() -> bool:
        assert not channel.after_fork()
        return channel._put(b"x", 0)

    with pytest.raises(MessageQueueError):
        channel._step(0.1, fork_inside)
    assert queue.empty()


def test_a_child_that_may_not_open_the_file_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 17: and nothing is left open."""
    queue = made(name)

    def refuse(*arguments: object) -> int:
        raise PermissionError(errno.EACCES, "no")

    with monkeypatch.context() as context:
        context.setattr(os, "open", refuse)
        assert not queue._channel.after_fork()
    queue._held.clear()
    queue.close()


# Last-close queues and what is left


def left_behind(name: str) -> None:
    """Leave a last-close queue's file as its killed holders do."""
    attributes = Attributes(mode=0o600, max_messages=1, max_message_size=1, lifetime="last-close")
    os.close(_segment.make(Header(name, attributes, "file", bytes(8))))
    assert os.path.exists(_place.path_of(name))


@pytest.mark.parametrize(
    ("look", "answer"),
    [
        (lambda name: ipcq.exists(name, "pyshm"), False),
        (lambda name: name in PyshmBackend().names(), False),
        (lambda name: made(name).close(), None),
        (lambda name: PyshmBackend().create(name, Request()).close(), None),
    ],
)
def test_what_dead_holders_left_is_no_queue(name: str, look: Callable[[str], object], answer: object) -> None:
    """Clause 5: whoever looks removes it."""
    left_behind(name)
    inode = os.lstat(_place.path_of(name)).st_ino
    assert look(name) is answer
    assert not os.path.exists(_place.path_of(name)) or os.lstat(_place.path_of(name)).st_ino != inode


@pytest.mark.parametrize("verb", ["attach", "unlink"])
def test_what_dead_holders_left_is_not_found(name: str, verb: str) -> None:
    """Clause 5: and gone after that."""
    left_behind(name)
    with pytest.raises(QueueNotFound):
        getattr(PyshmBackend(), verb)(name, *[Request()][: verb == "attach"])
    assert not os.path.exists(_place.path_of(name))


def test_a_last_close_queue_that_somebody_removes_just_now_is_not_found(name: str) -> None:
    """Clause 5: who found no holder keeps others out until it is gone."""
    left_behind(name)
    descriptor = os.open(_place.path_of(name), os.O_RDWR)
    assert _file.try_to_own(descriptor)
    with pytest.raises(QueueNotFound):
        PyshmBackend().attach(name, Request())
    assert ipcq.exists(name, "pyshm")
    os.unlink(_place.path_of(name))
    os.close(descriptor)


def test_closing_leaves_a_successor_alone(name: str) -> None:
    """Clause 4: the name may be another queue's by now."""
    with made(name, lifetime="last-close") as old:
        ipcq.unlink(name, "pyshm")
        with made(name) as new:
            old.close()
            new.put(b"kept")
            assert new.get() == b"kept"


def test_closing_what_was_unlinked_is_fine(name: str) -> None:
    """C14: in either order."""
    queue = made(name, lifetime="last-close")
    queue.unlink()
    queue.close()
    assert not os.path.exists(_place.path_of(name))


def test_what_is_left_is_found(name: str) -> None:
    """Findings name the file and the command."""
    left_behind(name)
    half = f"{_place.path_of(name)}.{'0' * 16}"
    Path(half).touch()
    squat = _place.path_of(f"{name}-squat")
    os.symlink(os.devnull, squat)
    with made(f"{name}-alive", lifetime="last-close"):
        fixes = [finding.fix for finding in PyshmBackend().findings()]
    assert f"rm {_place.path_of(name)}" in fixes
    assert f"rm {half}" in fixes
    assert f"rm {squat}" not in fixes
    os.unlink(squat)
    assert not any(_place.path_of(f"{name}-alive") in fix for fix in fixes)


# Elsewhere than on Linux


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Be on a system without /dev/shm and without files that have no name."""
    home = tmp_path / "pyshm"
    monkeypatch.setattr(_place, "SHARED", None)
    monkeypatch.setattr(_private, "_root", lambda: str(tmp_path))
    monkeypatch.delattr(os, "O_TMPFILE")
    monkeypatch.delattr(os, "posix_fallocate")
    return home


def test_a_queue_lives_in_a_private_directory_elsewhere(elsewhere: Path, name: str) -> None:
    """C27: made with mode 0700, and the file has one name in the end."""
    assert PyshmBackend().probe().usable
    with made(name) as queue:
        queue.put(b"x")
        assert again_and_close(name) == b"x"
        assert elsewhere.stat().st_mode & 0o777 == 0o700
        assert len(list(elsewhere.iterdir())) == 1
        assert PyshmBackend().findings() == []
        with pytest.raises(QueueExists):
            made(name)
        assert len(list(elsewhere.iterdir())) == 1
        queue.unlink()


def test_a_private_directory_that_is_not_private_is_refused(elsewhere: Path, name: str) -> None:
    """C27: as any squatter's."""
    elsewhere.mkdir(mode=0o755)
    with pytest.raises(PermissionDenied, match="0700"):
        made(name)
    elsewhere.chmod(0o700)


def test_the_second_name_of_a_maker_that_was_killed_is_cleared_away(elsewhere: Path, name: str) -> None:
    """C16: between linking and cleaning up the file has two names."""
    made(name).close()
    path = _place.path_of(name)
    os.link(path, f"{path}.{'0' * 16}")
    (elsewhere / f"{Path(path).name}.{'1' * 16}").touch()
    again(name).close()
    assert sorted(each.name for each in elsewhere.iterdir()) == [Path(path).name, f"{Path(path).name}.{'1' * 16}"]


def test_a_file_system_without_nameless_files_is_served(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some answer O_TMPFILE with EOPNOTSUPP, old kernels with EISDIR."""
    whole = os.open

    def refuse(path: str, flags: int, *arguments: int, **named: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no")
        return whole(path, flags, *arguments, **named)

    monkeypatch.setattr(os, "open", refuse)
    with made(name) as queue:
        queue.put(b"x")
        assert drained(queue) == [b"x"]


def test_there_are_no_names_where_there_is_no_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe says so, and nothing else fails."""
    monkeypatch.setattr(_place, "SHARED", "/nowhere")
    assert PyshmBackend().names() == []
    assert PyshmBackend().findings() == []
    assert "/nowhere is missing" in PyshmBackend().probe().reason


def test_a_directory_that_cannot_be_listed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """C27: PermissionDenied with the path."""
    monkeypatch.setattr(_place, "SHARED", os.devnull)
    with pytest.raises(PermissionDenied, match=os.devnull):
        PyshmBackend().names()


@pytest.mark.parametrize("option", ["other_users", "last_close"])
def test_what_a_system_cannot_is_unsupported(name: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 20: no byte locks of open files, or no modes."""
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
    """STYLE 31: foreign errors cross in one table, with their number."""
    error = _segment.explained(OSError(number, os.strerror(number)))
    assert (type(error), error.errno) == (kind, number)


@pytest.mark.parametrize("verb", ["create", "attach"])
def test_a_full_table_of_descriptors_is_told(
    queue: Handle, name: str, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C24: LimitExceeded names RLIMIT_NOFILE."""

    def refuse(*arguments: object, **named: object) -> int:
        raise OSError(errno.EMFILE, "too many")

    with monkeypatch.context() as context, pytest.raises(LimitExceeded, match="RLIMIT_NOFILE"):
        context.setattr(os, "open", refuse)
        getattr(PyshmBackend(), verb)(f"{name}-other" if verb == "create" else name, Request())


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
def test_limits_that_were_not_asked_for_follow_from_the_others(
    name: str, limits: dict[str, int], attributes: tuple[int | None, ...], priorities: bool
) -> None:
    """DESIGN 4: the table; and one message of the largest size always fits."""
    with ipcq.open(name, "pyshm", exclusive=True, priorities=priorities, serializer="raw", **limits) as queue:
        assert (queue.max_messages, queue.max_message_size, queue.buffer_size) == attributes
        queue.put_nowait(bytes(queue.max_message_size))
        assert len(queue.get_nowait()) == queue.max_message_size


@pytest.mark.parametrize("limits", [{"max_message_size": 9, "buffer_size": 8}, {**SMALL, "buffer_size": 255}])
def test_a_buffer_too_small_for_what_it_shall_hold_is_refused(name: str, limits: dict[str, Any]) -> None:
    """Clause 6: never rounded."""
    with pytest.raises(InvalidArgument):
        ipcq.open(name, "pyshm", **limits)


@pytest.mark.parametrize("messages", [3, 40])
@pytest.mark.parametrize("size", [1, 511, 512, 1500])
@both_orders
def test_bounds_in_messages_and_bytes_are_exact(name: str, messages: int, size: int, priorities: bool) -> None:
    """Clause 6: with all three limits given, in any order of taking."""
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


def test_large_messages_of_many_blocks_come_back_whole(name: str) -> None:
    """C10, clause 10: through chains that are scattered over the file."""
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


def test_a_batch_taken_up_to_a_forged_record_is_what_came_before(queue: Handle, name: str) -> None:
    """C9, C28: what is sound is taken, and the next get says that the rest is not."""
    queue.put_many([b"sound", b"forged"])
    poke(name, DATA_AT + RECORD.size + 5, bytes(RECORD.size))
    assert queue._channel.try_get_many(2) == [(b"sound", 0)]


# What two processes do to each other, one step at a time


def test_a_call_out_of_a_step_is_refused(queue: Handle) -> None:
    """C12: a handler that calls the queue cannot wait for the step that it interrupted."""
    channel = queue._channel
    with pytest.raises(Unsupported, match="signal handler"):
        channel._step(0.1, lambda: channel.try_put(b"x", 0))
    assert queue.empty()


def test_a_file_cut_off_in_the_middle_of_a_step_is_told(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C29: between the look at its size and the read."""
    monkeypatch.setattr(_file, "pread", lambda descriptor, size, at: b"")
    with pytest.raises(CorruptQueue, match="cut off"):
        queue.get_nowait()


def test_a_redo_record_is_written_where_it_belongs(name: str) -> None:
    """C15: once, by whoever finds it, and counted."""
    with made(name, priorities=True) as queue:
        queue.put(b"low")
        queue.put(b"high", priority=1)
        order = queue._channel._order
        raw = CELL.pack(0, *order._entry(1))
        poke(name, DATA_AT, raw)
        poke_state(name, redo=1 << 32 | crc32(raw))
        assert queue.peek() == b"low"
        assert queue.stats().recoveries == 1
        assert state_of(name).redo == 0


@pytest.mark.parametrize(("key", "block"), [((1 << 64) - 1, 0), (0, 4), (0, 1 << 40)])
def test_an_entry_of_the_heap_may_be_hostile(name: str, key: int, block: int) -> None:
    """C28: priorities and blocks that there are not."""
    with made(name, priorities=True) as queue:
        queue.put(b"x")
        poke(name, queue._channel._order._geometry.heap_at, struct.pack("<QQ", key, block))
        with pytest.raises(CorruptQueue):
            queue.get_nowait()


def test_a_link_may_be_hostile(name: str) -> None:
    """C28: a chain that leads outside."""
    with ipcq.open(name, "pyshm", exclusive=True, priorities=True, serializer="raw") as queue:
        queue.put(bytes(5000))
        poke(name, queue._channel._order._geometry.links_at, b"\xff" * 4)
        with pytest.raises(CorruptQueue):
            queue.get_nowait()


def test_a_queue_unlinked_while_it_is_attached_to_is_not_found(
    queue: Handle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C14: between opening the file and looking at it."""
    monkeypatch.setattr(_segment, "check_owner", lambda uid, request: os.unlink(_place.path_of(name)))
    with pytest.raises(QueueNotFound):
        PyshmBackend().attach(name, Request())


def test_a_last_close_queue_that_goes_while_it_is_attached_to_is_not_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clause 5: whoever found no holder was faster."""
    with made(name, lifetime="last-close"):
        monkeypatch.setattr(_file, "hold", lambda descriptor: False)
        with pytest.raises(QueueNotFound):
            PyshmBackend().attach(name, Request())


def test_a_file_that_goes_while_names_are_listed_is_left_out(queue: Handle, name: str) -> None:
    """Clause 2: looking fails for nobody."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(_segment, "_reaped", lambda path: False)
        assert _segment.header_of("/nowhere/at/all") is None
    assert name in PyshmBackend().names()


@with_shmlock
def test_a_block_without_content_that_was_left_is_cleared_away(name: str) -> None:
    """C15: what shmlock by itself never gets past, and what it is counted as."""
    with made(name, lock="shmlock") as queue:
        Path("/dev/shm", queue._channel._lock._name).touch()
        queue.put(b"x")
        assert queue.stats().recoveries == 1
        assert drained(queue) == [b"x"]


DIE_INSIDE = """
import os, signal, sys
import ipcq
from ipcq_pyshm._channel import PyshmChannel
queue = ipcq.open(sys.argv[1], "pyshm", lock="shmlock", lifetime=sys.argv[2], serializer="raw")
PyshmChannel._put = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
queue.put(b"x")
"""


def killed_inside(name: str, lifetime: str) -> Path:
    """Have a process killed inside the lock, and return the block that it leaves."""
    child = subprocess.run([sys.executable, "-c", DIE_INSIDE, name, lifetime], check=False)
    assert child.returncode == -signal.SIGKILL
    block = Path("/dev/shm", f"ipcqlock-{Header.of(peek_file(name)[:STATES_AT], 0).lock_name.hex()}")
    assert block.exists()
    return block


@with_shmlock
@linux
@pytest.mark.parametrize("lifetime", ["persistent", "last-close"])
@pytest.mark.parametrize("end", [lambda queue: ipcq.unlink(queue.name, "pyshm"), Handle.close], ids=["unlink", "close"])
def test_what_died_inside_left_goes_with_its_queue(name: str, end: Callable[[Handle], None], lifetime: Any) -> None:
    """C15, clause 5: also where no step comes that would find it."""
    with made(name, lock="shmlock", lifetime=lifetime) as queue:
        block = killed_inside(name, lifetime)
        end(queue)
        assert not block.exists()


@with_shmlock
@linux
def test_what_the_last_holder_left_when_it_died_inside_is_cleared_away(name: str) -> None:
    """C15, clause 5: whoever finds no holder removes the block with the file."""
    block = killed_inside(name, "last-close")
    assert not ipcq.exists(name, "pyshm")
    assert not block.exists()


@with_shmlock
@linux
def test_the_block_of_a_living_process_stays_when_the_queue_goes(name: str) -> None:
    """C14: its step is under way, and it removes the block itself."""
    with made(name, lock="shmlock") as queue:
        lock = queue._channel._lock
        assert lock.acquire()
        ipcq.unlink(name, "pyshm")
        assert Path("/dev/shm", lock._name).exists()
        lock.release()
        assert not Path("/dev/shm", lock._name).exists()


@with_shmlock
def test_a_block_that_cannot_be_removed_keeps_nobody_from_unlinking(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: the name is free, so the call has worked."""

    def refuse(block: str) -> None:
        raise PermissionError(errno.EPERM, block)

    with made(name, lock="shmlock"):
        with monkeypatch.context() as context:
            context.setattr(_lock, "_unlink", refuse)
            ipcq.unlink(name, "pyshm")
        assert not ipcq.exists(name, "pyshm")


def test_a_wait_on_a_queue_that_is_gone_is_not_counted(queue: Handle, name: str) -> None:
    """C14: and fails for nobody; the call that waited says what it is."""
    ipcq.unlink(name, "pyshm")
    queue._channel.count_wait(False)
    with pytest.raises(QueueGone):
        queue.qsize()
