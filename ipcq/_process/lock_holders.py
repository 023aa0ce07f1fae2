"""Which process holds a lock that blocks others: for errors, statistics and `ipcq doctor`.

A queue whose lock is held is not full, and the remedy differs: continue the process that holds the lock, or end it.
The question is asked after the fact, so the answer may be out of date. None means that no such process was found. Only
Linux can tell (``/proc``, proc(5)).
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Holder:
    """A process that blocks others in a queue."""

    pid: int
    """Its process id."""
    name: str
    """Its name, as ps(1) shows it; not its arguments, which may hold secrets."""
    stopped: bool
    """Whether a signal or a debugger has stopped it."""
    seconds: float
    """How long it has been seen to block them, in seconds; it may be longer."""
    doing: str = "holds its lock"
    """What it does that blocks them, as words for an error."""

    def __str__(self) -> str:
        state = ", which is stopped," if self.stopped else ""
        so_far = f", for {self.seconds:.1f} s so far" if self.seconds >= 0.1 else ""
        return f"process {self.pid} ({self.name}){state} {self.doing}{so_far}"

    @property
    def way_out(self) -> str:
        """What the user can do, as words for an error."""
        if self.stopped:
            return f"continue it (kill -CONT {self.pid}) or end it"
        return "wait longer, or find out what keeps it from running"


def holder_of_thread(thread: int, seconds: float, doing: str = Holder.doing) -> Holder | None:
    """Return the process of a thread that holds a lock."""
    try:
        status = Path(f"/proc/{thread}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    stopped = fields["State"].strip()[:1] in ("T", "t")
    return Holder(int(fields["Tgid"]), fields["Name"].strip(), stopped, seconds, doing)


def holder_of_file(descriptor: int, seconds: float) -> Holder | None:
    """Return the process that has locked a whole file for itself (flock(2))."""
    found = os.fstat(descriptor)
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    # 1: FLOCK  ADVISORY  WRITE 4711 00:1b:32 0 EOF
    with suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            words = line.split()
            if words[1:2] == ["FLOCK"] and words[3] == "WRITE" and words[5] == device:
                return holder_of_thread(int(words[4]), seconds)
    return None


def holder_of_byte(descriptor: int, byte: int, seconds: float, doing: str = Holder.doing) -> Holder | None:
    """Return a process with an open file that locks this byte (F_OFD_SETLK of fcntl(2)).

    Such a lock belongs to the open file, so the kernel names no process. The open files of every process that this user
    may inspect are searched. Linux only.
    """
    inode = os.fstat(descriptor).st_ino
    others = [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != os.getpid()]
    for pid in others:
        with suppress(OSError):  # it is another user's, or has ended
            for info in os.listdir(f"/proc/{pid}/fdinfo"):
                if _locks(Path(f"/proc/{pid}/fdinfo/{info}"), inode, byte):
                    return holder_of_thread(pid, seconds, doing)
    return None


def _locks(info: Path, inode: int, byte: int) -> bool:
    # lock:	1: OFDLCK ADVISORY  WRITE -1 00:1b:32 1152921504606846983 1152921504606846983
    for line in info.read_text(encoding="ascii", errors="replace").splitlines():
        words = line.split()
        if words[:1] == ["lock:"] and words[2] == "OFDLCK" and words[6].endswith(f":{inode}"):
            last = words[8]
            if int(words[7]) <= byte and (last == "EOF" or byte <= int(last)):
                return True
    return False
