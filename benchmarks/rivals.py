"""Rivals: queues of other libraries, each used as its documentation recommends.

They are not in the wheel, because measuring them needs a checkout with the versions of the dependency group `bench`.
"""

import os
import pickle
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ipcq._bench.contestant import Declined, ReadEnd, WriteEnd
from ipcq._bench.queues import BYTES_ALONE, Queues, new_name
from ipcq._bench.references import poll_for
from ipcq._bench.workload import Workload

NEVER = object()
#: Parent of the temporary directories for files that rivals map.
SHARED_MEMORY = "/dev/shm"
#: The number of messages that a ring of tachyon-ipc must have space for.
TACHYON_MESSAGES = 64
ONE_READER = "it has no queue that several consumers share"


class FasterFifo(Queues):
    """faster-fifo: a ring in shared memory under one lock; with `raw`, bytes without pickle."""

    distribution = "faster-fifo"

    def __init__(self, name: str = "faster-fifo", *, raw: bool = False) -> None:
        self.name = name
        self._raw = raw

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[Sequence[Any]]:
        import faster_fifo
        import faster_fifo_reduction  # noqa: F401  # makes the queues picklable

        if self._raw and workload.objects:
            raise Declined(BYTES_ALONE)
        codec = {"dumps": bytes, "loads": bytes} if self._raw else {}
        yield [faster_fifo.Queue(max_size_bytes=workload.room, **codec) for _ in range(workload.queues)]

    def writer(self, address: Any, workload: Workload) -> WriteEnd:
        return WriteEnd(put=address.put, put_many=address.put_many)

    def reader(self, address: Any, workload: Workload) -> ReadEnd:
        return ReadEnd(get=address.get, get_many=lambda most: address.get_many(max_messages_to_get=most))


