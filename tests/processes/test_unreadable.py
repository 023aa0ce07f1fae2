"""Programs that give up root work although only root can read what is installed, or say why they do not."""

import ctypes
import importlib
import os
import sys
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
    """Mount an empty directory there, for this process only, which only root may read."""
    library = ctypes.CDLL(None, use_errno=True)
    assert library.unshare(CLONE_NEWNS) == 0
    assert library.mount(b"none", b"/", None, MS_REC_PRIVATE, None) == 0
    assert library.mount(b"none", place.encode(), b"tmpfs", 0, b"mode=700") == 0


def use(backend: str) -> None:
    """As a user who cannot read ipcq's files, use a queue with each serializer, and report the items."""
    warm_up(backend)
    hide(os.path.dirname(ipcq.__file__))
    become(NOBODY)
    said = []
    for serializer in ("msgpack", "raw"):
        name = fresh_name()
        with ipcq.open(name, backend, exclusive=True, serializer=serializer, max_messages=4) as queue:
            queue.put(b"item")
            said.append(queue.get().decode())
            with suppress(ipcq.MessageQueueError):
                queue.fileno()
            queue.unlink()
    say(said)


def test_what_was_imported_before_is_used(backend: str, peers: Peers) -> None:
    """No test has to import it by itself."""
    assert peers.fork(use, backend).hear() == ["item", "item"]


def import_late() -> None:
    """As a user who cannot read ipcq's files, import a part of it, and report the error."""
    hide(os.path.dirname(ipcq.__file__))
    become(NOBODY)
    try:
        importlib.import_module("ipcq._missed")
    except ImportError as error:
        say(str(error))


def test_what_was_not_says_so(peers: Peers) -> None:
    """The interpreter itself reports an unreadable module as missing."""
    assert f"user {NOBODY} cannot read {os.path.dirname(ipcq.__file__)}" in peers.fork(import_late).hear()
