"""Base of most contestants: queues between processes, measured by workers; and ipcq itself."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from operator import attrgetter, itemgetter
from typing import Any

from ipcq._bench.contestant import CONTROL, OURS, PEER, Contestant, Declined, ReadEnd, Sample, WriteEnd
from ipcq._bench.payloads import Cycle, Numbered, Payloads
from ipcq._bench.sample import run
from ipcq._bench.workload import USUAL, Workload
from ipcq._distribution import DISTRIBUTION

BYTES_ALONE = "it moves bytes, and nothing else"


def new_name() -> str:
    """Return an unused name, in the form that `ipcq doctor` recognizes as a benchmark's."""
    return f"/ipcq-bench-{os.getpid()}-{os.urandom(4).hex()}"


class Queues:
    """A contestant whose queues connect worker processes. It is sent to the workers, so it must be picklable."""

    name = ""
    kind = PEER
    awaited = False
    distribution = ""
    """The distribution that it needs; empty for the standard library."""

    @property
    def version(self) -> str:
        """Return the installed version."""
        return version(self.distribution) if self.distribution else ""

    def queues(self, workload: Workload) -> AbstractContextManager[Sequence[Any]]:
        """Create the queues of a workload, and remove them on exit.

        Raises:
            Declined: The contestant does not support the workload.
        """
        raise NotImplementedError

    def writer(self, address: Any, workload: Workload) -> WriteEnd:
        """Open the producer's end, in the worker."""
        raise NotImplementedError

    def reader(self, address: Any, workload: Workload) -> ReadEnd:
        """Open the consumer's end, in the worker."""
        raise NotImplementedError

    def payloads(self, workload: Workload, producer: int) -> Payloads:
        """Return the messages to move."""
        if workload.producers > 1 or workload.consumers > 1:
            return Numbered(producer)
        return Cycle(workload, dict, itemgetter("id"))

    def sample(self, workload: Workload, seconds: float) -> Sample:
        """Run a workload once."""
        return run(self, workload, seconds)


class Again:
    """The same contestant a second time, to show the noise of the machine."""

    kind = CONTROL

    def __init__(self, contestant: Contestant) -> None:
        self.name = f"{contestant.name} again"
        self.version = contestant.version
        self.sample = contestant.sample


class Ipcq(Queues):
    """ipcq, through its public interface.

    Args:
        backend: The backend of the queues.
        name: The name of the contestant; by default derived from the backend.
        options: Options of `ipcq.open`. If any are given, they determine the capacity.
    """

    kind = OURS
    distribution = DISTRIBUTION

    def __init__(self, backend: str, name: str = "", *, serializer: str = "msgpack", **options: Any) -> None:
        self.name = name or f"ipcq {backend}"
        self._backend = backend
        self._serializer = serializer
        self._options = options

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[Sequence[str]]:
        import ipcq

        if self._serializer == "raw" and workload.objects:
            raise Declined(BYTES_ALONE)
        if workload.typed and find_spec("msgspec") is None:
            raise Declined(f"msgspec is not installed: pip install '{DISTRIBUTION}[msgspec]'")
        names = [new_name() for _ in range(workload.queues)]
        made: list[ipcq.Queue[Any]] = []
        try:
            made.extend(self._make(name, workload) for name in names)
            yield names
        finally:
            for queue in made:
                queue.unlink()
                queue.close()

    def _make(self, name: str, workload: Workload) -> Any:
        import ipcq

        options = dict(self._options)
        if workload.size > USUAL:
            # Plus the serializer's header.
            options.setdefault("max_message_size", workload.size + 64)
        try:
            if not self._options:
                try:
                    return ipcq.open(name, self._backend, exclusive=True, buffer_size=workload.room, **options)
                except (ipcq.Unsupported, ipcq.LimitExceeded):
                    pass  # the backend has no capacity in bytes, or the kernel allows less
            return ipcq.open(name, self._backend, exclusive=True, **options)
        except (ipcq.Unsupported, ipcq.LimitExceeded, ipcq.NoSpace) as error:
            raise Declined(error.detail or str(error)) from None

    def writer(self, address: str, workload: Workload) -> WriteEnd:
        queue = self._open(address, workload)
        return WriteEnd(put=queue.put, put_many=queue.put_many, finish=queue.close)

    def reader(self, address: str, workload: Workload) -> ReadEnd:
        queue = self._open(address, workload)
        return ReadEnd(get=queue.get, get_many=queue.get_many, finish=queue.close)

    def _open(self, name: str, workload: Workload) -> Any:
        import ipcq

        if workload.typed:
            return ipcq.open(name, self._backend, create=False, serializer="msgspec", type=reading())
        return ipcq.open(name, self._backend, create=False, serializer=self._serializer)

    def payloads(self, workload: Workload, producer: int) -> Payloads:
        if not workload.typed:
            return super().payloads(workload, producer)
        struct = reading()
        return Cycle(workload, lambda fields: struct(**fields), attrgetter("id"))


@cache
def reading() -> Any:
    """Return the msgspec type of the small dicts."""
    import msgspec

    return msgspec.defstruct(
        "Reading", [("id", int), ("name", str), ("value", float), ("valid", bool), ("tags", list[str])]
    )
