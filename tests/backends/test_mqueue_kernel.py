"""What only the kernel's queue has: its limits, its notices, its file system, and foreign ends."""

import errno
import os
import secrets
import select
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import ipcq
import ipcq_mqueue
from ipcq import _registry
from ipcq.backend import Request
from ipcq.errors import (
    LimitExceeded,
    MessageQueueError,
    NoSpace,
    PermissionDenied,
    QueueExists,
    QueueGone,
    QueueNotFound,
    QueueShutDown,
    Unsupported,
)
from ipcq_mqueue import MqueueBackend, _kernel, _limits, _notice

posix_ipc = pytest.importorskip("posix_ipc", reason="the backend mqueue cannot be used here without posix_ipc")
channels = pytest.importorskip("ipcq_mqueue._channel")

Handle = ipcq.Queue[Any]

SMALL = {"max_messages": 3, "max_message_size": 64}
HANG = 20.0

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can set this up: run the tests as root")


@pytest.fixture
def name() -> Iterator[str]:
    """Return a name that no queue has after the test."""
    name = f"/kernel-{os.getpid()}-{secrets.token_hex(4)}"
    yield name
    with suppress(FileNotFoundError):
        _kernel.unlink_queue(name)


@pytest.fixture
def queue(name: str) -> Iterator[Handle]:
    """Return a handle to a new queue of 3 messages of 64 bytes, of bytes alone."""
    with ipcq.open(name, "mqueue", exclusive=True, serializer="raw", **SMALL) as queue:
        yield queue


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# Limits: what an error number means


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the kernel's settings be read from files of the test's."""
    values = {"msg_default": 10, "msg_max": 10, "msgsize_default": 8192, "msgsize_max": 8192, "queues_max": 256}
    for setting, value in values.items():
        (tmp_path / setting).write_text(f"{value}\n")
    monkeypatch.setattr(_limits, "DIRECTORY", str(tmp_path))
    return tmp_path


@pytest.fixture
def ordinary(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a process without CAP_SYS_RESOURCE, whose settings are the kernel's defaults."""
    monkeypatch.setattr(_limits, "privileged", lambda: False)
    monkeypatch.setattr(_limits.resource, "getrlimit", lambda which: (819200, 819200))


