"""Queues that nobody can find: they travel to other processes as descriptors, and leave nothing behind anywhere.

What a process is killed with, the kernel takes back: such a queue has no name that anybody would have to remove.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from ipcq._handle.interface import expect_no_close
from ipcq._handle.origin import Origin
from ipcq._handle.queue import Queue
from ipcq._handle.shortcut import class_for
from ipcq._opening import registry
from ipcq._process import forks
from ipcq.backend import Backend, Channel, Request
from ipcq.errors import BackendUnavailable, LimitExceeded, NoSpace, Unsupported
from ipcq.serializers import codec_for

if sys.platform != "win32":  # which has neither; here, because a fork could interrupt a later import
    from multiprocessing import resource_sharer  # noqa: F401  # DupFd imports it late
    from multiprocessing.reduction import DupFd

__all__ = ("Travelling", "arrived", "create", "departing")

#: Stands for the name in errors.
NAME: Final = "(nameless)"

#: What becomes a descriptor of the process in which it is unpickled.
Travelling = Any


def create(request: Request) -> Queue[bytes]:
    """Make a queue of bytes that has no name, on the best backend that can.

    Raises:
        BackendUnavailable: None can here; the error's `reasons` tell why for each.
    """
    reasons: dict[str, str] = {}
    for name in registry.able("nameless"):
        backend = registry.backend(name)
        try:
            with forks.opening:
                channel = backend.create_nameless(request)
            return _handle(backend, channel, request)
        except (LimitExceeded, NoSpace, Unsupported) as error:
            reasons[name] = str(error)
    told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "see ipcq backends"
    raise BackendUnavailable(f"no backend can make a queue without a name here ({told})", reasons=reasons)


def departing(descriptor: int) -> Travelling:
    """Return what travels for a descriptor to the process that is being started, or to any that has the authkey."""
    # multiprocess, the copy of multiprocessing that pickles by dill, has processes, authkeys and DupFd of its own.
    context, reduction = (sys.modules.get(f"multiprocess.{module}") for module in ("context", "reduction"))
    if context is not None and reduction is not None and context.get_spawning_popen() is not None:
        return reduction.DupFd(descriptor)
    return DupFd(descriptor)


@contextmanager
def arrived(travelling: Sequence[Travelling]) -> Iterator[list[int]]:
    """Give the body the descriptors of this process that have come for those of another.

    The body makes them somebody's or closes them. A child that is forked meanwhile closes its copies.
    """
    descriptors: list[int] = []
    try:
        try:
            for each in travelling:
                # What has come is to be closed if the next one does not come.
                descriptors.append(forks.opened(each.detach))  # noqa: PERF401  # see above
        except BaseException:
            for descriptor in descriptors:
                with suppress(OSError):
                    forks.closed(descriptor)
            raise
        yield descriptors
    finally:
        forks.forget(*descriptors)  # else a child would close what has one of these numbers by then


def _adopt(name: str, travelling: Sequence[Travelling]) -> Queue[bytes]:
    backend = registry.usable(name)
    request = Request()
    with arrived(travelling) as descriptors:
        with forks.opening:
            channel = backend.adopt(descriptors, request)
        return _handle(backend, channel, request)


def _handle(backend: Backend, channel: Channel, request: Request) -> Queue[bytes]:
    def reopen() -> tuple[Any, ...]:
        return _adopt, (backend.name, [departing(each) for each in channel.descriptors()])

    origin = Origin(
        name=NAME,
        backend=backend,
        request=request,
        remove=lambda _: None,
        reopen=reopen,
        alternatives=registry.able,
    )
    queue: Queue[bytes] = class_for(channel)(channel, codec_for("raw"), origin)
    # These are dropped without a close, as what they stand in for is: the kernel takes all of it back.
    expect_no_close(queue)
    return queue
