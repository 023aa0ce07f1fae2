"""A handle of shm: in a child, with notices and the doorbell, and with messages of any size."""

import os
import random
import stat
import subprocess
import sys
import threading
import time

import pytest

import ipcq
from backends import shm
from backends.shm import create, run_script
from ipcq_shm import _notice, _segment

works, name = shm.works, shm.name


# Forks


def test_a_handle_takes_a_new_slot_in_a_child(name: str) -> None:
    """C20: a child that inherits it is another participant when a last-close queue counts its holders."""
    with create(name, lifetime="last-close") as queue:
        queue.put(b"item")
        channel = queue._channel
        assert channel.after_fork()
        assert not channel.shared()
        assert queue.get(timeout=5) == b"item"


def test_a_handle_that_cannot_have_a_slot_in_a_child_is_refused(name: str) -> None:
    """Clause 17: if no descriptor is free, the handle must not be used."""
    import resource

    with create(name) as queue:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            assert not queue._channel.after_fork()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        with pytest.raises(ipcq.QueueClosed):
            queue.put(b"item")


# Notices


def test_a_notice_that_was_given_need_not_be_cancelled(name: str) -> None:
    """Clause 20: cancelling a notice after it was given does nothing."""
    import threading

    told = threading.Event()
    with create(name) as queue:
        queue.notify(told.set)
        queue.put(b"item")
        assert told.wait(10)
        queue.notify()


def test_a_notice_of_a_dead_process_is_replaced(name: str) -> None:
    """C19: the next registrant replaces it."""
    import threading

    told = threading.Event()
    with create(name) as queue:
        code = (
            f"import ipcq, os; q = ipcq.open({name!r}, 'shm', create=False); q.notify(print); os.kill(os.getpid(), 9)"
        )
        subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
        queue.notify(told.set)
        queue.put(b"item")
        assert told.wait(10)


def test_a_notice_can_be_a_signal_to_this_process(name: str) -> None:
    """Clause 20: the signal is sent to the process that registered."""
    import signal

    told: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: told.append(number))
    try:
        with create(name) as queue:
            queue.notify(signal=signal.SIGUSR2)
            queue.put(b"item")
            until = time.monotonic() + 10
            while not told and time.monotonic() < until:
                time.sleep(0.01)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert told == [signal.SIGUSR2]


def test_the_doorbell_has_the_mode_of_the_queue(name: str) -> None:
    """C27: every user who may use the queue may ring."""
    with create(name, mode=0o660, other_users=True) as queue:
        assert stat.S_IMODE(os.fstat(queue.fileno()).st_mode) == 0o660
        queue.unlink()
    assert not os.path.exists(_segment.bell_of(name))


def test_a_put_without_a_descriptor_for_the_doorbell_is_refused(name: str) -> None:
    """C5, C24: a producer that cannot wake pollers must not commit its message."""
    code = f"""
import errno, ipcq, resource
with ipcq.open({name!r}, "shm") as queue, ipcq.open({name!r}, "shm") as other:
    queue.fileno()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    for put in (lambda: other.put(b"item"), lambda: other.put_many([b"item"]), other.fileno):
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            put()
        except ipcq.LimitExceeded as error:
            refused = error
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        print(refused.limit, refused.value, refused.errno == errno.EMFILE, queue.empty())
    queue.unlink()
"""
    assert run_script(code).splitlines() == ["RLIMIT_NOFILE 3 True True"] * 3


# Messages


def test_many_large_messages_come_back_as_they_were(name: str) -> None:
    """Clause 10: large messages are copied without the lock, in batches, alone, and with priorities."""
    for priorities in (False, True):
        with create(name, max_messages=4, max_message_size=1 << 20, priorities=priorities) as queue:
            messages = [random.Random(size).randbytes(size) for size in (1 << 20, 40_000, 32_768, 32_767)]
            for take in (queue.get_many, lambda: [queue.get(timeout=5) for _ in range(4)]):
                for message in messages:
                    queue.put(message)
                taken: list[bytes] = []
                while len(taken) < 4:
                    taken += take()
                assert taken == messages
            assert queue.put_many(messages) == 4
            assert queue.peek() == messages[0]
            assert queue.clear() == 4
            queue.unlink()


