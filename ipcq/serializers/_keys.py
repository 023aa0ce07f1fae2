"""Maps whose keys are arrays or maps, which MessagePack has and a dict has not: they come back as tuples.

So what a writer could put, a dict keyed by tuples, a reader gets. It calls a function for each map, and is for messages
that the quick way refused.
"""

from collections import Counter
from functools import partial
from typing import Any, Final

import msgpack

#: Pairs of keys with one hash in a map. A writer can choose such tuples, and building the dict takes time quadratic in
#: their number; some thousands of pairs are chance, as hash(-1) is hash(-2).
_ALIKE: Final = 1 << 20


def _mapped(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    if not any(isinstance(key, list | dict) for key, _ in pairs):
        return dict(pairs)
    keyed = [(_hashable(key), value) for key, value in pairs]
    counts = Counter(hash(key) for key, _ in keyed).values()
    if sum(count * (count - 1) for count in counts) > _ALIKE:
        raise ValueError("too many keys of a map have one hash")
    return dict(keyed)


def _hashable(key: Any) -> Any:
    if isinstance(key, list):
        return tuple(map(_hashable, key))
    return tuple((_hashable(part), _hashable(value)) for part, value in key.items()) if isinstance(key, dict) else key


decode: Final = partial(msgpack.unpackb, strict_map_key=False, timestamp=3, object_pairs_hook=_mapped)
