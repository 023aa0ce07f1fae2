"""Common parts of `move` and `copy`: source, target, and the rescue file."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import click

import ipcq
from ipcq._cli._exits import Failure, complain
from ipcq._cli._message_format import header, limits_of
from ipcq._cli._options import (
    complete_name,
    json_option,
    option_of_open,
    quiet_option,
    seconds_option,
)
from ipcq._cli._output import print_json, print_line, shown
from ipcq._cli._progress import Progress
from ipcq._cli._putter import Putter, check_not_shut_down
from ipcq._cli._rescue import load_command, rescue_file, rescue_option
from ipcq._cli._signals import Stop, raise_for_signal, record_signals
from ipcq._cli._sinks import FileSink
from ipcq._cli._target import Limits, check_size, open_target, target_options
from ipcq.errors import MessageQueueError, QueueEmpty, QueueShutDown

_BACKEND = re.compile("backend=(?:'([^']*)'|…)")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The parsed command line."""

    source: str
    target: str
    count: int | None
    wait: float
    no_create: bool
    limits: Limits
    rescue: str | None
    as_json: bool
    other_users: bool
    quiet: bool


def transfer_verb(verb: Callable[[Arguments], None]) -> Callable[..., None]:
    """Add the arguments and options of a verb that transfers messages between two queues."""

    def call(**given: Any) -> None:
        verb(Arguments(**given))

    call.__doc__ = verb.__doc__
    for option in (
        quiet_option,
        option_of_open("other_users"),
        json_option("Print the result as one JSON object."),
        rescue_option,
        target_options,
        click.option("--no-create", is_flag=True, help="Do not create DST; exit with 5 if it does not exist."),
        seconds_option(
            "--wait",
            "Wait up to SECONDS for space for each message; 0 does not wait.  [default: no limit]",
            default=math.inf,
        ),
        click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="Stop after N messages."),
        click.argument("target", metavar="DST", shell_complete=complete_name),
        click.argument("source", metavar="SRC", shell_complete=complete_name),
    ):
        call = option(call)
    return call


@dataclass(kw_only=True)
class Transfer:
    """A transfer of messages from one queue to another."""

    arguments: Arguments
    source: ipcq.Queue[bytes]
    target: ipcq.Queue[bytes]
    file: FileSink
    """The rescue file: holds every message that was taken and is not in a queue."""
    stop: Stop
    progress: Progress
    putter: Putter
    initial_messages: int
    """Number of messages in the source at the start."""
    in_file_only: int = 0
    """Number of messages that are only in the file."""

    def put(self, message: ipcq.Message[bytes]) -> None:
        """Put a message into the target, and wait for space."""
        self.putter.put(message.item, self._priority(message), self.show)

    def check(self, message: ipcq.Message[bytes]) -> None:
        """Check that the target can hold a message.

        Raises:
            Failure: It cannot.
        """
        if len(message.item) > self.target.max_message_size:
            raise Failure(
                f"the next message has {len(message.item)} bytes, but queue {self.target.name!r} takes at most "
                f"{self.target.max_message_size}: choose another DST, or a new one with --max-message-size "
                f"{len(message.item)}"
            )
        if self._priority(message) and not self.target.capabilities.priorities:
            raise _priorities_lost(self.target)

    def show(self) -> None:
        """Update the progress line."""
        self.progress.show(self.progress.count / self.initial_messages)

    def _priority(self, message: ipcq.Message[bytes]) -> int:
        return 0 if self.arguments.limits.drops_priorities else message.priority


