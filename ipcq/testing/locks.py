"""Which locks a process holds that the kernel gives back when it dies: what tells that a kill falls inside.

Two kinds are seen from outside, for any program: exclusive locks on whole files (flock(2), in ``/proc/PID/fdinfo``;
those of single bytes are how participants show that they live, and exclude nobody), and robust futexes, by the list
that each thread has registered for the kernel to walk at its death (get_robust_list(2); the layout is that of ``struct
robust_list_head`` in linux/futex.h). The process has to stand still, and to be one that this one may trace (ptrace(2));
of another nothing is seen.
"""

import ctypes
import os
import platform
import re
import struct
from pathlib import Path
from typing import Final

__all__ = ("holds_lock",)

#: get_robust_list(2), by machine; elsewhere only locks on files are seen.
_GET_ROBUST_LIST: Final = {"x86_64": 274, "aarch64": 100}

#: The thread that has a futex, in the word of the lock (linux/futex.h).
_OWNER: Final = 0x3FFFFFFF

#: The kernel walks no further either (ROBUST_LIST_LIMIT).
_FARTHEST: Final = 2048

_EXCLUSIVE: Final = re.compile(r"^lock:.* FLOCK +ADVISORY +WRITE ", re.MULTILINE)

_HEAD: Final = struct.Struct("PlP")  # the first entry, from an entry to its word, the entry that is under way


def holds_lock(pid: int) -> bool:
    """Tell whether a process that is stopped holds a lock on a file, or a robust futex."""
    return _holds_file(pid) or any(_holds_futex(pid, int(task.name)) for task in Path(f"/proc/{pid}/task").glob("*"))


def _holds_file(pid: int) -> bool:
    for info in Path(f"/proc/{pid}/fdinfo").glob("*"):
        try:
            if _EXCLUSIVE.search(info.read_text()):
                return True
        except OSError:  # pragma: no cover - closed or ended in between
            continue
    return False


def _holds_futex(pid: int, thread: int) -> bool:
    number = _GET_ROBUST_LIST.get(platform.machine())
    head, size = ctypes.c_void_p(), ctypes.c_size_t()
    if number is None or ctypes.CDLL(None).syscall(number, thread, ctypes.byref(head), ctypes.byref(size)) != 0:
        return False  # pragma: no cover - on another machine, or of a process that ended in between
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:

            def read(form: struct.Struct, at: int) -> tuple[int, ...]:
                return form.unpack(os.pread(memory.fileno(), form.size, at))

            entry, offset, pending = read(_HEAD, head.value or 0)
            entries = [pending]
            while entry != head.value and len(entries) < _FARTHEST:
                entries.append(entry)
                (entry,) = read(struct.Struct("P"), entry & ~1)
            return any(
                each and read(struct.Struct("I"), (each & ~1) + offset)[0] & _OWNER == thread for each in entries
            )
    except (OSError, struct.error):
        return False
