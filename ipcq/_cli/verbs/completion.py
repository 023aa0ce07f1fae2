"""``ipcq completion``: print the completion script of a shell."""

import os

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(SHELLS)), required=False)
@click.pass_context
def command(context: click.Context, shell: str | None) -> None:
    """Print a script that completes verbs, options, queues and backends in SHELL.

    SHELL defaults to the shell in $SHELL.

    \b
    eval "$(ipcq completion bash)"
    ipcq completion fish > ~/.config/fish/completions/ipcq.fish
    """
    shell = shell or os.path.basename(os.environ.get("SHELL", ""))
    if shell not in SHELLS:
        raise click.UsageError(f"Cannot tell the shell from $SHELL: pass one of {', '.join(SHELLS)}.")
    click.echo(SHELLS[shell](context.find_root().command, {}, "ipcq", "_IPCQ_COMPLETE").source())
