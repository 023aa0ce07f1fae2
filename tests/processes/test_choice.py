"""C31: whatever the machine lacks, a queue keeps its messages, or its creation raises or warns, with the way out.

Each test runs in a new mount namespace. Each queue is used by several processes, one after the other.
"""

import subprocess
import sys
from collections.abc import Callable

import pytest

from ipcq.testing.processes import Peers, fresh_name, say
from processes.mounts import MS_RDONLY, enter_mount_namespace, mount, mount_small_dev_shm
from processes.needs import usable
from processes.users import warm_up

resource = pytest.importorskip("resource", reason="could not import 'resource', which only POSIX has")

pytestmark = [
    pytest.mark.usefixtures("as_root"),
    *map(pytest.mark.needs, ("shm", "mqueue", "pyshm", "socketpair", "memory")),
]

if sys.platform != "linux":
    pytest.skip(f"Windows has no /dev/shm, nor has {sys.platform}", allow_module_level=True)

#: A message size for which a queue takes 2 MB, so that 5 MiB have space for two queues.
LARGE_BYTES = 500_000

#: Puts an item into a queue and prints its backend; options follow the name.
PUT = f"""
import logging, sys
import ipcq
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
try:
    queue = ipcq.open(sys.argv[1], **eval(sys.argv[2]))
except (ipcq.MessageQueueError, UserWarning) as error:
    sys.exit(f"{{type(error).__name__}}: {{error}}")
queue.put(bytes({LARGE_BYTES} - 99 if "max_message_size" in sys.argv[2] else 9))
print(queue.backend)
queue.close()
"""

#: Prints whether a queue exists and has an item, and removes it.
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
    """Run a program; return its stdout, or the first word of stderr, and its stderr."""
    options = ["-W", "error::UserWarning"] if strict else []
    done = subprocess.run(
        [sys.executable, *options, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.strip() or done.stderr.partition(":")[0], done.stderr


def small_shared_memory() -> None:
    """Mount a /dev/shm of 5 MiB."""
    mount_small_dev_shm(5 << 20)


def no_shared_memory() -> None:
    """Make /dev/shm read-only."""
    enter_mount_namespace()
    mount(b"/dev/shm", MS_RDONLY, "size=4k")


def no_message_queues() -> None:
    """Make /dev/shm read-only, and set the limit of the kernel's message queues to 0."""
    no_shared_memory()
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, resource.getrlimit(resource.RLIMIT_MSGQUEUE)[1]))


def no_persistent_backend() -> None:
    """Make /dev/shm read-only, and hide the kernel's message queues."""
    no_shared_memory()
    mount(b"/proc/sys/fs", 0, "size=4k")


def put_and_get(lack: Callable[[], None], options: str, count: int, strict: bool) -> None:
    """Restrict this process, put into queues and then get from them; report the results and the last stderr."""
    warm_up("memory")
    lack()
    names = [fresh_name() for _ in range(count)]
    puts = [run(PUT, name, options, strict=strict) for name in names]
    gets = [run(GET, name)[0] for name in names]
    say([[f"{put} {got}" for (put, _), got in zip(puts, gets, strict=True)], puts[-1][1].replace(names[-1], "NAME")])


def outcome(
    peers: Peers, lack: Callable[[], None], options: str = "{}", count: int = 1, *, strict: bool = False
) -> tuple[list[str], str]:
    """Return for each queue its backend or error and the result of the get, and the stderr of the last put."""
    peer = peers.fork(put_and_get, lack, options, count, strict)
    answers, said = peer.hear()
    peer.done()
    return answers, said


def test_queues_without_space_are_refused_and_the_others_keep_their_messages(peers: Peers) -> None:
    """C31: the third message is not lost on a backend without persistence."""
    usable("shm")
    answers, _ = outcome(peers, small_shared_memory, f"{{'max_message_size': {LARGE_BYTES}}}", 3)
    assert answers == ["shm got", "shm got", "NoSpace no queue"]


def test_a_lack_of_space_is_reported_with_the_free_space_and_the_way_out(peers: Peers) -> None:
    """C31: free some, ask for less, make it larger, or name another backend."""
    usable("shm")
    _, said = outcome(peers, small_shared_memory, "{'buffer_size': 9_000_000}")
    assert all(words in said for words in ("/dev/shm has", "ask for less", "mount -o remount", "or try backend="))


def test_without_shared_memory_the_kernels_queues_are_used(peers: Peers, mqueue: str) -> None:
    """C31: a backend that is not permitted here is not chosen."""
    answers, said = outcome(peers, no_shared_memory)
    assert (answers, said) == ([f"{mqueue} got"], "")


def test_a_limit_that_is_used_up_is_an_error(peers: Peers, mqueue: str) -> None:
    """C31: it gives the bytes that are missing, and the option for a queue that need not persist."""
    answers, said = outcome(peers, no_message_queues)
    assert answers == ["LimitExceeded no queue"]
    assert "RLIMIT_MSGQUEUE is 0" in said and "with lifetime='last-close', if the queue need not outlive" in said


def test_a_queue_without_persistence_warns(peers: Peers) -> None:
    """C31: on stderr, at the program's line, with each backend's reason."""
    answers, said = outcome(peers, no_persistent_backend)
    assert answers == ["socketpair no queue"]
    assert said.startswith("<string>:6: PersistenceWarning: queue 'NAME' on backend 'socketpair' lives only ")
    assert all(f"{name}: " in said for name in ("mqueue", "pyshm", "memory"))


def test_a_queue_without_persistence_is_not_created_where_warnings_are_errors(peers: Peers) -> None:
    """C31: the warning is raised, and no queue is left."""
    answers, _ = outcome(peers, no_persistent_backend, strict=True)
    assert answers == ["PersistenceWarning no queue"]


def test_a_queue_that_need_not_persist_does_not_warn(peers: Peers) -> None:
    """C31: with lifetime="last-close" no persistence was promised."""
    answers, said = outcome(peers, no_persistent_backend, "{'lifetime': 'last-close'}", strict=True)
    assert (answers, said) == (["socketpair no queue"], "")


def test_a_queue_that_must_persist_is_refused_without_a_persistent_backend(peers: Peers) -> None:
    """C31: the error names the minimum that was required."""
    answers, said = outcome(peers, no_persistent_backend, "{'require': 'persistence:kernel'}")
    assert answers == ["BackendUnavailable no queue"]
    assert "socketpair: its persistence is 'holders', but at least 'kernel' is required" in said


def test_a_fallback_for_the_mode_is_logged_with_the_limits(peers: Peers, mqueue: str) -> None:
    """C31: the log record names the backend and the reason."""
    usable("shm")
    answers, said = outcome(peers, small_shared_memory, "{'mode': 0o660, 'max_messages': 4}")
    assert answers == [f"{mqueue} got"]
    assert said.startswith(
        "INFO ipcq: queue 'NAME' was created on backend 'mqueue', with at most 4 messages of at most 8192 bytes; "
        "better backends were skipped: shm: mode=0o660 allows other users to truncate the queue"
    )
