"""Whether a process holds a lock that the kernel releases at its death, so that a kill falls inside a critical section.

Two kinds of lock are visible from outside, in any program:

- exclusive locks on whole files: flock(2), listed in ``/proc/PID/fdinfo``. Locks on single bytes do not count: they
  show that a process lives, and exclude no other process.
- robust futexes, in the list that each thread registers for the kernel to walk at its death: get_robust_list(2), with
  the layout of ``struct robust_list_head`` in linux/futex.h.

The process must be stopped, and this process must be allowed to trace it (ptrace(2)); otherwise no lock is seen.
"""

import ctypes
import os
import platform
import re
import struct
from pathlib import Path
from typing import Final

__all__ = ("holds_lock",)

#: Number of the system call get_robust_list(2), by machine; on others only locks on files are seen.
_GET_ROBUST_LIST: Final = {"x86_64": 274, "aarch64": 100}

#: The bits of a futex word that hold the thread id of its owner (linux/futex.h).
_OWNER: Final = 0x3FFFFFFF

#: The kernel's own limit for the length of the list (ROBUST_LIST_LIMIT).
_MOST_ENTRIES: Final = 2048

_EXCLUSIVE: Final = re.compile(r"^lock:.* FLOCK +ADVISORY +WRITE ", re.MULTILINE)

_HEAD: Final = struct.Struct("PlP")  # the first entry, the offset from an entry to its futex word, the pending entry


def holds_lock(pid: int) -> bool:
    """Return whether a stopped process holds an exclusive lock on a file, or a robust futex."""
    return _holds_file(pid) or any(_holds_futex(pid, int(task.name)) for task in Path(f"/proc/{pid}/task").glob("*"))


def _holds_file(pid: int) -> bool:
    for info in Path(f"/proc/{pid}/fdinfo").glob("*"):
        try:
            if _EXCLUSIVE.search(info.read_text()):
                return True
        except OSError:  # pragma: no cover - the file was closed or the process ended meanwhile
            continue
    return False


def _holds_futex(pid: int, thread: int) -> bool:
    number = _GET_ROBUST_LIST.get(platform.machine())
    head, size = ctypes.c_void_p(), ctypes.c_size_t()
    if number is None or ctypes.CDLL(None).syscall(number, thread, ctypes.byref(head), ctypes.byref(size)) != 0:
        return False  # pragma: no cover - on another machine, or the process ended meanwhile
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:

            def read(form: struct.Struct, at: int) -> tuple[int, ...]:
                return form.unpack(os.pread(memory.fileno(), form.size, at))

            entry, offset, pending = read(_HEAD, head.value or 0)
            entries = [pending]
            while entry != head.value and len(entries) < _MOST_ENTRIES:
                entries.append(entry)
                (entry,) = read(struct.Struct("P"), entry & ~1)
            return any(
                each and read(struct.Struct("I"), (each & ~1) + offset)[0] & _OWNER == thread for each in entries
            )
    except (OSError, struct.error):
        return False
