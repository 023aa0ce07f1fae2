"""The descriptor server: the thread of this process that sends its queues' descriptors to attaching processes.

Every process that has a queue open listens on the queue's one listening socket, so that any running process can answer.
One thread serves all queues of the process: it waits for connections and accepts without waiting, because another
process may be faster. An answer is one message that always fits, so no client can block the thread.

The thread waits with ``epoll(7)``, because queues can be added and removed during the wait, and because, unlike
``poll``, it does not keep closed queues alive. It starts with the first queue and ends with the last one, or with the
interpreter; a forked child starts a new one. Thread, locks and calls are the system's, not gevent's: an attaching
process must not wait for greenlets.
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

# Seconds to wait after the descriptor table was found full.
_RETRY_SECONDS: Final = 0.05

_NO_DESCRIPTOR: Final = -1


@dataclass(eq=False)
class Offer:
    """The descriptors that the server sends for one handle."""

    terms: Terms
    ends: Ends
    host: "Host | None" = None

    def answer(self) -> bool:
        """Answer one connection; return False if the queue was unlinked."""
        try:
            connection, address = accepted(self.ends.listener)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            # Another holder was faster, or the client has given up. Or the socket was shut down: then accept(2) fails
            # with EAGAIN too, because the socket is non-blocking.
            return not has_ended(self.ends.listener)
        with connection:
            try:
                if asks_to_end(connection, address):
                    end(self.ends.listener)
                else:
                    sent(connection, self.terms, self.ends)
            except OSError:
                pass  # the client has closed the connection, or will retry
        return True


class Host:
    """One server thread and its offers."""

    def __init__(self, offers: Iterable[Offer]) -> None:
        self.offers: dict[int, Offer] = {}
        self._answering = _NO_DESCRIPTOR
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
        # Explicitly, because the socket stays open in other processes, and so would the entry here.
        self._ignore(number)
        del self.offers[number]
        offer.host = None
        while self._answering == number and not is_this_thread(self._thread):
            sleep(0)

    def _ignore(self, number: int) -> None:
        try:
            self._epoll.unregister(number)
        except FileNotFoundError:  # pragma: no cover - depends on a race, see _answer_all
            pass  # already removed, because the queue was unlinked

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
                        # Set before the offer is looked up, so that `remove` knows whether to wait. Not a lock: a
                        # signal handler that attaches may have interrupted the holder of the lock.
                        self._answering = number
                        offer = self.offers.get(number)
                        if offer is not None and not offer.answer():
                            # Another process unlinked the queue; the handle's close may come first.
                            self._ignore(number)  # pragma: no cover - see above
                except OSError:
                    sleep(_RETRY_SECONDS)
                finally:
                    self._answering = _NO_DESCRIPTOR

    def end(self) -> None:
        os.eventfd_write(self._bell, 1)
        if not is_this_thread(self._thread):  # a finaliser may run anywhere
            self._thread.join()


# At most one, unless a signal handler opens a queue while it interrupts the start or end of a server thread.
_hosts: list[Host] = []
_lock = NativeRLock()
_process = os.getpid()

# A child that is forked while its parent opens, binds or closes a queue would inherit descriptors that it does not know
# of, so the queue would have a holder that never answers. A child that is forked during an answer would inherit the
# connection, and the client would wait for it.
_opening = NativeRLock()
_answering = NativeRLock()


@contextmanager
def no_fork() -> Iterator[None]:
    """Keep other threads from forking."""
    with _opening:
        yield


def add(offer: Offer) -> None:
    """Start serving an offer.

    Raises:
        LimitExceeded: The system cannot start a thread.
    """
    with _lock:
        if _hosts:
            _hosts[-1].add(offer)
            return
        try:
            _hosts.append(Host([offer]))
        except RuntimeError as error:
            reraise_from_handler(error)
            raise too_many_threads() from error  # no thread would serve the queue


def remove(offer: Offer) -> None:
    """Stop serving an offer."""
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
        host.offers.pop(offer.ends.listener.fileno(), None)  # pragma: no cover - only in a forked child


def offered(found: Found) -> Offer | None:
    """Return this process's offer of the queue with a socket file, unless the queue was unlinked."""
    for host in tuple(_hosts):
        for offer in tuple(host.offers.values()):
            if offer.terms.found == found and not has_ended(offer.ends.listener):
                return offer
    return None


def inherit() -> None:
    """Let a forked child serve its inherited offers in its own thread. Only the first call has an effect."""
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
            # There is no caller to report this to, and the parent still answers.
            for offer in inherited:
                offer.host = None


@atexit.register
def _end() -> None:
    # Otherwise the daemon thread would be stopped at any instruction.
    while _hosts:
        host = _hosts.pop()
        for offer in tuple(host.offers.values()):
            host.remove(offer)
        host.end()


hold_over_forks(_opening, _lock, _answering, in_child=inherit)
