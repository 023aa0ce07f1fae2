"""Queues without a name, which other processes receive as descriptors.

The kernel frees such a queue when the last descriptor is closed, even by a kill, because there is no name to remove.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from ipcq._handle.interface import expect_no_close
from ipcq._handle.origin import Origin
from ipcq._handle.queue import Queue
from ipcq._opening import registry
from ipcq._process import forks
from ipcq.backend import Backend, Channel, Request
from ipcq.errors import BackendUnavailable, LimitExceeded, NoSpace, Unsupported
from ipcq.serializers import codec_for

if sys.platform != "win32":  # which has neither; imported here, because a fork could interrupt a later import
    from multiprocessing import resource_sharer  # noqa: F401  # DupFd imports it lazily
    from multiprocessing.reduction import DupFd

__all__ = ("Travelling", "arrived", "create", "departing")

#: Takes the place of the name in errors.
NAME: Final = "(nameless)"

#: An object that becomes a descriptor in the process that unpickles it.
Travelling = Any


def create(request: Request) -> Queue[bytes]:
    """Create a queue of bytes without a name, on the best backend that supports it.

    Raises:
        BackendUnavailable: No backend can create one here; the error's `reasons` has the reason for each.
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
    why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "see ipcq backends"
    raise BackendUnavailable(f"no backend can create a queue without a name here ({why})", reasons=reasons)


def departing(descriptor: int) -> Travelling:
    """Return a picklable copy of a descriptor, for the process that is being started or any that has the authkey."""
    # multiprocess, the fork of multiprocessing that pickles with dill, has its own processes, authkeys and DupFd.
    context, reduction = (sys.modules.get(f"multiprocess.{module}") for module in ("context", "reduction"))
    if context is not None and reduction is not None and context.get_spawning_popen() is not None:
        return reduction.DupFd(descriptor)
    return DupFd(descriptor)


@contextmanager
def arrived(travelling: Sequence[Travelling]) -> Iterator[list[int]]:
    """Yield the descriptors received from another process.

    The body must hand over their ownership or close them. A child forked meanwhile closes its copies.
    """
    descriptors: list[int] = []
    try:
        try:
            for each in travelling:
                # Keep each at once, so that it is closed if receiving the next one fails.
                descriptors.append(forks.opened(each.detach))  # noqa: PERF401  # see above
        except BaseException:
            for descriptor in descriptors:
                with suppress(OSError):
                    forks.closed(descriptor)
            raise
        yield descriptors
    finally:
        forks.forget(*descriptors)  # else a child would close an unrelated file that has reused one of these numbers


def _adopt(name: str, travelling: Sequence[Travelling]) -> Queue[bytes]:
    backend = registry.usable(name)
    request = Request()
    with arrived(travelling) as descriptors:
        with forks.opening:
            channel = backend.adopt(descriptors, request)
        return _handle(backend, channel, request)


def _keep(condition: Callable[[], bool], incarnation: str) -> None:
    """Remove nothing: the queue goes with its last descriptor."""


def _handle(backend: Backend, channel: Channel, request: Request) -> Queue[bytes]:
    def reopen() -> tuple[Any, ...]:
        return _adopt, (backend.name, [departing(each) for each in channel.descriptors()])

    origin = Origin(
        name=NAME,
        backend=backend,
        request=request,
        remove=_keep,
        reopen=reopen,
        alternatives=registry.able,
    )
    queue: Queue[bytes] = Queue(channel, codec_for("raw"), origin)
    # Programs drop these without a close, like the queues that they replace. The kernel frees everything.
    expect_no_close(queue)
    return queue
