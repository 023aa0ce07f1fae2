"""Arguments and options that several verbs share, so that they mean and are called the same everywhere."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

import ipcq
from ipcq._opening.options import BYTES, FLAG, MESSAGES, MINIMA, MODE, OPTIONS, SECONDS, Kind
from ipcq.errors import MessageQueueError

Verb = TypeVar("Verb", bound=Callable[..., Any])

#: Of an interval, in seconds.
SHORTEST, LONGEST = 0.01, 86_400


def complete_name(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Offer a shell the names of the queues that exist."""
    try:
        names = {queue.name for queue in ipcq.queues()}
    except MessageQueueError:
        return []  # a shell has nowhere to show an error while it completes a word
    return sorted(name for name in names if name.startswith(incomplete))


def complete_backend(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Offer a shell the backends that are installed."""
    names = ["auto", *(each.name for each in ipcq.backends())]
    return [name for name in names if name.startswith(incomplete)]


def name_argument(verb: Verb) -> Verb:
    """Take the queue's name. Whether it is valid is the core's to say."""
    return click.argument("name", shell_complete=complete_name)(verb)


def names_argument(verb: Verb) -> Verb:
    """Take the names of one or more queues."""
    return click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_name)(verb)


def seconds_option(name: str, help: str, default: float | None = None) -> Callable[[Verb], Verb]:
    """Offer an option that takes seconds from 0 on; ``inf`` is for ever."""
    return click.option(name, type=float, metavar="SECONDS", default=default, callback=_check_seconds, help=help)


def _check_seconds(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    # "not >=" rather than "<": NaN is no length of time either.
    if value is not None and not value >= 0:
        raise click.BadParameter(f"{value} is not a number of seconds from 0 on ('inf' is for ever).")
    return value


def _octal(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch("0*[0-7]{1,3}", text):
        raise click.BadParameter(f"{text!r} is not permission bits in octal, such as 0660.")
    return int(text, 8)


#: How click takes values of each kind.
_TAKEN: Final[Mapping[Kind, Mapping[str, Any]]] = {
    FLAG: {"is_flag": True},
    MESSAGES: {"type": click.IntRange(1)},
    BYTES: {"type": click.IntRange(1)},
    MODE: {"callback": _octal},
    SECONDS: {"type": float, "callback": _check_seconds},
    MINIMA: {"multiple": True},
}


def option_of_open(name: str, *, off: str = "", **settings: Any) -> Callable[[Verb], Verb]:
    """Offer an option of `ipcq.open`, as the table of options has it.

    Args:
        name: The option.
        off: The flag that says no, where leaving the option out says neither.
        **settings: What this verb has otherwise; for click.
    """
    option = OPTIONS[name]
    said = {"help": option.summary, "metavar": option.kind.metavar or None, **_TAKEN.get(option.kind, {}), **settings}
    return click.option(f"{option.flag}/{off}" if off else option.flag, name, **said)


def interval_option(default: float, help: str) -> Callable[[Verb], Verb]:
    """Offer ``--interval``."""
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
    if not SHORTEST <= value <= LONGEST:
        raise click.BadParameter(f"{value} is not a number of seconds from {SHORTEST} to {LONGEST:,}.")
    return value


def timeout_of(seconds: float) -> float | None:
    """Turn seconds of the command line into a timeout of the API, where None is for ever."""
    return None if math.isinf(seconds) else seconds


def backend_option(help: str) -> Callable[[Verb], Verb]:
    """Offer ``--backend``."""
    return click.option(
        "--backend", default="auto", show_default=True, metavar="BACKEND", help=help, shell_complete=complete_backend
    )


def json_option(help: str) -> Callable[[Verb], Verb]:
    """Offer ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help=help)


def null_option(help: str) -> Callable[[Verb], Verb]:
    """Offer ``--null``."""
    return click.option("-0", "--null", is_flag=True, help=help)


def quiet_option(verb: Verb) -> Verb:
    """Offer ``--quiet``."""
    return click.option("-q", "--quiet", is_flag=True, help="Print no notes; errors are still printed.")(verb)
