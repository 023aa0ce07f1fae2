"""``ipcq drain``: take all messages out of a queue into a file."""

import os
import shlex
from collections.abc import Callable
from contextlib import ExitStack
from time import sleep

import click

import ipcq
from ipcq._cli._exits import Failure, complain
from ipcq._cli._message_format import header, record
from ipcq._cli._options import backend_option, json_option, name_argument, option_of_open, quiet_option
from ipcq._cli._output import print_json
from ipcq._cli._progress import Progress
from ipcq._cli._rescue import load_command, new_file, rescue_file, rescue_option, take, write_taken
from ipcq._cli._signals import Stop, raise_for_signal, record_signals, slices
from ipcq._cli._sinks import FileSink, Sink, StdoutSink
from ipcq.errors import QueueEmpty, QueueShutDown

#: How long to wait for the reader to finish after end of file, before stderr names the rescue file.
READER_SECONDS = 5.0

#: Time between two polls of the reader.
POLL_SECONDS = 0.01


@click.command("drain")
@name_argument
@click.argument("file", type=click.Path(allow_dash=True), metavar="FILE | -")
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="Stop after N messages.")
@rescue_option
@json_option("Print the result as one JSON object; requires a FILE.")
@backend_option("Look for the queue on this backend.")
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
    """Take all messages out of the queue NAME and write them to a new FILE, or to stdout for '-'.

    The file has the bytes and the priority of each message; `ipcq load` puts them back. Each message is written before
    the next one is taken, and Ctrl-C and SIGTERM take effect between two messages, so none is lost.

    It also reads queues that an older version of ipcq created and that this one refuses to use.

    To move messages to another queue on this machine, use `ipcq move`, which first checks that the target accepts them.
    A process that reads from a pipe may fail after it has read, so messages written to a pipe are also kept in a rescue
    file. If `ipcq load` reads the pipe on this machine, it removes the file once every message is in its queue.
    Otherwise the file stays, stderr names it, and you remove it.

    \b
    ipcq drain /jobs jobs.messages
    ipcq drain /jobs - | ssh elsewhere ipcq load /jobs -
    """
    if as_json and file == "-":
        raise click.UsageError("--json and '-' are mutually exclusive: stdout has the messages.")
    if rescue is not None and file != "-":
        raise click.UsageError("--rescue requires '-': omit it with a FILE.")
    with (
        ipcq.open(name, backend, create=False, write=False, serializer="raw", other_users=other_users) as queue,
        record_signals() as stop,
    ):
        stdout_sink = StdoutSink() if file == "-" else None
        file_sink: FileSink | None = None
        with ExitStack() as stack:
            progress = stack.enter_context(Progress("messages taken", silent=quiet))
            if stdout_sink is None:
                file_sink = new_file(queue, file)
            elif stdout_sink.has_reader():
                file_sink = rescue_file(queue, "drain", rescue)
            if file_sink is not None:
                file_to_close = file_sink
                stack.callback(lambda: file_to_close.close(keep=progress.count > 0))
            try:
                Drain(queue, file_sink, stdout_sink, stop, progress).run(count)
            except BaseException as error:
                if file_sink is not None and stdout_sink is not None and progress.count:
                    _add_whereabouts(error, name, file_sink.path, progress.count)
                raise
        summary = f"{progress.count} message{'s' if progress.count != 1 else ''} taken"
        if file_sink is not None and stdout_sink is not None:
            with stdout_sink.end_of_file() as is_gone:
                _wait_for_reader(is_gone, name, file_sink.path, stop)
        if stop.number:
            if not quiet:
                complain(f"stopped: {summary}, the others are still in the queue")
            raise_for_signal(stop.number)
        if as_json:
            print_json({"name": queue.name, "backend": queue.backend, "file": file, "messages": progress.count})
        elif not quiet:
            complain(summary)


def _add_whereabouts(error: BaseException, name: str, path: str, count: int) -> None:
    """Add to the error where the taken messages are. The reader may or may not have processed them."""
    messages = f"{count} message{'s' if count != 1 else ''} taken"
    where = (
        f"{messages}, kept in {path}: unless the reader processed them, put them back with {load_command(name, path)}"
    )
    if isinstance(error, BrokenPipeError):
        raise Failure(f"the reader is gone; {where}") from error
    if isinstance(error, SystemExit):
        complain(where)  # SystemExit prints no line, so a note would be lost
    else:
        error.add_note(where)


def _wait_for_reader(is_gone: Callable[[], bool], name: str, path: str, stop: Stop) -> None:
    """Wait for `ipcq load` to remove the rescue file; if it does not, report the path on stderr."""
    signals = stop.count
    for _ in slices(READER_SECONDS):
        gone = is_gone()  # before the check below, because load removes the file before it exits
        if not os.path.exists(path):
            return
        if gone or stop.count > signals:
            break
        sleep(POLL_SECONDS)
    complain(
        f"the messages are also kept in {path}, because the reader may still fail. `ipcq load` removes the file when "
        f"all of them are in its queue. After any other reader: rm {shlex.quote(path)} if it succeeded, "
        f"{load_command(name, path)} if it failed"
    )


class Drain:
    """Moves messages out of the queue, one at a time.

    Args:
        queue: The queue.
        file: The file or rescue file, written first; None without one.
        stdout_sink: Standard output; None for a file.
        stop: A signal ends the drain.
        progress: Counts messages.
    """

    def __init__(
        self,
        queue: ipcq.Queue[bytes],
        file: FileSink | None,
        stdout_sink: StdoutSink | None,
        stop: Stop,
        progress: Progress,
    ) -> None:
        self._queue = queue
        self._file_sink = file
        self._stdout_sink = stdout_sink
        self._stop = stop
        self._progress = progress

    def run(self, limit: int | None) -> None:
        """Move messages until the queue is empty, `limit` are moved, or a signal arrives."""
        queue, progress = self._queue, self._progress
        initial_messages = queue.qsize()
        sinks: list[Sink] = [sink for sink in (self._file_sink, self._stdout_sink) if sink is not None]
        line = header(queue, self._file_sink.path if self._file_sink and self._stdout_sink else None)
        for sink in sinks:
            sink.make_room()
        for sink in sinks:
            sink.write(line)
        try:
            while progress.count != limit and not self._stop.number:
                for sink in sinks:
                    sink.make_room()
                self._move()
                progress.show(progress.count / max(initial_messages, 1))
        except (QueueEmpty, QueueShutDown):
            if not progress.count:
                raise

    def _move(self) -> None:
        if self._file_sink is not None:
            message = take(self._queue, self._file_sink, self._stop)
            self._progress.count += 1
            if self._stdout_sink is not None:
                # If the reader does not read, this blocks indefinitely; a second signal ends it.
                with self._stop.raising(2):
                    self._stdout_sink.write(record(message))
        elif self._stdout_sink is not None:  # pragma: no branch - one of the two always exists
            write_taken(self._stdout_sink.write, record(self._queue.get_message(timeout=0)), self._stop)
            self._progress.count += 1