@pytest.fixture
def lifted(ordinary: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a process with CAP_SYS_RESOURCE."""
    monkeypatch.setattr(_limits, "privileged", lambda: True)


def failed(number: int) -> OSError:
    return OSError(number, os.strerror(number), "/jobs")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, QueueNotFound),
        (errno.EEXIST, QueueExists),
        (errno.EACCES, PermissionDenied),
        (errno.EPERM, PermissionDenied),
        (errno.ENOMEM, NoSpace),
        (errno.ENOSPC, LimitExceeded),
        (errno.EMFILE, LimitExceeded),
        (errno.ENFILE, LimitExceeded),
        (errno.EINVAL, LimitExceeded),
        (errno.EOVERFLOW, LimitExceeded),
        (errno.EIO, MessageQueueError),
        (errno.ENOSYS, MessageQueueError),
    ],
)
def test_each_error_number_is_one_class(ordinary: None, number: int, kind: type[MessageQueueError]) -> None:
    """STYLE 31: foreign errors cross in one table."""
    assert type(_limits.explained(failed(number), 11, 64)) is kind


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.EINVAL, errno.EIO])
def test_the_error_number_is_kept(ordinary: None, number: int) -> None:
    """C24: errno is always set."""
    assert _limits.explained(failed(number), 11, 64).errno == number


LIMITS: list[tuple[int, int, int, tuple[str, int, int], str]] = [
    (errno.EINVAL, 11, 64, ("fs.mqueue.msg_max", 10, 11), "sudo sysctl fs.mqueue.msg_max=11"),
    (errno.EINVAL, 10, 8193, ("fs.mqueue.msgsize_max", 8192, 8193), "sudo sysctl fs.mqueue.msgsize_max=8193"),
    (errno.EINVAL, 11, 8193, ("fs.mqueue.msg_max", 10, 11), "sudo sysctl fs.mqueue.msg_max=11"),
    (errno.EOVERFLOW, 10, 8192, ("RLIMIT_MSGQUEUE", 819200, 82880), "sudo prlimit --pid $$ --msgqueue=902080"),
    (errno.EINVAL, 4, 64, ("RLIMIT_MSGQUEUE", 819200, 640), "--msgqueue=819840"),
    (errno.ENOSPC, 4, 64, ("fs.mqueue.queues_max", 256, 257), "sudo sysctl fs.mqueue.queues_max=512"),
    (errno.EMFILE, 4, 64, ("RLIMIT_MSGQUEUE", 819200, 640), "remove some (ipcq ls)"),
]


@pytest.mark.parametrize(("number", "messages", "size", "figures", "remedy"), LIMITS)
def test_an_ordinary_users_limit_is_named_with_its_figures(
    ordinary: None, number: int, messages: int, size: int, figures: tuple[str, int, int], remedy: str
) -> None:
    """C24: the limit, its value and what was asked."""
    error = _limits.explained(failed(number), messages, size)
    assert isinstance(error, LimitExceeded) and (error.limit, error.value, error.asked) == figures


@pytest.mark.parametrize(("number", "messages", "size", "figures", "remedy"), LIMITS)
def test_an_ordinary_users_limit_comes_with_the_command(
    ordinary: None, number: int, messages: int, size: int, figures: tuple[str, int, int], remedy: str
) -> None:
    """C24: and the remedy."""
    error = _limits.explained(failed(number), messages, size)
    assert isinstance(error, LimitExceeded) and remedy in error.remedy


@pytest.mark.parametrize(
    ("messages", "size", "figures"),
    [
        (65537, 64, ("fs.mqueue.msg_max", 65536, 65537)),
        (4, (16 << 20) + 1, ("fs.mqueue.msgsize_max", 16 << 20, (16 << 20) + 1)),
        (50, 8193, ("RLIMIT_MSGQUEUE", 819200, 50 * (8193 + 96))),
    ],
)
def test_a_privileged_process_meets_the_hard_limits(
    lifted: None, messages: int, size: int, figures: tuple[str, int, int]
) -> None:
    """C24: CAP_SYS_RESOURCE lifts it above the settings, up to what is compiled in."""
    error = _limits.explained(failed(errno.EINVAL), messages, size)
    assert isinstance(error, LimitExceeded) and (error.limit, error.value, error.asked) == figures


def test_a_hard_limit_has_no_command(lifted: None) -> None:
    """C24: no setting goes beyond it."""
    error = _limits.explained(failed(errno.EINVAL), 65537, 64)
    assert isinstance(error, LimitExceeded) and error.remedy == "no setting goes beyond it: ask for less"


def test_a_bad_argument_without_a_geometry_is_the_root_error(ordinary: None) -> None:
    """Nothing was asked for that could have hit a limit."""
    assert type(_limits.explained(failed(errno.EINVAL))) is MessageQueueError


def test_an_unlisted_error_tells_what_the_system_said(ordinary: None) -> None:
    """STYLE 31: the root error, with the system's words."""
    assert str(_limits.explained(failed(errno.EIO))) == "the system refused: Input/output error"


@pytest.mark.parametrize(("number", "limit"), [(errno.EMFILE, "RLIMIT_NOFILE"), (errno.ENFILE, "fs.file-max")])
def test_a_full_table_of_files_is_told_from_the_budget(
    ordinary: None, monkeypatch: pytest.MonkeyPatch, number: int, limit: str
) -> None:
    """C24: mq_open has one error number for RLIMIT_NOFILE and RLIMIT_MSGQUEUE."""

    def refuse(*_: object) -> int:
        raise failed(number)

    with monkeypatch.context() as full:
        full.setattr(_limits.os, "open", refuse)
        error = _limits.explained(failed(errno.EMFILE), 4, 64)
    assert isinstance(error, LimitExceeded) and error.limit == limit


def test_looking_for_a_full_table_leaves_no_descriptor(ordinary: None) -> None:
    """C17: a diagnosis gives back what it opened."""
    before = descriptors()
    _limits.explained(failed(errno.EMFILE), 4, 64)
    assert descriptors() == before


@pytest.mark.parametrize(
    ("written", "value"), [({}, 10), ({"msg_default": 5}, 5), ({"msg_max": 4}, 4), ({"msg_default": 20}, 10)]
)
def test_the_default_capacity_is_the_kernels(settings: Path, written: dict[str, int], value: int) -> None:
    """mq_overview(7): msg_default, but never more than msg_max."""
    for setting, number in written.items():
        (settings / setting).write_text(f"{number}\n")
    assert _limits.default_messages() == value


@pytest.mark.parametrize(("written", "value"), [({}, 8192), ({"msgsize_max": 512}, 512)])
def test_the_default_size_is_the_kernels(settings: Path, written: dict[str, int], value: int) -> None:
    """mq_overview(7): msgsize_default, but never more than msgsize_max."""
    for setting, number in written.items():
        (settings / setting).write_text(f"{number}\n")
    assert _limits.default_size() == value


def test_settings_that_cannot_be_seen_are_the_kernels_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may hide /proc."""
    monkeypatch.setattr(_limits, "DIRECTORY", str(tmp_path / "hidden"))
    assert (_limits.default_messages(), _limits.default_size()) == (10, 8192)


@pytest.mark.parametrize(
    ("line", "privileged"),
    [
        ("CapEff:\t0000000001000000\n", True),
        ("CapEff:\t000001ffffffffff\n", True),
        ("CapEff:\t0000000000000000\n", False),
        ("CapEff:\t000001fffeffffff\n", False),
        ("Name:\tpython\n", False),
        (None, False),
    ],
)
def test_privilege_is_cap_sys_resource(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str | None, privileged: bool
) -> None:
    """proc_pid_status(5): bit 24 of the effective set."""
    status = tmp_path / "status"
    if line is not None:
        status.write_text(line)

    def open_status(path: str, **options: Any) -> Any:
        return open(status, **options)

    monkeypatch.setattr(_limits, "open", open_status, raising=False)
    assert _limits.privileged() is privileged


@pytest.mark.parametrize("limits", [{"max_messages": 2**64 + 3}, {"max_messages": 2**63}, {"max_messages": 2**31}])
def test_a_capacity_beyond_all_numbers_is_a_limit(name: str, limits: dict[str, int]) -> None:
    """C24: and not another capacity that happens to be the same in 64 bits."""
    with pytest.raises(LimitExceeded) as caught:
        ipcq.open(name, "mqueue", **{**SMALL, **limits})
    assert caught.value.asked == limits["max_messages"]


def test_a_capacity_beyond_all_numbers_creates_nothing(name: str) -> None:
    """A failed creation leaves no queue behind."""
    with pytest.raises(LimitExceeded):
        ipcq.open(name, "mqueue", max_messages=2**64 + 3, max_message_size=64)
    assert not ipcq.exists(name, "mqueue")


@pytest.mark.parametrize("free", range(4))
def test_a_full_descriptor_table_is_that_at_every_step(name: str, free: int) -> None:
    """C24: wherever in an opening the descriptors run out, it is LimitExceeded or it works."""
    script = """
        import os, resource, sys
        import ipcq
        name, free = sys.argv[1], int(sys.argv[2])
        small = {"max_messages": 2, "max_message_size": 64}
        ipcq.open(name, "mqueue", **small).close()
        ipcq.unlink(name)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        taken = []
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        for _ in range(free):
            os.close(taken.pop())
        try:
            ipcq.open(name, "mqueue", **small).close()
            told = "worked"
        except ipcq.LimitExceeded as error:
            told = error.limit
        os.close(taken.pop())
        print(told)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), name, str(free)],
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert done.stdout.strip() in ("worked", "RLIMIT_NOFILE"), done.stderr


