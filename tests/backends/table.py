"""A table of functions (ipcq/channel.h) that call a channel in Python, for tests.

They run Python code, which the header forbids; ctypes takes the GIL for it.
"""

import ctypes
from typing import Any

from ipcq.backend import Channel, Received
from ipcq.errors import MessageQueueError

OK, FULL, EMPTY, CROWDED, LARGER, OTHER = range(6)
HEAD_BYTES = 8
Head = ctypes.c_ubyte * HEAD_BYTES


class Piece(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("priority", ctypes.c_uint),
        ("head_size", ctypes.c_uint),
        ("head", Head),
    )


class Space(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("head_size", ctypes.c_uint),
        ("head", Head),
        ("message_size", ctypes.c_size_t),
        ("heads_present", ctypes.c_uint),
        ("priority", ctypes.c_uint),
    )


Put = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Piece), ctypes.c_int)
Get = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Space), ctypes.c_int)


class Functions(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("max_message_size", ctypes.c_uint64),
        ("has_priorities", ctypes.c_uint32),
        ("put", Put),
        ("put_many", ctypes.c_void_p),
        ("get", Get),
        *((name, ctypes.c_void_p) for name in ("count", "get_many", "wait_readable", "wait_writable", "count_wait")),
        *((name, ctypes.c_void_p) for name in ("rouse", "give_way")),
    )


capsule_of = ctypes.pythonapi.PyCapsule_New
capsule_of.restype = ctypes.py_object
capsule_of.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Table:
    """A table for a channel. Subclasses replace a step."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.kept: list[Received] = []  # a message that was taken but did not fit
        self.functions = Functions(
            version=1,
            length=ctypes.sizeof(Functions),
            max_message_size=self.limit(),
            has_priorities=channel.capabilities.priorities,
            put=Put(self.put),
            get=Get(self.get),
        )

    def capsule(self) -> object:
        """Return the capsule, which does not keep this object alive."""
        return capsule_of(ctypes.addressof(self.functions), b"ipcq.channel", None)

    def limit(self) -> int:
        return self.channel.attributes.max_message_size

    def put(self, _: Any, piece: Any, polite: int) -> int:
        asked = piece.contents
        data = bytes(asked.head[: asked.head_size]) + ctypes.string_at(asked.data, asked.size)
        try:
            return OK if self.channel.try_put(data, asked.priority) else FULL
        except MessageQueueError:
            return OTHER  # the method raises it again

    def get(self, _: Any, space: Any, polite: int) -> int:
        try:
            received = self.kept.pop() if self.kept else self.channel.try_get()
        except MessageQueueError:
            return OTHER
        return EMPTY if received is None else self.placed(space.contents, received)

    def placed(self, space: Any, received: Received) -> int:
        data, space.priority = received
        space.message_size = len(data)
        head = bytes(space.head[: space.head_size])
        room = len(head) + space.size
        if len(data) > room or (head and (len(data) < room or not data.startswith(head))):
            self.kept.append(received)
            space.heads_present = min(len(data), HEAD_BYTES)
            space.head[: space.heads_present] = list(data[:HEAD_BYTES])
            return LARGER
        ctypes.memmove(space.data, self.body(data)[len(head) :], len(data) - len(head))
        return OK

    def body(self, data: bytes) -> bytes:
        """Return the message that is copied to the caller."""
        return data
