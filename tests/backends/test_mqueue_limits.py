"""The kernel's limits for message queues: what an error number means, and which way out the error gives."""

import errno
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import ipcq
from backends import mqueue
from backends.mqueue import HANG_SECONDS, SMALL, Handle, descriptors, os_error, posix_ipc
from ipcq.backend import Request, explained
from ipcq.errors import LimitExceeded, MessageQueueError, NoSpace, PermissionDenied, QueueExists, QueueNotFound
from ipcq_mqueue import MqueueBackend, _limits

name, queue = mqueue.name, mqueue.queue


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Read the kernel's settings from files of the test."""
    values = {"msg_default": 10, "msg_max": 10, "msgsize_default": 8192, "msgsize_max": 8192, "queues_max": 256}
    for setting, value in values.items():
        (tmp_path / setting).write_text(f"{value}\n")
    monkeypatch.setattr(_limits, "DIRECTORY", str(tmp_path))
    return tmp_path


@pytest.fixture
def ordinary(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a process without CAP_SYS_RESOURCE under the kernel's default settings."""
    monkeypatch.setattr(_limits, "privileged", lambda: False)
    monkeypatch.setattr(_limits.resource, "getrlimit", lambda which: (819200, 819200))


@pytest.fixture
def privileged_process(ordinary: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a process with CAP_SYS_RESOURCE."""
    monkeypatch.setattr(_limits, "privileged", lambda: True)


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
    """STYLE 31: one table translates foreign errors."""
    assert type(explained(os_error(number), _limits.errors(11, 64))) is kind


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.EINVAL, errno.EIO])
def test_the_error_number_is_kept(ordinary: None, number: int) -> None:
    """C24: errno is always set."""
    assert explained(os_error(number), _limits.errors(11, 64)).errno == number


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
    """C24: the error has the limit, its value and the amount asked for."""
    error = explained(os_error(number), _limits.errors(messages, size))
    assert isinstance(error, LimitExceeded) and (error.limit, error.value, error.asked) == figures


@pytest.mark.parametrize(("number", "messages", "size", "figures", "remedy"), LIMITS)
def test_an_ordinary_users_limit_comes_with_the_command(
    ordinary: None, number: int, messages: int, size: int, figures: tuple[str, int, int], remedy: str
) -> None:
    """C24: the error has the remedy."""
    error = explained(os_error(number), _limits.errors(messages, size))
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
    privileged_process: None, messages: int, size: int, figures: tuple[str, int, int]
) -> None:
    """C24: CAP_SYS_RESOURCE lifts the settings, up to the limits compiled into the kernel."""
    error = explained(os_error(errno.EINVAL), _limits.errors(messages, size))
    assert isinstance(error, LimitExceeded) and (error.limit, error.value, error.asked) == figures


def test_a_hard_limit_has_no_command(privileged_process: None) -> None:
    """C24: no setting exceeds it."""
    error = explained(os_error(errno.EINVAL), _limits.errors(65537, 64))
    assert isinstance(error, LimitExceeded) and error.remedy == "no setting raises it: ask for less"


def test_einval_without_limits_is_the_root_error(ordinary: None) -> None:
    """The call asked for nothing that could exceed a limit."""
    assert type(explained(os_error(errno.EINVAL), _limits.ERRORS)) is MessageQueueError


def test_an_unlisted_error_has_the_text_of_the_system(ordinary: None) -> None:
    """STYLE 31: it is the root error with the system's text."""
    told = str(explained(os_error(errno.EIO), _limits.ERRORS))
    assert told == "the system refused: [Errno 5] Input/output error: '/jobs'"


@pytest.mark.parametrize(("number", "limit"), [(errno.EMFILE, "RLIMIT_NOFILE"), (errno.ENFILE, "fs.file-max")])
def test_a_full_descriptor_table_is_distinguished_from_the_budget(
    ordinary: None, monkeypatch: pytest.MonkeyPatch, number: int, limit: str
) -> None:
    """C24: mq_open has one error number for RLIMIT_NOFILE and RLIMIT_MSGQUEUE."""

    def refuse(*_: object) -> int:
        raise os_error(number)

    with monkeypatch.context() as full:
        full.setattr(_limits.os, "open", refuse)
        error = explained(os_error(errno.EMFILE), _limits.errors(4, 64))
    assert isinstance(error, LimitExceeded) and error.limit == limit


def test_checking_for_a_full_descriptor_table_leaves_no_descriptor(ordinary: None) -> None:
    """C17: a diagnosis closes what it opened."""
    before = descriptors()
    explained(os_error(errno.EMFILE), _limits.errors(4, 64))
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


def test_settings_that_cannot_be_read_are_the_kernels_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_capacity_beyond_31_bits_is_a_limit(name: str, limits: dict[str, int]) -> None:
    """C24: it is not reduced to a capacity that has the same 64 bits."""
    with pytest.raises(LimitExceeded) as caught:
        ipcq.open(name, "mqueue", **{**SMALL, **limits})
    assert caught.value.asked == limits["max_messages"]


def test_a_capacity_beyond_64_bits_creates_nothing(name: str) -> None:
    """A failed creation leaves no queue behind."""
    with pytest.raises(LimitExceeded):
        ipcq.open(name, "mqueue", max_messages=2**64 + 3, max_message_size=64)
    assert not ipcq.exists(name, "mqueue")


@pytest.mark.parametrize("free", range(4))
def test_a_full_descriptor_table_is_reported_at_every_step_of_an_open(name: str, free: int) -> None:
    """C24: wherever an open runs out of descriptors, it raises LimitExceeded or works."""
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
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.stdout.strip() in ("worked", "RLIMIT_NOFILE"), done.stderr


def test_a_memory_error_of_posix_ipc_is_no_space(queue: Handle, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: also when posix_ipc raises MemoryError."""

    def lack(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(NoSpace):
        patch.setattr(posix_ipc, "MessageQueue", lack)
        MqueueBackend().attach(name, Request())
