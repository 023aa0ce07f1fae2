"""Finalisers of objects that outlive the modules at the end of the interpreter."""

import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def quiet_at_exit(finalise: Callable[[T], None]) -> Callable[[T], None]:
    """Make a `__del__` that is silent if the interpreter has already emptied the modules that it needs.

    An object that is referenced from outside its program is collected after the modules were emptied. By then the
    names in any module that `finalise` uses may be None. The system takes back everything that the object held.
    """
    is_finalizing = sys.is_finalizing  # a local name, which outlives those of the module

    def quietly(garbage: T) -> None:
        try:
            finalise(garbage)
        except (AttributeError, TypeError):
            if not is_finalizing():
                raise

    return quietly
