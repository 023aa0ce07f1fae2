"""The command ``ipcq``: one file per verb, imported when the verb is called.

Only `_exits` maps errors to exit codes and to the line on stderr.
"""

import errno
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from ipcq._cli._exits import ERROR, INTERRUPTED, Failure, code_of, complain, line_of
from ipcq._redaction import redacted
from ipcq.errors import MessageQueueError

__all__ = ("cli", "main")

VERBS = (
    "demo",
    "stress",
    "put",
    "get",
    "peek",
    "tail",
    "work",
    "dead",
    "ls",
    "stat",
    "top",
    "create",
    "rm",
    "shutdown",
    "move",
    "copy",
    "drain",
    "load",
    "backends",
    "doctor",
    "bench",
    "config",
    "completion",
    "version",
)


class Verbs(click.Group):
    """The group of verbs: imports the verb that is called, and turns errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"ipcq._cli.verbs.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            vars(error)["message"] = redacted(error.message)  # click quotes rejected arguments
            raise
        except (MessageQueueError, Failure, OSError, KeyboardInterrupt) as error:
            if ctx.params["traceback"]:
                click.echo(redacted(traceback.format_exc()), nl=False, err=True)
            if isinstance(error, KeyboardInterrupt):
                # Silent, like other tools, unless the verb attached what would otherwise be lost.
                if hasattr(error, "__notes__"):
                    complain(line_of(error))
                ctx.exit(INTERRUPTED)
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                # The reader of stdout is gone. click discards buffered output and exits with 1.
                raise
            if line := line_of(error):
                complain(line)
            ctx.exit(code_of(error))


def _print_version(ctx: click.Context, _: click.Parameter, requested: bool) -> None:
    """Print what `ipcq version` prints. click's own option raises if the metadata is missing."""
    if requested and not ctx.resilient_parsing:
        click.echo(import_module("ipcq._cli.verbs.version").line())
        ctx.exit()


@click.group(
    cls=Verbs,
    # Placeholders: click needs the names for "did you mean", but not the imports.
    commands={verb: click.Command(verb) for verb in VERBS},
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
@click.option("--traceback", is_flag=True, help="Print the traceback of an error before its message.")
def cli(traceback: bool) -> None:
    """Put objects into named queues, get them, and inspect the queues of this machine.

    \b
    NAME is '/' followed by any text, as in /jobs. A URL also names the backend:
    mqueue:///jobs.

    \b
    Exit codes: 0 ok, 1 error, 2 usage, 3 empty or timed out, 4 full, 5 no such queue,
    130 interrupted.
    """


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    cli.main(args, prog_name="ipcq")
    sys.exit(ERROR)  # pragma: no cover - click's main never returns, but its type does not say so
