"""The thread of this process that hands its queues to newcomers.

Every process that has a queue open listens on the queue's one listening socket, so that whoever lives and runs can
answer. One thread does it for all queues of the process: it waits for connections and accepts without waiting, since
another process may have been faster. An answer is one message that always fits, so no newcomer can hold the thread up.

It waits by ``epoll(7)``, which lets queues come and go while it waits and, unlike ``poll``, keeps none alive that was
closed meanwhile. The thread begins with the first queue and ends with the last, or with the interpreter; a forked child
begins its own. It is the system's, and its locks and calls are, where gevent puts others: a newcomer is not to wait
until greenlets are done.
"""

import atexit
import errno
import os
import select
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from ipcq.backend import (
    NativeRLock,
    NativeThread,
    hold_over_forks,
    is_this_thread,
    original,
    reraise_from_handler,
    too_many_threads,
)
from ipcq_socketpair._ends import Ends, Found, Terms, accepted, asks_to_end, end, has_ended, sent

sleep = original("time", "sleep")
_epoll = original("select", "epoll")

# Seconds without accepting after the descriptor table was found full.
_RESPITE: Final = 0.05

_NOBODY: Final = -1


@dataclass(eq=False)
class Offer:
    """One handle's queue, as it is handed on."""

    terms: Terms
    ends: Ends
    host: "Host | None" = None

    def answer(self) -> bool:
        """Answer one newcomer; return False if no more can come."""
        try:
            connection, address = accepted(self.ends.listener)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            # With EINVAL the socket is shut down; otherwise another holder was faster, or the newcomer has gone.
            return error.errno != errno.EINVAL
        with connection:
            try:
                if asks_to_end(connection, address):
                    end(self.ends.listener)
                else:
                    sent(connection, self.terms, self.ends)
            except OSError:
                pass  # the newcomer has gone, or asks again
        return True


class Host:
    """One thread and what it hands out."""

    def __init__(self, offers: Iterable[Offer]) -> None:
        self.offers: dict[int, Offer] = {}
        self._answering = _NOBODY
        self._epoll = _epoll()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC)
        self._epoll.register(self._bell, select.EPOLLIN)
        for offer in offers:
            self.add(offer)
        self._thread = NativeThread(target=self._serve, name="ipcq-socketpair", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self.release()
            raise

    def add(self, offer: Offer) -> None:
        offer.host = self
        self.offers[offer.ends.listener.fileno()] = offer
        self._epoll.register(offer.ends.listener, select.EPOLLIN)

    def remove(self, offer: Offer) -> None:
        number = offer.ends.listener.fileno()
        # By hand, because the socket lives on in other processes, and with it would the entry here.
        self._ignore(number)
        del self.offers[number]
        offer.host = None
        while self._answering == number and not is_this_thread(self._thread):
            sleep(0)

    def _ignore(self, number: int) -> None:
        try:
            self._epoll.unregister(number)
        except FileNotFoundError:  # pragma: no cover - depends on who is faster, see _answer_all
            pass  # done already, because the queue was unlinked

    def release(self) -> None:
        self._epoll.close()
        os.close(self._bell)

    def _serve(self) -> None:
        try:
            self._answer_all()
        finally:
            self.release()

    def _answer_all(self) -> None:
        while True:
            for number, _ in self._epoll.poll():
                if number == self._bell:
                    return
                try:
                    with _answering:
                        # Said before the offer is looked up, and so whoever withdraws it knows when to wait. Not by a
                        # lock: a signal handler that asks for an answer may have interrupted who holds it.
                        self._answering = number
                        offer = self.offers.get(number)
                        if offer is not None and not offer.answer():
                            # Where another process unlinked it; the handle's close may come first.
                            self._ignore(number)  # pragma: no cover - see above
                except OSError:
                    sleep(_RESPITE)
                finally:
                    self._answering = _NOBODY

    def end(self) -> None:
        os.eventfd_write(self._bell, 1)
        if not is_this_thread(self._thread):  # a finaliser may run anywhere
            self._thread.join()


# One, but for the case that a signal handler opens a queue while the thread that it interrupts begins or ends another.
_hosts: list[Host] = []
_lock = NativeRLock()
_process = os.getpid()

# Opening, binding and closing would leave a child that is forked meanwhile with descriptors that nobody there knows of,
# and so the queue with a holder that never answers; answering, with one that the newcomer waits for.
_opening = NativeRLock()
_answering = NativeRLock()


@contextmanager
def no_fork() -> Iterator[None]:
    """Let no fork of another thread come in between."""
    with _opening:
        yield


def add(offer: Offer) -> None:
    """Hand a queue to whoever asks, from now on.

    Raises:
        LimitExceeded: The system starts no thread for it.
    """
    with _lock:
        if _hosts:
            _hosts[-1].add(offer)
            return
        try:
            _hosts.append(Host([offer]))
        except RuntimeError as error:
            reraise_from_handler(error)
            raise too_many_threads() from error  # nobody would hand the queue to others


def remove(offer: Offer) -> None:
    """Hand the queue to nobody any more, from now on."""
    with _lock:
        host = offer.host
        if host is None:
            return
        host.remove(offer)
        if host.offers:
            return
        _hosts.remove(host)
        if host.offers:  # a signal handler opened another queue just then
            _hosts.append(host)
            return
    host.end()


def forget(offer: Offer) -> None:
    """Remove an offer that a forked child has inherited and must not serve; call it before `inherit`."""
    for host in _hosts:
        host.offers.pop(offer.ends.listener.fileno(), None)  # pragma: no cover - in a forked child alone


def offered(found: Found) -> Offer | None:
    """Return this process's handle to the queue of a socket file, unless the queue was unlinked."""
    for host in tuple(_hosts):
        for offer in tuple(host.offers.values()):
            if offer.terms.found == found and not has_ended(offer.ends.listener):
                return offer
    return None


def inherit() -> None:
    """Let a forked child hand out by itself what it has inherited; once, whoever comes first."""
    global _process
    if _process == os.getpid():
        return
    _process = os.getpid()
    inherited = [offer for host in _hosts for offer in host.offers.values()]
    for host in _hosts:
        host.release()
    _hosts.clear()
    if inherited:
        try:
            _hosts.append(Host(inherited))
        except (RuntimeError, OSError):
            # Nobody is there who could be told, and the parent still answers.
            for offer in inherited:
                offer.host = None


@atexit.register
def _end() -> None:
    # A daemon thread would be cut off somewhere; this one ends in order.
    while _hosts:
        host = _hosts.pop()
        for offer in tuple(host.offers.values()):
            host.remove(offer)
        host.end()


hold_over_forks(_opening, _lock, _answering, in_child=inherit)
