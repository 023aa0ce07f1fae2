"""The command ``ipcq``: one file per verb, loaded when it is called.

Exit codes, and the line on stderr that goes with them, are decided in `_exits` alone.
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
    """The group of verbs: imports the one that is called, and turns errors into exit codes."""

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
            vars(error)["message"] = redacted(error.message)  # click quotes the arguments that it refuses
            raise
        except (MessageQueueError, Failure, OSError, KeyboardInterrupt) as error:
            if ctx.params["traceback"]:
                click.echo(redacted(traceback.format_exc()), nl=False, err=True)
            if isinstance(error, KeyboardInterrupt):
                # Quiet, as every tool is; unless the verb knows something that would be lost without a word.
                if hasattr(error, "__notes__"):
                    complain(line_of(error))
                ctx.exit(INTERRUPTED)
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                # Whoever read our output has gone: click swallows what is still buffered, and exits with 1.
                raise
            if line := line_of(error):
                complain(line)
            ctx.exit(code_of(error))


def _tell_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print what `ipcq version` prints; click's own option raises where there is no metadata."""
    if wanted and not ctx.resilient_parsing:
        click.echo(import_module("ipcq._cli.verbs.version").line())
        ctx.exit()


@click.group(
    cls=Verbs,
    # Named here without being loaded, so that click can say "did you mean" for a verb that is misspelt.
    commands={verb: click.Command(verb) for verb in VERBS},
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_tell_version, help="Print the version."
)
@click.option("--traceback", is_flag=True, help="Show where an error came from, before its one line.")
def cli(traceback: bool) -> None:
    """Put objects into named queues, take them out, and look at the queues of this machine.

    \b
    A queue's NAME is '/' and then any text, as in /jobs. A URL names its backend too:
    mqueue:///jobs.

    \b
    Exit codes: 0 ok, 1 error, 2 usage, 3 empty or timed out, 4 full, 5 no such queue,
    130 interrupted.
    """


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    cli.main(args, prog_name="ipcq")
    sys.exit(ERROR)  # pragma: no cover - click's main never returns; this line lets the type say so
