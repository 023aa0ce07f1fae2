"""C31: whatever the machine lacks, a queue keeps what was put, or its creation raises or warns, with the way out.

Each test runs in a mount namespace of its own. The queues are used by programs of their own, one after the other.
"""

import subprocess
import sys
from collections.abc import Callable

import pytest

from ipcq.testing.processes import Peers, fresh_name, say
from processes.mounts import MS_RDONLY, leave, mount, mount_a_small_one
from processes.needs import usable
from processes.users import warm_up

resource = pytest.importorskip("resource", reason="could not import 'resource', which only POSIX has")

pytestmark = [
    pytest.mark.usefixtures("as_root"),
    *map(pytest.mark.needs, ("shm", "mqueue", "pyshm", "socketpair", "memory")),
]

if sys.platform != "linux":
    pytest.skip(f"Windows has no /dev/shm, nor has {sys.platform}", allow_module_level=True)

#: A frame for which a queue takes 2 MB, so that 5 MiB have room for two.
LARGE = 500_000

#: Puts an item into a queue, says where it is, and ends; options follow the name.
PUT = f"""
import logging, sys
import ipcq
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
try:
    queue = ipcq.open(sys.argv[1], **eval(sys.argv[2]))
except (ipcq.MessageQueueError, UserWarning) as error:
    sys.exit(f"{{type(error).__name__}}: {{error}}")
queue.put(bytes({LARGE} - 99 if "max_message_size" in sys.argv[2] else 9))
print(queue.backend)
queue.close()
"""

#: Says whether a queue is there and has an item, and removes it.
GET = """
import sys
import ipcq
try:
    queue = ipcq.open(sys.argv[1], create=False)
except ipcq.QueueNotFound:
    print("no queue")
else:
    print("lost" if queue.empty() else "got")
    queue.unlink()
    queue.close()
"""


def run(code: str, *arguments: str, strict: bool = False) -> tuple[str, str]:
    """Run a program, and return what it said on stdout, in one word, and on stderr."""
    options = ["-W", "error::UserWarning"] if strict else []
    done = subprocess.run(
        [sys.executable, *options, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.strip() or done.stderr.partition(":")[0], done.stderr


def small() -> None:
    """Have 5 MiB of /dev/shm."""
    mount_a_small_one(5 << 20)


def no_shared_memory() -> None:
    """Have no /dev/shm that can be written to."""
    leave()
    mount(b"/dev/shm", MS_RDONLY, "size=4k")


def no_message_queues() -> None:
    """Have no /dev/shm, and no allowance of the kernel's queues."""
    no_shared_memory()
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, resource.getrlimit(resource.RLIMIT_MSGQUEUE)[1]))


def nothing_that_keeps() -> None:
    """Have neither /dev/shm nor queues of the kernel."""
    no_shared_memory()
    mount(b"/proc/sys/fs", 0, "size=4k")


def put_and_get(lack: Callable[[], None], options: str, count: int, strict: bool) -> None:
    """Where something is lacking, put into queues and then get from them; say how each went and what was said."""
    warm_up("memory")
    lack()
    names = [fresh_name() for _ in range(count)]
    puts = [run(PUT, name, options, strict=strict) for name in names]
    gets = [run(GET, name)[0] for name in names]
    say([[f"{put} {got}" for (put, _), got in zip(puts, gets, strict=True)], puts[-1][1].replace(names[-1], "NAME")])


def outcome(
    peers: Peers, lack: Callable[[], None], options: str = "{}", count: int = 1, *, strict: bool = False
) -> tuple[list[str], str]:
    """Return for each queue where it was or what was raised, and what was got of it; and what was said of the last."""
    peer = peers.fork(put_and_get, lack, options, count, strict)
    answers, said = peer.hear()
    peer.done()
    return answers, said


def test_queues_that_find_no_room_are_refused_and_the_others_keep_what_was_put(peers: Peers) -> None:
    """C31: the third frame is not lost on a backend that forgets."""
    usable("shm")
    answers, _ = outcome(peers, small, f"{{'max_message_size': {LARGE}}}", 3)
    assert answers == ["shm got", "shm got", "NoSpace no queue"]


def test_no_room_is_told_with_what_is_there_and_the_way_out(peers: Peers) -> None:
    """C31: free some, ask for less, make it larger, or name another backend."""
    usable("shm")
    _, said = outcome(peers, small, "{'buffer_size': 9_000_000}")
    assert all(words in said for words in ("/dev/shm has", "ask for less", "mount -o remount", "or try backend="))


def test_without_shared_memory_the_kernel_keeps_queues(peers: Peers, mqueue: str) -> None:
    """C31: what is not permitted here is no choice."""
    answers, said = outcome(peers, no_shared_memory)
    assert (answers, said) == ([f"{mqueue} got"], "")


def test_an_allowance_that_is_used_up_is_an_error(peers: Peers, mqueue: str) -> None:
    """C31: it says how much more it takes, and how to say that the queue may go."""
    answers, said = outcome(peers, no_message_queues)
    assert answers == ["LimitExceeded no queue"]
    assert "RLIMIT_MSGQUEUE is 0" in said and "with lifetime='last-close', if the queue need not outlive" in said


def test_a_queue_that_nothing_keeps_is_warned_of(peers: Peers) -> None:
    """C31: on stderr, at the program's line, with each backend's reason."""
    answers, said = outcome(peers, nothing_that_keeps)
    assert answers == ["socketpair no queue"]
    assert said.startswith("<string>:6: PersistenceWarning: queue 'NAME' on backend 'socketpair' lives only ")
    assert all(f"{name}: " in said for name in ("mqueue", "pyshm", "memory"))


def test_a_queue_that_nothing_keeps_is_not_made_where_warnings_are_errors(peers: Peers) -> None:
    """C31: the exception passes, and nothing is left."""
    answers, _ = outcome(peers, nothing_that_keeps, strict=True)
    assert answers == ["PersistenceWarning no queue"]


def test_a_queue_that_need_not_be_kept_is_not_warned_of(peers: Peers) -> None:
    """C31: with lifetime="last-close" nothing else was promised."""
    answers, said = outcome(peers, nothing_that_keeps, "{'lifetime': 'last-close'}", strict=True)
    assert (answers, said) == (["socketpair no queue"], "")


def test_a_queue_that_has_to_be_kept_is_refused_where_nothing_keeps_it(peers: Peers) -> None:
    """C31: by the minimum that was asked for."""
    answers, said = outcome(peers, nothing_that_keeps, "{'require': 'persistence:kernel'}")
    assert answers == ["BackendUnavailable no queue"]
    assert "socketpair: its persistence is 'holders', but at least 'kernel' is required" in said


def test_a_mode_that_grants_others_access_is_told_with_the_limits(peers: Peers, mqueue: str) -> None:
    """C31: the record says which backend it is, and why."""
    usable("shm")
    answers, said = outcome(peers, small, "{'mode': 0o660, 'max_messages': 4}")
    assert answers == [f"{mqueue} got"]
    assert said.startswith(
        "INFO ipcq: queue 'NAME' was created on backend 'mqueue', with at most 4 messages of at most 8192 bytes; "
        "better backends were skipped: shm: mode=0o660 allows other users to truncate the queue"
    )
