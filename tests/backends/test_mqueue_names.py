"""The names of the kernel's message queues: the probe, creating, unlinking and listing."""

import errno
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import ipcq
import ipcq_mqueue
from backends import mqueue
from backends.mqueue import HANG_SECONDS, SMALL, Handle, channels, descriptors, os_error, posix_ipc, refuse
from ipcq._opening import registry
from ipcq.backend import Request
from ipcq.errors import MessageQueueError, PermissionDenied, QueueNotFound, Unsupported
from ipcq_mqueue import MqueueBackend, _kernel, _library, _limits

name, queue = mqueue.name, mqueue.queue


# The probe


def test_another_platform_has_no_such_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """STYLE 11: the probe gives the reason."""
    monkeypatch.setattr(ipcq_mqueue.sys, "platform", "win32")
    assert registry.probe(MqueueBackend()).reason == "it works only on linux, but this is win32"


def test_on_another_platform_no_name_is_taken(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """exists answers even where the probe fails."""
    monkeypatch.setattr(ipcq_mqueue.sys, "platform", "win32")
    assert not MqueueBackend().exists(name)


def test_a_kernel_without_queues_is_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """STYLE 11: the probe gives the reason."""
    monkeypatch.setattr(_limits, "DIRECTORY", str(tmp_path / "missing"))
    assert "this kernel has no POSIX message queues" in MqueueBackend().probe().reason


def test_a_missing_posix_ipc_is_the_reason_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """STYLE 11: the reason ends with the way out."""
    monkeypatch.setattr(_library, "find_spec", lambda name: None)
    assert MqueueBackend().probe().reason == "posix_ipc is not installed: pip install 'ipcq-queue[mqueue]'"


def test_without_posix_ipc_a_queue_still_exists(queue: Handle) -> None:
    """DESIGN 5: each bundled backend can look for a name without its optional dependency."""
    script = "import sys; sys.modules['posix_ipc'] = None; import ipcq; print(ipcq.exists(sys.argv[1], 'mqueue'))"
    done = subprocess.run([sys.executable, "-c", script, queue.name], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_without_posix_ipc_opening_an_existing_queue_is_an_error(queue: Handle) -> None:
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
    assert "pip install 'ipcq-queue[mqueue]'" in done.stdout


# Creating


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"buffer_size": 4096}, "pass max_messages instead of buffer_size"),
        ({"lifetime": "last-close"}, "last handle"),
    ],
)
def test_options_that_the_kernel_lacks_are_unsupported(name: str, options: dict[str, Any], words: str) -> None:
    """DESIGN 4: refused, not ignored."""
    with pytest.raises(Unsupported, match=words):
        ipcq.open(name, "mqueue", **options)


def test_a_lifetime_that_reaches_the_backend_is_unsupported(name: str) -> None:
    """Clause 6: create refuses it even if the caller did not check."""
    with pytest.raises(Unsupported, match="leave out lifetime"):
        MqueueBackend().create(name, Request(lifetime="last-close"))


