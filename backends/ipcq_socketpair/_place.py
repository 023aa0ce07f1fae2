"""Where queues are found: private directories with a listening socket for each name.

The directories are at places that no environment variable moves, and nobody else can have made or can enter them. A
socket file is called as its queue, or by a hash where the path would be longer than a socket's address may be; the
lengths tell which. A queue is bound in the first directory that can be used, and looked for in all of them, since other
processes may use other ones: a socket can be connected to on a read-only file system, too.

A file is no queue if nobody holds its socket any more, or if the socket was shut down because the queue is unlinked: a
connect to it is refused. The last holder to close removes it; where the last holders were killed it stays, and whoever
creates the name replaces it. Between looking whether a file is such and removing it no other process may bind the name,
so binding and removing are done alone, under locks on the directories that the kernel releases with their holder. They
are locks of read-only descriptors, so processes that can write to different directories exclude each other as well.
A process that binds makes its directories before it looks which exist: of two, at least one sees those of both.
"""

import errno
import fcntl
import hashlib
import os
import select
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from time import monotonic
from typing import Final

from ipcq.backend import (
    closed,
    make_private_directories,
    opened,
    original,
    private_directories,
    private_files,
    reraise_from_handler,
    suppressed,
)
from ipcq.errors import QueueExists, QueueNotFound, TimedOutError
from ipcq_socketpair import _host
from ipcq_socketpair._ends import Ends, Found, Terms, end, ending_line, line, received

# Not gevent's: no other greenlet may come in between where a lock is held.
sleep = original("time", "sleep")
close = original("os", "close")

#: Newcomers that may wait to be answered; the kernel takes the smaller of this and net.core.somaxconn.
BACKLOG: Final = 4096

#: Seconds that a channel at work may go without looking whether its queue was unlinked. Whoever unlinks waits that long
#: before saying that it is done, and then it is so for every process.
BLIND: Final = 0.001

# Names from so many bytes on are hashed: the longest path of a directory and this make 101 of the 107 bytes that an
# address may have (sun_path of unix(7)).
_HASHED: Final = 64

# Seconds to wait for an answer before connecting once more. Whoever took the connection may have been stopped by then,
# and another holder takes the next; an answer that comes late is still taken.
_PATIENCE: Final = (0.02, 0.03, 0.05, 0.1)

# Seconds to wait for another process that binds or removes a name, which takes far less than a millisecond.
_TURN: Final = 1.0


_PART: Final = "socketpair"


def directories() -> list[str]:
    """Return the directories that exist and are nobody else's."""
    return private_directories(_PART)


def make() -> list[str]:
    """Make the directories where they are missing, and return those that can be used.

    Raises:
        PermissionDenied: There is none: each is somebody else's, open to others or read-only.
    """
    return make_private_directories(_PART)


def _file_of(name: str) -> str:
    file = name[1:].encode()
    return name[1:] if len(file) < _HASHED else hashlib.sha256(file).hexdigest()


def path_in(home: str, name: str) -> bytes:
    return f"{home}/{_file_of(name)}".encode()


def paths_of(name: str) -> list[bytes]:
    """Return the socket files of this name; at most one of them is a queue."""
    return [path.encode() for path in private_files(_file_of(name), _PART)]


def path_at(name: str, found: Found) -> bytes:
    """Return where the file of a queue is; empty if it is gone, since no file has the empty path."""
    return next((path for path in paths_of(name) if leads_to(path, found)), b"")


@contextmanager
def alone(homes: Sequence[str], patience: float | None = None) -> Iterator[None]:
    """Keep others from binding and removing names in these directories meanwhile.

    Raises:
        TimedOutError: Somebody else was at it for `patience` seconds, by default as long as a turn takes at most.
    """
    with _host.no_fork(), ExitStack() as closing:  # a child's copy of a descriptor would keep the lock
        until = monotonic() + (_TURN if patience is None else patience)
        for descriptor, home in _in_order(homes, closing):
            while not _locked(descriptor):
                if monotonic() >= until:
                    raise TimedOutError(
                        "a process that was creating or removing a queue does not go on: see who holds "
                        f"{home} (lslocks)"
                    )
                sleep(0.001)
        yield


def _in_order(homes: Sequence[str], closing: ExitStack) -> list[tuple[int, str]]:
    """Open directories, each once even if it is in two places, in an order that is the same for every process."""
    found = {}
    for home in homes:
        how = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = opened(partial(os.open, home, how))  # because a signal handler of this thread may fork
        closing.callback(closed, descriptor, partial(_unlock_and_close, descriptor))
        status = os.fstat(descriptor)
        found[status.st_dev, status.st_ino] = descriptor, home
    return [found[identity] for identity in sorted(found)]


def _unlock_and_close(descriptor: int) -> None:
    try:
        # Closing alone does not unlock it while a child has a copy, which a handler forked just as it was opened.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        close(descriptor)


