"""Users other than root, for tests that root runs.

Only root may be able to read the interpreter and the checkout. So a program changes its user in a forked child, after
everything that it needs has been imported.
"""

import codecs
import importlib
import os
import pkgutil
import random
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import ipcq
import ipcq.serializers
from ipcq.testing.processes import fresh_name

NOBODY = 65534


def become(uid: int) -> None:
    """Give up root permanently."""
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    sys.meta_path.append(_Unreadable())


class _Unreadable:
    """A finder that explains why a module is missing: Python reports an unreadable module as not found."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        for place in (os.path.dirname(ipcq.__file__), os.path.dirname(os.__file__)):
            if not os.access(place, os.R_OK):
                self.refuse(name, place)

    def refuse(self, name: str, place: str) -> NoReturn:
        raise ModuleNotFoundError(
            f"user {os.getuid()} cannot read {place}: import {name} before root is given up, or run the tests where "
            "everybody can read",
            name=name,
        )


def warm_up(backend: str) -> None:
    """Use a queue, with its errors, to import everything that it needs."""
    for module in pkgutil.iter_modules(ipcq.serializers.__path__, "ipcq.serializers."):
        with suppress(ImportError, ipcq.Unsupported):  # its extra is not installed
            importlib.import_module(module.name)
    name = fresh_name("/ipcq-warm")
    with ipcq.open(name, backend, max_messages=2, max_message_size=64) as queue:
        queue.put("item")
        queue.get()
        for wrong in (lambda: queue.get(timeout=0.001), lambda: ipcq.open(name, backend, exclusive=True)):
            try:
                wrong()
            except ipcq.MessageQueueError:
                pass
        ipcq.exists(name, backend)
        ipcq.unlink(name, backend)
    codecs.lookup("ascii")


@contextmanager
def free_user() -> Iterator[int]:
    """Yield the id of a user without queues, and remove its lock directories afterwards."""
    while True:
        uid = random.SystemRandom().randrange(100_000, 2_000_000)
        if not any(map(os.path.lexists, places(uid))):
            break
    try:
        yield uid
    finally:
        for place in places(uid):
            if os.path.isdir(place) and not os.path.islink(place):
                shutil.rmtree(place)
            elif os.path.lexists(place):
                os.unlink(place)


def places(uid: int) -> tuple[str, str]:
    """Return the paths of a user's lock directories, unless it has one in /run/user."""
    return f"/tmp/ipcq-{uid}", f"/dev/shm/ipcq-{uid}"
