"""Processes that are stopped or starved inside a queue, for `ipcq doctor`; read from the file, without attaching."""

import os
import struct
import time
from collections.abc import Iterator
from typing import Final

from ipcq.backend import Finding, Holder, closed, holder_of_byte, holder_of_thread
from ipcq_shm import _segment

# The layout of csrc/layout.h, which asserts these figures.
_SIDES: Final = (384, 640)
_LOCK: Final = struct.Struct("=I28xI4xqQ")  # owner; holder, holder_since, holder_position: written by waiters
_POSITION_AT: Final = 128
_POSITION: Final = struct.Struct("=Q")
_THREAD: Final = 0x3FFFFFFF  # bits of the lock's word (FUTEX_TID_MASK)
_RECORD: Final = struct.Struct("=Q")
_RESERVED: Final = 2  # the state of a record that its producer has not finished

#: A running process that holds a lock for so long is reported; normally it releases the lock within microseconds.
_STARVED_SECONDS: Final = 1.0


def findings(name: str) -> Iterator[Finding]:
    """Report the processes that block others in a queue."""
    descriptor = _segment.open_file(name, os.O_RDONLY)
    try:
        header = _segment.read_header(descriptor)
        here = os.stat("/proc/self/ns/pid").st_ino
        # Thread ids of another PID namespace are meaningless here.
        holders = list(_holders(descriptor, header)) if header.pid_namespace == here else []
    finally:
        closed(descriptor)
    for holder in holders:
        if holder.stopped or holder.seconds >= _STARVED_SECONDS:
            yield Finding.stuck(name, holder)


def _holders(descriptor: int, header: _segment.Header) -> Iterator[Holder]:
    positions = []
    for side in _SIDES:
        word, noted, since, at = _LOCK.unpack(os.pread(descriptor, _LOCK.size, side))
        (position,) = _POSITION.unpack(os.pread(descriptor, _POSITION.size, side + _POSITION_AT))
        positions.append(position)
        thread = word & _THREAD
        seen = noted == thread and at == position and since
        holder = holder_of_thread(thread, (time.monotonic_ns() - since) / 1e9 if seen else 0.0) if thread else None
        if holder is not None:
            yield holder
    put, get = positions
    if put != get and not header.flags & (_segment.ORDERED | _segment.LEASES):
        record = os.pread(descriptor, _RECORD.size, header.data_offset + get % header.capacity)
        (word,) = _RECORD.unpack(record)
        if word & 0xFF == _RESERVED:
            slot = _segment.LOCKS_AT + (word >> 8 & 0xFFFFFF)
            writer = holder_of_byte(descriptor, slot, 0.0, "has not finished the next message")
            if writer is not None:
                yield writer
