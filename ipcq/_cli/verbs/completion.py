"""``ipcq completion``: what a shell needs to complete the command line."""

import os

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(SHELLS)), required=False)
@click.pass_context
def command(context: click.Context, shell: str | None) -> None:
    """Print the script that makes SHELL complete verbs, options, queues and backends.

    Without SHELL it is the one that $SHELL names.

    \b
    eval "$(ipcq completion bash)"
    ipcq completion fish > ~/.config/fish/completions/ipcq.fish
    """
    shell = shell or os.path.basename(os.environ.get("SHELL", ""))
    if shell not in SHELLS:
        raise click.UsageError(f"Say which shell: {', '.join(SHELLS)}.")
    click.echo(SHELLS[shell](context.find_root().command, {}, "ipcq", "_IPCQ_COMPLETE").source())
