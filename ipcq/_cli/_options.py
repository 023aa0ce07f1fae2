"""Arguments and options shared by several verbs."""

import math
import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final, TypeVar

import click

import ipcq
from ipcq._opening.options import BYTES, FLAG, MESSAGES, MINIMA, MODE, OPTIONS, SECONDS, Kind
from ipcq.errors import MessageQueueError

Verb = TypeVar("Verb", bound=Callable[..., Any])

MIN_INTERVAL_SECONDS, MAX_INTERVAL_SECONDS = 0.01, 86_400


def complete_name(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Complete the names of existing queues."""
    try:
        names = {queue.name for queue in ipcq.queues()}
    except MessageQueueError:
        return []  # a shell cannot show an error during completion
    return sorted(name for name in names if name.startswith(incomplete))


def complete_backend(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Complete the names of installed backends."""
    names = ["auto", *(each.name for each in ipcq.backends())]
    return [name for name in names if name.startswith(incomplete)]


def name_argument(verb: Verb) -> Verb:
    """Add the argument NAME. The core validates it."""
    return click.argument("name", shell_complete=complete_name)(verb)


def names_argument(verb: Verb) -> Verb:
    """Add the argument NAME..., one or more queues."""
    return click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_name)(verb)


def place_argument(verb: Verb) -> Verb:
    """Add the argument PLACE, and pass it to the verb as `backend`; it excludes the option --backend."""

    @wraps(verb)
    def call(*, place: str | None, backend: str, **others: Any) -> Any:
        if place is not None and backend != "auto":
            raise click.UsageError("PLACE names the backend: leave out --backend.")
        return verb(backend=place or backend, **others)

    argument = click.argument("place", required=False, metavar="[PLACE]")
    return argument(call)  # type: ignore[return-value]  # the same verb with one more argument


def seconds_option(name: str, help: str, default: float | None = None) -> Callable[[Verb], Verb]:
    """Add an option that takes seconds >= 0; ``inf`` means without a limit."""
    return click.option(name, type=float, metavar="SECONDS", default=default, callback=_check_seconds, help=help)


def _check_seconds(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    # "not >=" rather than "<" also rejects NaN.
    if value is not None and not value >= 0:
        raise click.BadParameter(f"{value} is not a number of seconds >= 0 ('inf' waits without a limit).")
    return value


def _octal(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch("0*[0-7]{1,3}", text):
        raise click.BadParameter(f"{text!r} is not an octal mode such as 0660.")
    return int(text, 8)


#: The settings for click of each kind of value.
_CLICK_SETTINGS: Final[Mapping[Kind, Mapping[str, Any]]] = {
    FLAG: {"is_flag": True},
    MESSAGES: {"type": click.IntRange(1)},
    BYTES: {"type": click.IntRange(1)},
    MODE: {"callback": _octal},
    SECONDS: {"type": float, "callback": _check_seconds},
    MINIMA: {"multiple": True},
}


def option_of_open(name: str, *, negative: str = "", **settings: Any) -> Callable[[Verb], Verb]:
    """Add an option of `ipcq.open`, with help and type from the table of options.

    Args:
        name: The option.
        negative: The flag for False, if the option has three states.
        **settings: Settings for click that override the table's.
    """
    option = OPTIONS[name]
    merged = {
        "help": option.summary,
        "metavar": option.kind.metavar or None,
        **_CLICK_SETTINGS.get(option.kind, {}),
        **settings,
    }
    return click.option(f"{option.flag}/{negative}" if negative else option.flag, name, **merged)


def interval_option(default: float, help: str) -> Callable[[Verb], Verb]:
    """Add ``--interval``."""
    return click.option(
        "--interval",
        type=float,
        metavar="SECONDS",
        default=default,
        show_default=True,
        callback=_check_interval,
        help=help,
    )


def _check_interval(_: click.Context, __: click.Parameter, value: float) -> float:
    if not MIN_INTERVAL_SECONDS <= value <= MAX_INTERVAL_SECONDS:
        raise click.BadParameter(
            f"{value} is not a number of seconds from {MIN_INTERVAL_SECONDS} to {MAX_INTERVAL_SECONDS:,}."
        )
    return value


def timeout_of(seconds: float) -> float | None:
    """Convert seconds from the command line to a timeout of the API, where None blocks indefinitely."""
    return None if math.isinf(seconds) else seconds


def backend_option(help: str) -> Callable[[Verb], Verb]:
    """Add ``--backend``."""
    return click.option(
        "--backend", default="auto", show_default=True, metavar="BACKEND", help=help, shell_complete=complete_backend
    )


def json_option(help: str) -> Callable[[Verb], Verb]:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help=help)


def null_option(help: str) -> Callable[[Verb], Verb]:
    """Add ``--null``."""
    return click.option("-0", "--null", is_flag=True, help=help)


def quiet_option(verb: Verb) -> Verb:
    """Add ``--quiet``."""
    return click.option("-q", "--quiet", is_flag=True, help="Print no notes, only errors.")(verb)
