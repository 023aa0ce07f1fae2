"""The socket directories: private directories with a listening socket for each queue.

No environment variable changes the directories, and no other user can have created them or can enter them. A socket
file has the name of its queue, or a hash of it if the path would be too long for a socket's address; the length shows
which. A queue is bound in the first usable directory, and searched in all of them, because other processes may use
other directories. A process can connect to a socket even on a read-only file system.

A socket file is not a queue if no process holds its socket any more, or if the socket was shut down because the queue
was unlinked: connecting is refused. The last holder removes the file when it closes. If the last holders were killed,
the file stays, and the next process that creates the name replaces it. Between the check of a file and its removal no
other process may bind the name. So processes bind and remove under locks on the directories, which the kernel releases
when the holder dies. The locks need only read-only descriptors, so processes that can write to different directories
exclude each other too. A process that binds first creates its directories, and then checks which ones exist: of two
processes, at least one sees the directories of both.
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

# Not gevent's: no other greenlet may run while a lock is held.
sleep = original("time", "sleep")
close = original("os", "close")
_poll = original("select", "poll")

#: Connections that may wait for an answer; the kernel uses the smaller of this and net.core.somaxconn.
BACKLOG: Final = 4096

#: How long a busy channel may go without checking whether its queue was unlinked. `unlink` waits as long before it
#: returns; then every process sees the effect.
BLIND_SECONDS: Final = 0.001

#: The same for the path. It is checked less often, because after a sleep the check takes longer than a whole put or
#: get. `unlink` waits this long if no holder answers.
PATH_SECONDS: Final = 0.1

# How long an unlink waits for a holder to shut down the listening socket.
_END_SECONDS: Final = 0.02

# Names of at least this many bytes are hashed: with the longest path of a directory, a hash makes 101 of the 107 bytes
# that an address may have (sun_path of unix(7)).
_HASHED_BYTES: Final = 64

# How long to wait for an answer before connecting again. The process that accepted the connection may be stopped, and
# another holder may accept the next; a late answer is still used.
_ANSWER_SECONDS: Final = (0.02, 0.03, 0.05, 0.1)

# How long to wait for another process that binds or removes a name, which takes far less than a millisecond.
_TURN_SECONDS: Final = 1.0

_PART: Final = "socketpair"


def directories() -> list[str]:
    """Return the existing directories that belong to this user."""
    return private_directories(_PART)


def make() -> list[str]:
    """Create missing directories, and return the usable ones.

    Raises:
        PermissionDenied: No directory is usable: each belongs to another user, is open to other users, or is read-only.
    """
    return make_private_directories(_PART)


def _file_of(name: str) -> str:
    file = name[1:].encode()
    return name[1:] if len(file) < _HASHED_BYTES else hashlib.sha256(file).hexdigest()


def path_in(home: str, name: str) -> bytes:
    return f"{home}/{_file_of(name)}".encode()


def paths_of(name: str) -> list[bytes]:
    """Return the paths of possible socket files of this name; at most one of them is a queue."""
    return [path.encode() for path in private_files(_file_of(name), _PART)]


def path_at(name: str, found: Found) -> bytes:
    """Return the path of a queue's socket file; empty if it was removed, because no file has the empty path."""
    return next((path for path in paths_of(name) if leads_to(path, found)), b"")


@contextmanager
def alone(homes: Sequence[str], patience: float | None = None) -> Iterator[None]:
    """Keep other processes from binding and removing names in these directories.

    Raises:
        TimedOutError: Another process held a lock for `patience` seconds, by default `_TURN_SECONDS`.
    """
    with _host.no_fork(), ExitStack() as closing:  # a child's copy of a descriptor would keep the lock
        until = monotonic() + (_TURN_SECONDS if patience is None else patience)
        for descriptor, home in _in_order(homes, closing):
            while not _locked(descriptor):
                if monotonic() >= until:
                    raise TimedOutError(
                        "a process that was creating or removing a queue seems to be stopped: find the process that "
                        f"holds {home} with lslocks, and continue or end it"
                    )
                sleep(0.001)
        yield


def _in_order(homes: Sequence[str], closing: ExitStack) -> list[tuple[int, str]]:
    """Open directories, each one once even if two paths refer to it, in an order that is the same for all processes."""
    found = {}
    for home in homes:
        how = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = opened(partial(os.open, home, how))  # noted, because a signal handler of this thread may fork
        closing.callback(closed, descriptor, partial(_unlock_and_close, descriptor))
        status = os.fstat(descriptor)
        found[status.st_dev, status.st_ino] = descriptor, home
    return [found[identity] for identity in sorted(found)]


def _unlock_and_close(descriptor: int) -> None:
    try:
        # Closing alone does not unlock it if a signal handler forked right after the open: the child has a copy.
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
    """Connect to a queue; return False if it is too busy to accept.

    Raises:
        QueueNotFound: There is no queue at this path.
    """
    try:
        by.connect(path)
    except BlockingIOError:
        return False  # the backlog is full, so the queue exists
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        raise QueueNotFound from error
    except OSError as error:
        reraise_from_handler(error)
        if error.errno == errno.EPROTOTYPE:  # a socket of another type, so not a queue
            raise QueueNotFound from error
        raise
    return True


