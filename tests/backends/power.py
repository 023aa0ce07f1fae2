"""Power cuts: records what a program writes and syncs, and builds the disk that a cut at any moment would leave.

The model is the weakest that POSIX allows: after a cut a file has what was written before its last `fsync`, and any
part of what was written later; a directory has the entries of its last `fsync`, and any number of later changes.
"""

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

STRACE = shutil.which("strace")

_CALLS = "openat,mkdir,mkdirat,symlink,symlinkat,unlink,unlinkat,rename,rmdir,mknod,mknodat"
_CALLS += ",write,pwrite64,ftruncate,fsync,fdatasync"
#: Bytes that a disk writes whole.
_SECTOR = 512


class Event(NamedTuple):
    """A system call that has succeeded."""

    call: str
    path: str
    data: bytes = b""
    at: int = 0
    target: str = ""


def record(script: str, directory: Path, *arguments: str) -> list[Event]:
    """Run a Python program, and return its events in `directory`, and what it wrote to descriptor 9 as calls `mark`."""
    log = directory.parent / f"{directory.name}.strace"
    program = f"import os; os.dup2(os.open({str(directory) + '.marks'!r}, os.O_CREAT | os.O_WRONLY), 9)\n{script}"
    command = [STRACE or "strace", "-f", "-y", "-xx", "-s", "4194304", "-e", f"trace={_CALLS}", "-o", str(log)]
    subprocess.run([*command, sys.executable, "-c", program, *arguments], check=True, timeout=100)
    return list(_parsed(log.read_text(), str(directory)))


_LINE = re.compile(r"\d+ +(\w+)\((.*)\) += (-?\d+)")
_HANDLE = re.compile(r"(?:AT_FDCWD|-?\d+)<((?:\\x[0-9a-f]{2})*)>")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def _decoded(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _parsed(log: str, directory: str) -> Iterator[Event]:
    pending: dict[str, str] = {}
    for line in log.splitlines():
        pid = line.split(None, 1)[0]
        if line.endswith("<unfinished ...>"):
            pending[pid] = line.removesuffix("<unfinished ...>")
            continue
        if "resumed>" in line:
            line = pending.pop(pid) + line.partition("resumed>")[2]
        found = _LINE.match(line)
        if found is None or int(found[3]) < 0:
            continue
        call, arguments = found[1], found[2]
        handle = _HANDLE.match(arguments)
        base = _decoded(handle[1]).decode() if handle else ""
        strings = [_decoded(each) for each in _STRING.findall(arguments)]
        if call in ("write", "pwrite64") and base == f"{directory}.marks":
            yield Event("mark", "", strings[0])
        elif call in ("write", "pwrite64", "ftruncate", "fsync", "fdatasync"):
            if base.startswith(directory):
                numbers = arguments.split(", ")
                at = int(numbers[-1]) if call in ("pwrite64", "ftruncate") else -1
                yield Event(call.replace("fdata", "f"), base, strings[0] if strings else b"", at)
        else:
            # In the order of the arguments: a symbolic link's target comes first.
            *targets, last = [os.fsdecode(each) for each in strings]
            path = os.path.normpath(os.path.join(base, last))
            if path.startswith(directory) and (call != "openat" or "O_CREAT" in arguments):
                yield Event(call.replace("at", "").replace("open", "create"), path, target="".join(targets))


class Disk:
    """The files of a directory, as they are and as they are on the disk."""

    def __init__(self, directory: Path) -> None:
        self._root = str(directory)
        self._kinds: dict[int, str] = {0: "directory"}
        self._now: dict[str, int] = {self._root: 0}
        self._durable: dict[str, int] = {self._root: 0}
        self._changes: list[tuple[str, int | None]] = []
        self._written: dict[int, bytearray] = {}
        self._synced: dict[int, bytes] = {}
        self._unsynced: dict[int, list[tuple[int, bytes]]] = {}

    def apply(self, event: Event) -> None:
        call, path = event.call, event.path
        if call in ("mkdir", "symlink", "mknod") or (call == "create" and path not in self._now):
            number = len(self._kinds)
            self._kinds[number] = event.target or {"mkdir": "directory", "mknod": "fifo"}.get(call, "file")
            self._written[number], self._synced[number], self._unsynced[number] = bytearray(), b"", []
            self._change(path, number)
        elif call in ("unlink", "rmdir"):
            self._change(path, None)
        elif call in ("pwrite64", "ftruncate", "write"):
            number = self._now.get(path, -1)
            if number >= 0 and self._kinds[number] == "file":
                self._unsynced[number].append((event.at, event.data if call != "ftruncate" else b""))
                _write(self._written[number], *self._unsynced[number][-1])
        elif call == "fsync":
            number = self._now.get(path, -1)
            if number >= 0 and self._kinds[number] == "directory":
                rest = []
                for changed, new in self._changes:
                    if os.path.dirname(changed) == path:
                        _set(self._durable, changed, new)
                    else:
                        rest.append((changed, new))
                self._changes = rest
            elif number >= 0:
                self._synced[number], self._unsynced[number] = bytes(self._written[number]), []

    def _change(self, path: str, number: int | None) -> None:
        _set(self._now, path, number)
        self._changes.append((path, number))

    def build(self, where: Path, luck: random.Random | None) -> None:
        """Build the directory after a cut: what was synced, and by luck a part of what was not."""
        entries = dict(self._durable)
        for path, number in self._changes[: luck.randint(0, len(self._changes)) if luck else 0]:
            _set(entries, path, number)
        for path in sorted(entries):
            number = entries[path]
            place = where / os.path.relpath(path, self._root)
            kind = self._kinds[number]
            if not place.parent.is_dir():
                continue  # the directory is lost, and what was in it
            if kind == "directory":
                place.mkdir(exist_ok=True)
            elif kind == "fifo":
                os.mkfifo(place)
            elif kind == "file":
                place.write_bytes(self._content(number, luck))
            else:
                place.symlink_to(kind)

    def _content(self, number: int, luck: random.Random | None) -> bytes:
        content = bytearray(self._synced[number])
        for at, data in self._unsynced[number] if luck else []:
            if not data:
                if luck.random() < 0.5:
                    _write(content, at, data)
                continue
            for start in range(0, len(data), _SECTOR):
                if luck.random() < 0.5:
                    _write(content, at + start, data[start : start + _SECTOR])
        return bytes(content)


def _set(entries: dict[str, int], path: str, number: int | None) -> None:
    if number is None:
        entries.pop(path, None)
    else:
        entries[path] = number


def _write(content: bytearray, at: int, data: bytes) -> None:
    if not data:  # a truncation
        del content[at:]
    content.extend(bytes(max(0, at + len(data) - len(content))))
    content[at : at + len(data)] = data
