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
from ipcq._cli._dump import File, header, limits_of
from ipcq._cli._exits import Failure, complain
from ipcq._cli._options import (
    complete_name,
    json_option,
    option_of_open,
    quiet_option,
    seconds_option,
)
from ipcq._cli._output import say, say_json, shown
from ipcq._cli._progress import Progress
from ipcq._cli._putter import Putter, check_that_it_takes
from ipcq._cli._rescue import load_command, rescue_file, rescue_option
from ipcq._cli._signals import Stop, end_by, noted_signals
from ipcq._cli._target import Limits, check_size, open_target, target_options
from ipcq.errors import MessageQueueError, QueueEmpty, QueueShutDown

_BACKEND = re.compile("backend=(?:'([^']*)'|…)")


@dataclass(frozen=True, kw_only=True)
class Request:
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


def transfer_verb(verb: Callable[[Request], None]) -> Callable[..., None]:
    """Add the arguments and options of a verb that transfers messages between two queues."""

    def call(**given: Any) -> None:
        verb(Request(**given))

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

    request: Request
    source: ipcq.Queue[bytes]
    target: ipcq.Queue[bytes]
    file: File
    """The rescue file: holds every message that was taken and is not in a queue."""
    stop: Stop
    progress: Progress
    putter: Putter
    there: int
    """Number of messages in the source at the start."""
    in_hand: int = 0
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
        self.progress.show(self.progress.count / self.there)

    def _priority(self, message: ipcq.Message[bytes]) -> int:
        return 0 if self.request.limits.drops_priorities else message.priority


@contextmanager
def transfer(request: Request, verb: str, done: str, *, gives_back: bool) -> Iterator[Transfer]:
    """Open both queues and the rescue file, and report the result at the end.

    Args:
        request: The parsed command line.
        verb: Part of the name of the rescue file.
        done: Past participle for reports, as in "moved".
        gives_back: Messages are put back into the source.

    Raises:
        Failure: The target cannot hold the messages of the source. No message was taken.
        QueueEmpty: The source is empty.
    """
    with ExitStack() as stack:
        with _urls_for_backends(request.source):
            source: ipcq.Queue[bytes] = ipcq.open(
                request.source, create=False, write=gives_back, serializer="raw", other_users=request.other_users
            )
        stack.enter_context(source)
        there = source.qsize()
        if not there:
            raise QueueEmpty(queue=source.name, backend=source.backend)
        with _urls_for_backends(request.target):
            target = open_target(
                request.target,
                "auto",
                request.limits,
                limits_of(source),
                messages=there,
                create=not request.no_create,
                advise=partial(_name_urls, request.target),
                serializer="raw",
                other_users=request.other_users,
            )
        stack.enter_context(target)
        if (source.name, source.backend) == (target.name, target.backend):
            raise click.UsageError(
                f"SRC and DST are the same queue, {source.name!r} on backend {source.backend!r}: name two queues."
            )
        for queue in (source, target) if gives_back else (target,):
            _check_that_it_takes(queue)
        check_size(target, request.limits, source.max_message_size)
        stop = stack.enter_context(noted_signals())
        progress = stack.enter_context(Progress(f"messages {done}", silent=request.quiet))
        # With peek, a message is written before it is taken, so a full disk loses none and nothing need be reserved.
        file = rescue_file(source, verb, request.rescue, step=None if source.capabilities.peek else 0)
        its = Transfer(
            request=request,
            source=source,
            target=target,
            file=file,
            stop=stop,
            progress=progress,
            putter=Putter(target, stop, progress, wait=request.wait, quiet=request.quiet),
            there=there,
        )
        stack.callback(lambda: file.close(keep=its.in_hand > 0))
        _check_priorities(its)
        file.write(header(source, file.path))
        loading = load_command(request.source if gives_back else request.target, file.path)
        if not request.quiet:
            complain(f"if this process is killed, {loading} recovers the messages that it held")
        try:
            yield its
        except BaseException as error:
            progress.close()
            _note(error, _state(its, done, loading))
            raise
    _tell(its, done)


def _check_that_it_takes(queue: ipcq.Queue[bytes]) -> None:
    """Check that the queue is not shut down, and add a note to the error."""
    try:
        check_that_it_takes(queue)
    except QueueShutDown as error:
        error.add_note("nothing was taken")
        raise


def _check_priorities(its: Transfer) -> None:
    if not its.source.priorities:
        return
    if its.source.capabilities.peek:
        try:
            its.check(its.source.peek_message())  # the highest comes first
        except QueueEmpty:
            pass  # taken by another consumer
    elif not (its.request.limits.drops_priorities or its.target.capabilities.priorities):
        raise _priorities_lost(its.target)


def _priorities_lost(target: ipcq.Queue[Any]) -> Failure:
    return Failure(
        f"messages may have priorities, but queue {target.name!r} on backend {target.backend!r} has none: "
        "pass --no-priorities to put each message with priority 0"
    )


def _state(its: Transfer, done: str, loading: str) -> str:
    """Return a sentence about where all messages are."""
    state = f"{_messages(its.progress.count)} {done}"
    if its.in_hand:
        return f"{state}; {_messages(its.in_hand)} in no queue, kept in {its.file.path}: resume with {loading}"
    return f"{state}, all others are still in {its.source.name!r}"


def _note(error: BaseException, state: str) -> None:
    if isinstance(error, SystemExit):
        complain(state)  # SystemExit prints no line, so a note would be lost
    else:
        error.add_note(state)


def _tell(its: Transfer, done: str) -> None:
    request, number = its.request, its.stop.number
    told = f"{_messages(its.progress.count)} {done}"
    if number:
        if not request.quiet:
            complain(f"stopped: {told}, all others are still in {its.source.name!r}")
        end_by(number)
    if request.as_json:
        ends: Mapping[str, ipcq.Queue[bytes]] = {"source": its.source, "target": its.target}
        facts = {end: {"name": queue.name, "backend": queue.backend} for end, queue in ends.items()}
        say_json({**facts, "messages": its.progress.count})
    elif not request.quiet:
        say(f"{told} from {shown(its.source.name)} to {shown(its.target.name)}")


def _messages(count: int) -> str:
    return f"{count} message{'s' if count != 1 else ''}"


@contextmanager
def _urls_for_backends(name: str) -> Iterator[None]:
    """Make errors advise a URL instead of an argument for the backend."""
    try:
        yield
    except MessageQueueError as error:
        _name_urls(name, error)
        raise


def _name_urls(name: str, error: MessageQueueError) -> None:
    path = name.partition("://")[2] or name
    error.detail = _BACKEND.sub(
        lambda found: f"a URL such as {found[1] or 'BACKEND'}://{path.partition('?')[0]}", error.detail
    )
