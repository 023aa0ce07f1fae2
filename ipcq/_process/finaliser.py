"""Finalisers that may run after the interpreter has emptied the modules at exit."""

import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def quiet_at_exit(finalise: Callable[[T], None]) -> Callable[[T], None]:
    """Make a `__del__` that is silent if the interpreter has already emptied the modules that it needs.

    An object that is referenced from outside its program, such as from C, is collected after the modules are emptied.
    By then any global name that `finalise` uses may be None. The operating system releases the object's resources.
    """
    is_finalizing = sys.is_finalizing  # a local name, which outlives the names of the module

    def quietly(garbage: T) -> None:
        try:
            finalise(garbage)
        except (AttributeError, TypeError):
            if not is_finalizing():
                raise

    return quietly
