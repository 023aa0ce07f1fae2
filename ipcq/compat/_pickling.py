"""Pickles equal to those of `multiprocessing`, made several times faster.

`ForkingPickler.dumps` creates a pickler and copies a table of reducers for each object, which takes longer than
pickling most objects. This module reuses picklers, which look reducers up where they are registered. The output is the
same: the default protocol, with the reducers of `ForkingPickler.register`, then those of `copyreg`. The standard
library registers reducers for connections, sockets and locks.
"""

import copyreg
import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any, Final, TypeAlias, TypeVar, overload

__all__ = ("PICKLE", "Parts", "Pickle", "dumps", "loads", "parts_of")

J = TypeVar("J")

#: The first byte of every pickle since protocol 2.
PICKLE: Final = 0x80

#: A pickler that wrote more than this is dropped: its memo table stays large, and clearing it would slow every call.
_MAX_REUSE_BYTES: Final = 1 << 16

loads: Final = pickle.loads


class _Reducers:
    """The reducers that `ForkingPickler` copies into a table for each object, looked up where they are registered."""

    def __init__(self) -> None:
        # `ForkingPickler.register` stores them here; typeshed omits it, because the name is private.
        self._first: dict[type, Callable[[Any], Any]] = ForkingPickler._extra_reducers  # type: ignore[attr-defined]

    def __getitem__(self, kind: type) -> Any:
        reducer = self._first.get(kind)
        return copyreg.dispatch_table[kind] if reducer is None else reducer


class Parts:
    """A pickle as the list of parts that the pickler wrote. Large bytes are separate parts, which are not copied."""

    __slots__ = ("parts", "size")

    def __init__(self, parts: list[bytes]) -> None:
        # With protocol 5, the pickler also writes other objects with a buffer, such as a bytearray.
        self.parts = [part if part.__class__ is bytes else b"".join((part,)) for part in parts]
        self.size = sum(map(len, self.parts))

    def __len__(self) -> int:
        return self.size

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)


Pickle: TypeAlias = bytes | Parts


def parts_of(data: Pickle) -> list[bytes]:
    """Return the parts of a pickle."""
    return data.parts if isinstance(data, Parts) else [data]


class _File:
    """A file that keeps the parts that are written to it."""

    __slots__ = ("parts", "write")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.write = self.parts.append


_REDUCERS: Final = _Reducers()

# The pickle of short bytes is a head that depends on the length, the bytes, and a tail.
_SHORT: Final = 256
_TAIL: Final = pickle.dumps(b"")[-2:]
_HEADS: Final = tuple(pickle.dumps(bytes(length))[: -length - len(_TAIL)] for length in range(_SHORT))
# The pickle of long bytes has no frame, and a length of 4 bytes.
_LONG: Final = 1 << 16
_LONGEST: Final = (1 << 32) - 1
_LONG_HEAD: Final = pickle.dumps(bytes(_LONG))[: -4 - _LONG - len(_TAIL)]

# A pickler in use is not in the pool, because it must not be entered twice: by two threads, or by an object that puts
# another one while it is pickled. list.pop and append are atomic.
_idle: list[tuple[pickle.Pickler, list[bytes]]] = []


def _new() -> tuple[pickle.Pickler, list[bytes]]:
    file = _File()
    pickler = pickle.Pickler(file)
    pickler.dispatch_table = _REDUCERS  # type: ignore[assignment]  # the C code calls only __getitem__
    return pickler, file.parts


@overload
def dumps(item: object) -> bytes: ...
@overload
def dumps(item: object, join: Callable[[list[bytes]], J]) -> bytes | J: ...
def dumps(item: object, join: Callable[[list[bytes]], Any] = b"".join) -> Any:
    """Pickle an object; exceptions of its reducers pass through.

    Args:
        item: The object.
        join: Called with the parts of the pickle if it has several; its result is returned.
    """
    if item.__class__ is bytes:
        size = len(item)
        if size < _SHORT:
            return _HEADS[size] + item + _TAIL
        if _LONG <= size <= _LONGEST:
            return join([_LONG_HEAD + size.to_bytes(4, "little"), item, _TAIL])
    try:
        entry = _idle.pop()
    except IndexError:
        entry = _new()
    pickler, parts = entry
    pickler.dump(item)  # if it fails, the pickler is dropped, because it still refers to parts of the object
    data = parts[0] if len(parts) == 1 else join(parts)
    if len(data) < _MAX_REUSE_BYTES:
        pickler.clear_memo()
        parts.clear()
        _idle.append(entry)
    return data
