"""What gevent has done to this process, if it is there at all: nothing here imports it."""

import sys
from importlib import import_module
from typing import Any


def has_patched(module: str) -> bool:
    """Tell whether gevent has made a module of the standard library cooperative."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched(module))


def original(module: str, attribute: str) -> Any:
    """Return what the standard library has under that name, also where gevent put something else there, or nothing."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return getattr(import_module(module), attribute)
    return monkey.get_original(module, attribute)


def is_in_hub() -> bool:
    """Tell whether this is gevent's hub, where nothing may wait: a signal handler or a finaliser may run there."""
    if not has_patched("time"):
        return False
    gevent: Any = sys.modules["gevent"]
    return gevent.getcurrent() is gevent.get_hub()