def _locked(home: int) -> bool:
    try:
        fcntl.flock(home, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _connects(by: socket.socket, path: bytes) -> bool:
    """Connect; True where a queue is there, though it may be busy.

    Raises:
        QueueNotFound: There is none.
    """
    try:
        by.connect(path)
    except BlockingIOError:
        return False  # more wait there already than the backlog holds, which is an answer too
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        raise QueueNotFound from error
    except OSError as error:
        reraise_from_handler(error)
        if error.errno == errno.EPROTOTYPE:  # a socket of another kind, so none of ours
            raise QueueNotFound from error
        raise
    return True


def _held_here(path: bytes) -> _host.Offer | None:
    with suppressed(OSError):
        return _host.offered(_found(path))
    return None


def alive(path: bytes) -> bool:
    """Tell whether somebody holds the socket of this file."""
    if _held_here(path):
        return True
    with _host.no_fork(), line() as probe:
        try:
            _connects(probe, path)
        except QueueNotFound:
            return False
    return True


def exists(name: str) -> bool:
    return any(map(alive, paths_of(name)))


def bind(listener: socket.socket, name: str, homes: Sequence[str]) -> tuple[bytes, Found]:
    """Take the name in the first of these directories where there is space; to be called alone.

    Raises:
        QueueExists: There is a queue of that name.
        OSError: The system refused it, and not only because a file system was full; or it was full everywhere.
    """
    if exists(name):
        raise QueueExists
    *paths, last = [path_in(home, name) for home in homes]
    path = next((path for path in paths if _has_space(listener, path)), last)
    if path == last:
        _bind(listener, last)
    os.chmod(path, 0o600)  # the umask decided on it
    return path, _found(path)


def _has_space(listener: socket.socket, path: bytes) -> bool:
    """Bind, or return False if the file system is full."""
    try:
        _bind(listener, path)
    except OSError as error:
        reraise_from_handler(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return False
        raise
    return True


def _bind(listener: socket.socket, path: bytes) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    listener.bind(path)


def _found(path: bytes) -> Found:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def leads_to(path: bytes, found: Found) -> bool:
    """Tell whether a socket file is still the one that was found."""
    try:
        return _found(path) == found
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        return True  # a process that has become another user cannot look any more


def free(path: bytes, found: Found) -> None:
    """Remove the name if it still leads there."""
    if leads_to(path, found):
        os.unlink(path)


def tidied(path: bytes, found: Found) -> None:
    """Remove the file of a queue that nobody holds any more; to be called when this process does not either."""
    with suppressed(OSError, TimedOutError):  # else it stays, and is no queue all the same
        if leads_to(path, found) and not alive(path):
            with alone([os.fsdecode(os.path.dirname(path))], 0.0):
                if leads_to(path, found):
                    os.unlink(path)


def unlink(name: str) -> None:
    """Remove the name, and return when every channel knows.

    Raises:
        QueueNotFound: There is no queue of that name.
    """
    path = _place_of(name)
    with alone([os.fsdecode(os.path.dirname(path))]):
        try:
            _tell_end(path)
            # It is unlinked now, also where this process is killed or the file cannot be removed: a file at which
            # nobody answers is no queue.
            _remove(path)
        except FileNotFoundError as error:
            raise QueueNotFound from error
    sleep(BLIND)


def _place_of(name: str) -> bytes:
    """Return the socket file of a queue.

    Raises:
        QueueNotFound: There is no queue of that name.
    """
    for path in paths_of(name):
        if alive(path):
            return path
    raise QueueNotFound


def _remove(path: bytes) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        reraise_from_handler(error)


def _tell_end(path: bytes) -> None:
    """Tell the holders that the queue is unlinked; if all are stopped, they notice as soon as one continues."""
    here = _held_here(path)
    if here:
        end(here.ends.listener)
        return
    with ending_line() as asking:
        try:
            _connects(asking, path)
        except QueueNotFound:
            pass  # the last holder has gone


def asked(name: str) -> tuple[Terms, Ends]:
    """Get the queue's descriptors from a holder.

    Raises:
        QueueNotFound: There is no queue of that name, or none of its holders answers.
    """
    for path in paths_of(name):
        with _host.no_fork():  # nor a close
            here = _held_here(path)
            if here:
                return here.terms, here.ends.copied()
        try:
            return _answer(path)
        except QueueNotFound as error:
            if error.detail:  # it is there, and nobody answers
                raise
    raise QueueNotFound


def _answer(path: bytes) -> tuple[Terms, Ends]:
    with ExitStack() as lines:
        waiting: dict[int, socket.socket] = {}
        poll = select.poll()
        for patience in _PATIENCE:
            one = lines.enter_context(line())
            if _connects(one, path):
                waiting[one.fileno()] = one
                poll.register(one, select.POLLIN)
            for number, _ in poll.poll(patience * 1000):
                answer = received(waiting[number])
                if answer is not None:
                    return answer
                poll.unregister(number)  # that holder let go of the queue just now
    raise QueueNotFound(
        "it exists, but none of the processes that have it open answers, so they are stopped or short of descriptors: "
        f"see who they are (sudo lsof {os.fsdecode(path)}) and let one go on (kill -CONT)"
    )


def _files() -> list[bytes]:
    """Return the paths of what is in the directories."""
    return sorted(home.encode() + b"/" + file for home in directories() for file in os.listdir(home.encode()))


def names() -> Iterator[str]:
    for path in _files():
        file = os.path.basename(path)
        try:
            if len(file) < _HASHED:
                if alive(path):
                    yield "/" + file.decode()
            else:
                yield _name_of(path)
        except (QueueNotFound, UnicodeDecodeError):
            pass  # gone meanwhile, without an answer, or no file of ours


def _name_of(path: bytes) -> str:
    here = _held_here(path)
    if here:
        return here.terms.name
    with _host.no_fork():  # a forked child would hold the queue and not answer
        terms, ends = _answer(path)
        ends.close()
    return terms.name


def leftovers() -> list[bytes]:
    """List the socket files that nobody holds."""
    return [path for path in _files() if not alive(path)]
