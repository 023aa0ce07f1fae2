"""One line of a terminal that is written over again and again."""

from shutil import get_terminal_size

import click


class Line:
    """The last line of stdout, or of stderr. In a ``with`` statement it is wiped at the end."""

    def __init__(self, *, err: bool = False) -> None:
        self._err = err

    def show(self, text: str) -> None:
        """Write over what is there."""
        # Cut to the width, because a line that wraps cannot be written over.
        click.echo(f"\r\x1b[K{text[: get_terminal_size().columns - 1]}", nl=False, err=self._err)

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        click.echo("\r\x1b[K", nl=False, err=self._err)
