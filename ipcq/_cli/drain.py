"""``ipcq drain``: all messages of a queue into a file."""

from contextlib import ExitStack

import click

import ipcq
from ipcq._cli._dump import File, Sink, Stream, header, record
from ipcq._cli._exits import Failure, complain
from ipcq._cli._options import backend_option, json_option, name_argument, other_users_option, quiet_option
from ipcq._cli._output import say_json
from ipcq._cli._progress import Progress
from ipcq._cli._signals import Stop, end_by, noted_signals
from ipcq.errors import QueueEmpty, QueueShutDown


@click.command("drain")
@name_argument
@click.argument("file", type=click.Path(allow_dash=True), metavar="FILE | -")
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="Take at most so many messages.")
@json_option("Print what was done as one JSON object; needs a FILE.")
@backend_option("Where to look for the queue.")
@other_users_option
@quiet_option
def command(
    name: str, file: str, count: int | None, as_json: bool, backend: str, other_users: bool, quiet: bool
) -> None:
    """Take all messages out of the queue NAME into a new FILE, or to stdout for '-'.

    Each message is kept as the bytes that it has, with its priority; `ipcq load` puts them back. A message is written
    before the next one is taken, and Ctrl-C and SIGTERM end the verb between two messages, so none is lost.

    \b
    ipcq drain /jobs jobs.messages
    ipcq drain /jobs - | ssh elsewhere ipcq load /jobs -
    """
    if as_json and file == "-":
        raise click.UsageError("--json and '-' exclude each other: stdout has the messages.")
    with (
        ipcq.open(name, backend, create=False, write=False, serializer="raw", other_users=other_users) as queue,
        noted_signals() as stop,
    ):
        with ExitStack() as stack:
            progress = stack.enter_context(Progress("messages taken", silent=quiet))
            if file == "-":
                sink: Sink = Stream()
            else:
                # Base64 makes four bytes of three; what else is on a line has its place in the rest.
                largest = queue.max_message_size * 4 // 3 + 4096
                durable = queue.capabilities.persistence >= ipcq.Persistence.DISK
                try:
                    sink = made = File(file, largest, durable=durable)
                except FileExistsError as error:
                    raise Failure(f"{file} exists already: a drain makes a new file") from error
                stack.callback(lambda: made.close(keep=progress.count > 0))
            Drain(queue, sink, stop, progress).run(count)
        told = f"{progress.count} message{'s' if progress.count != 1 else ''} taken"
        if stop.number:
            if not quiet:
                complain(f"stopped: {told}, the others are in the queue")
            end_by(stop.number)
        if as_json:
            say_json({"name": queue.name, "backend": queue.backend, "file": file, "messages": progress.count})
        elif not quiet:
            complain(told)


class Drain:
    """Moves messages, one at a time."""

    def __init__(self, queue: ipcq.Queue[bytes], sink: Sink, stop: Stop, progress: Progress) -> None:
        self._queue = queue
        self._sink = sink
        self._stop = stop
        self._progress = progress

    def run(self, most: int | None) -> None:
        """Move until the queue is empty, or as many as wanted, or until a signal came."""
        queue, sink, progress = self._queue, self._sink, self._progress
        there = queue.qsize()
        sink.make_room()
        sink.write(header(queue))
        try:
            while progress.count != most and not self._stop.number:
                sink.make_room()
                # A line in a file can be taken back, one in a pipe cannot.
                if isinstance(sink, File) and queue.capabilities.peek:
                    self._write_and_take(sink)
                else:
                    self._write(queue.get_message(timeout=0))
                progress.count += 1
                progress.show(progress.count / max(there, 1))
        except (QueueEmpty, QueueShutDown):
            if not progress.count:
                raise

    def _write_and_take(self, file: File) -> None:
        """Move one message so that not even a SIGKILL can lose it: then it is in the file, or in both."""
        seen = self._queue.peek_message()
        file.write(record(seen))
        try:
            taken = self._queue.get_message(timeout=0)
        except BaseException:
            file.take_back()
            raise
        if taken != seen:  # somebody else took that one
            file.take_back()
            self._write(taken)

    def _write(self, message: ipcq.Message[bytes]) -> None:
        """Write one that is taken; where that fails it is somewhere to be found all the same."""
        line = record(message)
        try:
            # A reader that does not read blocks this for ever, so a second signal may end it.
            with self._stop.raising(2):
                self._sink.write(line)
        except BaseException:
            kept = line.decode("ascii").rstrip()
            complain(f"stopped before this message was written, and it is taken; `ipcq load` takes the line: {kept}")
            raise
