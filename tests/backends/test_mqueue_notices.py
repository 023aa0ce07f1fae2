"""The kernel's notices, which mqueue has as threads and as signals."""

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
from backends.mqueue import HANG, Handle
from ipcq.errors import LimitExceeded, MessageQueueError
from ipcq_mqueue import _kernel, _notice

name, queue = mqueue.name, mqueue.queue


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
    _notice._notified((0, lambda: int("x")))
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
        with pytest.raises(LimitExceeded, match="pending notice requests"):
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
        raise _notice.notice_taken()

    queue.notify(print)
    with monkeypatch.context() as taken:
        taken.setattr(_notice, "request", refuse)
        assert ipcq.exists(queue.name, "mqueue")


def test_who_cannot_read_takes_itself_for_the_registrant(queue: Handle) -> None:
    """The kernel tells only readers who is registered."""
    with ipcq.open(queue.name, "mqueue", read=False) as writer:
        assert _notice._registrant(writer._channel.fileno()) == os.getpid()


def test_a_notice_that_was_told_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """One-shot: what the C library's thread calls forgets it, and then tells."""
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
def test_a_refused_notice_is_told_by_its_meaning(
    monkeypatch: pytest.MonkeyPatch, number: int, notice: object, kind: type[MessageQueueError]
) -> None:
    """C5, C24: glibc, which starts a thread for functions, says ENOSYS if it cannot."""

    class Refusing:
        mqd = os.open("/dev/null", os.O_RDONLY)

        def request_notification(self, _: object) -> None:
            raise OSError(number, os.strerror(number))

    try:
        with pytest.raises(MessageQueueError) as caught:
            _notice.request(Refusing(), notice)  # type: ignore[arg-type]  # what of a queue is asked for
    finally:
        os.close(Refusing.mqd)
    assert type(caught.value) is kind