@pytest.mark.parametrize("error", [OSError(5, "no"), KeyboardInterrupt(), MemoryError()])
def test_a_creation_that_fails_half_way_leaves_no_name(
    name: str, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Clause 1: a queue is created whole or not at all."""

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
def replaced(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Replace the queue between its creation and its opening, as a foreign program can."""
    attached = channels.attached

    def replace_first(name: str, request: Request) -> Any:
        _kernel.unlink_queue(name)
        os.close(_kernel.open_queue(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, _kernel.Attributes(0, 2, 32)))
        return attached(name, request)

    with monkeypatch.context() as replacing:
        replacing.setattr(channels, "attached", replace_first)
        yield


def test_a_queue_that_is_replaced_while_it_is_created_is_an_error(replaced: None, name: str) -> None:
    """Clause 1: the channel leads to the queue that this call created, or there is no channel."""
    with pytest.raises(QueueNotFound, match="it was unlinked and replaced by another queue while it was created"):
        MqueueBackend().create(name, Request(**SMALL))


def test_a_queue_that_is_replaced_while_it_is_created_leaves_the_other(replaced: None, name: str) -> None:
    """C18: no call removes another process's queue."""
    with suppress(QueueNotFound):
        MqueueBackend().create(name, Request(**SMALL))
    assert MqueueBackend().exists(name)


def test_a_queue_that_is_unlinked_while_it_is_created_is_not_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 18: a backend raises only ipcq's exceptions."""
    attached = channels.attached

    def unlink_first(name: str, request: Request) -> Any:
        _kernel.unlink_queue(name)
        return attached(name, request)

    monkeypatch.setattr(channels, "attached", unlink_first)
    with pytest.raises(QueueNotFound):
        MqueueBackend().create(name, Request(**SMALL))


def test_unlinking_a_missing_queue_is_not_found(name: str) -> None:
    """Clause 4: QueueNotFound."""
    with pytest.raises(QueueNotFound):
        MqueueBackend().unlink(name)


def test_a_kernel_error_while_looking_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 3: a failed look does not mean that the name is free."""

    def fail(*_: object) -> int:
        raise os_error(errno.EIO)

    monkeypatch.setattr(_kernel, "open_queue", fail)
    with pytest.raises(MessageQueueError, match="the system refused"):
        MqueueBackend().exists(name)


def test_a_queue_that_this_user_may_not_open_exists(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 3: otherwise another backend would give the name away."""

    def fail(*_: object) -> int:
        raise os_error(errno.EACCES)

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
def test_an_error_of_posix_ipc_on_opening_becomes_ours(
    name: str, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[MessageQueueError]
) -> None:
    """Clause 18: one table translates them."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(posix_ipc, "MessageQueue", fail)
    with pytest.raises(kind):
        MqueueBackend().attach(name, Request())


def test_a_mode_that_the_system_refuses_leaves_no_queue(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: nothing was created, and the error is ours."""
    with monkeypatch.context() as patch, pytest.raises(MessageQueueError) as caught:
        patch.setattr(os, "fchmod", refuse)
        MqueueBackend().create(name, Request(**SMALL))
    assert caught.value.errno == errno.EIO
    assert not MqueueBackend().exists(name)


# Listing


def run_in_mount_namespace(script: str, *arguments: str, mounts: bool) -> str:
    """Run a script in a new mount namespace, with or without the mqueue file system mounted at `place`."""
    place = arguments[0]
    steps = ["umount -a -t mqueue 2>/dev/null"]
    if mounts:
        steps.append('mount -t mqueue none "$1"')
    steps.append('exec "$0" -c "$2" "$@"')
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", "; ".join(steps), sys.executable, place, textwrap.dedent(script), *arguments[1:]],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
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
    """DESIGN 6: the mount point does not matter."""
    place = tmp_path / folder
    place.mkdir()
    assert run_in_mount_namespace(LIST, str(place), queue.name, mounts=True) == "True None 0"


@in_own_namespace
def test_without_the_mount_the_listing_has_the_mount_command(queue: Handle, tmp_path: Path) -> None:
    """DESIGN 6: the listing has the mount command, and doctor has a finding."""
    said = run_in_mount_namespace(LIST, str(tmp_path), queue.name, mounts=False)
    assert said == (
        "False the mqueue file system is not mounted: "
        "sudo mkdir -p /dev/mqueue && sudo mount -t mqueue none /dev/mqueue 1"
    )


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Read the mount table from a file of the test."""
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
def test_the_mount_point_is_read_from_the_mount_table(mounts: Path, line: str, place: str | None) -> None:
    """proc_pid_mounts(5): spaces and backslashes are octal escapes."""
    mounts.write_text("rootfs / rootfs rw 0 0\n" + line, encoding="utf-8")
    assert ipcq_mqueue._mount_point() == place


def test_without_a_mount_table_there_is_no_mount_point(mounts: Path) -> None:
    """A container may hide /proc."""
    assert ipcq_mqueue._mount_point() is None


def test_queues_are_listed_by_their_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file system omits the leading slash."""
    (tmp_path / "jobs").write_text("")
    monkeypatch.setattr(ipcq_mqueue, "_mount_point", lambda: str(tmp_path))
    assert MqueueBackend().names() == ["/jobs"]


def test_an_unmounted_file_system_lists_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """names raises Unsupported with the command that mounts it."""
    monkeypatch.setattr(ipcq_mqueue, "_mount_point", lambda: None)
    with pytest.raises(Unsupported, match="sudo mount -t mqueue none /dev/mqueue"):
        MqueueBackend().names()


def test_the_library_is_found_though_another_module_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other module keeps the name."""
    face = ModuleType("face")
    monkeypatch.setitem(sys.modules, "posix_ipc", face)
    assert _library.library.__wrapped__().MessageQueue is posix_ipc.MessageQueue
    assert _library.is_installed() and sys.modules["posix_ipc"] is face


#: When the program replaces the library in sys.modules: before or after it imports the library or uses the backend.
ALIASES = {
    "at first": "",
    "after the library": "import posix_ipc as real",
    "after the first queue": "ipcq.open(name, 'mqueue', **small).close()",
}


@pytest.mark.parametrize("before", ALIASES)
def test_the_backend_uses_the_library_though_the_replacement_has_its_name(name: str, before: str) -> None:
    """A program may replace posix_ipc in sys.modules; messages, notices and errors still come from the library."""
    script = f"""
import sys, threading, ipcq, ipcq.compat.posix_ipc as face
name, small = sys.argv[1], dict(max_messages=2, max_message_size=64)
{ALIASES[before]}
sys.modules["posix_ipc"] = face
import posix_ipc
queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREAT, **small)
told = threading.Event()
queue.request_notification((lambda _: told.set(), None))
try:
    posix_ipc.MessageQueue(name).request_notification((print, "twice"))
except posix_ipc.BusyError:
    print("refused")
queue.send(b"message")
print(queue.receive(), told.wait(20), posix_ipc is face and sys.modules["posix_ipc"] is face)
"""
    done = subprocess.run([sys.executable, "-c", script, name], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["refused", "(b'message', 0) True True"], done.stderr
