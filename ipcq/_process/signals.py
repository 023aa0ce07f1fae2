"""Exceptions that come up while somebody else's code runs, and are not that code's own.

A signal handler may raise between any two steps of this thread, so also inside a ``try`` that turns whatever a
serializer, a plugin or the system raises into one of our errors. What a handler raises has to go through unchanged.
"""

# The module beneath `signal`, which makes an enum of each number and each handler: a hundred times of what it takes to
# ask.
import _signal
from types import CodeType
from typing import Final

_NUMBERS: Final = tuple(_signal.valid_signals())


def reraise_from_handler(error: BaseException) -> None:
    """Raise `error` again if it came out of a Python function that is a signal handler now."""
    # The first frame is the one that caught it. Where it is the only one, a call in C raised, and nobody is asked.
    trace = error.__traceback__ and error.__traceback__.tb_next
    handlers = _handlers() if trace is not None else ()
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            raise error
        trace = trace.tb_next


def _handlers() -> set[CodeType]:
    handlers = set()
    for number in _NUMBERS:
        handler = _signal.getsignal(number)
        if callable(handler):
            # A plain function, a method, a functools.partial, or an object with __call__.
            function = getattr(handler, "func", handler)
            function = getattr(function, "__func__", function)
            code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
            if code is not None:
                handlers.add(code)
    return handlers