# The probe


def test_another_platform_has_no_such_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """STYLE 11: the probe says why."""
    monkeypatch.setattr(ipcq_mqueue.sys, "platform", "win32")
    assert _registry.probe(MqueueBackend()).reason == "it works on linux, this is win32"


def test_on_another_platform_no_name_is_taken(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """exists answers even where the probe says no."""
    monkeypatch.setattr(ipcq_mqueue.sys, "platform", "win32")
    assert not MqueueBackend().exists(name)


def test_a_kernel_without_queues_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """STYLE 11: as above."""
    monkeypatch.setattr(_limits, "DIRECTORY", str(tmp_path / "missing"))
    assert "this kernel has no POSIX message queues" in MqueueBackend().probe().reason


def test_a_missing_posix_ipc_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """STYLE 11: the reason ends with the way out."""
    monkeypatch.setattr(ipcq_mqueue, "find_spec", lambda name: None)
    assert MqueueBackend().probe().reason == "posix_ipc is not installed: pip install 'ipcq[mqueue]'"


def test_without_posix_ipc_a_name_is_still_seen(queue: Handle) -> None:
    """DESIGN 5: every bundled backend can say whether a name exists without its optional dependency."""
    script = "import sys; sys.modules['posix_ipc'] = None; import ipcq; print(ipcq.exists(sys.argv[1], 'mqueue'))"
    done = subprocess.run([sys.executable, "-c", script, queue.name], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_without_posix_ipc_what_exists_is_an_error(queue: Handle) -> None:
    """DESIGN 5: an existing queue whose backend cannot be used here is an error, never a second queue."""
    script = """
        import sys
        sys.modules["posix_ipc"] = None
        import ipcq
        try:
            ipcq.open(sys.argv[1])
        except ipcq.BackendUnavailable as error:
            print(error.reasons)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), queue.name], capture_output=True, text=True, check=True
    )
    assert "pip install 'ipcq[mqueue]'" in done.stdout


# Creating


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"buffer_size": 4096}, "leave out buffer_size, give max_messages"),
        ({"lifetime": "last-close"}, "last handle"),
    ],
)
def test_what_the_kernel_does_not_have_is_unsupported(name: str, options: dict[str, Any], words: str) -> None:
    """DESIGN 4: refused and not ignored."""
    with pytest.raises(Unsupported, match=words):
        ipcq.open(name, "mqueue", **options)


def test_a_lifetime_that_reaches_the_backend_is_unsupported(name: str) -> None:
    """Contract clause 6: refused in create, whoever calls it."""
    with pytest.raises(Unsupported, match="leave out lifetime"):
        MqueueBackend().create(name, Request(lifetime="last-close"))


@pytest.mark.parametrize("error", [OSError(5, "no"), KeyboardInterrupt(), MemoryError()])
def test_a_creation_that_fails_half_way_leaves_no_name(
    name: str, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Contract clause 1: whole or not at all."""

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as failing:
        failing.setattr(channels, "attached", fail)
        with pytest.raises((MessageQueueError, KeyboardInterrupt, MemoryError)):
            MqueueBackend().create(name, Request(**SMALL))
    assert not MqueueBackend().exists(name)


def test_a_creation_that_fails_half_way_leaves_no_descriptor(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C17: nothing leaks."""

    def fail(*_: object) -> None:
        raise OSError(5, "no")

    before = descriptors()
    with monkeypatch.context() as failing:
        failing.setattr(channels, "attached", fail)
        with pytest.raises(MessageQueueError):
            MqueueBackend().create(name, Request(**SMALL))
    assert descriptors() == before


@pytest.fixture
def usurped(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a foreign program replace the queue between its creation and its opening."""
    attached = channels.attached

    def replace_first(name: str, request: Request) -> Any:
        _kernel.unlink_queue(name)
        os.close(_kernel.open_queue(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, _kernel.Attributes(0, 2, 32)))
        return attached(name, request)

    with monkeypatch.context() as replacing:
        replacing.setattr(channels, "attached", replace_first)
        yield


def test_a_queue_that_is_replaced_while_it_is_created_is_told(usurped: None, name: str) -> None:
    """Contract clause 1: the channel leads to the queue that was made, or there is none."""
    with pytest.raises(QueueNotFound, match="somebody unlinked it while it was created, and made another"):
        MqueueBackend().create(name, Request(**SMALL))


def test_a_queue_that_is_replaced_while_it_is_created_leaves_the_other(usurped: None, name: str) -> None:
    """C18: nothing removes another's queue."""
    with suppress(QueueNotFound):
        MqueueBackend().create(name, Request(**SMALL))
    assert MqueueBackend().exists(name)


def test_a_queue_that_is_unlinked_while_it_is_created_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract clause 18: only exceptions of ours leave a backend."""
    attached = channels.attached

    def unlink_first(name: str, request: Request) -> Any:
        _kernel.unlink_queue(name)
        return attached(name, request)

    monkeypatch.setattr(channels, "attached", unlink_first)
    with pytest.raises(QueueNotFound):
        MqueueBackend().create(name, Request(**SMALL))


def test_unlinking_what_is_not_there_is_not_found(name: str) -> None:
    """Contract clause 4."""
    with pytest.raises(QueueNotFound):
        MqueueBackend().unlink(name)


def test_looking_where_the_kernel_fails_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract clause 3: no answer is not a no."""

    def fail(*_: object) -> int:
        raise failed(errno.EIO)

    monkeypatch.setattr(_kernel, "open_queue", fail)
    with pytest.raises(MessageQueueError, match="the system refused"):
        MqueueBackend().exists(name)


def test_a_queue_that_this_user_may_not_open_exists(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract clause 3: so that no other backend gives the name away."""

    def fail(*_: object) -> int:
        raise failed(errno.EACCES)

    monkeypatch.setattr(_kernel, "open_queue", fail)
    assert MqueueBackend().exists(name)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (posix_ipc.ExistentialError("gone"), QueueNotFound),
        (posix_ipc.PermissionsError("no"), PermissionDenied),
        (posix_ipc.Error("what?"), MessageQueueError),
        (ValueError("what?"), MessageQueueError),
        (OSError(5, "what?"), MessageQueueError),
    ],
)
def test_what_posix_ipc_raises_on_opening_is_ours(
    name: str, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[MessageQueueError]
) -> None:
    """Contract clause 18: one table."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(posix_ipc, "MessageQueue", fail)
    with pytest.raises(kind):
        MqueueBackend().attach(name, Request())


# Messages


class Failing:
    """Stands in for posix_ipc's queue where it has to fail."""

    def __init__(self, queue: Any, error: BaseException) -> None:
        self._queue = queue
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def fail(self, *_: object) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "kind"),
    [(MemoryError(), NoSpace), (OSError(5, "no"), MessageQueueError), (posix_ipc.Error("no"), MessageQueueError)],
)
@pytest.mark.parametrize("verb", ["put", "get", "drain"])
def test_what_posix_ipc_raises_on_a_message_is_ours(
    queue: Handle, verb: str, error: Exception, kind: type[MessageQueueError]
) -> None:
    """Contract clause 18, C23: no memory for a message is NoSpace."""
    channel: Any = queue._channel
    if verb == "drain":
        channel.shutdown(False)
        calls = iter([posix_ipc.BusyError("empty"), error])
        channel._receive = lambda: Failing(None, next(calls)).fail()
    else:
        channel._send = channel._receive = Failing(None, error).fail
    with pytest.raises(kind):
        queue.put(b"x") if verb == "put" else queue.get(block=False)


def test_a_received_message_takes_no_more_memory_than_it_has(queue: Handle) -> None:
    """DESIGN 6: copy small messages out, for posix_ipc pins a maximum-size buffer for each."""
    queue.put(b"x")
    assert sys.getsizeof(queue.get(timeout=5)) == sys.getsizeof(b"x")


def test_a_wait_asks_again_before_it_sleeps(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that comes at once is taken without a sleep and its end."""
    asked: list[float] = []

    class Poll:
        def register(self, *_: int) -> None:
            pass

        def poll(self, timeout: float) -> list[object]:
            asked.append(timeout)
            return []

    monkeypatch.setattr(channels.select, "poll", Poll)
    monkeypatch.setattr(channels, "_SPIN", 0.001)
    with pytest.raises(ipcq.QueueEmpty):
        queue.get(timeout=0.05)
    assert (asked[:2], max(asked) > 0) == ([0, 0], True)


def test_figures_that_the_kernel_keeps_are_told(queue: Handle) -> None:
    """stats: depth and bytes; what the mechanism cannot know is None."""
    queue.put_many([b"xx", b"yyy"])
    assert queue.stats() == ipcq.Stats(depth=2, bytes=5)


def test_a_handle_that_does_not_read_cannot_know_the_bytes(queue: Handle) -> None:
    """The kernel tells them to readers."""
    queue.put(b"xx")
    with ipcq.open(queue.name, "mqueue", read=False) as writer:
        assert writer.stats() == ipcq.Stats(depth=1)


# Shutdown


def test_the_mark_of_a_shutdown_is_not_in_the_mode(queue: Handle) -> None:
    """DESIGN 6: the sticky bit is masked."""
    queue.shutdown()
    with ipcq.open(queue.name, "mqueue") as other:
        assert other.mode == 0o600


def test_the_mark_of_a_shutdown_is_the_sticky_bit(queue: Handle) -> None:
    """DESIGN 6: other handles see it by fstat."""
    queue.shutdown()
    assert stat.S_IMODE(os.fstat(queue.fileno()).st_mode) == 0o1600


def test_a_put_that_races_with_the_shutdown_is_drained(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C14: a getter that finds the queue empty and shut down lingers once."""
    with ipcq.open(queue.name, "mqueue", serializer="raw") as other:
        queue.shutdown()
        late = posix_ipc.MessageQueue(queue.name)
        slept: list[float] = []

        def put_meanwhile(seconds: float) -> None:
            slept.append(seconds)
            late.send(b"late")

        monkeypatch.setattr(channels, "sleep", put_meanwhile)
        try:
            assert other.get(timeout=5) == b"late"
        finally:
            late.close()


def test_a_getter_lingers_once(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C14: what comes later than that is nobody's."""
    queue.shutdown()
    slept: list[float] = []
    monkeypatch.setattr(channels, "sleep", slept.append)
    for _ in range(3):
        with pytest.raises(QueueShutDown):
            queue.get(block=False)
    assert len(slept) == 1


def test_a_shutdown_by_somebody_else_is_denied(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """DESIGN 6: a non-owner gets PermissionDenied."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(channels.os, "fchmod", refuse)
    with pytest.raises(PermissionDenied, match=f"only the queue's owner \\(user {os.geteuid()}\\) or root"):
        queue.shutdown()


# Notices


@pytest.fixture
def notices() -> Iterator[list[object]]:
    """Return a list of the signals that arrived."""
    arrived: list[object] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: arrived.append(number))
    yield arrived
    signal.signal(signal.SIGUSR1, before)


def wait_for(event: threading.Event) -> bool:
    return event.wait(HANG)


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda name: ipcq.exists(name, "mqueue"),
        lambda name: ipcq.open(name, "mqueue").close(),
        lambda name: ipcq.open(name, "mqueue", read=False).close(),
        lambda name: ipcq.queues(),
    ],
)
def test_a_notice_survives_what_closes_another_descriptor(queue: Handle, meanwhile: Callable[[str], object]) -> None:
    """The kernel takes a registration back when its process closes any descriptor of the queue; here it is kept."""
    told = threading.Event()
    queue.notify(told.set)
    meanwhile(queue.name)
    with ipcq.open(queue.name, "mqueue", serializer="raw", read=False) as writer:
        writer.put(b"x")
        assert wait_for(told)


def test_a_notice_that_raises_is_an_exception_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which Python tells of, where posix_ipc says nothing."""
    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda what: told.append(what.exc_type))
    _notice._told((0, lambda: int("x")))
    assert told == [ValueError]


def test_a_signal_survives_what_closes_another_descriptor(queue: Handle, notices: list[object]) -> None:
    """As above, for a notice by signal."""
    queue.notify(signal=signal.SIGUSR1)
    ipcq.open(queue.name, "mqueue").close()
    queue.put(b"x")
    assert notices == [signal.SIGUSR1]


def test_a_signal_that_was_sent_is_not_sent_again(queue: Handle, notices: list[object]) -> None:
    """A notice is given once, whatever is closed afterwards."""
    queue.notify(signal=signal.SIGUSR1)
    queue.put(b"x")
    queue.get()
    ipcq.open(queue.name, "mqueue").close()
    queue.put(b"y")
    assert notices == [signal.SIGUSR1]


def test_a_signal_that_was_sent_can_be_asked_for_again(queue: Handle, notices: list[object]) -> None:
    """One-shot: ask again."""
    for _ in range(2):
        queue.notify(signal=signal.SIGUSR1)
        queue.put(b"x")
        queue.get()
    assert notices == [signal.SIGUSR1] * 2


def test_a_handle_that_asked_takes_its_request_with_it(queue: Handle) -> None:
    """Its close cancels it, and somebody else may ask."""
    with ipcq.open(queue.name, "mqueue") as other:
        other.notify(print)
    queue.notify(print)
    queue.notify()


def test_another_handle_does_not_cancel(queue: Handle) -> None:
    """Without arguments the request of this handle is taken back."""
    with ipcq.open(queue.name, "mqueue") as other:
        queue.notify(print)
        other.notify()
        with pytest.raises(LimitExceeded, match="registrants"):
            other.notify(print)


def test_another_process_that_asked_is_told(queue: Handle) -> None:
    """mq_notify(3): EBUSY while another process is registered."""
    script = """
        import sys, posix_ipc
        queue = posix_ipc.MessageQueue(sys.argv[1])
        queue.request_notification(10)
        print("asked", flush=True)
        sys.stdin.readline()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), queue.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(LimitExceeded) as caught:
            queue.notify(print)
        other.communicate("\n", timeout=HANG)
    assert caught.value.errno == errno.EBUSY


@pytest.mark.parametrize("by_signal", [True, False])
def test_a_message_that_comes_while_the_notice_is_made_again_is_told(
    queue: Handle, notices: list[object], by_signal: bool
) -> None:
    """Between the kernel's taking it back and the new request nobody else would tell."""
    told = threading.Event()
    if by_signal:
        queue.notify(signal=signal.SIGUSR1)
    else:
        queue.notify(told.set)
    descriptor = _kernel.open_queue(queue.name, os.O_RDONLY)

    def put_meanwhile() -> None:
        os.close(descriptor)
        queue.put(b"x")

    _notice.close(descriptor, put_meanwhile)
    assert notices == [signal.SIGUSR1] if by_signal else told.is_set()


def test_a_notice_that_another_process_takes_meanwhile_is_lost_in_silence(
    queue: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking whether a queue exists does not fail because of somebody's notice."""

    def refuse(*_: object) -> None:
        raise _notice._taken()

    queue.notify(print)
    with monkeypatch.context() as taken:
        taken.setattr(_notice, "request", refuse)
        assert ipcq.exists(queue.name, "mqueue")


def test_who_cannot_read_takes_itself_for_the_registrant(queue: Handle) -> None:
    """The kernel tells only readers who is registered."""
    with ipcq.open(queue.name, "mqueue", read=False) as writer:
        assert _notice._registrant(writer._channel.fileno()) == os.getpid()


# Waiting


def test_the_descriptor_is_the_kernels(queue: Handle) -> None:
    """A message queue descriptor is a file descriptor on Linux."""
    queue.put(b"x")
    assert select.select([queue.fileno()], [], [], 0)[0]


# Foreign ends


def test_a_foreign_program_gets_the_bytes_alone(queue: Handle) -> None:
    """DESIGN 6: `raw` puts exactly the user's bytes on the wire."""
    queue.put(b"\xc1\x00bytes", priority=7)
    foreign = posix_ipc.MessageQueue(queue.name)
    try:
        assert foreign.receive(timeout=5) == (b"\xc1\x00bytes", 7)
    finally:
        foreign.close()


def test_a_foreign_programs_bytes_arrive_alone(queue: Handle) -> None:
    """DESIGN 6: the other way round."""
    foreign = posix_ipc.MessageQueue(queue.name)
    foreign.send(b"\x00\xc1", priority=9)
    foreign.close()
    message = queue.get_message(timeout=5)
    assert (message.item, message.priority) == (b"\x00\xc1", 9)


def test_a_foreign_programs_queue_is_attached_to(name: str) -> None:
    """Its limits are what it made them."""
    foreign = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, mode=0o640, max_messages=2, max_message_size=32)
    foreign.close()
    with ipcq.open(name) as queue:
        assert (queue.backend, queue.max_messages, queue.max_message_size, queue.mode) == ("mqueue", 2, 32, 0o640)


def test_a_foreign_program_that_unlinks_ends_the_handles(queue: Handle) -> None:
    """C14: after unlink (ours, rm, RemoveIPC) every operation raises QueueGone."""
    posix_ipc.unlink_message_queue(queue.name)
    with pytest.raises(QueueGone):
        queue.get(timeout=5)


@as_root
def test_a_queue_of_somebody_else_is_refused(queue: Handle) -> None:
    """C27: an object owned by neither this user nor root is refused."""
    os.fchown(queue.fileno(), 12345, -1)
    with pytest.raises(PermissionDenied, match=r"belongs to user 12345.*other_users=True"):
        ipcq.open(queue.name, "mqueue")


@as_root
def test_a_refused_queue_of_somebody_else_leaves_no_descriptor(queue: Handle) -> None:
    """C17: a refusal gives back."""
    os.fchown(queue.fileno(), 12345, -1)
    before = descriptors()
    with pytest.raises(PermissionDenied):
        ipcq.open(queue.name, "mqueue")
    assert descriptors() == before


@as_root
def test_a_queue_of_somebody_else_can_be_trusted(queue: Handle) -> None:
    """DESIGN 4: other_users=True."""
    os.fchown(queue.fileno(), 12345, -1)
    with ipcq.open(queue.name, "mqueue", other_users=True) as other:
        other.put(b"x")
    assert queue.qsize() == 1


# Listing


def run_where(script: str, *arguments: str, mounts: bool) -> str:
    """Run a script in a mount namespace of its own, with or without the mqueue file system at `place`."""
    place = arguments[0]
    steps = ["umount -a -t mqueue 2>/dev/null"]
    if mounts:
        steps.append('mount -t mqueue none "$1"')
    steps.append('exec "$0" -c "$2" "$@"')
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", "; ".join(steps), sys.executable, place, textwrap.dedent(script), *arguments[1:]],
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


LIST = """
import sys, ipcq
listing = ipcq.queues()
found = ipcq.QueueInfo(sys.argv[3], "mqueue") in listing
from ipcq_mqueue import MqueueBackend
print(found, listing.unlisted.get("mqueue"), sum("not mounted" in each.text for each in MqueueBackend().findings()))
"""

in_own_namespace = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="mounting needs root and unshare: run the tests as root",
)


@in_own_namespace
@pytest.mark.parametrize("folder", ["plain", "with blank", "ümlaut", "back\\slash"])
def test_queues_are_listed_where_the_file_system_is_mounted(queue: Handle, tmp_path: Path, folder: str) -> None:
    """DESIGN 6: wherever that is."""
    place = tmp_path / folder
    place.mkdir()
    assert run_where(LIST, str(place), queue.name, mounts=True) == "True None 0"


@in_own_namespace
def test_where_it_is_not_mounted_the_command_is_told(queue: Handle, tmp_path: Path) -> None:
    """DESIGN 6: elsewhere says so with the mount command, and doctor has a finding."""
    said = run_where(LIST, str(tmp_path), queue.name, mounts=False)
    assert said == (
        "False the mqueue file system is not mounted: "
        "sudo mkdir -p /dev/mqueue && sudo mount -t mqueue none /dev/mqueue 1"
    )


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the table of mounts be read from a file of the test's."""
    table = tmp_path / "mounts"

    def open_table(path: str, **options: Any) -> Any:
        return open(table, **options)

    monkeypatch.setattr(ipcq_mqueue, "open", open_table, raising=False)
    return table


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("none /dev/mqueue mqueue rw 0 0\n", "/dev/mqueue"),
        ("none /a\\040b mqueue rw 0 0\n", "/a b"),
        ("none /a\\134b mqueue rw 0 0\n", "/a\\b"),
        ("none /ü mqueue rw 0 0\n", "/ü"),
        ("proc /proc proc rw 0 0\n", None),
        ("", None),
    ],
)
def test_the_place_is_read_from_the_table_of_mounts(mounts: Path, line: str, place: str | None) -> None:
    """proc_pid_mounts(5): blanks and backslashes are octal escapes."""
    mounts.write_text("rootfs / rootfs rw 0 0\n" + line, encoding="utf-8")
    assert ipcq_mqueue._mount_point() == place


def test_a_hidden_table_of_mounts_has_no_place(mounts: Path) -> None:
    """A container may hide /proc."""
    assert ipcq_mqueue._mount_point() is None


def test_queues_are_listed_by_their_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the slash that the file system leaves out."""
    (tmp_path / "jobs").write_text("")
    monkeypatch.setattr(ipcq_mqueue, "_mount_point", lambda: str(tmp_path))
    assert MqueueBackend().names() == ["/jobs"]


def test_an_unmounted_file_system_lists_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """names: Unsupported with what would change that."""
    monkeypatch.setattr(ipcq_mqueue, "_mount_point", lambda: None)
    with pytest.raises(Unsupported, match="sudo mount -t mqueue none /dev/mqueue"):
        MqueueBackend().names()


def test_a_notice_that_was_told_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """One-shot: what the C library's thread calls forgets it, and then tells."""
    told: list[object] = []
    monkeypatch.setattr(_notice, "_registered", {5: (object(), print)})
    _notice._told((5, lambda: told.append(dict(_notice._registered))))
    assert told == [{}]


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, "broken")


