"""``ipcq copy``: copy messages from one queue into another."""

from collections import deque

import click

import ipcq
from ipcq._cli._exits import Failure
from ipcq._cli._putter import Putter
from ipcq._cli._rescue import take
from ipcq._cli._transfer import Arguments, Transfer, open_transfer, transfer_verb
from ipcq.errors import MessageQueueError, QueueEmpty, QueueShutDown


@click.command("copy")
@transfer_verb
def command(arguments: Arguments) -> None:
    """Copy messages with their priorities from queue SRC to queue DST, and keep them in SRC.

    SRC and DST are names or URLs. DST is opened, created and checked as by `ipcq move`.

    Only the next message of a queue can be read without taking it. So copy takes each message that was in SRC at the
    start, puts it into DST, and puts it back at the end of SRC. After the last message the order is as before. If SRC
    has priorities, or its backend does not count gets, all messages are put back at the end instead: one that is put
    back early would be the next one again.

    Other processes may use SRC meanwhile, and no consumer gets a message twice. But the order changes: messages that
    others put meanwhile precede those that are put back later. While all messages are taken, consumers find the queue
    empty. Messages that others take first are not copied. If producers fill SRC, putting back waits for space.

    The first Ctrl-C stops copying; the remaining messages are taken and put back to keep the order. The second stops
    that, and the third stops waiting for space. Messages taken but not put back are in a rescue file, as with `ipcq
    move`. At the start, stderr names the file and the command that puts its messages back. After a SIGKILL, the
    message in transit may exist twice.

    \b
    ipcq copy /jobs /jobs-seen
    ipcq copy shm:///jobs mqueue:///sample --max-message-size 8192 --count 10
    """
    with open_transfer(arguments, "copy", "copied", puts_back=True) as transfer:
        Copy(transfer).run()


class Copy:
    """Copies messages, one at a time."""

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self._source_putter = Putter(
            transfer.source,
            transfer.stop,
            transfer.progress,
            wait=transfer.arguments.wait,
            quiet=transfer.arguments.quiet,
            signals=3,
        )
        self._taken = 0
        self._to_put_back: deque[tuple[int, ipcq.Message[bytes]]] = deque()
        """Messages to put back, each with the offset of its line in the file."""
        self._copying = True
        self._error: Exception | None = None
        self._gets = transfer.source.stats().gets
        # With priorities, a message that is put back may be the next one again. And without a count of gets, it cannot
        # be distinguished from a message not taken yet.
        self._puts_back_at_once = self._gets is not None and not transfer.source.priorities

    def run(self) -> None:
        """Copy the messages, and put all of them back.

        Raises:
            Exception: The error that ended copying early. The order is as before, unless others use the queue.
        """
        try:
            while self._remaining() > 0 and self._transfer.stop.count < 2 and self._copy_next():
                pass
        except Exception as error:  # put taken messages back before raising any error
            self._end_copying(error)
        self._put_back()
        if self._error is not None:
            raise self._error

    def _copy_next(self) -> bool:
        """Copy the next message. Return False if there is none."""
        transfer = self._transfer
        message = self._take()
        if message is None:
            return False
        self._taken += 1
        self._to_put_back.append((transfer.file.last, message))
        transfer.in_file_only += 1
        # Do not copy beyond the count: if others took messages, this one may be one that was put back.
        if self._copying and self._remaining() >= 0:
            self._copy(message)
        if self._puts_back_at_once:
            self._put_back()
        return True

    def _remaining(self) -> int:
        """Return how many of the initial messages are not taken yet, as far as known."""
        gets = None if self._gets is None else self._transfer.source.stats().gets
        return self._transfer.initial_messages - (self._taken if gets is None else gets - (self._gets or 0))

    def _take(self) -> ipcq.Message[bytes] | None:
        """Take the next message, or return None if there is nothing to take."""
        transfer = self._transfer
        if self._copying:
            try:
                transfer.putter.wait_for_space(transfer.source, transfer.show)
            except MessageQueueError as error:
                self._end_copying(error)
        if transfer.stop.number or transfer.progress.count == transfer.arguments.count:
            self._copying = False
        try:
            transfer.file.make_room()
            if self._copying:
                try:
                    return take(transfer.source, transfer.file, transfer.stop, transfer.check)
                except Failure as error:
                    self._end_copying(error)
            # If nothing was taken, the order is unchanged and there is nothing to rotate.
            return take(transfer.source, transfer.file, transfer.stop) if self._taken else None
        except (QueueEmpty, QueueShutDown):
            return None

    def _copy(self, message: ipcq.Message[bytes]) -> None:
        try:
            self._transfer.put(message)
        except MessageQueueError as error:
            self._end_copying(error)
        except (KeyboardInterrupt, SystemExit):  # ended a wait for space; put taken messages back first
            self._copying = False
        else:
            self._transfer.progress.count += 1
            self._transfer.show()

    def _end_copying(self, error: Exception) -> None:
        self._copying = False
        self._error = self._error or error

    def _put_back(self) -> None:
        transfer = self._transfer
        while self._to_put_back:
            offset, message = self._to_put_back[0]
            self._source_putter.put(message.item, message.priority, transfer.show)
            transfer.in_file_only -= 1
            self._to_put_back.popleft()
            transfer.file.mark(offset)
        transfer.file.clear()
