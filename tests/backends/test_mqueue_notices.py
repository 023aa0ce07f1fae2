"""The kernel's notifications, which mqueue delivers by threads and by signals."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator

import pytest

import ipcq
from backends import mqueue
from backends.mqueue import HANG_SECONDS, Handle
from ipcq.errors import LimitExceeded, MessageQueueError
from ipcq_mqueue import _kernel, _notice

name, queue = mqueue.name, mqueue.queue


@pytest.fixture
def notices() -> Iterator[list[object]]:
    """Return the list of signals that arrived."""
    arrived: list[object] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: arrived.append(number))
    yield arrived
    signal.signal(signal.SIGUSR1, before)


def wait_for(event: threading.Event) -> bool:
    return event.wait(HANG_SECONDS)


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda name: ipcq.exists(name, "mqueue"),
        lambda name: ipcq.open(name, "mqueue").close(),
        lambda name: ipcq.open(name, "mqueue", read=False).close(),
        lambda name: ipcq.queues(),
    ],
)
def test_a_notice_survives_closing_another_descriptor(queue: Handle, meanwhile: Callable[[str], object]) -> None:
    """The kernel drops a registration when its process closes any descriptor of the queue; ipcq registers again."""
    told = threading.Event()
    queue.notify(told.set)
    meanwhile(queue.name)
    with ipcq.open(queue.name, "mqueue", serializer="raw", read=False) as writer:
        writer.put(b"x")
        assert wait_for(told)


def test_a_notice_that_raises_is_an_exception_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python reports it; posix_ipc would be silent."""
    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda what: told.append(what.exc_type))
    _notice._notified((0, lambda: int("x")))
    assert told == [ValueError]


def test_a_signal_survives_closing_another_descriptor(queue: Handle, notices: list[object]) -> None:
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


def test_a_signal_can_be_requested_again(queue: Handle, notices: list[object]) -> None:
    """A notice is one-shot: register again."""
    for _ in range(2):
        queue.notify(signal=signal.SIGUSR1)
        queue.put(b"x")
        queue.get()
    assert notices == [signal.SIGUSR1] * 2


def test_closing_a_handle_cancels_its_notice(queue: Handle) -> None:
    """close cancels it, and another handle can register."""
    with ipcq.open(queue.name, "mqueue") as other:
        other.notify(print)
    queue.notify(print)
    queue.notify()


def test_a_handle_cannot_cancel_the_notice_of_another(queue: Handle) -> None:
    """notify() without arguments cancels only the request of its own handle."""
    with ipcq.open(queue.name, "mqueue") as other:
        queue.notify(print)
        other.notify()
        with pytest.raises(LimitExceeded, match="pending notice requests"):
            other.notify(print)


def test_a_notice_of_another_process_is_a_limit(queue: Handle) -> None:
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
        other.communicate("\n", timeout=HANG_SECONDS)
    assert caught.value.errno == errno.EBUSY


@pytest.mark.parametrize("by_signal", [True, False])
def test_a_message_that_arrives_while_the_notice_is_registered_again_is_noticed(
    queue: Handle, notices: list[object], by_signal: bool
) -> None:
    """In the gap between the kernel's removal and the new registration, nothing else would report the message."""
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


def test_a_notice_that_another_process_takes_meanwhile_is_lost_silently(
    queue: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking whether a queue exists does not fail because of another process's notice."""

    def refuse(*_: object) -> None:
        raise _notice.notice_taken()

    queue.notify(print)
    with monkeypatch.context() as taken:
        taken.setattr(_notice, "request", refuse)
        assert ipcq.exists(queue.name, "mqueue")


def test_a_handle_that_cannot_read_assumes_that_it_is_the_registrant(queue: Handle) -> None:
    """The kernel shows the registrant only to readers."""
    with ipcq.open(queue.name, "mqueue", read=False) as writer:
        assert _notice._registrant(writer._channel.fileno()) == os.getpid()


def test_a_notice_is_forgotten_before_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notice is one-shot: the C library's thread first forgets it, then calls the function."""
    told: list[object] = []
    monkeypatch.setattr(_notice, "_registered", {5: (object(), print)})
    _notice._notified((5, lambda: told.append(dict(_notice._registered))))
    assert told == [{}]


@pytest.mark.parametrize(
    ("number", "notice", "kind"),
    [
        (errno.ENOSYS, print, LimitExceeded),
        (errno.EAGAIN, print, LimitExceeded),
        (errno.ENOSYS, signal.SIGUSR1, MessageQueueError),
        (errno.EIO, print, MessageQueueError),
    ],
)
def test_a_refused_notice_raises_the_class_of_its_error_number(
    monkeypatch: pytest.MonkeyPatch, number: int, notice: object, kind: type[MessageQueueError]
) -> None:
    """C5, C24: glibc starts a thread for functions, and returns ENOSYS if it cannot."""

    class Refusing:
        mqd = os.open("/dev/null", os.O_RDONLY)

        def request_notification(self, _: object) -> None:
            raise OSError(number, os.strerror(number))

    try:
        with pytest.raises(MessageQueueError) as caught:
            _notice.request(Refusing(), notice)  # type: ignore[arg-type]  # has the part of a queue that is used
    finally:
        os.close(Refusing.mqd)
    assert type(caught.value) is kind
