"""What is garbage at the very end of the interpreter."""

import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def quiet_at_exit(finalise: Callable[[T], None]) -> Callable[[T], None]:
    """Make a `__del__` that says nothing where the interpreter has taken away what it needs.

    An object that something outside of its program holds goes after the modules have been emptied: their names are
    None then, and so may those be of any module that `finalise` calls. The system takes back all that it held.
    """
    is_finalizing = sys.is_finalizing  # a name of this function outlives those of the module

    def quietly(garbage: T) -> None:
        try:
            finalise(garbage)
        except (AttributeError, TypeError):
            if not is_finalizing():
                raise

    return quietly
