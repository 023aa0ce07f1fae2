"""Arguments and options that several verbs share, so that they mean and are called the same everywhere."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

import ipcq
from ipcq.errors import MessageQueueError

Verb = TypeVar("Verb", bound=Callable[..., Any])


class QueueName(click.ParamType):
    """A queue's name or URL; completed from the queues that exist. Whether it is valid is the core's to say."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            names = sorted({queue.name for queue in ipcq.queues()})
        except MessageQueueError:
            # A shell has nowhere to show an error while it completes a word.
            return []
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class Seconds(click.ParamType):
    """A number of seconds from 0 on; ``inf`` is for ever."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not seconds >= 0:
            self.fail(f"{value!r} is not a number of seconds from 0 on ('inf' waits for ever)", param, ctx)
        return seconds


def timeout_of(seconds: float) -> float | None:
    """Turn seconds of the command line into a timeout of the API, where None is for ever."""
    return None if math.isinf(seconds) else seconds


name_argument = click.argument("name", type=QueueName())


def backend_option(help: str) -> Callable[[Verb], Verb]:
    """Offer ``--backend``."""
    return click.option("--backend", default="auto", show_default=True, metavar="BACKEND", help=help)


def json_option(help: str) -> Callable[[Verb], Verb]:
    """Offer ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help=help)


def null_option(help: str) -> Callable[[Verb], Verb]:
    """Offer ``--null``."""
    return click.option("-0", "--null", is_flag=True, help=help)


quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print no notes; errors are still printed.")
other_users_option = click.option(
    "--other-users", is_flag=True, help="Trust a queue that belongs to another user; else it is refused."
)