@contextmanager
def open_transfer(arguments: Arguments, verb: str, past: str, *, puts_back: bool) -> Iterator[Transfer]:
    """Open both queues and the rescue file, and report the result at the end.

    Args:
        arguments: The parsed command line.
        verb: Part of the name of the rescue file.
        past: Past participle for reports, as in "moved".
        puts_back: Messages are put back into the source.

    Raises:
        Failure: The target cannot hold the messages of the source. No message was taken.
        QueueEmpty: The source is empty.
    """
    with ExitStack() as stack:
        with _backends_as_urls(arguments.source):
            source: ipcq.Queue[bytes] = ipcq.open(
                arguments.source, create=False, write=puts_back, serializer="raw", other_users=arguments.other_users
            )
        stack.enter_context(source)
        initial_messages = source.qsize()
        if not initial_messages:
            raise QueueEmpty(queue=source.name, backend=source.backend)
        with _backends_as_urls(arguments.target):
            target = open_target(
                arguments.target,
                "auto",
                arguments.limits,
                limits_of(source),
                messages=initial_messages,
                create=not arguments.no_create,
                reword=partial(_reword_for_url, arguments.target),
                serializer="raw",
                other_users=arguments.other_users,
            )
        stack.enter_context(target)
        if (source.name, source.backend) == (target.name, target.backend):
            raise click.UsageError(
                f"SRC and DST are the same queue, {source.name!r} on backend {source.backend!r}: name two queues."
            )
        for queue in (source, target) if puts_back else (target,):
            _check_not_shut_down(queue)
        check_size(target, arguments.limits, source.max_message_size)
        stop = stack.enter_context(record_signals())
        progress = stack.enter_context(Progress(f"messages {past}", silent=arguments.quiet))
        # With peek, a message is written before it is taken, so a full disk loses none and nothing need be reserved.
        file = rescue_file(source, verb, arguments.rescue, reserve_bytes=None if source.capabilities.peek else 0)
        transfer = Transfer(
            arguments=arguments,
            source=source,
            target=target,
            file=file,
            stop=stop,
            progress=progress,
            putter=Putter(target, stop, progress, wait=arguments.wait, quiet=arguments.quiet),
            initial_messages=initial_messages,
        )
        stack.callback(lambda: file.close(keep=transfer.in_file_only > 0))
        _check_priorities(transfer)
        file.write(header(source, file.path))
        load = load_command(arguments.source if puts_back else arguments.target, file.path)
        if not arguments.quiet:
            complain(f"if this process is killed, {load} recovers the messages that it held")
        try:
            yield transfer
        except BaseException as error:
            progress.close()
            _add_note(error, _whereabouts(transfer, past, load))
            raise
    _report(transfer, past)


def _check_not_shut_down(queue: ipcq.Queue[bytes]) -> None:
    """Check that the queue is not shut down, and add a note to the error."""
    try:
        check_not_shut_down(queue)
    except QueueShutDown as error:
        error.add_note("nothing was taken")
        raise


def _check_priorities(transfer: Transfer) -> None:
    if not transfer.source.priorities:
        return
    if transfer.source.capabilities.peek:
        try:
            transfer.check(transfer.source.peek_message())  # the highest comes first
        except QueueEmpty:
            pass  # taken by another consumer
    elif not (transfer.arguments.limits.drops_priorities or transfer.target.capabilities.priorities):
        raise _priorities_lost(transfer.target)


def _priorities_lost(target: ipcq.Queue[Any]) -> Failure:
    return Failure(
        f"messages may have priorities, but queue {target.name!r} on backend {target.backend!r} has none: "
        "pass --no-priorities to put each message with priority 0"
    )


def _whereabouts(transfer: Transfer, past: str, load: str) -> str:
    """Return a sentence about where all messages are."""
    where = f"{_messages(transfer.progress.count)} {past}"
    if transfer.in_file_only:
        held = f"{_messages(transfer.in_file_only)} in no queue, kept in {transfer.file.path}"
        return f"{where}; {held}: resume with {load}"
    return f"{where}, all others are still in {transfer.source.name!r}"


def _add_note(error: BaseException, where: str) -> None:
    if isinstance(error, SystemExit):
        complain(where)  # SystemExit prints no line, so a note would be lost
    else:
        error.add_note(where)


def _report(transfer: Transfer, past: str) -> None:
    arguments, number = transfer.arguments, transfer.stop.number
    summary = f"{_messages(transfer.progress.count)} {past}"
    if number:
        if not arguments.quiet:
            complain(f"stopped: {summary}, all others are still in {transfer.source.name!r}")
        raise_for_signal(number)
    if arguments.as_json:
        ends: Mapping[str, ipcq.Queue[bytes]] = {"source": transfer.source, "target": transfer.target}
        facts = {end: {"name": queue.name, "backend": queue.backend} for end, queue in ends.items()}
        print_json({**facts, "messages": transfer.progress.count})
    elif not arguments.quiet:
        print_line(f"{summary} from {shown(transfer.source.name)} to {shown(transfer.target.name)}")


def _messages(count: int) -> str:
    return f"{count} message{'s' if count != 1 else ''}"


@contextmanager
def _backends_as_urls(name: str) -> Iterator[None]:
    """Make errors advise a URL instead of an argument for the backend."""
    try:
        yield
    except MessageQueueError as error:
        _reword_for_url(name, error)
        raise


def _reword_for_url(name: str, error: MessageQueueError) -> None:
    last = name.partition("?")[0].rpartition("/")[2]
    error.detail = _BACKEND.sub(lambda found: f"a URL such as {found[1] or 'BACKEND'}:///{last}", error.detail)
