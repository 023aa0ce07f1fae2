"""Finding the process that holds a lock and blocks others, for errors, statistics and `ipcq doctor`.

A queue whose lock is held is not full, and the remedy differs: continue or end the process that holds the lock. The
search starts after the block, so the result may be out of date. None means that no such process was found. The search
reads ``/proc`` (proc(5)), so it works only on Linux.
"""

import os
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Holder:
    """A process that holds a queue's lock."""

    pid: int
    """The process id."""
    name: str
    """The name, as ps(1) shows it, without the arguments, which may contain secrets."""
    stopped: bool
    """Whether a signal or a debugger has stopped the process."""
    seconds: float
    """The time for which it has been observed to block others, in seconds; it may have begun earlier."""
    doing: str = "holds its lock"
    """How it blocks others, for the text of an error."""

    def __str__(self) -> str:
        state = ", which is stopped," if self.stopped else ""
        so_far = f", for {self.seconds:.1f} s so far" if self.seconds >= 0.1 else ""
        return f"process {self.pid} ({self.name}){state} {self.doing}{so_far}"

    @property
    def way_out(self) -> str:
        """What the user can do, for the text of an error."""
        if self.stopped:
            return f"continue it (kill -CONT {self.pid}) or end it"
        return "wait longer, or find out why it does not run"


def holder_of_thread(thread: int, seconds: float, doing: str = Holder.doing) -> Holder | None:
    """Return the process of a thread that holds a lock, or None if it has ended."""
    try:
        status = _read(f"/proc/{thread}/status")
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    stopped = fields["State"].strip()[:1] in ("T", "t")
    return Holder(int(fields["Tgid"]), fields["Name"].strip(), stopped, seconds, doing)


def holder_of_file(descriptor: int, seconds: float) -> Holder | None:
    """Return the process that holds an exclusive lock on a whole file (flock(2)), or None."""
    found = os.fstat(descriptor)
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    # 1: FLOCK  ADVISORY  WRITE 4711 00:1b:32 0 EOF
    with suppress(OSError):
        for line in _read("/proc/locks").splitlines():
            words = line.split()
            if words[1:2] == ["FLOCK"] and words[3] == "WRITE" and words[5] == device:
                return holder_of_thread(int(words[4]), seconds)
    return None


def holder_of_byte(descriptor: int, byte: int, seconds: float, doing: str = Holder.doing) -> Holder | None:
    """Return a process with an open file description that locks this byte (F_OFD_SETLK of fcntl(2)), or None.

    Such a lock belongs to the open file description, so the kernel reports no process. This searches the open files of
    every process that this user may inspect. Linux only.
    """
    inode = os.fstat(descriptor).st_ino
    others = [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != os.getpid()]
    for pid in others:
        with suppress(OSError):  # it belongs to another user, or has ended
            for info in os.listdir(f"/proc/{pid}/fdinfo"):
                if _locks(f"/proc/{pid}/fdinfo/{info}", inode, byte):
                    return holder_of_thread(pid, seconds, doing)
    return None


def _locks(info: str, inode: int, byte: int) -> bool:
    # lock:	1: OFDLCK ADVISORY  WRITE -1 00:1b:32 1152921504606846983 1152921504606846983
    for line in _read(info).splitlines():
        words = line.split()
        if words[:1] == ["lock:"] and words[2] == "OFDLCK" and words[6].endswith(f":{inode}"):
            last = words[8]
            if int(words[7]) <= byte and (last == "EOF" or byte <= int(last)):
                return True
    return False


def _read(path: str) -> str:
    # Not pathlib, whose import would take a tenth of the time of `import ipcq`.
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
