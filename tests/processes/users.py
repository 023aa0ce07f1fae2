"""Other users than root, for tests that root runs.

The interpreter may lie where only root can read, so a program becomes somebody else in a forked child, after everything
that it needs has been imported.
"""

import codecs
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import ipcq
from ipcq.testing.processes import fresh_name

NOBODY = 65534


def become(uid: int) -> None:
    """Give up root for good."""
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def warm_up(backend: str) -> None:
    """Import what a queue needs on its way and on its wrong ways, by using one."""
    name = fresh_name("/ipcq-warm")
    with ipcq.open(name, backend, max_messages=2, max_message_size=64) as queue:
        queue.put("item")
        queue.get()
        for wrong in (lambda: queue.get(timeout=0.001), lambda: ipcq.open(name, backend, exclusive=True)):
            try:
                wrong()
            except ipcq.MessageQueueError:
                pass
        ipcq.exists(name)
        ipcq.unlink(name)
    codecs.lookup("ascii")


@contextmanager
def free_user() -> Iterator[int]:
    """Lend the number of a user who has nothing, and remove its lock directory afterwards."""
    while True:
        uid = random.SystemRandom().randrange(100_000, 2_000_000)
        if not os.path.lexists(place(uid)):
            break
    try:
        yield uid
    finally:
        if os.path.isdir(place(uid)) and not os.path.islink(place(uid)):
            shutil.rmtree(place(uid))
        elif os.path.lexists(place(uid)):
            os.unlink(place(uid))


def place(uid: int) -> str:
    """Return where a user's lock directory is."""
    return f"/tmp/ipcq-{uid}"  # where ipcq has it
