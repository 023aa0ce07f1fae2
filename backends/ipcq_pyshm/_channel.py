"""A channel over one queue's file. Steps change the file under the lock; polls read the state without it.

*Steps.* A step takes the lock, reads the state, changes it and commits it with one write (see `_layout`). If the lock
is held, the step retries after short pauses, for at most `PATIENCE` in all. So if a process is stopped while it holds
the lock, puts find no space and gets no message, but no call blocks. The kernel's lock does not exclude threads that
share the open file. So a lock between threads encloses it; that lock is released during the pauses.

*Signals.* A handler may run between any two instructions of the main thread, also inside a step. Its exception ends
the step: before the commit the step has no effect, afterwards it is complete, and nested ``finally`` clauses release
both locks in any case. A handler or a finaliser that calls the same channel cannot wait for the step that it
interrupted. So its own step runs at once, under the lock that the thread holds, and the interrupted step starts again
unless it has committed. For that, each write first checks whether its step was overtaken: between this check and the
following call in C, CPython runs neither handlers nor finalisers. The lock of shmlock is not re-entrant; with it, such
a call is refused.

*Polls.* A waiting process reads only the state, without the lock; the checksum detects a torn read. It polls without
sleeping at first, because sleeping and waking up take longer than a process needs to answer. Then it polls at intervals
that grow with the wait. On Linux, a bell ends an interval early (see `_bells`). Setting the bell takes a step; if the
lock is held, the process sleeps without a bell.

*Ends.* A step compares the size of the file, because a truncated file would grow again. The number of links takes
longer to read, so a channel reads it only once per millisecond. `unlink` waits that long before it returns, so every
call that begins afterwards sees its effect.

*Statistics.* A wait that succeeded is recorded by the next commit of its channel, or at the latest when the channel
waits again, is asked for statistics, or is closed. A step only for the statistics would delay every message for which
a process waited.

*Forks.* The child's copy of a descriptor refers to the same open file. So the parent's lock would belong to the child
too, and survive the parent. The child opens the file again under the same number, which closes its copy and unlocks
nothing.
"""

import os
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from copy import copy
from enum import Enum
from functools import partial
from time import monotonic, sleep
from typing import Any, Final, TypeVar, TypeVarTuple
from zlib import crc32

from ipcq.backend import (
    STEP,
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
    no_fork,
    reraise_from_handler,
    suppressed,
)
from ipcq.errors import CorruptQueue, MessageQueueError, QueueGone, QueueShutDown, TimedOutError, Unsupported
from ipcq_pyshm import _file, _lock, _segment
from ipcq_pyshm._bells import ALL, MESSAGES, RESET, SET, SPACE, Bells, bell_at, bells_of, kernel_here
from ipcq_pyshm._heap import Heap
from ipcq_pyshm._layout import (
    BELL,
    CELL,
    CUT_OFF,
    DATA_AT,
    DOWN,
    DROPPED,
    DROPPED_AT,
    MOST_CELLS,
    RECORD,
    STATE_ROOM,
    STATES_AT,
    STATES_BYTES,
    Geometry,
    Header,
    State,
    newest,
    place,
)
from ipcq_pyshm._ring import Cells, Order, Place, Ring

Ts = TypeVarTuple("Ts")
R = TypeVar("R")

#: Seconds for which a put or a get retries a held lock before it returns "not now".
PATIENCE: Final = 0.04
#: After so many tries, which take a millisecond or two, check whether the holder of the lock is stopped.
_ASK_TRIES: Final = 8
#: Seconds for calls that cannot return "not now".
LONG_PATIENCE: Final = 1.0
#: Seconds for which a wait polls before it sleeps. None on one processor, because the other side could not run.
_SPIN_SECONDS: Final = 50e-6 if (os.cpu_count() or 1) > 1 else 0.0
#: Seconds between the first polls after that.
_SHORTEST: Final = 0.0003
#: Later intervals as a share of the wait so far. Without a bell, an interval delays a message by half its length on
#: average; with a bell it delays only a message whose ring was lost.
_SHARE: Final = 0.125
_SHARE_WITH_BELL: Final = 1.0
_SHORTEST_WITH_BELL: Final = 0.005


# A wait calls this between its first polls, because the other side may be waiting for this processor.
_yield: Callable[[], object] = partial(sleep, 0)
if sys.platform == "linux":
    _yield = os.sched_yield


