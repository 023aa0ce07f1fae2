"""Objects to bytes as `multiprocessing` does it, several times faster.

`ForkingPickler.dumps` makes a pickler and a table of reducers for each object, which takes longer than most objects do.
Here a pickler is used again, and looks its reducers up where they are registered. What it writes is the same: the
default protocol, with `copyreg`'s reducers and, before them, those of `ForkingPickler.register`, the standard library's
for connections, sockets and locks among them.
"""

import copyreg
import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any, Final

__all__ = ("PICKLE", "dumps", "loads")

#: The first byte of every pickle since protocol 2.
PICKLE: Final = 0x80

#: A pickler that wrote more remembers where it put each object, and would clear that away after every small one.
_LARGE: Final = 1 << 16

loads: Final = pickle.loads


class _Reducers:
    """What `ForkingPickler` copies into a table for each object, looked up where it is registered."""

    def __init__(self) -> None:
        # Where `ForkingPickler.register` notes them; typeshed leaves it out, as it has no public name.
        self._first: dict[type, Callable[[Any], Any]] = ForkingPickler._extra_reducers  # type: ignore[attr-defined]

    def __getitem__(self, kind: type) -> Any:
        reducer = self._first.get(kind)
        return copyreg.dispatch_table[kind] if reducer is None else reducer


class _Parts:
    """A file that keeps what is written to it."""

    __slots__ = ("parts", "write")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.write = self.parts.append


_REDUCERS: Final = _Reducers()

# What stands before and behind short bytes in their pickle, which is all that there is to it.
_SHORT: Final = 256
_TAIL: Final = pickle.dumps(b"")[-2:]
_HEADS: Final = tuple(pickle.dumps(bytes(length))[: -length - len(_TAIL)] for length in range(_SHORT))

# A pickler must not be entered twice, neither by two threads nor by an object that puts another while it is pickled, so
# it is taken out of the pool meanwhile; list.pop and append are atomic.
_idle: list[tuple[pickle.Pickler, list[bytes]]] = []


def _new() -> tuple[pickle.Pickler, list[bytes]]:
    file = _Parts()
    pickler = pickle.Pickler(file)
    pickler.dispatch_table = _REDUCERS  # type: ignore[assignment]  # the C code asks for __getitem__ alone
    return pickler, file.parts


def dumps(item: object) -> bytes:
    """Pickle an object; whatever that raises, it raises."""
    if item.__class__ is bytes and len(item) < _SHORT:
        return _HEADS[len(item)] + item + _TAIL
    try:
        entry = _idle.pop()
    except IndexError:
        entry = _new()
    pickler, parts = entry
    pickler.dump(item)  # if it fails, the pickler goes: what it holds of the object is nobody's business
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    if len(data) < _LARGE:
        pickler.clear_memo()
        parts.clear()
        _idle.append(entry)
    return data
