"""Progress of a long-running verb: a line on stderr, if that is a terminal."""

import sys
from contextlib import ExitStack
from time import monotonic
from typing import Self

from ipcq._cli._status_line import StatusLine

#: The line appears after this time.
DELAY_SECONDS = 2.0

UPDATE_SECONDS = 0.1

BAR_CHARACTERS = 30


class Progress:
    """Shows a bar, the count and the rate, once the verb has run for `DELAY_SECONDS` seconds.

    Args:
        what: Label of the count, as in "messages put".
        silent: Show nothing.
    """

    def __init__(self, what: str, *, silent: bool) -> None:
        self.count = 0
        self._what = what
        self._silent = silent or sys.stderr is None or not sys.stderr.isatty()
        self._line: StatusLine | None = None
        self._stack = ExitStack()
        self._started = monotonic()
        self._next = self._started + DELAY_SECONDS

    @property
    def shown(self) -> bool:
        """Whether the line is visible."""
        return self._line is not None

    def show(self, share: float | None) -> None:
        """Update the line with count and rate, if an update is due.

        Args:
            share: Fraction done, from 0 to 1; None if unknown.
        """
        rate = self.count / max(monotonic() - self._started, 1e-9)
        self.show_text(share, f"{self.count:,} {self._what}   {rate:,.0f}/s")

    def show_text(self, share: float | None, text: str) -> None:
        """Update the line with a text, if an update is due.

        Args:
            share: As for `show`.
            text: The text beside the bar.
        """
        now = monotonic()
        if self._silent or now < self._next:
            return
        if self._line is None:
            self._line = self._stack.enter_context(StatusLine(err=True))
        self._next = now + UPDATE_SECONDS
        bar = ""
        if share is not None:
            share = min(share, 1.0)
            done = int(share * BAR_CHARACTERS)
            bar = f"[{'#' * done}{'.' * (BAR_CHARACTERS - done)}] {share:4.0%}   "
        self._line.show(bar + text)

    def hide(self) -> None:
        """Clear the line until the next update, so that something else can be printed."""
        if self._line is not None:
            self._line.show("")

    def close(self) -> None:
        """Clear the line."""
        self._silent = True
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
