"""The limits of a shm queue, and its errors where the system refuses a call."""

import builtins
import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import ipcq
from backends import shm
from backends.shm import SMALL, attach, create, run_script
from ipcq_shm import _segment

works, name = shm.works, shm.name


# Limits


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"max_message_size": 2**32}, ipcq.Unsupported),
        ({"max_message_size": 2**40, "max_messages": 1}, ipcq.Unsupported),
        ({"max_message_size": 512, "max_messages": 4, "buffer_size": 2000}, ipcq.InvalidArgument),
        ({"max_message_size": 512, "max_messages": None, "buffer_size": 512}, ipcq.InvalidArgument),
        ({"max_messages": None, "max_message_size": None, "buffer_size": 10}, ipcq.InvalidArgument),
        ({"max_messages": None, "max_message_size": 1, "buffer_size": 1 << 47}, ipcq.Unsupported),
        ({"max_messages": 2**64, "max_message_size": None}, ipcq.Unsupported),
        ({"max_messages": 1 << 16, "max_message_size": 1 << 28}, ipcq.NoSpace),
        ({"mode": 0o622}, ipcq.Unsupported),
    ],
    ids=str,
)
def test_impossible_limits_are_refused(name: str, limits: dict[str, Any], error: type[Exception]) -> None:
    """C24, clause 6: the error has the limit, and nothing is left behind."""
    with pytest.raises(error):
        create(name, **limits)
    assert not ipcq.exists(name, "shm")


