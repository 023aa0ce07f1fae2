"""C24: errors for a lack of descriptors or threads name the limit and the way out."""

import _thread
import builtins
import errno
from pathlib import Path

import pytest

from ipcq._process.limits import check_daemon_threads, too_many_descriptors, too_many_threads
from ipcq.errors import Unsupported

resource = pytest.importorskip("resource", reason="could not import 'resource', which only POSIX has")


def test_a_lack_of_descriptors_in_the_process_names_its_limit() -> None:
    """It is RLIMIT_NOFILE, with its current value."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    error = too_many_descriptors()
    assert (error.limit, error.value, error.asked, error.errno) == ("RLIMIT_NOFILE", most, most + 1, errno.EMFILE)
    assert f"ulimit -n {2 * most}" in error.remedy


def test_a_lack_of_descriptors_on_the_machine_names_its_limit() -> None:
    """It is file-max, see proc_sys_fs(5)."""
    most = int(Path("/proc/sys/fs/file-max").read_text())
    error = too_many_descriptors(errno.ENFILE)
    assert (error.limit, error.value, error.asked, error.errno) == ("fs.file-max", most, most + 1, errno.ENFILE)
    assert f"sysctl fs.file-max={2 * most}" in error.remedy


def test_the_limit_of_the_machine_is_named_even_if_it_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading it needs a descriptor, and there are none left."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENFILE, "Too many open files in system")

    with monkeypatch.context() as full:
        full.setattr(builtins, "open", refuse)
        error = too_many_descriptors(errno.ENFILE)
    assert error.limit == "fs.file-max" and "with a larger number" in error.remedy


@pytest.mark.parametrize(
    ("most", "limit", "way"),
    [(7, "RLIMIT_NPROC", "ulimit -u 14"), (resource.RLIM_INFINITY, "kernel.threads-max", "sudo sysctl kernel.")],
)
def test_a_lack_of_threads_names_its_limit(monkeypatch: pytest.MonkeyPatch, most: int, limit: str, way: str) -> None:
    """It is RLIMIT_NPROC of setrlimit(2), or threads-max of proc_sys_kernel(5) if that is unlimited."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (most, most))
    error = too_many_threads()
    assert (error.limit, error.asked - error.value, error.errno) == (limit, 1, errno.EAGAIN)
    assert way in error.remedy


def test_an_interpreter_with_its_own_gil_is_told_that_it_has_no_daemon_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: the error is not that the system is short of threads; test_gil.py uses such interpreters."""
    monkeypatch.setattr(_thread, "daemon_threads_allowed", lambda: False, raising=False)
    with pytest.raises(Unsupported, match=r"needs a daemon thread, .*: use the main interpreter for it$"):
        check_daemon_threads()
