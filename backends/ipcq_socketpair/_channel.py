"""A channel over one pair of sockets.

**Packets.** The first byte is the kind of the packet, because an empty packet could not be told from the end. A packet
holds either a message, or the size of a message whose bytes travel with it as a sealed file (`_sealed`). If the queue
is limited in messages, all packets are padded to one size, so that the number of unread bytes gives the number of
messages.

**Limits in messages.** The kernel checks for space and stores the packet in two steps, and another process may put in
between. So producers hold a file lock from counting to sending. It does not exclude the threads of one process, which
share the open file; for them there is a second lock. That lock is re-entrant, because a signal handler or a finaliser
may put while its thread holds it. Such a put runs at once, under the lock that the thread holds, and the interrupted
put counts again. For that, a put checks right before it sends its packet whether it was overtaken: between this check
and the following call in C, CPython runs neither handlers nor finalisers. A put waits for the file lock for at most
`_TURN_SECONDS`, so that a process that is stopped while it holds the lock blocks no other. Consumers take no lock: they
can only make the number smaller.

**Messages that travel as descriptors.** The kernel adds the descriptor to the table when the message is received. If
the table is full, it drops the descriptor, but delivers the message. So a channel keeps one spare descriptor, and
closes it right before it receives from a queue that has ever had such a message. A descriptor is lost only if another
thread fills a full table at that instant, which raises `CorruptQueue`. A flag on the socket records permanently that
there are such messages; the put of the first one waits until every channel must have checked the flag.

**Ends.** A shutdown shuts down the writing end; the kernel shows this to every holder at once, in order with the
packets. An unlink shuts down the listening socket, so that no process can attach, and removes the name. It does not
change the pair, because handles with ``after_unlink="continue"`` continue to use the nameless queue. A channel checks
the socket once per millisecond, and `unlink` waits that long before it returns, so that every later call sees it. A
channel also checks the path, which may have been removed by other means, ten times per second. If all holders are
stopped, an unlink only removes the path, and waits for a tenth of a second. One descriptor must report both messages
and an unlink. So a channel that ends with the name has an epoll instance over the reading end and the listening socket.

**Waiting.** A wait for a message uses `poll`. It polls for some microseconds before it sleeps, because sleeping and
waking up take longer than a process needs to answer. It also polls the listening socket, so that a get that was woken
need not check for an unlink: after a sleep the processor's caches are cold, and each call takes many times as long as
usual. A wait for space uses `poll` in short slices, because the kernel reports a socket as writable only when three
quarters of its buffer are free.
"""

import errno
import fcntl
import os
import select
import socket
import warnings
from array import array
from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Any, Final

from ipcq.backend import (
    Capabilities,
    Channel,
    Holder,
    NativeRLock,
    Received,
    Request,
    Stats,
    belongs,
    explained,
    holder_of_file,
    original,
    pause,
    reraise_from_handler,
    suppressed,
    too_many_descriptors,
)
from ipcq.errors import (
    CorruptQueue,
    MessageQueueError,
    QueueGone,
    QueueShutDown,
)
from ipcq_socketpair import _buffer, _host, _place, _sealed
from ipcq_socketpair._ends import Ends, Terms, descriptors, has_ended

# Not gevent's: its poll supports neither a timeout of 0 nor hang-ups, and its sleep lets other greenlets run.
_poll = original("select", "poll")
_epoll = original("select", "epoll")
sleep = original("time", "sleep")

#: Kinds of packets.
_PLAIN: Final = 0
_LARGE: Final = 1

_PREFIX: Final = bytes([_PLAIN])

_NO_DESCRIPTORS: list[int] = []

# The descriptors are shared, so blocking is controlled by flags of each call and not by a mode of the descriptor. Plain
# numbers, because the operators of enumerations take longer than the calls.
_SENDING: Final = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_RECEIVING: Final = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_LOOKING: Final = int(_RECEIVING | socket.MSG_PEEK)
_CUT: Final = int(socket.MSG_CTRUNC)

_RIGHTS: Final = socket.CMSG_LEN(array("i").itemsize)

# How long a put waits for the lock, which other producers hold for microseconds unless they are stopped.
_TURN_SECONDS: Final = 0.02

# How long one poll for space lasts at most.
_SPACE_POLL_SECONDS: Final = 0.02

