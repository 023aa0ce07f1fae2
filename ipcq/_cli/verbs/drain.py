"""``ipcq drain``: all messages of a queue into a file."""

import os
import shlex
from collections.abc import Callable
from contextlib import ExitStack
from time import sleep

import click

import ipcq
from ipcq._cli._dump import File, Sink, Stream, header, record
from ipcq._cli._exits import Failure, complain
from ipcq._cli._options import backend_option, json_option, name_argument, option_of_open, quiet_option
from ipcq._cli._output import say_json
from ipcq._cli._progress import Progress
from ipcq._cli._rescue import load_command, new_file, rescue_file, rescue_option, take, write_taken
from ipcq._cli._signals import Stop, end_by, noted_signals, slices
from ipcq.errors import QueueEmpty, QueueShutDown

#: Seconds that a reader may take to finish after it has seen the end. After that, the rescue file is named on stderr.
READER_SECONDS = 5.0

#: Seconds between two checks whether it has.
LOOK = 0.01


@click.command("drain")
@name_argument
@click.argument("file", type=click.Path(allow_dash=True), metavar="FILE | -")
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="Stop after N messages.")
@rescue_option
@json_option("Print what was done as one JSON object; needs a FILE.")
@backend_option("Where to look for the queue.")
@option_of_open("other_users")
@quiet_option
def command(
    name: str,
    file: str,
    count: int | None,
    rescue: str | None,
    as_json: bool,
    backend: str,
    other_users: bool,
    quiet: bool,
) -> None:
    """Take all messages out of the queue NAME into a new FILE, or to stdout for '-'.

    Each message is kept as the bytes that it has, with its priority; `ipcq load` puts them back. A message is written
    before the next one is taken, and Ctrl-C and SIGTERM end the verb between two messages, so none is lost.

    To put the messages into another queue of this machine, use `ipcq move`: it makes sure first that the other queue
    takes them. A process that reads from a pipe may fail after it has read. So everything that goes into a pipe is
    also kept in a rescue file. If `ipcq load` reads the pipe on this machine, it removes the file once every message
    is in its queue. In any other case the file stays, stderr names it, and you remove it.

    \b
    ipcq drain /jobs jobs.messages
    ipcq drain /jobs - | ssh elsewhere ipcq load /jobs -
    """
    if as_json and file == "-":
        raise click.UsageError("--json and '-' exclude each other: stdout has the messages.")
    if rescue is not None and file != "-":
        raise click.UsageError("--rescue is only for '-': with a FILE, leave it out.")
    with (
        ipcq.open(name, backend, create=False, write=False, serializer="raw", other_users=other_users) as queue,
        noted_signals() as stop,
    ):
        stream = Stream() if file == "-" else None
        kept: File | None = None
        with ExitStack() as stack:
            progress = stack.enter_context(Progress("messages taken", silent=quiet))
            if stream is None:
                kept = new_file(queue, file)
            elif stream.has_reader():
                kept = rescue_file(queue, "drain", rescue)
            if kept is not None:
                made = kept
                stack.callback(lambda: made.close(keep=progress.count > 0))
            try:
                Drain(queue, kept, stream, stop, progress).run(count)
            except BaseException as error:
                if kept is not None and stream is not None and progress.count:
                    _say_where(error, name, kept.path, progress.count)
                raise
        told = f"{progress.count} message{'s' if progress.count != 1 else ''} taken"
        if kept is not None and stream is not None:
            with stream.ended() as is_gone:
                _wait_for_reader(is_gone, name, kept.path, stop)
        if stop.number:
            if not quiet:
                complain(f"stopped: {told}, the others are in the queue")
            end_by(stop.number)
        if as_json:
            say_json({"name": queue.name, "backend": queue.backend, "file": file, "messages": progress.count})
        elif not quiet:
            complain(told)


def _say_where(error: BaseException, name: str, path: str, count: int) -> None:
    """Add to the error where the taken messages are kept; nobody knows what the reader has done with its part."""
    messages = f"{count} message{'s' if count != 1 else ''} taken"
    where = (
        f"{messages}, kept in {path}: unless the reader has used them, put them back with {load_command(name, path)}"
    )
    if isinstance(error, BrokenPipeError):
        raise Failure(f"the reader has gone; {where}") from error
    if isinstance(error, SystemExit):
        complain(where)  # no line of its own tells it
    else:
        error.add_note(where)


def _wait_for_reader(is_gone: Callable[[], bool], name: str, path: str, stop: Stop) -> None:
    """Wait a moment for `ipcq load` to remove the file that was kept; say where it is if that is still there."""
    signals = stop.count
    for _ in slices(READER_SECONDS):
        gone = is_gone()  # first, because a load removes the file before it exits
        if not os.path.exists(path):
            return
        if gone or stop.count > signals:
            break
        sleep(LOOK)
    complain(
        f"the messages are also kept in {path}: it is not known yet whether the reader has them. `ipcq load` removes "
        f"the file once it has them all. If another reader has them, rm {shlex.quote(path)}; if it failed, "
        f"{load_command(name, path)} puts them back"
    )


class Drain:
    """Moves messages, one at a time.

    Args:
        queue: Where they are.
        file: Gets each message first, if there is one.
        stream: Where they go as well, or instead.
        stop: Ends it.
        progress: Counts.
    """

    def __init__(
        self, queue: ipcq.Queue[bytes], file: File | None, stream: Stream | None, stop: Stop, progress: Progress
    ) -> None:
        self._queue = queue
        self._file = file
        self._stream = stream
        self._stop = stop
        self._progress = progress

    def run(self, most: int | None) -> None:
        """Move until the queue is empty, or as many as wanted, or until a signal came."""
        queue, progress = self._queue, self._progress
        there = queue.qsize()
        sinks: list[Sink] = [sink for sink in (self._file, self._stream) if sink is not None]
        line = header(queue, self._file.path if self._file and self._stream else None)
        for sink in sinks:
            sink.make_room()
        for sink in sinks:
            sink.write(line)
        try:
            while progress.count != most and not self._stop.number:
                for sink in sinks:
                    sink.make_room()
                self._move()
                progress.show(progress.count / max(there, 1))
        except (QueueEmpty, QueueShutDown):
            if not progress.count:
                raise

    def _move(self) -> None:
        if self._file is not None:
            message = take(self._queue, self._file, self._stop)
            self._progress.count += 1
            if self._stream is not None:
                # A reader that does not read blocks this for ever, so a second signal may end it.
                with self._stop.raising(2):
                    self._stream.write(record(message))
        elif self._stream is not None:  # pragma: no branch - there is one of the two
            write_taken(self._stream.write, record(self._queue.get_message(timeout=0)), self._stop)
            self._progress.count += 1