class NotNow(Enum):
    NOT_NOW = "the step did not run: the lock was held"


NOT_NOW: Final = NotNow.NOT_NOW


class Overtaken(Exception):
    """Another step of the same thread ran during this step: what this step has read is out of date."""


def _unchanged(state: State) -> State:
    return state


def refuse_ended(state: State) -> None:
    if state.ended:
        raise QueueShutDown


#: The bells as they are read while no process waits.
_SILENT: Final = 2 * RESET

#: Offsets of the states with even and with odd sequence numbers.
_PLACES: Final = place(0), place(1)

_FIGURE_MASK: Final = (1 << 64) - 1

#: A placeholder for a message in a list.
_PLACE: Final[Received] = (b"", 0)


class PyshmChannel(Channel):
    def __init__(
        self, descriptor: int, path: str, header: Header, request: Request, capabilities: Capabilities
    ) -> None:
        self.attributes = header.attributes
        self.capabilities = capabilities
        self._descriptor = descriptor
        self._path = path
        self._header = header
        self._raises = request.after_unlink == "raise"
        geometry = Geometry.of(header.attributes)
        self._newest: Callable[[bytes], State | None] = newest
        self._size = geometry.size
        self._length = _file.measuring(descriptor)
        self._next_look = 0.0
        self._order = self._order_in(geometry)
        # The last wait ended without a message, so the next get first reads the state without the lock.
        self._waited = False
        # When the lock was first found held, by `time.monotonic`; 0 while it is free.
        self._busy_since = 0.0
        # Waits and timeouts that no commit has recorded yet.
        self._waits = self._timeouts = 0
        self._bells: Bells | None = None
        # The bells when the last step began. A step of another thread may replace them before this thread has rung. If
        # the bell is not set then, it was reset meanwhile, and all processes were woken.
        self._set_bells = _SILENT
        self._begin()
        self._is_open = True
        belongs(self, descriptor)
        kernel = kernel_here()
        with no_fork:
            self._bells = bells_of(descriptor, kernel)

    def _order_in(self, geometry: Geometry) -> Order[Any]:
        order = Heap if self.attributes.priorities else Ring
        return order(self.attributes, geometry, self._read, self._write)

    def _begin(self) -> None:
        self._lock = _lock.lock_of(self._header, self._descriptor)
        self._threads = NativeRLock()
        self._inside = 0  # the id of the thread that runs a step
        self._overtaken = False  # another step ran during that step

    # Steps

    # In one function: a signal handler may raise between a call and the first statement of the called function, and the
    # lock would stay held.
    def _step(self, patience: float, step: Callable[[State, *Ts], R], *arguments: *Ts) -> R | NotNow:
        """Run a step on the state under the lock; return NOT_NOW if the lock is held for `patience` seconds."""
        tries, until = 0, 0.0
        while True:
            with self._threads:
                interrupted = self._inside
                if interrupted and self._lock.dear:
                    raise Unsupported(
                        "a signal handler or a finaliser called the queue during another call of the same thread: "
                        "use the queue after that call, or create it with lock='file'"
                    )
                self._inside = threading.get_ident()
                self._overtaken = False
                try:
                    self._lock.acquire()
                    self._busy_since = 0.0
                    return step(self._state(), *arguments)
                except BlockingIOError as error:  # the lock is held: no call on a file raises this
                    reraise_from_handler(error)
                except Overtaken:
                    pass
                except (MessageQueueError, OSError, struct.error) as error:
                    self._report(error)
                finally:
                    if interrupted:  # the interrupted step unlocks
                        self._overtaken = True
                    elif self._lock.dear:
                        # shmlock's lock is not re-entrant, so a step that interrupts the release is refused.
                        try:
                            self._lock.release()
                        finally:
                            self._inside = 0
                    else:
                        # In this order: a step that interrupts from here on locks and unlocks by itself.
                        self._inside = 0
                        self._lock.release()
                if self._overtaken and not interrupted:
                    continue
            until = until or monotonic() + patience
            if not self._pause(tries, until, patience):
                return NOT_NOW
            tries += 1

    def _report(self, error: MessageQueueError | OSError | struct.error) -> None:
        """Raise the error of a step, unless it was overtaken: then it may have read an inconsistent file."""
        ours = error if isinstance(error, MessageQueueError) else self._foreign(error)
        if self._overtaken:
            reraise_from_handler(error)
        elif ours is error:
            raise error
        else:
            try:
                raise ours from error
            finally:
                del ours, error  # break the cycle of error, traceback and this frame

    def _pause(self, tries: int, until: float, patience: float) -> bool:
        """Sleep before the next try for the lock; return False if the time is over or the holder is stopped."""
        now = monotonic()
        self._busy_since = self._busy_since or now
        if now >= until or (tries == _ASK_TRIES and patience <= PATIENCE and self._is_held_by_stopped()):
            return False
        # The holder releases the lock within microseconds unless it was interrupted.
        sleep(0 if tries < 5 else min(0.00005 * tries, 0.001))
        return True

    def _is_held_by_stopped(self) -> bool:
        holder = self.holder(False)
        return holder is not None and holder.stopped

    def holder(self, getting: bool, /) -> Holder | None:
        if not self._busy_since:
            return None
        return holder_of_file(self._descriptor, monotonic() - self._busy_since)

    def _surely(self, step: Callable[[State, *Ts], R], *arguments: *Ts) -> R:
        result = self._step(LONG_PATIENCE, step, *arguments)
        if result is NOT_NOW:
            holder = self.holder(False)
            if holder is not None:
                raise TimedOutError(f"{holder}: {holder.way_out}")
            raise TimedOutError(
                f"another process has held the lock of the queue for {LONG_PATIENCE:g} s, so it is probably stopped: "
                f"find it (lslocks lists the holder of {self._path}), and continue or end it"
            )
        return result

    def _foreign(self, error: OSError | struct.error) -> MessageQueueError:
        return explained(error, _segment.errors(self._size))

    def _state(self) -> State:
        """Read the state at the beginning of a step, and complete the step of a dead process."""
        if self._length() != self._size or monotonic() >= self._next_look:
            self._check_file()
        raw = _file.pread(self._descriptor, STATES_BYTES, STATES_AT)
        state = self._newest(raw)
        if state is None or not self._order.check(state):
            raise CorruptQueue
        self._set_bells = raw[2 * STATE_ROOM :]
        state.recoveries += state.cut_off
        if state.redo:
            self._order.apply(self._redo(state))
            state.redo = 0
            state.recoveries += 1
            self._put_down(state)
        return state

    def _commit(self, state: State, cells: Cells = ()) -> None:
        if self._waits:
            state.waits += self._waits
            state.timeouts += self._timeouts
        if self._lock.recovered:
            state.recoveries += 1
            self._lock.recovered = False
        state.high_water_mark = max(state.high_water_mark, state.count)
        if cells:
            raw, state.redo = self._order.packed(cells)
            self._write(DATA_AT, raw)
        state.sequence += 1
        self._write(_PLACES[state.sequence & 1], state.packed())
        self._waits = self._timeouts = 0
        if cells:
            try:
                self._order.apply(cells)
                state.redo = 0
                self._put_down(state)
            except Overtaken:
                pass  # the other step has applied the redo record
            except MemoryError:
                # The step is committed. The next step applies the redo record.
                state.redo = state.redo or 1

    def _put_down(self, state: State) -> None:
        state.sequence += 1
        self._write(_PLACES[state.sequence & 1], state.packed())

    def _redo(self, state: State) -> Cells:
        count = state.redo >> 32
        if count > MOST_CELLS:
            raise CorruptQueue
        raw = self._read(DATA_AT, count * CELL.size)
        if crc32(raw) != state.redo & 0xFFFFFFFF:
            raise CorruptQueue
        return list(CELL.iter_unpack(raw))

    # The file

    def _check_file(self) -> None:
        now = monotonic()
        found = os.fstat(self._descriptor)
        if not found.st_nlink and self._raises:
            raise QueueGone
        if found.st_size != self._size:
            raise CorruptQueue(f"its file has {found.st_size} bytes, but {self._size} were allocated: unlink it")
        self._next_look = now + _segment.BLIND_SECONDS

    def _read(self, at: int, size: int) -> bytes:
        raw = _file.pread(self._descriptor, size, at)
        if len(raw) != size:
            raise CorruptQueue(CUT_OFF)
        return raw

    def _write(self, at: int, data: bytes) -> None:
        while True:
            if self._overtaken:
                raise Overtaken
            done = _file.pwrite(self._descriptor, data, at)
            if done == len(data):
                return
            data, at = data[done:], at + done  # the system may write only a part

    # Messages

    def try_put(self, data: bytes, priority: int, /) -> bool:
        stored = self._step(PATIENCE, self._put, data, priority) is True
        if stored and self._set_bells != _SILENT:
            self._ring(MESSAGES, 1)
        return stored

    def _put(self, state: State, data: bytes, priority: int) -> bool:
        if state.flags & DOWN:
            raise QueueShutDown
        if not self._order.fits(state, len(data)):
            return False
        self._commit(state, self._order.store(state, data, priority))
        return True

    def try_put_many(self, batch: Sequence[bytes], priority: int = 0, /) -> int:
        if priority:  # each message moves entries of the heap, and a redo record has room for the moves of one
            return super().try_put_many(batch, priority)
        stored = self._step(PATIENCE, self._put_many, batch)
        if stored is NOT_NOW:
            return 0
        if stored and self._set_bells != _SILENT:
            self._ring(MESSAGES, stored)
        return stored

    def _put_many(self, state: State, batch: Sequence[bytes]) -> int:
        if state.flags & DOWN:
            raise QueueShutDown
        stored = self._order.store_many(state, batch)
        if stored:
            self._commit(state)
        return stored

    def try_get(self) -> Received | None:
        if self._lock.dear or self._waited:
            self._waited = False
            state = self._look()
            if not state.count and not state.flags & DOWN:
                return None
        received = self._step(PATIENCE, self._get)
        if received is None or received is NOT_NOW:
            return None
        if self._set_bells != _SILENT:
            self._ring(SPACE, 1)
        return received

    def _get(self, state: State) -> Received | None:
        if not state.count:
            refuse_ended(state)
            return None
        received, cells = self._order.take(state)
        self._commit(state, cells)
        return received

    def try_get_many(self, limit: int, /) -> list[Received]:
        batch = self._step(PATIENCE, self._get_many, limit)
        if batch is NOT_NOW:
            return []
        if batch and self._set_bells != _SILENT:
            self._ring(SPACE, len(batch))
        return batch

    def _get_many(self, state: State, limit: int) -> list[Received]:
        refuse_ended(state)
        singly = self.attributes.priorities  # because each take moves heap entries
        batch: list[Received] = []
        size = 0
        try:
            while state.count and len(batch) < limit and size < STEP and not state.redo:
                batch.append(_PLACE)  # before the message is taken, because append allocates
                received, cells = self._order.take(state)
                if singly:
                    self._commit(state, cells)
                batch[-1] = received
                size += len(received[0])
            if batch and not singly:
                self._commit(state)
        except Overtaken:
            if not singly or len(batch) < 2:
                raise
            batch.pop()  # the entry of the uncommitted message
        except (CorruptQueue, MemoryError):
            fewer = len(batch) // 2
            if batch and batch[-1] is _PLACE:
                batch.pop()
                fewer = len(batch)
            if not singly and fewer:
                # Nothing has been committed. Read the state again, and take fewer.
                batch = self._get_many(self._state(), fewer)
            elif not (singly and batch):
                raise
        return batch

    # Dropping. With blocks, each message leaves by a commit of its own, and only then another can have its space.

    def try_put_dropping(self, data: bytes, priority: int, /) -> int | None:
        dropped = [0]
        if self._finish(self._put_dropping, data, priority, dropped) is not True:
            return None
        return dropped[0]

    def _put_dropping(self, state: State, data: bytes, priority: int, dropped: list[int]) -> bool:
        if state.flags & DOWN:
            raise QueueShutDown
        order, pending = self._order, 0
        if not order.fits(state, len(data)):
            left, places = copy(state), []
            for each in order.droppable(state, priority):
                if order.fits(left, len(data)):
                    break
                order.forget(left, each)
                places.append(each)
            if not order.fits(left, len(data)):
                return False
            pending = self._drop_places(state, places, dropped, whole=order.has_spare(state, len(data)))
        self._commit(state, order.store(state, data, priority))
        dropped[0] += pending
        return True

    def try_get_latest(self) -> Received | None:
        received = self._finish(self._get_latest)
        return None if received is NOT_NOW else received

    def _get_latest(self, state: State) -> Received | None:
        if not state.count:
            refuse_ended(state)
            return None
        *older, newest = self._order.latest(state)
        received = self._order.read(newest)
        self._drop_places(state, older, [0], whole=True)
        self._commit(state, self._order.remove(state, newest))
        return received

    def _finish(self, step: Callable[..., R], *arguments: object) -> R | NotNow:
        """Run a step, and wake those whom it concerns."""
        result = self._step(PATIENCE, step, *arguments)
        if result is not NOT_NOW and self._set_bells != _SILENT:
            self._ring(MESSAGES, 1)
            self._ring(SPACE, ALL)
        return result

    def _drop_places(self, state: State, places: Sequence[Place], dropped: list[int], *, whole: bool) -> int:
        """Drop messages, and count in `dropped` those whose drop is committed; return the number of the others.

        From a ring they are dropped with the commit that follows, if `whole`.
        """
        singly = self.attributes.priorities or self.attributes.leases  # each may move heap entries
        for each in places:
            cells = self._order.remove(state, each)
            if singly:
                self._commit(state, cells)
                dropped[0] += 1
                self._go_on(state)
        pending = 0 if singly else len(places)
        if pending and not whole:
            self._commit(state)
            dropped[0] += pending
            pending = 0
        with suppressed(OSError, MessageQueueError, MemoryError):  # it is only a figure
            (figure,) = DROPPED.unpack(self._read(DROPPED_AT, DROPPED.size))
            self._write(DROPPED_AT, DROPPED.pack(figure + len(places) & _FIGURE_MASK))
        return pending

    def _go_on(self, state: State) -> None:
        """Go on with a step after a commit.

        Raises:
            Overtaken: The step has to begin again.
        """
        if state.redo or self._overtaken:
            raise Overtaken

    def peek(self) -> Received | None:
        return self._surely(self._peek)

    def _peek(self, state: State) -> Received | None:
        received = self._order.look(state) if state.count else None
        if self._overtaken:
            raise Overtaken
        if received is None and state.flags & DOWN:
            raise QueueShutDown
        return received

    def clear(self) -> int:
        dropped = self._surely(self._clear)
        self._ring(SPACE, ALL)
        return dropped

    def _clear(self, state: State) -> int:
        dropped = state.count
        self._order.drop(state)
        self._commit(state)
        return dropped

    def shutdown(self, immediate: bool, /) -> None:
        self._surely(self._shut_down, immediate)
        self._ring(MESSAGES, ALL)
        self._ring(SPACE, ALL)

    def _shut_down(self, state: State, immediate: bool) -> None:
        state.flags |= DOWN
        if immediate:
            self._order.drop(state)
        self._commit(state)

    def count_wait(self, served: bool, /) -> None:
        with self._threads:
            self._waits += 1
            self._timeouts += not served
        if not served:
            self._record_waits()

    def _record_waits(self) -> None:
        # If the lock is held, the next commit records them. If the queue has ended, so have its statistics.
        with suppressed(MessageQueueError):
            self._step(0, self._commit)

    # Reading

    def _look(self) -> State:
        """Read the state without the lock."""
        try:
            if self._length() != self._size or monotonic() >= self._next_look:
                self._check_file()
            for _ in range(3):
                state = self._newest(_file.pread(self._descriptor, STATES_BYTES, STATES_AT))
                if state is not None and self._order.check(state):
                    return state
        except MessageQueueError:
            raise
        except OSError as error:
            raise self._foreign(error) from error
        return self._surely(_unchanged)  # each time two commits overlapped with the read, or it is damaged

    def qsize(self) -> int:
        return self._look().count

    def full(self) -> bool:
        return not self._order.fits(self._look(), 0)

    def stats(self) -> Stats:
        if self._waits:
            self._record_waits()
        return self._figures(self._look())

    def _figures(self, state: State) -> Stats:
        return Stats(
            depth=state.count,
            bytes=state.bytes,
            # With priorities the file has no count of bytes put.
            bytes_put=None if self.attributes.priorities else state.tail - RECORD.size * state.puts,
            puts=state.puts,
            gets=state.gets,
            dropped=DROPPED.unpack(self._read(DROPPED_AT, DROPPED.size))[0],
            high_water_mark=state.high_water_mark,
            waits=state.waits,
            timeouts=state.timeouts,
            recoveries=state.recoveries,
            holder=self.holder(False),
        )

    def wait_readable(self, since: float, until: float, /) -> None:
        self._waited = not self._wait(MESSAGES, since, until, lambda state: state.count > 0 or state.ended)

    def wait_writable(self, size: int, since: float, until: float, /) -> None:
        self._wait(SPACE, since, until, lambda state: state.flags & DOWN or self._order.fits(state, size))

    def _wait(self, bell: int, since: float, until: float, ready: Callable[[State], object]) -> bool:
        """Wait until a try may succeed; return False if `until` came first."""
        while (now := monotonic()) < until:
            spins = now - since < _SPIN_SECONDS
            try:
                if spins or self._bells is None:
                    # The try after each wait also checks whether the queue was unlinked.
                    state = self._newest(_file.pread(self._descriptor, STATES_BYTES, STATES_AT))
                    if state is None or ready(state):
                        return True
                if spins:
                    _yield()
                    continue
                may_sleep = self._begin_sleep(bell, ready)
            except (OSError, MessageQueueError) as error:
                reraise_from_handler(error)
                return True  # the next try raises the error
            if may_sleep is False:
                return True
            if may_sleep is NOT_NOW or self._bells is None:
                sleep(min(max((now - since) * _SHARE, _SHORTEST), until - now))
            elif self._bells.wait(bell, min(max((now - since) * _SHARE_WITH_BELL, _SHORTEST_WITH_BELL), until - now)):
                return True
        return False

    def _begin_sleep(self, bell: int, ready: Callable[[State], object]) -> bool | NotNow:
        """Set a bell; return False if a try may succeed now, and NOT_NOW if there is no bell or the lock is held."""
        if self._bells is not None:
            return self._step(_SHORTEST, self._set_bell, bell, ready)
        if self._waits:
            self._record_waits()
        return NOT_NOW

    def _set_bell(self, state: State, bell: int, ready: Callable[[State], object]) -> bool:
        if ready(state):
            return False
        if not self._is_set(bell):
            self._write(bell_at(bell), SET)
        if self._waits:
            self._commit(state)
        return True

    def _is_set(self, bell: int) -> bool:
        # Python keeps all bytes objects of length 1, so this allocates nothing: a step that is complete must not fail.
        at = bell * BELL.size
        return self._set_bells[at : at + 1] != b"\0"

    def _ring(self, bell: int, count: int) -> None:
        """Wake processes that wait, if the bell was set when the last step began."""
        if self._bells is not None and self._is_set(bell):
            # With a limit in bytes, the space may be too small for the first process, and large enough for another.
            self._bells.ring(bell, ALL if bell == SPACE and self.attributes.buffer_size else count)

    def linked(self) -> bool:
        return os.fstat(self._descriptor).st_nlink > 0

    # Ends

    def close(self) -> None:
        try:
            if self._waits:
                self._record_waits()
            _lock.clear_away(self._header, self._descriptor)
            if self.attributes.lifetime == "last-close":
                _segment.let_go(self._descriptor, self._path)
        finally:
            self._drop()

    def _drop(self) -> None:
        with no_fork:
            self._is_open = False
            os.close(self._descriptor)
            if self._bells is not None:
                self._bells.close()

    def abandon(self) -> None:
        if self._is_open:
            self._lock.forget()
            self._drop()

    def after_fork(self) -> bool:
        if sys.platform == "win32":
            return False
        # If a signal handler forked during a step of this thread, the step continues in the child, which does not hold
        # the lock. A read-only descriptor makes it fail.
        interrupted = self._inside == threading.get_ident()
        try:
            descriptor = os.open(
                f"/proc/self/fd/{self._descriptor}" if sys.platform == "linux" else self._path,
                (os.O_RDONLY if interrupted else os.O_RDWR) | os.O_CLOEXEC,
            )
        except OSError:
            self._drop()
            return False
        whole = os.path.samestat(os.fstat(descriptor), os.fstat(self._descriptor)) and not interrupted
        if whole and self.attributes.lifetime == "last-close":
            whole = _file.hold(descriptor)  # before the copy is closed, so that the file always has a holder
        os.dup2(descriptor, self._descriptor, inheritable=False)
        os.close(descriptor)
        self._lock.forget()
        self._begin()
        return whole
