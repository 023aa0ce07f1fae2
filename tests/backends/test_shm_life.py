"""How a shm queue ends: by its last holder, by a remover, and by a kill in the middle of a removal."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

import ipcq
from backends import shm
from backends.shm import attach, create, fcntl
from ipcq.backend import Request, translated
from ipcq_shm import _segment

works, name = shm.works, shm.name


# Last close


def test_a_queue_whose_last_holder_was_killed_does_not_exist(name: str) -> None:
    """C14, C17: it is neither found nor listed, its name can be taken at once, and its file is removed."""
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
    with translated(_segment.ERRORS):
        return int(_segment.opened(name, Request()))


def _unlinked(name: str) -> None:
    with translated(_segment.ERRORS):
        _segment.unlink(name)


def test_a_creator_removes_the_file_of_a_killed_holder(name: str) -> None:
    """C16: also if it appears between the creator's look and its publishing."""
    from ipcq_shm import ShmBackend

    code = f"import ipcq, os; q = ipcq.open({name!r}, 'shm', lifetime='last-close'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    channel = ShmBackend().create(name, Request())
    assert channel.empty()
    with pytest.raises(ipcq.QueueExists):
        ShmBackend().create(name, Request())
    channel.close()


def test_an_unlink_behind_a_stopped_remover_times_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C11: a process that is stopped while it removes a name blocks others for at most a second."""
    monkeypatch.setattr(_segment, "_PATIENCE", 0.05)
    with create(name):
        descriptor = os.open(_segment.path_of(name), os.O_RDWR)
        try:
            _segment._lock(descriptor, 1, _segment._REMOVAL, 1)
            with pytest.raises(ipcq.TimedOutError, match="removing"):
                ipcq.unlink(name, "shm")
        finally:
            os.close(descriptor)


@pytest.mark.parametrize("slots", [(30, 20, 10), (10, 20, 30), (20, 30, 10), (1, 2, 3), (4095, 1, 0)], ids=str)
def test_handles_are_counted_whatever_the_order_of_their_slots(name: str, slots: tuple[int, ...]) -> None:
    """C25: the kernel may name any one of several locks."""
    queue = create(name)
    opened = [os.open(_segment.path_of(name), os.O_RDWR) for _ in slots]
    for descriptor, slot in zip(opened, slots, strict=True):
        if slot:  # slot 0 is the queue's own
            _segment._lock(descriptor, fcntl.F_WRLCK, _segment.LOCKS_AT + slot, 1)
    count = queue.stats().handles
    for descriptor in opened:
        os.close(descriptor)
    queue.close()
    assert count == 1 + sum(slot > 0 for slot in slots)


# Removing


def test_a_file_that_was_removed_is_not_removed_again(name: str) -> None:
    """C14: neither that file nor the next one with its name."""
    with create(name) as queue:
        descriptor = os.dup(queue._channel.descriptor)
        ipcq.unlink(name, "shm")
        assert not _segment.remove(descriptor, name)
        create(name).close()
        assert not _segment.remove(descriptor, name)
        os.close(descriptor)
        assert ipcq.exists(name, "shm")


def test_a_file_removed_by_rm_is_noticed(name: str) -> None:
    """C14: a producer that puts now and then notices it within a second, although nothing wakes it."""
    with create(name) as queue:
        os.unlink(_segment.path_of(name))
        time.sleep(0.3)
        with pytest.raises(ipcq.QueueGone):
            queue.put(b"item")


def test_a_queue_removed_before_the_slot_is_locked_is_not_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C16: between opening the file and locking the slot."""
    from ipcq_shm import ShmBackend, _opening

    create(name).close()
    opened = _segment.opened

    def slowly(name: str, request: Request) -> int:
        descriptor = opened(name, request)
        os.unlink(_segment.path_of(name))
        return int(descriptor)

    monkeypatch.setattr(_opening._segment, "opened", slowly)
    with pytest.raises(ipcq.QueueNotFound):
        ShmBackend().attach(name, Request())


def test_a_queue_removed_before_its_file_is_checked_is_not_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C16: between opening the file and checking it."""
    create(name).close()
    open_file = _segment.open_file

    def late(name: str, how: int) -> int:
        descriptor = int(open_file(name, how))
        os.unlink(_segment.path_of(name))
        return descriptor

    monkeypatch.setattr(_segment, "open_file", late)
    with pytest.raises(ipcq.QueueNotFound):
        _segment_opened(name)
    with pytest.raises(ipcq.QueueNotFound):
        _segment_opened(name)


def test_an_attacher_waits_for_a_remover(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C14: an attacher that the remover did not see waits, and then finds that there is no queue."""
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
    # The abandonment check would hide the case. The attacher must not rely on its own slot alone.
    monkeypatch.setattr(_segment, "_abandoned", lambda _: False)
    monkeypatch.setattr(_segment, "_locked", stop_behind_the_look)
    queue.close()
    attaching.join(10)
    assert attacher == ["began", "not found"]


def test_a_doorbell_made_during_the_removal_is_removed_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize("broken", ["read_header", "unlock"])
def test_an_unlink_succeeds_whatever_fails_after_the_removal(
    name: str, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C5: the unlink has happened, so it does not raise, and other handles notice it by themselves."""
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


# Killed between any two system calls

DYING = """
import errno, fcntl, os, signal, sys
from types import SimpleNamespace
import ipcq
from ipcq.backend import Request
from ipcq_shm import ShmBackend, _channel, _core, _opening, _segment

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
    _segment.os = _channel.os = _opening.os = theirs
    _segment.fcntl = SimpleNamespace(**{**vars(fcntl), "fcntl": dying(fcntl.fcntl)})
    _opening._core = SimpleNamespace(**{**vars(_core), "format": dying(_core.format)})
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
def test_a_kill_between_any_two_system_calls_leaves_the_name_usable(name: str, verb: str, lifetime: str) -> None:
    """C16: before and after each system call of creating, attaching, unlinking and the last close."""
    program = [sys.executable, "-W", "ignore", "-c", DYING, name, verb, lifetime]
    done = subprocess.run(program, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    print(f"{verb}, {lifetime}: {int(done.stdout) - 1} kills")
    assert int(done.stdout) > 1


def test_a_queue_with_a_new_holder_is_not_removed(name: str) -> None:
    """C14: a file that a process holds again is not removed as abandoned."""
    with create(name, lifetime="last-close") as queue:
        descriptor = os.open(_segment.path_of(name), os.O_RDWR)
        assert not _segment.remove(descriptor, name, unless_held=True)
        os.close(descriptor)
        assert queue.empty()