@pytest.mark.parametrize("verb", ["qsize", "shutdown", "attach"])
def test_a_status_that_the_system_refuses_is_our_error(
    verb: str, queue: Handle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C5: with its number, no descriptor is left, and the queue goes on."""
    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch, pytest.raises(MessageQueueError) as caught:
        patch.setattr(os, "fstat", refuse)
        if verb == "attach":
            MqueueBackend().attach(name, Request())
        else:
            getattr(queue, verb)()
    assert (caught.value.errno, os.listdir("/proc/self/fd")) == (errno.EIO, before)
    queue.put(b"item")


def test_a_shutdown_that_the_system_refuses_is_our_error(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: also where it is not for want of a right."""
    with monkeypatch.context() as patch, pytest.raises(MessageQueueError) as caught:
        patch.setattr(os, "fchmod", refuse)
        queue.shutdown()
    assert caught.value.errno == errno.EIO
    queue.put(b"item")


def test_a_mode_that_the_system_refuses_leaves_no_queue(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: creating has not happened, and says so by our error."""
    with monkeypatch.context() as patch, pytest.raises(MessageQueueError) as caught:
        patch.setattr(os, "fchmod", refuse)
        MqueueBackend().create(name, Request(**SMALL))
    assert caught.value.errno == errno.EIO
    assert not MqueueBackend().exists(name)


def test_memory_that_is_not_to_be_had_is_no_space(queue: Handle, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: as posix_ipc tells it."""

    def lack(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(NoSpace):
        patch.setattr(posix_ipc, "MessageQueue", lack)
        MqueueBackend().attach(name, Request())
