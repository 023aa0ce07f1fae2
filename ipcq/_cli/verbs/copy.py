"""``ipcq copy``: put the messages of one queue into another, and keep them in the first."""

from collections import deque

import click

import ipcq
from ipcq._cli._exits import Failure
from ipcq._cli._putter import Putter
from ipcq._cli._rescue import take
from ipcq._cli._transfer import Request, Transfer, transfer, transfer_verb
from ipcq.errors import MessageQueueError, QueueEmpty, QueueShutDown


@click.command("copy")
@transfer_verb
def command(request: Request) -> None:
    """Copy the messages of the queue SRC into the queue DST, with their priorities, and leave them in SRC.

    Both are names or URLs, and DST is opened, created and checked as by `ipcq move`.

    Only the next message of a queue can be seen without taking it. So each message that was there at the start is
    taken, put into DST, and put back into SRC, behind the others. After the last one the order is as before. If SRC has
    priorities, or its backend does not count what is taken, all are put back at the end instead, because a message that
    is put back early would be the next one again.

    Others may use SRC meanwhile, and no consumer gets a message twice. But the order changes: what others put
    meanwhile comes before messages that are put back later. While all messages are taken, consumers find the queue
    empty. What others take before copy reaches it is not copied. If producers fill SRC, putting back waits for space.

    The first Ctrl-C ends the copying, and the other messages are only taken and put back to keep the order. The second
    one ends that, and the third one ends waiting for space to put back. What is taken and not put back is in a rescue
    file, as with `ipcq move`. At the start, stderr names that file and the command that puts its messages back.
    After a SIGKILL the one message under way may be in two places.

    \b
    ipcq copy /jobs /jobs-seen
    ipcq copy shm:///jobs mqueue:///sample --max-message-size 8192 --count 10
    """
    with transfer(request, "copy", "copied", gives_back=True) as its:
        Copy(its).run()


class Copy:
    """Copies messages, one at a time."""

    def __init__(self, its: Transfer) -> None:
        self._its = its
        self._back = Putter(
            its.source, its.stop, its.progress, wait=its.request.wait, quiet=its.request.quiet, signals=3
        )
        self._taken = 0
        self._held: deque[tuple[int, ipcq.Message[bytes]]] = deque()
        """Messages to put back, each with the place where its line in the file begins."""
        self._copying = True
        self._trouble: Exception | None = None
        self._gets = its.source.stats().gets
        # A message that is put back is the next one again if its priority is above the others'. And if the backend
        # does not count gets, one that was put back cannot be told from one that was not taken yet.
        self._at_once = self._gets is not None and not its.source.priorities

    def run(self) -> None:
        """Copy what is there, and put all of it back.

        Raises:
            Exception: What ended the copying early. The order is as before, unless others use the queue.
        """
        try:
            while self._left() > 0 and self._its.stop.count < 2 and self._goes_on():
                pass
        except Exception as error:  # whatever it is, what was taken is put back first
            self._end_copying(error)
        self._put_back()
        if self._trouble is not None:
            raise self._trouble

    def _goes_on(self) -> bool:
        """Copy the next message, and tell whether there was one."""
        its = self._its
        message = self._take()
        if message is None:
            return False
        self._taken += 1
        self._held.append((its.file.last, message))
        its.in_hand += 1
        # Others may have taken the last ones before this one, and then it may be one that was put back.
        if self._copying and self._left() >= 0:
            self._copy(message)
        if self._at_once:
            self._put_back()
        return True

    def _left(self) -> int:
        """Return how many messages of those at the start are still to be taken, as far as is known."""
        gets = None if self._gets is None else self._its.source.stats().gets
        return self._its.there - (self._taken if gets is None else gets - (self._gets or 0))

    def _take(self) -> ipcq.Message[bytes] | None:
        """Take the next message, if it is to be taken and there is one."""
        its = self._its
        if self._copying:
            try:
                its.putter.wait_for_space(its.source, its.show)
            except MessageQueueError as error:
                self._end_copying(error)
        if its.stop.number or its.progress.count == its.request.count:
            self._copying = False
        try:
            its.file.make_room()
            if self._copying:
                try:
                    return take(its.source, its.file, its.stop, its.check)
                except Failure as error:
                    self._end_copying(error)
            # If nothing was taken, the order is as it was.
            return take(its.source, its.file, its.stop) if self._taken else None
        except (QueueEmpty, QueueShutDown):
            return None

    def _copy(self, message: ipcq.Message[bytes]) -> None:
        try:
            self._its.put(message)
        except MessageQueueError as error:
            self._end_copying(error)
        except (KeyboardInterrupt, SystemExit):  # of a wait for space; what was taken is put back first
            self._copying = False
        else:
            self._its.progress.count += 1
            self._its.show()

    def _end_copying(self, error: Exception) -> None:
        self._copying = False
        self._trouble = self._trouble or error

    def _put_back(self) -> None:
        its = self._its
        while self._held:
            offset, message = self._held[0]
            self._back.put(message.item, message.priority, its.show)
            its.in_hand -= 1
            self._held.popleft()
            its.file.mark(offset)
        its.file.clear()
