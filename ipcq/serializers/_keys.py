"""A slower decoder for maps whose keys are arrays or maps, which a dict cannot have: such keys become tuples.

So a dict with tuples as keys can be put and got. This decoder calls a function for every map, so it is used only for
messages that the fast decoder refused.
"""

from collections import Counter
from functools import partial
from typing import Any, Final

import msgpack

#: The largest number of pairs of keys in a map with the same hash. A producer can choose such keys, and then building
#: the dict takes quadratic time. A few thousand pairs can be chance, because hash(-1) equals hash(-2).
MAX_COLLISIONS: Final = 1 << 20


def _mapped(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    if not any(isinstance(key, list | dict) for key, _ in pairs):
        return dict(pairs)
    keyed = [(_hashable(key), value) for key, value in pairs]
    counts = Counter(hash(key) for key, _ in keyed).values()
    if sum(count * (count - 1) for count in counts) > MAX_COLLISIONS:
        raise ValueError("too many keys of a map have the same hash")
    return dict(keyed)


def _hashable(key: Any) -> Any:
    if isinstance(key, list):
        return tuple(map(_hashable, key))
    return tuple((_hashable(part), _hashable(value)) for part, value in key.items()) if isinstance(key, dict) else key


decode: Final = partial(msgpack.unpackb, strict_map_key=False, timestamp=3, object_pairs_hook=_mapped)