# How long a wait for a message polls before it sleeps. Not at all on one processor: the other side could not run.
_SPIN_SECONDS: Final = 20e-6 if (os.cpu_count() or 1) > 1 else 0.0


class SocketpairChannel(Channel):
    def __init__(self, terms: Terms, ends: Ends, request: Request, capabilities: Capabilities) -> None:
        self.attributes = terms.attributes
        self.capabilities = capabilities
        self._terms = terms
        self._path = _place.path_at(terms.name, terms.found)
        self._ends = ends
        self._raises = request.after_unlink == "raise"
        self._next_look = self._next_path_look = 0.0
        self._largest = terms.attributes.max_message_size
        self._packet = terms.packet
        self._inline = _inline(terms, ends)
        # One byte more than the longest packet, to detect a packet that is too long.
        self._room = (terms.packet or max(1 + self._inline, _buffer.HEADER.size)) + 1
        # Both `send` and `sendall` send a packet whole or not at all. `sendall` returns no number, which could fail for
        # lack of memory after the packet was sent.
        self._send = ends.write.sendall
        self._receive = ends.read.recv
        self._receive_all = ends.read.recvmsg
        self._never_large = self._largest <= self._inline
        self._large = False
        self._turn = NativeRLock()
        self._busy = self._overtaken = False
        # When the producers' lock was first found held, by `time.monotonic`; 0 while it is free.
        self._busy_since = 0.0
        self._spare: deque[int] = deque()
        self._watch: dict[str, Any] = {}
        # Packets and their descriptors whose message did not fit into memory: the next gets try again.
        self._unopened: deque[tuple[bytes, list[int]]] = deque()
        if self._packet:
            ends.lock = _own(ends.lock)
        try:
            if not self._never_large:
                self._refill()
            self._offer = _host.Offer(terms, ends)
            _host.add(self._offer)
            belongs(self)
        except BaseException:
            self._drop_spare()
            raise

    # Putting

    def try_put(self, data: bytes, priority: int, /) -> bool:
        if monotonic() >= self._next_look:
            self._look()
        if len(data) > self._inline:
            return self._put_large(data)
        if self._packet:
            packet = _buffer.HEADER.pack(_PLAIN, len(data)) + data
            return self._in_turn(packet.ljust(self._packet, b"\0"), ())
        try:
            self._send(_PREFIX + data, _SENDING)
        except OSError as error:
            return self._refused(error)
        return True

    def _put_large(self, data: bytes) -> bool:
        if self.full():  # avoid a useless copy
            if self._shut_down():
                raise self._end()
            return False
        try:
            descriptor = _sealed.sealed(data)
        except OSError as error:
            raise explained(error) from error
        try:
            if not _buffer.has_large(self._ends.read):
                _buffer.say_large(self._ends.read)
                sleep(_place.BLIND_SECONDS)  # then every channel has checked the flag
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [descriptor]))]
            packet = _buffer.HEADER.pack(_LARGE, len(data))
            if self._packet:
                return self._in_turn(packet.ljust(self._packet, b"\0"), rights)
            return bool(self._sent(packet, rights))
        finally:
            os.close(descriptor)

    def _in_turn(self, packet: bytes, rights: Sequence[Any]) -> bool:
        """Send a packet if the queue has fewer than max_messages messages."""
        while (sent := self._in_one_turn(packet, rights)) is None:
            pass
        return sent

    def _in_one_turn(self, packet: bytes, rights: Sequence[Any]) -> bool | None:
        """Do so once; return None if another put of this thread ran meanwhile."""
        with self._turn:
            interrupted = self._busy
            lock = self._ends.lock
            self._busy = True
            self._overtaken = False
            try:
                return self._locked(lock) and self._has_space() and self._sent(packet, rights)
            finally:
                if interrupted:  # the interrupted put unlocks
                    self._overtaken = True
                else:
                    # In this order: a signal handler may raise right after the call.
                    self._busy = False
                    fcntl.flock(lock, fcntl.LOCK_UN)

    def _locked(self, lock: int) -> bool:
        until = monotonic() + _TURN_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                now = monotonic()
                self._busy_since = self._busy_since or now
                if now >= until:
                    return False
                sleep(0)
            except OSError as error:
                raise explained(error) from error
            else:
                self._busy_since = 0.0
                return True

    def holder(self, getting: bool, /) -> Holder | None:
        if getting or not self._busy_since:
            return None  # a get takes no lock
        return holder_of_file(self._ends.lock, monotonic() - self._busy_since)

    def _has_space(self) -> bool:
        if self._count() < (self.attributes.max_messages or 0):
            return True
        if self._shut_down():
            raise self._end()
        return False

    def _sent(self, packet: bytes, rights: Sequence[Any]) -> bool | None:
        try:
            if self._overtaken:
                return None
            if rights:
                self._ends.write.sendmsg([packet], rights, _SENDING)
            else:
                self._send(packet, _SENDING)
        except OSError as error:
            return self._refused(error)
        return True

    def _refused(self, error: OSError) -> bool:
        """Return False if the packet does not fit now; raise any other error."""
        if isinstance(error, BlockingIOError):
            return False
        reraise_from_handler(error)
        if isinstance(error, BrokenPipeError):
            raise self._end() from error
        if error.errno == errno.ETOOMANYREFS:  # the user has too many descriptors in transit
            return False
        raise explained(error) from error

    # Getting

    def try_get(self) -> Received | None:  # noqa: C901  # a call for each part would cost as much as the part
        if monotonic() >= self._next_look:
            self._look()
        if self._unopened:
            return self._got(*self._unopened.popleft())
        try:
            if self._never_large:
                packet, numbers = self._receive(self._room, _RECEIVING), _NO_DESCRIPTORS
            elif self._large:
                packet, numbers = self._take(_RECEIVING)
            else:
                packet, control, flags, _ = self._receive_all(self._room, _RIGHTS, _RECEIVING)
                numbers = _numbers(control, flags) if control or flags & _CUT else _NO_DESCRIPTORS
        except BlockingIOError:
            if self._watch:
                self._check_unlinked()
            return None
        except MessageQueueError:
            raise
        except OSError as error:
            raise explained(error) from error
        if packet[:1] == _PREFIX and not (numbers or self._packet) and len(packet) < self._room:
            try:
                return packet[1:], 0
            except MemoryError:
                pass
        return self._got(packet, numbers)

    def _got(self, packet: bytes, numbers: list[int]) -> Received | None:
        """Return the message of a received packet; if memory runs out, keep the packet for the next get."""
        try:
            message = self._opened(packet, numbers, True)
        except MemoryError:
            self._unopened.appendleft((packet, numbers))
            raise
        if message is not None:
            return message, 0
        # A receive may return the end although a last packet was put before the shutdown.
        if _buffer.waiting(self._ends.read.fileno()):
            return self.try_get()
        raise self._end()

    def _check_unlinked(self) -> None:
        """Raise at once if the queue was unlinked, which makes the descriptor readable."""
        if has_ended(self._ends.listener):
            raise QueueGone

    def _take(self, how: int) -> tuple[bytes, list[int]]:
        """Receive or peek the next packet and its descriptors; an empty packet is the end.

        Raises:
            BlockingIOError: There is no packet now.
            CorruptQueue: The packet was not sent by ipcq, and was dropped.
            OSError: The descriptor table is full; nothing was received.
        """
        if self._large:
            self._reserve()
        try:
            packet, control, flags, _ = self._receive_all(self._room, _RIGHTS, how)
        finally:
            if self._large:
                self._refill()
        return packet, _numbers(control, flags)

    def _opened(self, packet: bytes, numbers: list[int], taken: bool = False) -> bytes | None:
        """Return the message of a packet, and close its descriptors; return None for the end.

        Raises:
            CorruptQueue: The packet was not sent by ipcq.
            MemoryError: The message does not fit. If the packet was taken, its descriptors stay open for another try.
        """
        header = _buffer.HEADER
        try:
            if not packet:
                if self._shut_down():
                    return None
                raise CorruptQueue("received an empty packet, which ipcq never sends: it was dropped")
            if len(packet) == self._packet or (not self._packet and len(packet) == header.size and packet[0] == _LARGE):
                kind, size = header.unpack_from(packet)
                if kind == _PLAIN and not numbers and size <= self._inline:
                    return packet[header.size : header.size + size]
                if kind == _LARGE and len(numbers) == 1:
                    return _sealed.opened(numbers[0], size, self._largest)
            elif packet[0] == _PLAIN and not self._packet and not numbers and len(packet) < self._room:
                return packet[1:]
            raise CorruptQueue("received a packet that ipcq never sends: it was dropped")
        except MemoryError:
            if taken:
                numbers = _NO_DESCRIPTORS
            raise
        finally:
            if numbers:
                _close(numbers)
                self._refill()

    def _reserve(self) -> None:
        """Make sure that the descriptor table has a free entry."""
        try:
            spare = self._spare.pop()
        except IndexError:
            spare = os.dup(self._ends.read.fileno())
        os.close(spare)

    def _refill(self) -> None:
        if self._spare:
            return
        with suppressed(OSError):  # otherwise the next get retries, and raises
            self._spare.append(os.dup(self._ends.read.fileno()))

    def _drop_spare(self) -> None:
        while self._spare:
            os.close(self._spare.pop())

    # Reading

    def _look(self) -> None:
        """Check whether the queue was unlinked.

        Raises:
            QueueGone: It was, and the channel does not continue.
        """
        now = monotonic()
        path_too = now >= self._next_path_look
        if self._raises and not (self.linked() if path_too else self._is_listening()):
            self._next_look = self._next_path_look = 0.0  # permanent: every later call checks, and raises again
            raise QueueGone
        if path_too:
            self._next_path_look = now + _place.PATH_SECONDS
        self._looked(now)

    def _looked(self, now: float) -> None:
        """Record that a check that began at `now` found the queue linked."""
        self._next_look = now + _place.BLIND_SECONDS
        if not (self._large or self._never_large):
            self._large = _buffer.has_large(self._ends.read)

    def _is_listening(self) -> bool:
        """Return False if the listening socket was shut down; True if it was not, or if the check fails."""
        with suppressed(OSError):
            return not has_ended(self._ends.listener)
        return True

    def linked(self) -> bool:
        with suppressed(OSError):
            return not has_ended(self._ends.listener) and _place.leads_to(self._path, self._terms.found)
        return True  # unknown; the next check tries again

    def _shut_down(self) -> bool:
        poll = _poll()
        poll.register(self._ends.read, select.POLLRDHUP)
        return bool(poll.poll(0))

    def _end(self) -> MessageQueueError:
        return QueueGone() if self._raises and not self.linked() else QueueShutDown()

    def _count(self) -> int:
        waiting = _buffer.waiting(self._ends.read.fileno())
        if self._packet:
            return waiting // self._packet
        # A message is charged at least as much as a packet of one byte, and has at least one byte.
        return min(waiting, -(-_buffer.charged(self._ends.write.fileno()) // _buffer.charge(1)))

    def _forget_unopened(self) -> int:
        """Discard the packets that this channel keeps for its next gets, and return their number."""
        count = 0
        while self._unopened:
            _close(self._unopened.pop()[1])
            count += 1
        return count

    def qsize(self) -> int:
        """Return the number of messages; without `max_messages` an upper bound, 0 only if the queue is empty."""
        self._look()
        return self._count() + len(self._unopened)

    def full(self) -> bool:
        if self._packet:
            return super().full()
        self._look()
        return _buffer.charged(self._ends.write.fileno()) >= _buffer.limit(self._ends.write)

    def peek(self) -> Received | None:
        self._look()
        try:
            if self._unopened:
                packet, numbers = self._unopened[0]
                message = self._opened(packet, [os.dup(number) for number in numbers])
            else:
                message = self._opened(*self._take(_LOOKING))
        except BlockingIOError:
            return None
        except MessageQueueError:
            raise
        except OSError as error:
            raise explained(error) from error
        if message is not None:
            return message, 0
        # As in `_got`. It may also be a packet that ipcq never sends, which the next get drops.
        if _buffer.waiting(self._ends.read.fileno()):
            return None
        raise self._end()

    def stats(self) -> Stats:
        depth = self.qsize()
        return Stats(depth=depth if self._packet else None, holder=self.holder(False))

    def fileno(self) -> int:
        if not self._raises:
            return self._ends.read.fileno()
        if not self._watch:
            try:
                watch = _epoll()
                watch.register(self._ends.read, select.EPOLLIN)
                watch.register(self._ends.listener, 0)  # a hang-up is always reported
            except OSError as error:
                raise explained(error) from error
            self._watch.setdefault("epoll", watch)  # or keep the one of a faster thread
        return int(self._watch["epoll"].fileno())

    # Waiting

    def wait_readable(self, since: float, until: float, /) -> None:
        poll = _poll()
        poll.register(self._ends.read, select.POLLIN)
        if self._raises:
            poll.register(self._ends.listener, 0)
        events: list[tuple[int, int]] = []
        while not events and (now := monotonic()) < since + _SPIN_SECONDS:
            os.sched_yield()  # the other side may wait for this processor
            events = poll.poll(0)
        if not events and poll.poll(max(0.0, until - monotonic()) * 1000):
            now = monotonic()
            events = poll.poll(0)
        if (self._ends.listener.fileno(), select.POLLHUP) in events:
            self._next_look = 0.0
        elif events and now < self._next_path_look:
            self._looked(now)

    def wait_writable(self, size: int, since: float, until: float, /) -> None:
        poll = _poll()
        poll.register(self._ends.write, select.POLLOUT)
        if poll.poll(0):
            # The kernel has space, but the queue is full, the lock was held, or too many descriptors are in transit.
            pause(since, until)
        else:
            poll.poll(max(0.0, min(_SPACE_POLL_SECONDS, until - monotonic())) * 1000)

    # Ends

    def shutdown(self, immediate: bool, /) -> None:
        self._look()
        self._ends.write.shutdown(socket.SHUT_WR)
        if immediate:
            self._forget_unopened()
            while self._drop():
                pass

    def clear(self) -> int:
        self._look()
        most, dropped = self._count(), 0
        while dropped < most and self._drop():
            dropped += 1
        return dropped + self._forget_unopened()

    def _drop(self) -> bool:
        """Drop the next packet without reading its message, or return False if there is none."""
        try:
            packet, numbers = self._take(_RECEIVING)
        except BlockingIOError:
            return False
        except CorruptQueue:
            return True
        except OSError as error:
            raise explained(error) from error
        if numbers:
            _close(numbers)
            self._refill()
        return bool(packet) or _buffer.waiting(self._ends.read.fileno()) > 0

    def close(self) -> None:
        with _host.no_fork():
            _host.remove(self._offer)
            self._let_go()
            if lost := self._forget_unopened():
                warnings.warn(
                    f"{lost} messages that did not fit into memory are lost: get until the queue is empty, then close",
                    stacklevel=2,
                )
        _place.tidied(self._path, self._terms.found)

    def _let_go(self) -> None:
        self._drop_spare()
        for watch in self._watch.values():
            watch.close()
        self._ends.close()

    def abandon(self) -> None:
        _host.forget(self._offer)
        self._forget_unopened()  # the parent returns them
        self._let_go()

    def after_fork(self) -> bool:
        _host.inherit()
        self._turn = NativeRLock()
        self._busy = False
        self._forget_unopened()  # the parent returns them
        if self._packet:
            # The open file is the parent's: the parent's lock would belong to the child too.
            try:
                self._ends.lock = _own(self._ends.lock)
            except MessageQueueError:
                self.close()
                return False
        return True


def _inline(terms: Terms, ends: Ends) -> int:
    """Return the size of the largest message that travels in its packet."""
    if terms.packet:
        return terms.packet - _buffer.HEADER.size
    # The kernel reserves 32 bytes of the buffer (unix_dgram_sendmsg), and one byte is the kind.
    return min(terms.attributes.max_message_size, _buffer.INLINE_BYTES, _buffer.limit(ends.write) - 33)


def _numbers(control: Sequence[tuple[int, int, bytes]], flags: int) -> list[int]:
    """Return the descriptors that came with a packet.

    Raises:
        CorruptQueue: Some were lost.
    """
    numbers = descriptors(control)
    if flags & _CUT:
        _close(numbers)
        raise CorruptQueue(
            "received a message with more than one descriptor, or the descriptor table was full: it was dropped"
        )
    return numbers


def _close(numbers: list[int]) -> None:
    while numbers:
        os.close(numbers.pop())


def _own(lock: int) -> int:
    """Open the lock's file again, as an open file that no other process shares, and close the given descriptor.

    Raises:
        MessageQueueError: The file cannot be opened.
    """
    try:
        own = os.open(f"/proc/self/fd/{lock}", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        reraise_from_handler(error)
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise too_many_descriptors(error.errno) from error
        raise MessageQueueError(
            f"a queue with max_messages needs /proc/self/fd to open its lock, which failed ({error}): "
            "mount /proc, or leave out max_messages",
            errno=error.errno,
        ) from error
    os.close(lock)
    return own