def _held_here(path: bytes) -> _host.Offer | None:
    with suppressed(OSError):
        return _host.offered(_found(path))
    return None


def alive(path: bytes) -> bool:
    """Return whether any process holds the socket of this file."""
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
    """Bind the name in the first of these directories that has space. Call it inside `alone`.

    Raises:
        QueueExists: A queue of that name exists.
        OSError: The system refused for a reason other than a full file system, or all file systems are full.
    """
    if exists(name):
        raise QueueExists
    *paths, last = [path_in(home, name) for home in homes]
    path = next((path for path in paths if _has_space(listener, path)), last)
    if path == last:
        _bind(listener, last)
    os.chmod(path, 0o600)  # regardless of the umask
    return path, _found(path)


def _has_space(listener: socket.socket, path: bytes) -> bool:
    """Bind; return False if the file system is full."""
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
    """Return whether a path still refers to the socket file `found`."""
    try:
        return _found(path) == found
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        return True  # a process that has changed its user cannot check any more


def free(path: bytes, found: Found) -> None:
    """Remove the path if it still refers to `found`."""
    if leads_to(path, found):
        os.unlink(path)


def tidied(path: bytes, found: Found) -> None:
    """Remove the file of a queue that no process holds any more. Call it after this process has closed the queue."""
    with suppressed(OSError, TimedOutError):  # otherwise the file stays, but is not a queue
        if leads_to(path, found) and not alive(path):
            with alone([os.fsdecode(os.path.dirname(path))], 0.0):
                if leads_to(path, found):
                    os.unlink(path)


def unlink(name: str) -> None:
    """Unlink the queue, and return when every channel sees the effect.

    Raises:
        QueueNotFound: There is no queue of that name.
    """
    path = _place_of(name)
    with alone([os.fsdecode(os.path.dirname(path))]):
        try:
            has_ended = _end(path)
            # It is unlinked now, even if this process is killed or the file cannot be removed: a file whose socket
            # refuses connections is not a queue.
            _remove(path)
        except FileNotFoundError as error:
            raise QueueNotFound from error
    sleep(BLIND_SECONDS if has_ended else PATH_SECONDS)


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


def _end(path: bytes) -> bool:
    """Ask a holder to shut down the listening socket, and return whether it is shut down now.

    If all holders are stopped, one of them does it as soon as it continues.
    """
    here = _held_here(path)
    if here:
        end(here.ends.listener)
        return True
    with ending_line() as asking:
        try:
            if not _connects(asking, path):
                return False
        except QueueNotFound:
            return True  # the last holder has closed the queue
        # A holder closes the connection after it has shut down the socket, or if this process may not ask for that.
        poll = _poll()
        poll.register(asking, select.POLLIN)
        return bool(poll.poll(_END_SECONDS * 1000)) and not alive(path)


def asked(name: str) -> tuple[Terms, Ends]:
    """Request the queue's descriptors from a holder.

    Raises:
        QueueNotFound: There is no queue of that name, or none of its holders answers.
    """
    for path in paths_of(name):
        with _host.no_fork():  # also excludes a close
            here = _held_here(path)
            if here:
                return here.terms, here.ends.copied()
        try:
            return _answer(path)
        except QueueNotFound as error:
            if error.detail:  # it exists, but no holder answers
                raise
    raise QueueNotFound


def _answer(path: bytes) -> tuple[Terms, Ends]:
    with ExitStack() as lines:
        waiting: dict[int, socket.socket] = {}
        poll = select.poll()
        for patience in _ANSWER_SECONDS:
            one = lines.enter_context(line())
            if _connects(one, path):
                waiting[one.fileno()] = one
                poll.register(one, select.POLLIN)
            for number, _ in poll.poll(patience * 1000):
                answer = received(waiting[number])
                if answer is not None:
                    return answer
                poll.unregister(number)  # that holder has just closed the queue
    raise QueueNotFound(
        "it exists, but no process that has it open answers; they are stopped or short of descriptors: "
        f"list them (sudo lsof {os.fsdecode(path)}), and continue one (kill -CONT)"
    )


def _files() -> list[bytes]:
    """Return the paths of all files in the directories."""
    return sorted(home.encode() + b"/" + file for home in directories() for file in os.listdir(home.encode()))


def names() -> Iterator[str]:
    for path in _files():
        file = os.path.basename(path)
        try:
            if len(file) < _HASHED_BYTES:
                if alive(path):
                    yield "/" + file.decode()
            else:
                yield _name_of(path)
        except (QueueNotFound, UnicodeDecodeError):
            pass  # unlinked meanwhile, without an answer, or not a queue


def _name_of(path: bytes) -> str:
    here = _held_here(path)
    if here:
        return here.terms.name
    with _host.no_fork():  # a forked child would hold the queue, but not answer
        terms, ends = _answer(path)
        ends.close()
    return terms.name


def leftovers() -> list[bytes]:
    """Return the socket files that no process holds."""
    return [path for path in _files() if not alive(path)]