class PosixIpc(Queues):
    """posix_ipc: the kernel's message queues, with the largest capacity that this user's limits allow.

    Args:
        name: Name of the contestant.
        max_messages: Capacity in messages, by default the largest.
        max_message_size: Limit of a message in bytes, by default the workload's size.
        polled: Wait in poll rather than in the call, like programs that wait for several descriptors.
    """

    distribution = "posix_ipc"

    def __init__(
        self,
        name: str = "posix_ipc",
        *,
        max_messages: int | None = None,
        max_message_size: int | None = None,
        polled: bool = False,
    ) -> None:
        self.name = name
        self._max_messages = max_messages
        self._max_message_size = max_message_size
        self._polled = polled

    def library(self) -> Any:
        """Return the module."""
        import posix_ipc

        return posix_ipc

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[Sequence[str]]:
        posix_ipc = self.library()
        size = self._max_message_size or max(workload.size, 256 if workload.objects else 0)
        names = [new_name() for _ in range(workload.queues)]
        depth = self._max_messages or depth_of(size, workload.queues)
        with ExitStack() as stack:
            for name in names:
                try:
                    queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, max_messages=depth, max_message_size=size)
                except (OSError, ValueError) as error:
                    raise Declined(
                        f"no queue of {depth} messages of {size} bytes can be made: {error}; see fs.mqueue.* "
                        "of sysctl and `ulimit -q`"
                    ) from None
                stack.callback(queue.unlink)
                queue.close()
            yield names

    def writer(self, address: str, workload: Workload) -> WriteEnd:
        queue = self.library().MessageQueue(address, read=False)
        send = self._waiting(queue, queue.send)
        return WriteEnd(put=(lambda item: send(pickle.dumps(item))) if workload.objects else send, finish=queue.close)

    def reader(self, address: str, workload: Workload) -> ReadEnd:
        queue = self.library().MessageQueue(address, write=False)
        receive = self._waiting(queue, queue.receive)
        if workload.objects:
            return ReadEnd(get=lambda: pickle.loads(receive()[0]), finish=queue.close)
        return ReadEnd(get=lambda: receive()[0], finish=queue.close)

    def _waiting(self, queue: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        if not self._polled:
            return call
        busy = self.library().BusyError
        queue.block = False
        poll = poll_for(queue.mqd, writing=call == queue.send)

        def waiting(*data: bytes) -> Any:
            while True:
                try:
                    return call(*data)
                except busy:
                    poll()

        return waiting


class Baseplate(Queues):
    """baseplate's message queue, over posix_ipc."""

    name = "baseplate"
    distribution = "baseplate"

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[Sequence[tuple[str, int]]]:
        if workload.objects:
            raise Declined(BYTES_ALONE)
        message_queue = self.library().MessageQueue
        depth = depth_of(workload.size, workload.queues)
        addresses = [(new_name(), depth) for _ in range(workload.queues)]
        with ExitStack() as stack:
            for name, _ in addresses:
                try:
                    queue = message_queue(name, depth, workload.size)
                except (OSError, ValueError) as error:
                    raise Declined(
                        f"no queue of {depth} messages of {workload.size} bytes can be made: {error}"
                    ) from None
                stack.callback(queue.unlink)
                queue.close()
            yield addresses

    def writer(self, address: tuple[str, int], workload: Workload) -> WriteEnd:
        queue = self._open(address, workload)
        return WriteEnd(put=queue.put, finish=queue.close)

    def reader(self, address: tuple[str, int], workload: Workload) -> ReadEnd:
        queue = self._open(address, workload)
        return ReadEnd(get=queue.get, finish=queue.close)

    def _open(self, address: tuple[str, int], workload: Workload) -> Any:
        name, depth = address
        return self.library().MessageQueue(name, depth, workload.size)

    def library(self) -> Any:
        """Return the module."""
        with warnings.catch_warnings():
            # Its imports are deprecated, which it warns of once in each worker.
            warnings.simplefilter("ignore")
            from baseplate.lib import message_queue
        return message_queue


class Pyzmq(Queues):
    """pyzmq: PUSH and PULL over ipc://; its I/O threads send the messages through sockets."""

    name = "pyzmq"
    distribution = "pyzmq"

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[Sequence[str]]:
        if workload.consumers > 1:
            raise Declined(ONE_READER)
        with TemporaryDirectory(prefix="ipcq-bench-") as directory:
            yield [f"ipc://{directory}/{number}" for number in range(workload.queues)]

    def context(self) -> Any:
        """Return the context that creates the sockets."""
        import zmq

        return zmq.Context()

    def writer(self, address: str, workload: Workload) -> WriteEnd:
        import zmq

        context = self.context()
        end = context.socket(zmq.PUSH)
        end.connect(address)
        # Destroying the context waits until all messages are sent.
        return WriteEnd(put=end.send_pyobj if workload.objects else end.send, finish=lambda: context.destroy(linger=-1))

    def reader(self, address: str, workload: Workload) -> ReadEnd:
        import zmq

        context = self.context()
        end = context.socket(zmq.PULL)
        end.bind(address)
        return ReadEnd(get=end.recv_pyobj if workload.objects else end.recv, finish=lambda: context.destroy(linger=0))


class Iceoryx2(Queues):
    """iceoryx2: publish and subscribe over shared memory. Its subscriber busy-polls, which is its fastest way."""

    name = "iceoryx2, busy"
    distribution = "iceoryx2"

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[Sequence[str]]:
        if workload.consumers > 1:
            raise Declined("each of its consumers gets every message")
        if workload.objects:
            raise Declined(BYTES_ALONE)
        yield [new_name() for _ in range(workload.queues)]

    def _service(self, address: str, workload: Workload) -> tuple[Any, Any]:
        import ctypes

        import iceoryx2

        iceoryx2.set_log_level(iceoryx2.LogLevel.Fatal)
        node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
        builder = node.service_builder(iceoryx2.ServiceName.new(address)).publish_subscribe(
            iceoryx2.Slice[ctypes.c_uint8]
        )
        return node, (
            builder.enable_safe_overflow(False)
            .history_size(0)
            .max_publishers(workload.producers)
            .max_subscribers(1)
            .subscriber_max_buffer_size(workload.depth)
            .open_or_create()
        )

    def writer(self, address: str, workload: Workload) -> WriteEnd:
        import ctypes

        import iceoryx2

        node, service = self._service(address, workload)
        publisher = (
            service.publisher_builder()
            .initial_max_slice_len(workload.size)
            .backpressure_strategy(iceoryx2.BackpressureStrategy.RetryUntilDelivered)
            .create()
        )
        loan, size, move = publisher.loan_slice_uninit, workload.size, ctypes.memmove
        wait_until(lambda: service.dynamic_config.number_of_subscribers == 1)

        def put(message: bytes) -> None:
            sample = loan(size)
            move(sample.payload_ptr, message, size)
            sample.assume_init().send()

        def finish() -> None:
            nonlocal node
            publisher.delete()
            del node

        return WriteEnd(put=put, finish=finish)

    def reader(self, address: str, workload: Workload) -> ReadEnd:
        import ctypes

        node, service = self._service(address, workload)
        subscriber = service.subscriber_builder().buffer_size(workload.depth).create()
        # Messages sent before the ends are connected are lost once the buffer is full; has_samples connects them.
        wait_until(lambda: service.dynamic_config.number_of_publishers == workload.producers)
        subscriber.has_samples()
        size, read = workload.size, ctypes.string_at
        # Busy-poll with a Python function, because other threads may run between its calls.
        coming = filter(None, iter(lambda: subscriber.receive(), NEVER))

        def get() -> bytes:
            sample = next(coming)
            message = read(sample.payload_ptr, size)
            sample.delete()
            return message

        def finish() -> None:
            nonlocal node
            subscriber.delete()
            del node

        return ReadEnd(get=get, finish=finish)


class ShmQueue(Queues):
    """shmqueue: a ring in shared memory in pure Python, polled every ten milliseconds."""

    distribution = "shmqueue"

    def __init__(self, name: str = "shmqueue", *, buffer_size: int | None = None) -> None:
        self.name = name
        self._buffer_size = buffer_size

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[Sequence[str]]:
        names = [new_name()[1:] for _ in range(workload.queues)]
        with ExitStack() as stack:
            for name in names:
                stack.callback(self._open(name, workload).shutdown)
            yield names

    def writer(self, address: str, workload: Workload) -> WriteEnd:
        queue = self._open(address, workload)
        return WriteEnd(put=queue.put, finish=queue.shutdown)

    def reader(self, address: str, workload: Workload) -> ReadEnd:
        queue = self._open(address, workload)
        return ReadEnd(get=queue.get, finish=queue.shutdown)

    def _open(self, name: str, workload: Workload) -> Any:
        import shmqueue

        return shmqueue.ShmQueue(name, buffer_size=self._buffer_size or workload.room)


class CloudtoidInterprocess(Queues):
    """cloudtoid-interprocess: a ring in shared memory. Its put does not wait, so it is retried until there is space."""

    name = "cloudtoid-interprocess"
    distribution = "cloudtoid-interprocess"

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[Sequence[tuple[str, str]]]:
        if workload.objects:
            raise Declined(BYTES_ALONE)
        with TemporaryDirectory(prefix="ipcq-bench-", dir=SHARED_MEMORY) as directory, ExitStack() as stack:
            addresses = [(new_name()[1:], directory) for _ in range(workload.queues)]
            for address in addresses:
                # Closing the last end removes the queue with its messages, so keep one open.
                stack.enter_context(self.library().Subscriber(*self._arguments(address, workload)))
            yield addresses

    def library(self) -> Any:
        """Return the module."""
        import cloudtoid_interprocess

        return cloudtoid_interprocess

    def writer(self, address: tuple[str, str], workload: Workload) -> WriteEnd:
        end = self.library().Publisher(*self._arguments(address, workload))
        put = persistent(end.try_send)
        return WriteEnd(put=put, put_many=persistent_with_rest(end.try_send_batch), finish=end.close)

    def reader(self, address: tuple[str, str], workload: Workload) -> ReadEnd:
        end = self.library().Subscriber(*self._arguments(address, workload))
        return ReadEnd(get=end.receive, finish=end.close)

    def _arguments(self, address: tuple[str, str], workload: Workload) -> tuple[str, int, str]:
        name, directory = address
        return name, workload.room, directory


class SubethaIpc(Queues):
    """subetha-ipc: its SpscRing, which has slots of 64 bytes. Neither end can wait, so both busy-poll."""

    name = "subetha-ipc, busy"
    distribution = "subetha-ipc"

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[Sequence[str]]:
        if workload.producers > 1 or workload.consumers > 1:
            raise Declined("its SpscRing has one producer and one consumer")
        if workload.objects:
            raise Declined(BYTES_ALONE)
        import subetha

        with TemporaryDirectory(prefix="ipcq-bench-", dir=SHARED_MEMORY) as directory, ExitStack() as stack:
            paths = [f"{directory}/{number}" for number in range(workload.queues)]
            for path in paths:
                ring = stack.enter_context(subetha.SpscRing(path, slots_of(workload)))
                if workload.size > ring.payload_size:
                    raise Declined(f"a slot of its SpscRing has {ring.payload_size} bytes")
            yield paths

    def _open(self, address: str, workload: Workload) -> Any:
        import subetha

        return subetha.SpscRing.open(address, slots_of(workload))

    def writer(self, address: str, workload: Workload) -> WriteEnd:
        ring = self._open(address, workload)
        return WriteEnd(
            put=persistent(ring.push),
            put_many=persistent_with_rest(ring.push_many),
            finish=partial(ring.__exit__, None, None, None),
        )

    def reader(self, address: str, workload: Workload) -> ReadEnd:
        ring = self._open(address, workload)
        # Busy-poll with Python functions, because other threads may run between their calls.
        coming = filter(None, iter(lambda: ring.pop(), NEVER))

        def get_many(most: int) -> list[bytes]:
            return next(filter(None, iter(lambda: ring.pop_many(most), NEVER)))

        return ReadEnd(get=partial(next, coming), get_many=get_many, finish=partial(ring.__exit__, None, None, None))


class HyperQ(Queues):
    """hyperq: a ring in shared memory under one lock, with pickle for objects."""

    name = "hyperq"
    distribution = "hyperq"

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[Sequence[str]]:
        # Names may have at most 28 characters.
        names = [new_name()[1:29] for _ in range(workload.queues)]
        with ExitStack() as stack:
            for name in names:
                # The last end removes the files, unless a process was killed.
                for file in (name, f"b_{name}"):
                    stack.callback(Path(SHARED_MEMORY, file).unlink, missing_ok=True)
            # Ends are closed when they are freed, and the last one removes the queue.
            kept = [self._class(workload)(workload.room, name=name) for name in names]
            yield names
            kept.clear()

    def writer(self, address: str, workload: Workload) -> WriteEnd:
        return WriteEnd(put=self._class(workload)(address).put)

    def reader(self, address: str, workload: Workload) -> ReadEnd:
        return ReadEnd(get=self._class(workload)(address).get)

    def _class(self, workload: Workload) -> Any:
        import hyperq

        return hyperq.HyperQ if workload.objects else hyperq.BytesHyperQ


class TachyonIpc(Queues):
    """tachyon-ipc: a ring in shared memory for one producer and one consumer, whose send raises if the ring is full.

    There are no wheels; compiling it needs gcc 14 or clang 17.
    """

    name = "tachyon-ipc"
    distribution = "tachyon-ipc"

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[Sequence[str]]:
        if workload.producers > 1 or workload.consumers > 1:
            raise Declined("it has one producer and one consumer")
        if workload.objects:
            raise Declined(BYTES_ALONE)
        with TemporaryDirectory(prefix="ipcq-bench-") as directory:
            yield [f"{directory}/{number}" for number in range(workload.queues)]

    def writer(self, address: str, workload: Workload) -> WriteEnd:
        import tachyon

        # The consumer creates the ring and listens for the producer.
        connected: list[Any] = []

        def connect() -> bool:
            with suppress(OSError):
                connected.append(tachyon.Bus.connect(address))
            return bool(connected)

        wait_until(connect)
        (bus,) = connected

        def attempt(message: bytes) -> bool:
            try:
                bus.send(message)
            except tachyon.TachyonError as error:
                if "full" in str(error):
                    return False
                raise
            return True

        return WriteEnd(put=persistent(attempt), finish=partial(bus.__exit__, None, None, None))

    def reader(self, address: str, workload: Workload) -> ReadEnd:
        import tachyon

        # The consumer frees space only after several messages, so a ring for fewer messages would stay full forever.
        room = max(workload.room, TACHYON_MESSAGES * workload.size)
        bus = tachyon.Bus.listen(address, 1 << (room - 1).bit_length())
        coming = map(attrgetter("data"), bus)
        return ReadEnd(get=partial(next, coming), finish=partial(bus.__exit__, None, None, None))


def persistent(attempt: Callable[[Any], bool]) -> Callable[[Any], object]:
    """Return a put that retries until there is space, and yields the processor in between."""

    def put(message: Any) -> None:
        while not attempt(message):
            os.sched_yield()

    return put


def persistent_with_rest(attempt: Callable[[list[Any]], int]) -> Callable[[list[Any]], object]:
    """Return a put of several messages that retries until all are stored; `attempt` returns how many it stored."""

    def put_many(messages: list[Any]) -> None:
        while messages := messages[attempt(messages) :]:
            os.sched_yield()

    return put_many


def slots_of(workload: Workload) -> int:
    """Return the workload's depth, rounded up to a power of two."""
    return 1 << (workload.depth - 1).bit_length()


def wait_until(reached: Callable[[], bool]) -> None:
    """Busy-poll until a condition holds."""
    deque(iter(reached, True), maxlen=0)


def depth_of(size: int, queues: int) -> int:
    """Return the largest capacity of a message queue of the kernel that this user may create, for so many queues."""
    try:
        longest = int(Path("/proc/sys/fs/mqueue/msg_max").read_text())
    except OSError:
        return 10
    import resource

    allowed, _ = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    # The kernel charges 96 bytes for each message in addition to its size. Leave half to this user's other queues.
    fits = longest if allowed < 0 else allowed // 2 // queues // (size + 96)
    return max(1, min(longest, fits, 1000))


#: The contestants, and the modules that they import, by the names of their distributions.
RIVALS: dict[str, tuple[Callable[[], Queues], str]] = {
    "faster-fifo": (FasterFifo, "faster_fifo"),
    "posix_ipc": (PosixIpc, "posix_ipc"),
    "baseplate": (Baseplate, "baseplate"),
    "pyzmq": (Pyzmq, "zmq"),
    "iceoryx2": (Iceoryx2, "iceoryx2"),
    "shmqueue": (ShmQueue, "shmqueue"),
    "cloudtoid-interprocess": (CloudtoidInterprocess, "cloudtoid_interprocess"),
    "subetha-ipc": (SubethaIpc, "subetha"),
    "hyperq": (HyperQ, "hyperq"),
    "tachyon-ipc": (TachyonIpc, "tachyon"),
}


def installed(rival: str) -> bool:
    """Return whether a rival's module is installed."""
    return find_spec(RIVALS[rival][1]) is not None
