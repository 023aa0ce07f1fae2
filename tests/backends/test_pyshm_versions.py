"""C18: files of pyshm of another version, with other features, or from another time namespace."""

import os
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import pytest

import ipcq
from backends import pyshm
from backends.pyshm import Handle, attach, create, linux, read_file, write_file
from ipcq.errors import VersionMismatch
from ipcq_pyshm import _segment
from ipcq_pyshm._layout import _FRONT, _HEADER, _OLD_HEADER, STATES_AT

pytestmark = linux
name, leasing = pyshm.name, pyshm.leasing


def make_old(name: str) -> None:
    """Rewrite the header of a queue without leases as version 1 wrote it."""
    raw = read_file(name)[:STATES_AT]
    fields = _HEADER.unpack_from(raw, _FRONT.size)
    name_at = _FRONT.size + _HEADER.size
    rest = _OLD_HEADER.pack(*fields[:8]) + raw[name_at : name_at + fields[6]]
    rest = rest.ljust(STATES_AT - _FRONT.size, b"\0")
    write_file(name, 0, _FRONT.pack(b"ipcqpysh", 1, crc32(rest)) + rest)


@pytest.mark.parametrize("priorities", [False, True])
def test_a_queue_of_the_old_version_is_refused_with_the_way_out(name: str, priorities: bool) -> None:
    """C18: the error names the commands that move its messages."""
    create(name, priorities=priorities).close()
    make_old(name)
    with pytest.raises(VersionMismatch, match=r"version 1, but .* version 2: .*ipcq drain.*ipcq rm.*ipcq load"):
        attach(name)


@pytest.mark.parametrize("priorities", [False, True])
def test_drain_takes_the_messages_of_a_queue_of_the_old_version(name: str, tmp_path: Path, priorities: bool) -> None:
    """C18: also a batch that a killed process left half written, as the layout is the same."""
    with create(name, priorities=priorities) as queue:
        queue.put_many([b"1", b"2"])
    make_old(name)
    command = [sys.executable, "-m", "ipcq", "drain", name, str(tmp_path / "old")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "ipcq: 2 messages taken\n")


def test_a_queue_of_the_old_version_is_listed_and_can_be_removed(name: str) -> None:
    """C18: ls shows it, and rm frees its name."""
    create(name).close()
    make_old(name)
    assert name in [found.name for found in ipcq.queues()]
    ipcq.unlink(name, "pyshm")
    assert not ipcq.exists(name, "pyshm")


def test_unknown_features_are_a_version_mismatch(leasing: Handle, name: str) -> None:
    """C18: those of a later ipcq, such as messages in files of their own."""
    raw = bytearray(read_file(name)[:STATES_AT])
    raw[_FRONT.size + 36] |= 2
    write_file(name, 0, _FRONT.pack(b"ipcqpysh", 2, crc32(raw[_FRONT.size :])) + raw[_FRONT.size :])
    with pytest.raises(VersionMismatch, match="features that this ipcq does not know"):
        attach(name)


def test_another_time_namespace_is_a_version_mismatch(
    leasing: Handle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C18: its monotonic clock differs, so holds and delays would end at other times."""
    monkeypatch.setattr(_segment, "time_namespace", lambda: 1)
    with pytest.raises(VersionMismatch, match="time namespace"):
        attach(name)


def test_a_system_without_time_namespaces_has_one_clock(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 5.6."""

    def missing(path: str) -> os.stat_result:
        raise FileNotFoundError(path)

    monkeypatch.setattr(_segment.os, "stat", missing)
    assert _segment.time_namespace() == 0
