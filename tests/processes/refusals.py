"""Makes the n-th system call of a process fail, as the kernel would: a seccomp filter lets another process decide.

The filter needs neither privileges nor an installed program. It cannot be removed, so it is used in a child:
`Refuser.run` forks one and answers for its system calls. The parent lets each call through or answers with an error
number; a refused call does not happen.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import select
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_PIDFD_GETFD = 438  # on every architecture
_RECEIVE, _SEND, _CONTINUE = 0xC0502100, 0xC0182101, 1
_ALLOW, _ASK = 0x7FFF0000, 0x7FC00000
_PRIVATE_FUTEX = 128
_SET_LOCK = (fcntl.F_SETLK, fcntl.F_SETLKW, fcntl.F_OFD_SETLK, fcntl.F_OFD_SETLKW)


def _table(text: str) -> dict[str, int]:
    return {name: int(number) for name, number in (entry.split("=") for entry in text.split())}


# Left out: close, which on Linux has closed the descriptor whatever it returns, and calls that end a process or free
# memory, which cannot fail.
_X86_64 = _table(
    """
    read=0 write=1 open=2 stat=4 fstat=5 lstat=6 poll=7 lseek=8 mmap=9 ioctl=16 pread64=17 pwrite64=18 select=23
    socket=41 connect=42 accept=43 sendto=44 recvfrom=45 sendmsg=46 recvmsg=47 shutdown=48 bind=49 listen=50
    getsockname=51 socketpair=53 setsockopt=54 getsockopt=55 clone=56 fcntl=72 flock=73 ftruncate=77 rename=82
    mkdir=83 link=86 unlink=87 readlink=89 chmod=90 fchmod=91 fchown=93 mknod=133 statfs=137 fstatfs=138
    futex=202 getdents64=217 mq_open=240 mq_unlink=241 mq_timedsend=242 mq_timedreceive=243 mq_notify=244
    mq_getsetattr=245 openat=257 mkdirat=258 newfstatat=262 unlinkat=263 linkat=265 ppoll=271 fallocate=285
    accept4=288 eventfd2=290 pipe2=293 renameat2=316 memfd_create=319 statx=332 clone3=435
    """
)
_GENERIC = _table(
    """
    eventfd2=19 fcntl=25 ioctl=29 flock=32 mknodat=33 mkdirat=34 unlinkat=35 linkat=37 statfs=43 fstatfs=44
    ftruncate=46 fallocate=47 fchmod=52 fchmodat=53 fchown=55 openat=56 pipe2=59 getdents64=61 lseek=62 read=63
    write=64 pread64=67 pwrite64=68 pselect6=72 ppoll=73 readlinkat=78 newfstatat=79 fstat=80 futex=98
    mq_open=180 mq_unlink=181 mq_timedsend=182 mq_timedreceive=183 mq_notify=184 mq_getsetattr=185 socket=198
    socketpair=199 bind=200 listen=201 connect=203 getsockname=204 sendto=206 recvfrom=207 setsockopt=208
    getsockopt=209 shutdown=210 sendmsg=211 recvmsg=212 clone=220 mmap=222 accept4=242 renameat2=276
    memfd_create=279 statx=291 clone3=435
    """
)
_CALLS, _SECCOMP = (_X86_64, 317) if platform.machine() == "x86_64" else (_GENERIC, 277)
_NAMES = {number: name for name, number in _CALLS.items()}

# What the child reports without a system call: its listener's descriptor, whether it acts, and a text.
_SHARED = 1 << 16
_WORDS = struct.Struct("=iiI")


class Refuser:
    """Runs children in each of which one system call fails.

    Args:
        prepare: The child calls it first, unfiltered.
        act: The child calls it with the result of `prepare`, while its calls are counted and one of them fails.
        report: The child calls it afterwards, unhindered, with the result of `prepare`; it returns a short text.
    """

    def __init__(self, prepare: Callable[[], Any], act: Callable[[Any], None], report: Callable[[Any], str]) -> None:
        self.prepare = prepare
        self.act = act
        self.report = report

    def run(self, failing: int, number: int) -> tuple[str, str]:
        """Make the `failing`th call (from 1) of a child fail with an error number.

        Returns:
            The name of that call, empty if there were fewer; and the child's report.
        """
        with mmap.mmap(-1, _SHARED) as shared:
            pid = os.fork()
            if not pid:
                self._run_child(shared)
            try:
                refused = _listen(pid, shared, failing, number)
            finally:
                _, status = os.waitpid(pid, 0)
            length = _WORDS.unpack_from(shared)[2]
            text = shared[_WORDS.size : _WORDS.size + length].decode()
        return refused, text if status == 0 else f"the child ended with status {status}"

    def _run_child(self, shared: mmap.mmap) -> None:
        status = 1
        try:
            prepared = self.prepare()
            # The listener gets the lowest free number. After the filter is installed, the child could not report it.
            lowest = os.dup(0)
            os.close(lowest)
            _WORDS.pack_into(shared, 0, lowest, 1, 0)
            _install()
            self.act(prepared)
            struct.pack_into("=i", shared, 4, 0)
            text = self.report(prepared).encode()[: _SHARED - _WORDS.size]
            shared[_WORDS.size : _WORDS.size + len(text)] = text
            struct.pack_into("=I", shared, 8, len(text))
            status = 0
        finally:
            os._exit(status)


def _install() -> None:
    """Filter the calls of this thread and of threads that it starts."""
    library = ctypes.CDLL(None, use_errno=True)
    numbers = list(_NAMES)
    # BPF: load the number; jump to the last instruction for each of our numbers; allow; ask.
    program = [(0x20, 0, 0, 0)]
    program += [(0x15, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    program += [(0x06, 0, 0, _ALLOW), (0x06, 0, 0, _ASK)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    if library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if library.syscall(_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, header) < 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def _listen(pid: int, shared: mmap.mmap, failing: int, number: int) -> str:
    process = os.pidfd_open(pid)
    listener = -1
    count, refused = 0, ""
    try:
        while listener < 0:
            if select.select([process], [], [], 0.0002)[0]:
                return ""  # the child ended before that
            theirs, _, _ = _WORDS.unpack_from(shared)
            if theirs:
                listener = _take_descriptor(process, theirs)
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(process, select.POLLIN)
        # Until the child has ended, or no process is left that could call.
        while (listener, select.POLLIN) in poll.poll():
            asked = bytearray(80)
            with suppress(OSError):  # the child was interrupted or ended
                fcntl.ioctl(listener, _RECEIVE, asked)
                call, thread, which, arguments = _read(asked)
                answer = struct.pack("=QqiI", call, 0, 0, _CONTINUE)
                if _WORDS.unpack_from(shared)[1] and thread == pid and _counts(thread, which, arguments):
                    count += 1
                    if count == failing:
                        refused = which
                        answer = struct.pack("=QqiI", call, -1, -number, 0)
                fcntl.ioctl(listener, _SEND, answer)
    finally:
        os.close(process)
        if listener >= 0:
            os.close(listener)
    return refused


def _take_descriptor(process: int, theirs: int) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    ours = library.syscall(_PIDFD_GETFD, process, theirs, 0)
    if ours < 0 and ctypes.get_errno() != errno.EBADF:  # EBADF: it is not open yet
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return int(ours)


def _read(asked: bytearray) -> tuple[int, int, str, tuple[int, ...]]:
    call, thread, _, number, _, _, *arguments = struct.unpack("=QIIiIQ6Q", asked)
    return call, thread, _NAMES[number], tuple(arguments)


def _counts(thread: int, which: str, arguments: tuple[int, ...]) -> bool:
    """Return whether a call can fail and is not the interpreter's own: its memory, and the futexes of its locks.

    On an open descriptor, the kernel refuses neither to unlock just what was locked, which takes no memory, nor to
    count the waiting bytes or messages, nor to add one to an eventfd (a write of 8 bytes).
    """
    if which == "mmap":
        return arguments[4] & 0xFFFFFFFF != 0xFFFFFFFF
    if which == "futex":
        return not arguments[1] & _PRIVATE_FUTEX
    if which == "flock":
        return arguments[1] != fcntl.LOCK_UN
    if which == "fcntl" and arguments[1] in _SET_LOCK:
        return _lock_type(thread, arguments[2]) != fcntl.F_UNLCK
    if which == "write":
        return arguments[2] != 8
    return which not in {"ioctl", "mq_getsetattr"}


def _lock_type(thread: int, address: int) -> int:
    """Return the type in a `struct flock` of a process."""
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        return int.from_bytes(memory.read(2), sys.byteorder)


#: The error numbers that the kernel may return.
NUMBERS = (errno.EINTR, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EIO, errno.EMFILE)
