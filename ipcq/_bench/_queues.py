"""What most contestants have in common: queues between processes, which are measured by workers."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from operator import itemgetter
from typing import Any

from ipcq._bench._contestant import CONTROL, OURS, PEER, Contestant, Declined, End, Sample
from ipcq._bench._goods import Cycle, Goods, Numbered
from ipcq._bench._sample import run
from ipcq._bench._workload import USUAL, Workload


def new_name() -> str:
    """Return a name that nobody uses, as `ipcq doctor` knows it for what it is."""
    return f"/ipcq-bench-{os.getpid()}-{os.urandom(4).hex()}"


class Queues:
    """A contestant whose queues lie between the processes of workers, to which it travels: it has to be picklable."""

    name = ""
    kind = PEER
    distribution = ""
    """What has to be installed for it; empty for the standard library."""

    @property
    def version(self) -> str:
        """Return what is installed."""
        return version(self.distribution) if self.distribution else ""

    def queues(self, workload: Workload) -> AbstractContextManager[Sequence[Any]]:
        """Make the queues that a workload needs, and remove them at the end.

        Raises:
            Declined: It cannot do this.
        """
        raise NotImplementedError

    def writer(self, address: Any, workload: Workload) -> End:
        """Return the end to put into, in the worker."""
        raise NotImplementedError

    def reader(self, address: Any, workload: Workload) -> End:
        """Return the end to get from, in the worker."""
        raise NotImplementedError

    def goods(self, workload: Workload, producer: int) -> Goods:
        """Return the messages to move."""
        if workload.producers > 1 or workload.consumers > 1:
            return Numbered(producer)
        return Cycle(workload, dict, itemgetter("id"))

    def sample(self, workload: Workload, seconds: float) -> Sample:
        """Do it once."""
        return run(self, workload, seconds)


class Again:
    """The same contestant a second time: what the noise of the machine is worth."""

    kind = CONTROL

    def __init__(self, contestant: Contestant) -> None:
        self.name = f"{contestant.name} again"
        self.version = contestant.version
        self.sample = contestant.sample


class Ipcq(Queues):
    """ipcq itself, by its public interface.

    Args:
        backend: Where the queues are made.
        name: What it is called; by default after the backend.
        typed: Move the small dicts as structs through msgspec, and take part in nothing else.
        options: For `ipcq.open`; with any the room is what they say.
    """

    kind = OURS
    distribution = "ipcq"

    def __init__(self, backend: str, name: str = "", *, typed: bool = False, **options: Any) -> None:
        self.backend = backend
        self.name = name or f"ipcq {backend}{', typed' if typed else ''}"
        self._typed = typed
        self._serializer = options.pop("serializer", "msgspec" if typed else "msgpack")
        self._options = options

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[Sequence[str]]:
        import ipcq

        if self._typed and not workload.objects:
            raise Declined("typed queues are measured with small dicts")
        if self._serializer == "raw" and workload.objects:
            raise Declined("it moves bytes, and nothing else")
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
            # A header of the serializer's comes on top.
            options.setdefault("max_message_size", workload.size + 64)
        try:
            if not self._options:
                try:
                    return ipcq.open(name, self.backend, exclusive=True, buffer_size=workload.room, **options)
                except (ipcq.Unsupported, ipcq.LimitExceeded):
                    pass  # its room is not counted in bytes, or the kernel has less
            return ipcq.open(name, self.backend, exclusive=True, **options)
        except (ipcq.Unsupported, ipcq.LimitExceeded, ipcq.NoSpace) as error:
            raise Declined(error.detail or str(error)) from None

    def writer(self, address: str, workload: Workload) -> End:
        queue = self._open(address)
        return End(put=queue.put, put_many=queue.put_many, finish=queue.close)

    def reader(self, address: str, workload: Workload) -> End:
        queue = self._open(address)
        return End(get=queue.get, get_many=queue.get_many, finish=queue.close)

    def _open(self, name: str) -> Any:
        import ipcq

        typed = {"type": struct_of_fields()} if self._typed else {}
        return ipcq.open(name, self.backend, create=False, serializer=self._serializer, **typed)

    def goods(self, workload: Workload, producer: int) -> Goods:
        if self._typed:
            from operator import attrgetter

            struct = struct_of_fields()
            return Cycle(workload, lambda fields: struct(**fields), attrgetter("id"))
        return super().goods(workload, producer)


def struct_of_fields() -> Any:
    """Make the type of the small dicts."""
    import msgspec

    return msgspec.defstruct(
        "Reading", [("id", int), ("name", str), ("value", float), ("valid", bool), ("tags", list[str])]
    )
