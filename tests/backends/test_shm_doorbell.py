"""The doorbell of shm at a queue's end: pollers are woken, even if a remover dies or a file is missing."""

import errno
import os
import select
from contextlib import ExitStack
from pathlib import Path

import pytest

import ipcq
from backends import shm
from backends.shm import attach, create
from ipcq_shm import _segment

works, name = shm.works, shm.name


def readable(queue: "ipcq.Queue[bytes]") -> bool:
    """Return whether a handle's descriptor is readable now."""
    return bool(select.select([queue], [], [], 0)[0])


class Killed(BaseException):
    """Ends a step where a kill would."""


def die(*_: object) -> None:
    raise Killed


def test_a_remover_that_dies_after_the_removal_has_woken_pollers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C15, C32: it dies after it removed the name, while the first byte is in the FIFO."""

    with create(name) as queue:
        queue.fileno()
        monkeypatch.setattr(os, "pwrite", die)
        with pytest.raises(Killed):
            queue.unlink()
        assert readable(queue)


def test_a_consumer_puts_back_the_byte_of_a_remover_that_dies(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C15, C32: a consumer takes the first byte at once, and the remover is killed right after the removal."""
    unlink = os.unlink

    def get_meanwhile(path: str) -> None:
        if path == _segment.path_of(name):
            with pytest.raises(ipcq.QueueEmpty):
                queue.get_nowait()
        unlink(path)

    with create(name) as queue:
        queue.fileno()
        monkeypatch.setattr(os, "unlink", get_meanwhile)
        monkeypatch.setattr(os, "pwrite", die)
        with pytest.raises(Killed):
            queue.unlink()
        assert readable(queue)


def test_the_byte_of_a_remover_that_died_before_the_removal_is_taken(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clause 20: killed before the removal, it leaves a spurious byte, which the next get takes."""

    with create(name) as queue:
        queue.fileno()
        monkeypatch.setattr(os, "unlink", die)
        with pytest.raises(Killed):
            queue.unlink()
        monkeypatch.undo()
        rung = readable(queue)
        with pytest.raises(ipcq.QueueEmpty):
            queue.get_nowait()
        assert (rung, readable(queue)) == (True, False)
        queue.unlink()


def test_a_doorbell_armed_during_the_removal_of_the_name_rings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C32: it is armed after the unlink removed the doorbell and before it removes the name."""
    unlink = os.unlink

    def arm_in_between(path: str) -> None:
        if path == _segment.path_of(name):
            queue.fileno()
        unlink(path)

    with create(name) as queue:
        monkeypatch.setattr(os, "unlink", arm_in_between)
        queue.unlink()
        assert readable(queue)


def test_the_first_call_that_notices_a_removed_name_rings(name: str) -> None:
    """C32: removing the file with rm does not ring; the first call of any handle that notices does."""
    with create(name) as queue, attach(name) as other:
        queue.fileno()
        Path(_segment.path_of(name)).unlink()
        with pytest.raises(ipcq.QueueGone):
            while True:
                other.put_nowait(b"item")
                other.get_nowait()
        assert readable(queue)
        Path(_segment.bell_of(name)).unlink()


def test_a_handle_that_continues_leaves_the_byte_to_those_that_end(name: str) -> None:
    """C14, C32: it finds the queue empty, but other handles have to see the end."""
    with create(name) as queue, attach(name, after_unlink="continue") as other:
        queue.fileno()
        other.fileno()
        ipcq.unlink(name, "shm")
        with pytest.raises(ipcq.QueueEmpty):
            other.get_nowait()
        assert readable(queue)


def test_a_handle_that_continues_is_quiet_when_those_that_end_are_closed(name: str) -> None:
    """C14, C32: no other handle needs the byte any more."""
    with create(name) as queue, attach(name, after_unlink="continue") as other:
        queue.fileno()
        other.fileno()
        ipcq.unlink(name, "shm")
        queue.close()
        with pytest.raises(ipcq.QueueEmpty):
            other.get_nowait()
        assert not readable(other)


@pytest.mark.parametrize("end", ["shutdown", "unlink"])
def test_an_end_without_a_descriptor_for_the_doorbell_is_refused(name: str, end: str) -> None:
    """C24, C32: the error names the limit, and the queue still works."""
    import resource

    with create(name) as queue, attach(name) as other:
        queue.fileno()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        held = [os.open(os.devnull, os.O_RDONLY) for _ in range(50)]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1, limits[1]))
            # An unlink opens two before the doorbell: the name lock and the queue's file.
            for descriptor in held[: 2 if end == "unlink" else 0]:
                os.close(descriptor)
                held.remove(descriptor)
            with pytest.raises(ipcq.LimitExceeded):
                getattr(other, end)()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for descriptor in held:
                os.close(descriptor)
        other.put(b"item")
        assert queue.get(timeout=5) == b"item"
        queue.unlink()


def test_a_file_that_is_no_doorbell_is_not_rung(name: str) -> None:
    """C27: another file has replaced it."""
    with create(name) as queue:
        queue.fileno()
        bell = Path(_segment.bell_of(name))
        bell.unlink()
        bell.write_bytes(b"")
        queue.unlink()
        assert not bell.exists()


def test_ringing_without_a_descriptor_for_the_doorbell_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C32: pollers would not be woken, so the removal must not go on."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with create(name) as queue, ExitStack() as closing:
        queue.fileno()
        descriptor = os.open(f"/dev/shm/ipcq-shm.{name[1:]}", os.O_RDONLY)
        closing.callback(os.close, descriptor)
        monkeypatch.setattr(_segment, "noted", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            _segment._ring(descriptor, name, closing)
        monkeypatch.undo()
        queue.unlink()
