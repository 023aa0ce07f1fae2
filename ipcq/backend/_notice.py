"""What tells that a message arrived in an empty queue."""

from collections.abc import Callable
from typing import TypeAlias

#: How `Channel.notify` tells: a function called in a thread of its own, or the number of a signal to this process.
Notice: TypeAlias = Callable[[], object] | int
