"""One line of a terminal, overwritten on each update."""

from shutil import get_terminal_size

import click


class StatusLine:
    """The last line of stdout or stderr. A context manager that clears the line on exit."""

    def __init__(self, *, err: bool = False) -> None:
        self._err = err

    def show(self, text: str) -> None:
        """Replace the text of the line."""
        # Truncate to the width: a line that wraps cannot be overwritten.
        click.echo(f"\r\x1b[K{text[: get_terminal_size().columns - 1]}", nl=False, err=self._err)

    def __enter__(self) -> "StatusLine":
        return self

    def __exit__(self, *_: object) -> None:
        click.echo("\r\x1b[K", nl=False, err=self._err)
