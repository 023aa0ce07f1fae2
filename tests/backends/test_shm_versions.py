"""C18: queues of another version of the layout are refused with the way out, and those of the last can be emptied."""

import base64
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

import ipcq
from backends import shm
from backends.shm import attach, create
from ipcq_shm import _segment

works, name = shm.works, shm.name

#: Files that an ipcq with version 1 of the layout wrote: each queue is called /old, and a message was taken out of it.
OLD = {
    "ring": (
        "c-rmUL23d)5CFhl6%;|pQG7!ng5;hj82muMh?kI65WM(;;9v6rK_j~>vKNE8?7=E}=%Hbt>6!EV^xmiA<)E8HMCWhq_WR#B`"
        "iRUp&rex;>twl=m!lCUlh@5Qu9QSQn(^2c7Y08pU30s1u9)8_skV=*^lv;@wB5Q>KS=-p000000000000000004D+Nxwc#0R"
        "RA~Lizu)dHOv&uNVKj<>gcTIp3_-srYAjZ2$lO)a3xB?3Q)"
    ),
    "priorities": (
        "c-rmUJ4ypl6o>J1V|+#9D?Z~}7vLUTfW#dLDv1yrtSqOu5-i+?%MvW?ti<@goI9X4L4zd5?*|_T0yktP3`uovs>i2|t9m7v*"
        "@SxSbe=6bG1o|Q&c{Q=XF0uWB_HwpW9{(BekfRfjM)Fy?fOe!=3V%Fu9)}XZ(e`s@mw*>J-knR?l#gr4h8@K000000000000"
        "00000000000000Q&79YoBo!00000{GPYG*yGmDuD^BC_m#cmw`p-%>!R7B!KvH#=X?F0@?w8oGrK(Jc>n+myO4eZ<Nu%d8#t"
        "=Q)VTRx)=3pt9#5%hRaG-;)_f)MyjoB-wWyZVvRYBAYE9MEy7`XRO|_-A)sEU#duso~=LrLLf6UlR3jo9B9bAsM^#"
    ),
}
#: The messages of these files, in order.
CONTENTS = {"ring": [b"one", b"two" * 100], "priorities": [b"high" * 100, b"low"]}
#: Offsets in the header: version, inode of the PID namespace, flags and checksum.
VERSION, NAMESPACE, FLAGS, CHECKSUM = 8, 16, 72, 76


def summed(content: bytearray) -> bytearray:
    """Set the checksum of a header of version 1, which covers what lies before it."""
    checksum = 2166136261
    for byte in content[:CHECKSUM]:
        checksum = (checksum ^ byte) * 16777619 % 2**32
    struct.pack_into("=I", content, CHECKSUM, checksum)
    return content


def store(kind: str, name: str) -> None:
    """Store one of the files, as if it had been written under this name and in this PID namespace."""
    content = bytearray(zlib.decompress(base64.b85decode(OLD[kind])))
    struct.pack_into("=Q", content, NAMESPACE, os.stat("/proc/self/ns/pid").st_ino)
    content[_segment.NAME_AT : _segment.NAME_AT + len(name)] = name.encode()
    path = Path(_segment.path_of(name))
    path.touch(0o600)
    path.write_bytes(summed(content))


def change(name: str, changes: Callable[[bytearray], object]) -> None:
    """Change the header of a queue, as another version would have written it."""
    path = Path(_segment.path_of(name))
    content = bytearray(path.read_bytes())
    changes(content)
    path.write_bytes(summed(content))


@pytest.mark.parametrize("kind", OLD)
def test_a_queue_of_the_version_before_is_refused(name: str, kind: str) -> None:
    """C18: the error names the commands that move its messages."""
    store(kind, name)
    with pytest.raises(ipcq.VersionMismatch, match=r"older version of ipcq.*ipcq drain and ipcq load"):
        attach(name)


def test_a_queue_of_the_version_before_is_found(name: str) -> None:
    """C18, C25: so no second queue of its name is created beside it."""
    store("ring", name)
    with pytest.raises(ipcq.VersionMismatch):
        ipcq.open(name)
    assert [queue.backend for queue in ipcq.queues() if queue.name == name] == ["shm"]


@pytest.mark.parametrize("kind", OLD)
def test_a_queue_of_the_version_before_can_be_emptied(name: str, kind: str) -> None:
    """C18: by a handle that only takes."""
    store(kind, name)
    with attach(name, write=False) as queue:
        assert (queue.qsize(), queue.get_many(), queue.empty()) == (2, CONTENTS[kind], True)


@pytest.mark.parametrize("kind", OLD)
def test_a_dead_owner_is_repaired_in_a_queue_of_the_version_before(name: str, kind: str) -> None:
    """C15: the lock of a killed process is inherited there too."""
    store(kind, name)
    with open(_segment.path_of(name), "r+b") as file:
        file.seek(shm.LOCKS["put"])
        file.write(struct.pack("=I", 0x40000000))  # FUTEX_OWNER_DIED
    with attach(name, write=False) as queue:
        assert queue.get_many() == CONTENTS[kind]


def test_drain_reads_a_queue_of_the_version_before(name: str, tmp_path: Path) -> None:
    """C18, C37: and load puts its messages into a new one."""
    store("ring", name)
    file = tmp_path / "messages"
    for command in (["drain", name, str(file)], ["rm", "--yes", name], ["load", name, str(file)]):
        subprocess.run([sys.executable, "-m", "ipcq", *command], check=True, timeout=60, capture_output=True)
    with attach(name) as queue:
        assert queue.get_many() == CONTENTS["ring"]


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("version", [0, 3, 2**32 - 1])
def test_a_queue_of_an_unknown_version_is_refused(name: str, version: int, write: bool) -> None:
    """C18: also by a handle that only takes."""
    create(name).close()
    change(name, lambda content: struct.pack_into("=I", content, VERSION, version))
    with pytest.raises(ipcq.VersionMismatch, match="newer version"):
        attach(name, write=write)


@pytest.mark.parametrize("flag", [8, 16, 1 << 31])
def test_a_flag_that_the_version_before_did_not_have_is_refused(name: str, flag: int) -> None:
    """C18, C28: the fields that belong to it are not there."""
    store("ring", name)
    change(name, lambda content: struct.pack_into("=I", content, FLAGS, content[FLAGS] | flag))
    with pytest.raises((ipcq.VersionMismatch, ipcq.CorruptQueue)):
        attach(name, write=False)
