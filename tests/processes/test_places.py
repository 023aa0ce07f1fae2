"""C31: processes that can write to different directories, as in hardened containers, still meet on one queue.

Each process has its own mount namespace, in which some of the directories for name locks are read-only.
"""

import ctypes
import os
import sys
from time import monotonic
from typing import Any

import pytest

import ipcq
from ipcq.testing.processes import Peer, Peers, fresh_name, hear, say
from processes.needs import usable
from processes.sizes import size
from processes.users import warm_up

pytestmark = pytest.mark.usefixtures("as_root")

if sys.platform != "linux":
    pytest.skip(f"Windows has no mount namespaces, nor has {sys.platform}", allow_module_level=True)

CLONE_NEWNS = 0x00020000
MS_REC_PRIVATE = 16384 | 1 << 18
MS_BIND = 4096
MS_READ_ONLY = 1 | 32 | MS_BIND  # MS_RDONLY, MS_REMOUNT

#: Seconds from announcing the start to the start: enough for the message to arrive.
LEAD_SECONDS = 0.0005


def make_read_only(*places: str) -> None:
    """Make file systems read-only for this process alone."""
    library = ctypes.CDLL(None, use_errno=True)
    outcomes = [library.unshare(CLONE_NEWNS), library.mount(b"none", b"/", None, MS_REC_PRIVATE, None)]
    for place in map(os.fsencode, places):
        outcomes.append(library.mount(place, place, None, MS_BIND, None))
        outcomes.append(library.mount(b"none", place, None, MS_READ_ONLY, None))
    if any(outcomes):
        raise OSError(ctypes.get_errno(), "a mount namespace is needed, and refused here")


def open_many(backend: str, *read_only: str) -> None:
    """Open each name at the instant that the test gives; report the backend; put, and get what others put."""
    warm_up("shm")
    make_read_only(*read_only)
    say("ready")
    while order := hear():
        name, instant = order
        while monotonic() < instant:
            pass
        try:
            with ipcq.open(name, backend, max_messages=8, max_message_size=64) as queue:
                say(queue.backend)
                while (verb := hear()) != "close":
                    say(queue.put(verb, timeout=1) if verb != "get" else queue.get(timeout=1))
        except ipcq.MessageQueueError as error:
            say([type(error).__name__, str(error)])


def ask(peer: Peer, what: object) -> Any:
    peer.say(what)
    return peer.hear()


def race(openers: list[Peer], name: str) -> list[Any]:
    """Let all open one name, check that a message of each reaches the next one, and return their reports."""
    instant = monotonic() + LEAD_SECONDS
    for opener in openers:
        opener.say([name, instant])
    said = [opener.hear() for opener in openers]
    met = [opener for opener, word in zip(openers, said, strict=True) if isinstance(word, str)]
    for number, (opener, following) in enumerate(zip(met, met[1:] + met[:1], strict=True)):
        ask(opener, number)
        said.append(ask(following, "get") == number)
    ipcq.unlink(name)  # raises if the name is on two backends
    for opener in met:
        opener.say("close")
    return said


@pytest.mark.storm
@pytest.mark.parametrize(("where", "rounds"), [("auto", size(500, 5000)), ("socketpair", size(40, 1000))])
def test_processes_with_different_directories_never_split_a_name(where: str, rounds: int, peers: Peers) -> None:
    """C31: processes that meet are on one queue; a process that cannot use the others' queue gets an error."""
    usable("shm")
    openers = [peers.fork(open_many, where, *read_only) for read_only in (["/tmp"], ["/dev/shm"], [])]
    assert {opener.hear() for opener in openers} == {"ready"}
    wrong = []
    for number in range(rounds):
        said = race(openers, fresh_name())
        strange = [word for word in said if not isinstance(word, str) and word is not True]
        refused = [word for word in strange if word and word[0] == "BackendUnavailable" and where == "auto"]
        if strange != refused or len({word for word in said if isinstance(word, str)}) != 1:
            wrong.append((number, said))
    for opener in openers:
        opener.say("")
        opener.done()
    assert not wrong