def test_a_full_file_system_is_no_space(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C23: also if it fills up while the file is allocated, and no file is left."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(ipcq.NoSpace):
        create(name)
    assert not ipcq.exists(name, "shm")


@pytest.mark.parametrize("limits", [{"buffer_size": 4096}, {"max_messages": 2, "max_message_size": 100}], ids=str)
@pytest.mark.parametrize("priorities", [False, True])
def test_limits_are_the_same_on_every_handle(name: str, limits: dict[str, int], priorities: bool) -> None:
    """C18, clause 6: a limit is as given, or None, or derived from the given ones."""
    none = dict.fromkeys(SMALL)
    with create(name, **{**none, **limits}, priorities=priorities) as queue, attach(name, **limits) as other:
        assert queue._channel.attributes == other._channel.attributes
        assert {limit: getattr(other, limit) for limit in limits} == limits


@pytest.mark.parametrize(("priorities", "reason"), [(False, "free"), (True, "at most")])
def test_a_queue_with_priorities_has_at_most_32_bits_of_cells(name: str, priorities: bool, reason: str) -> None:
    """C24: cell numbers have 32 bits, so this limit is checked before the free space."""
    with pytest.raises((ipcq.Unsupported, ipcq.NoSpace), match=reason):
        create(name, buffer_size=1 << 39, max_messages=None, max_message_size=512, priorities=priorities)


def test_a_file_larger_than_this_process_may_make_is_a_limit(name: str) -> None:
    """C24: the error has the limit's name, its value, and the size asked for."""
    code = f"""
import errno, ipcq, resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))
try:
    ipcq.open({name!r}, "shm")
except ipcq.LimitExceeded as error:
    print(error.limit, error.value, error.asked > 1 << 20, error.errno == errno.EFBIG)
"""
    assert run_script(code) == "RLIMIT_FSIZE 524288 True True"


def test_too_many_mappings_are_a_limit(name: str) -> None:
    """C24: the kernel reports it as ENOMEM."""
    code = f"""
import errno, ipcq, mmap
from ipcq_shm import _opening
create, most = ipcq.open, int(open("/proc/sys/vm/max_map_count").read())
create({name + "-first"!r}, "shm").unlink()
space = mmap.mmap(-1, 2 * most * mmap.PAGESIZE)
import ctypes
protect = ctypes.CDLL(None, use_errno=True).mprotect
start = ctypes.addressof(ctypes.c_char.from_buffer(space))
page = 0
while protect(ctypes.c_void_p(start + 2 * page * mmap.PAGESIZE), mmap.PAGESIZE, mmap.PROT_READ) == 0:
    page += 1
try:
    create({name!r}, "shm")
except ipcq.LimitExceeded as error:
    print(error.limit, error.value == most, error.asked > most, error.errno == errno.ENOMEM)
"""
    assert run_script(code) == "vm.max_map_count True True True"


def test_an_allocation_completes_under_a_fast_timer(name: str) -> None:
    """C23: a call that a signal interrupts starts again, so each call has to be short."""
    code = f"""
import signal, ipcq
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
queue = ipcq.open({name!r}, "shm", exclusive=True, buffer_size=32 << 20)
signal.setitimer(signal.ITIMER_REAL, 0)
queue.close()
"""
    run_script(code)
    assert os.path.getsize(_segment.path_of(name)) > 32 << 20


HANDLES = """
import ctypes, sys, tracemalloc
import ipcq

class Information(ctypes.Structure):
    # mallinfo2(3)
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

def used():
    # What Python has and, where glibc can tell it, what else has been allocated.
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return tracemalloc.get_traced_memory()[0]
    mallinfo.restype = Information
    found = mallinfo()
    return tracemalloc.get_traced_memory()[0] + found.uordblks + found.hblkhd

def opened(count):
    return [ipcq.open(sys.argv[1], "shm") for _ in range(count)]

first = opened(2)
tracemalloc.start()
before = used()
handles = opened(100)
print((used() - before) // 100)
for handle in first + handles:
    handle.close()
"""


def test_a_handle_takes_little_memory(name: str) -> None:
    """At most 64 KiB of heap."""
    create(name).close()
    assert 0 < int(run_script(HANDLES, name)) <= 64 << 10


def test_a_ring_that_cannot_be_mapped_leaves_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: a failure after the file was created releases its memory and its descriptor."""
    from ipcq_shm import _core

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(_core, "format", refuse)
    with pytest.raises(ipcq.NoSpace):
        create(name)
    assert not ipcq.exists(name, "shm")


def test_no_memory_loses_no_message(name: str) -> None:
    """C5: a batch that cannot be returned has not been taken, whichever allocation fails."""
    pytest.importorskip("_testcapi", reason="_testcapi came with Python 3.0")
    code = f"""
import _testcapi, ipcq
messages = [bytes([number]) * 40 for number in range(12)]
failed = 0
with ipcq.open({name!r}, "shm", max_messages=16, max_message_size=64, serializer="raw") as queue:
    channel = queue._channel
    for verb, arguments in (("try_get_many", (12,)), ("try_get_many", (1,)), ("try_get", ()), ("peek", ())):
        take = getattr(channel, verb)
        for allocation in range(40):
            queue.put_many(messages)
            taken = None
            _testcapi.set_nomemory(allocation, allocation + 3)
            try:
                taken = take(*arguments)
            except MemoryError:
                pass
            _testcapi.remove_mem_hooks()
            failed += taken is None
            got = 0 if taken is None or verb == "peek" else len(taken) if verb == "try_get_many" else 1
            left = queue.clear()
            assert left == 12 - got, (verb, allocation, taken, left)
print(failed > 5)
"""
    assert run_script(code) == "True"


# Refusals and missing prerequisites


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.EACCES, ipcq.PermissionDenied),
        (errno.EEXIST, ipcq.QueueExists),
        (errno.EMFILE, ipcq.LimitExceeded),
        (errno.ENOMEM, ipcq.NoSpace),
        (errno.EIO, ipcq.MessageQueueError),
    ],
)
def test_an_error_of_the_system_is_raised(
    name: str, number: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C24: one class for each condition, with the error number."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_segment, "nameless", refuse)
    with pytest.raises(error) as caught:
        create(name)
    assert isinstance(caught.value, ipcq.MessageQueueError)


def test_one_mapping_too_many_is_a_limit(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """C24: the kernel has one error number for that and for a lack of memory."""
    from ipcq_shm import _core

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    (tmp_path / "limit").write_text("10\n")
    monkeypatch.setattr(_segment, "_MAPPINGS_LIMIT", tmp_path / "limit")
    monkeypatch.setattr(_core, "format", refuse)
    with pytest.raises(ipcq.LimitExceeded, match="max_map_count=20"):
        create(name)


def test_a_file_that_is_too_large_is_refused_before_it_is_created(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: otherwise the kernel would send SIGXFSZ."""
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 1000))
    with pytest.raises(ipcq.LimitExceeded, match="RLIMIT_FSIZE is 1000"):
        create(name)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_failure_after_attaching_leaves_no_descriptor(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: by then the ring owns the descriptor and closes it alone."""
    from ipcq_shm import _channel

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    create(name).close()
    before = descriptors()
    monkeypatch.setattr(_channel, "_attributes", refuse)
    with pytest.raises(ipcq.MessageQueueError):
        attach(name)
    assert descriptors() == before


def test_no_memory_is_no_space(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: MemoryError becomes our NoSpace."""

    def refuse(*_: object) -> int:
        raise MemoryError

    monkeypatch.setattr(_segment, "nameless", refuse)
    with pytest.raises(ipcq.NoSpace):
        create(name)


def test_a_failed_look_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: a name that cannot be looked at is not necessarily free."""
    create(name).close()
    _open = os.open

    def refuse(path: str, *rest: int, **where: int) -> int:
        if path == _segment.path_of(name):
            raise OSError(errno.EIO, "broken")
        return _open(path, *rest, **where)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ipcq.MessageQueueError):
        ipcq.exists(name, "shm")
    with pytest.raises(ipcq.MessageQueueError):
        ipcq.unlink(name, "shm")


def probe() -> str:
    from ipcq_shm import ShmBackend

    return ShmBackend().probe().reason


def test_another_system_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 19: the probe names the platform."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "this is darwin" in probe()


def test_another_system_has_no_such_queues(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 3: looking there is no error, and finds nothing."""
    from ipcq_shm import ShmBackend

    with create(name):
        monkeypatch.setattr(sys, "platform", "darwin")
        backend = ShmBackend()
        assert (backend.exists(name), backend.names(), backend.findings()) == (False, [], [])
        with pytest.raises(ipcq.QueueNotFound):
            backend.unlink(name)
        monkeypatch.undo()


def test_a_missing_extension_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 19: the reason says how to build it."""
    import_ = builtins.__import__

    def refuse(module: str, *rest: Any) -> Any:
        if rest[2:] and rest[2] == ("_core",):
            raise ImportError("no module")
        return import_(module, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert "install a C compiler" in probe()


def test_an_extension_without_a_descriptor_to_load_it_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """C31: a full descriptor table says nothing about the installation."""
    import_ = builtins.__import__

    def refuse(module: str, *rest: Any) -> Any:
        if rest[2:] and rest[2] == ("_core",):
            raise ImportError(f"_core.so: cannot open shared object file: {os.strerror(errno.EMFILE)}")
        return import_(module, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError):
        probe()


def test_a_missing_proc_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 19: in a chroot, for example; otherwise a queue would seem to be missing."""
    exists = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: not str(path).startswith("/proc") and exists(path))
    assert "/proc" in probe()


def test_a_missing_directory_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 19: the reason names it."""
    monkeypatch.setattr(_segment, "DIRECTORY", "/nonesuch")
    assert "/nonesuch" in probe()


def test_a_kernel_without_robust_locks_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 19: the reason names robust locks."""
    from ipcq_shm import _core

    monkeypatch.setattr(_core, "works", lambda: False)
    assert "robust" in probe()


def test_little_space_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator sees it before a queue cannot be created."""
    import ipcq_shm
    from ipcq_shm import ShmBackend

    assert ShmBackend().findings() == []
    monkeypatch.setattr(ipcq_shm, "BUFFER_SIZE", 1 << 60)
    (finding,) = ShmBackend().findings()
    assert "remount" in finding.fix
    monkeypatch.setattr(_segment, "DIRECTORY", "/nonesuch")
    assert ShmBackend().findings() == []