def test_an_argument_that_is_no_message_is_a_type_error(name: str) -> None:
    """Clause 8: the extension takes only bytes, and the error says so."""
    with create(name) as queue:
        channel = queue._channel
        for call in (
            lambda: channel.try_put("text", 0),
            lambda: channel.try_put(b"text"),
            lambda: channel.try_put(b"text", None),
            lambda: channel.try_put_many([b"fine", 1]),
            lambda: channel.try_put_many(1),
            lambda: channel.try_put_many(),
            lambda: channel.try_put_many([b"fine"], None),
            lambda: channel.try_put_many([b"fine"], 0, 0),
            lambda: channel.try_get_many("many"),
            lambda: channel.wait_readable(1),
            lambda: channel.wait_readable(None, 1.0),
            lambda: channel.wait_writable(0, 1.0, None),
            lambda: channel.wait_writable(None, 1.0, 1.0),
        ):
            with pytest.raises(TypeError):
                call()
        assert queue.empty()


# Closing


# In a new process, because coverage's tracer does not survive it.
INTERRUPTED = """
import gc, os, sys
from types import SimpleNamespace
from ipcq.backend import Request
from ipcq_shm import ShmBackend, _channel, _opening, _segment

def struck_at(instruction, call):
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if not frame.f_code.co_filename.startswith(os.path.dirname(_segment.__file__)):
            return None
        frame.f_trace_opcodes = True
        if event in ("line", "opcode"):  # 3.12 may leave out those of a frame that has begun
            count += 1
            if count > instruction:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False

def descriptors():
    # The listing's own is gone again.
    return {int(each) for each in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{each}")}

def close_and_reuse(descriptor):
    os.close(descriptor)
    reused.append(os.open("/dev/null", os.O_RDONLY))

reused = []
before = descriptors()
_segment.os = _channel.os = _opening.os = SimpleNamespace(**{**vars(os), "close": close_and_reuse})
strikes = 0
while struck_at(strikes, lambda: ShmBackend().attach(sys.argv[1], Request()).close()):
    strikes += 1
    for descriptor in reused:
        os.fstat(descriptor)  # fails where somebody else has closed it
    reused.clear()
    gc.collect()
    # Ours, and what a call had returned and nobody had stored yet, which Python cannot help.
    for left in descriptors() - before:
        os.close(left)
print(strikes)
"""


def test_a_descriptor_is_closed_once_whenever_an_exception_strikes(name: str) -> None:
    """C5: a handler that raises in the middle of an open must not cause another's descriptor to be closed."""
    create(name).close()
    assert int(run_script(INTERRUPTED, name)) > 50


class ClosedInItsOwnThread:
    """A ring whose handle a finaliser closes in the thread that waits for the notice."""

    def __init__(self) -> None:
        self.request: _notice.Request | None = None
        self.known = threading.Event()

    def wait_notice(self, seen: int) -> bool:
        assert self.known.wait(10)
        assert self.request is not None
        self.request.withdraw()
        raise ipcq.QueueClosed

    def cancel_notice(self) -> None:
        pass


def test_a_handle_closed_in_the_thread_of_its_notice_does_not_wait() -> None:
    """C34: the thread cannot wait for itself, and gives no notice."""
    ring, told = ClosedInItsOwnThread(), threading.Event()
    ring.request = _notice.Request(ring, 0, told.set)  # type: ignore[arg-type]  # the part of a ring that is used
    ring.known.set()
    ring.request._thread.join(10)
    assert ring.request._out.is_set()
    assert not told.is_set()


def no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_notice_without_a_thread_is_a_limit_and_leaves_no_request(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: another handle can register."""
    with ipcq.open(name, "shm") as queue, ipcq.open(name, "shm") as other:
        with (
            monkeypatch.context() as context,
            pytest.raises(ipcq.LimitExceeded, match="so that a thread can be started"),
        ):
            context.setattr(threading.Thread, "start", no_thread)
            queue.notify(print)
        other.notify(print)
        other.notify()
