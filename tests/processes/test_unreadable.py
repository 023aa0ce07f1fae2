"""Programs that give up root still work if only root can read the installed files, or the error explains why not."""

import ctypes
import importlib
import os
import sys
import tempfile
from contextlib import suppress

import pytest

import ipcq
from ipcq.testing.processes import Peers, fresh_name, say
from processes.users import NOBODY, become, warm_up

pytestmark = pytest.mark.usefixtures("as_root")

if sys.platform != "linux":
    pytest.skip(f"Windows has no mount namespaces, nor has {sys.platform}", allow_module_level=True)

CLONE_NEWNS = 0x00020000
MS_REC_PRIVATE = 16384 | 1 << 18


def hide(place: str) -> None:
    """Mount an empty directory that only root may read, for this process only."""
    library = ctypes.CDLL(None, use_errno=True)
    assert library.unshare(CLONE_NEWNS) == 0
    assert library.mount(b"none", b"/", None, MS_REC_PRIVATE, None) == 0
    assert library.mount(b"none", place.encode(), b"tmpfs", 0, b"mode=700") == 0


def use(backend: str, place: str) -> None:
    """As a user who cannot read ipcq's files, use a queue with each serializer, and report the items."""
    warm_up(backend)
    hide(os.path.dirname(ipcq.__file__))
    become(NOBODY)
    said = []
    for serializer in ("msgpack", "raw"):
        name = fresh_name()
        with ipcq.open(name, place, exclusive=True, serializer=serializer, max_messages=4) as queue:
            queue.put(b"item")
            said.append(queue.get().decode())
            with suppress(ipcq.MessageQueueError):
                queue.fileno()
            queue.unlink()
    say(said)


def test_modules_that_were_imported_before_are_used(backend: str, peers: Peers) -> None:
    """warm_up imports everything, so no test has to."""
    with tempfile.TemporaryDirectory() as directory:
        os.chown(directory, NOBODY, NOBODY)
        # This user has no home, and so no default place.
        place = f"sqlite://{directory}/" if backend == "sqlite" else backend
        assert peers.fork(use, backend, place).hear() == ["item", "item"]


def import_late() -> None:
    """As a user who cannot read ipcq's files, import a module of it, and report the error."""
    hide(os.path.dirname(ipcq.__file__))
    become(NOBODY)
    try:
        importlib.import_module("ipcq._missed")
    except ImportError as error:
        say(str(error))


def test_an_import_that_comes_too_late_explains_the_error(peers: Peers) -> None:
    """Python itself reports an unreadable module as missing."""
    assert f"user {NOBODY} cannot read {os.path.dirname(ipcq.__file__)}" in peers.fork(import_late).hear()
