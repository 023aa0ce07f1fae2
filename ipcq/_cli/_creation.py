"""Options and checks shared by verbs that create queues."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import click

import ipcq
from ipcq._cli._exits import FLAGS, Failure, in_shell_words
from ipcq._cli._options import option_of_open
from ipcq._opening.address import parse
from ipcq._opening.options import OPTIONS
from ipcq.errors import PersistenceWarning, QueueNotFound, Unsupported

Verb = TypeVar("Verb", bound=Callable[..., Any])


def limit_options(verb: Verb) -> Verb:
    """Add ``--max-messages`` and ``--max-message-size``. An existing queue must match them."""
    return option_of_open("max_messages")(option_of_open("max_message_size")(verb))


def backend_options_option(verb: Verb) -> Verb:
    """Add ``-o``, and pass its values as a dict."""
    text = "Pass an option to the backend. Repeatable."
    return click.option(
        "-o", "options", multiple=True, metavar="KEY=VALUE", callback=_parse_backend_options, help=text
    )(verb)


def _parse_backend_options(_: click.Context, __: click.Parameter, pairs: tuple[str, ...]) -> Mapping[str, str]:
    options: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE.")
        if key in _OPEN_ARGUMENTS:
            flag = FLAGS.get(key)
            advice = f": use {flag}" if flag else ""
            raise click.BadParameter(f"{key} is not a backend option{advice}.")
        if key in options:
            raise click.BadParameter(f"{key} is given twice.")
        options[key] = value
    return options


_OPEN_ARGUMENTS = frozenset(("name", "backend", *OPTIONS))


def open_existing(name: str, backend: str, **options: Any) -> ipcq.Queue[Any] | None:
    """Open the queue if it exists; return None if it must be created."""
    # Only a call with create=True honours or rejects these.
    if parse(name).options.keys() & {"exclusive", "fresh", "wait"}:
        return None
    try:
        return ipcq.open(name, backend, create=False, **options)
    except QueueNotFound:
        return None


@contextmanager
def require_persistence() -> Iterator[None]:
    """Refuse to create a queue that would vanish with this process because no usable backend keeps queues."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", PersistenceWarning)
        try:
            yield
        except PersistenceWarning as warning:
            advice = "start the consumer first"
            raise Failure(str(warning).replace("pass lifetime='last-close' if that is enough", advice)) from warning


@contextmanager
def allow_short_lived() -> Iterator[None]:
    """Accept any backend without a warning: the queue need not outlive this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PersistenceWarning)
        yield


class _NoteHandler(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(in_shell_words(record.getMessage()))


@contextmanager
def backend_choice_notes() -> Iterator[list[str]]:
    """Yield a list that receives a line if the request rules out the best backend."""
    logger, handler = logging.getLogger("ipcq"), _NoteHandler()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def check_persistent(queue: ipcq.Queue[Any]) -> None:
    """Refuse a new queue that would vanish with this process, together with its messages."""
    if queue.capabilities.scope < ipcq.Scope.HOST:
        reason = "its queues live inside one process, and this one exits: choose another backend"
    elif queue.capabilities.persistence < ipcq.Persistence.KERNEL or queue.lifetime == "last-close":
        reason = "its queues last only while a process has them open: start the consumer first"
    else:
        return
    raise Unsupported(reason, queue=queue.name, backend=queue.backend)
