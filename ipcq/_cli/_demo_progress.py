"""Progress of ``ipcq demo``: a live line on a terminal, one line per second elsewhere."""

import sys
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from time import monotonic
from typing import Any

from ipcq._cli._output import print_line
from ipcq._cli._status_line import StatusLine

BLOCKS = "▁▂▃▄▅▆▇█"
HISTORY_SAMPLES = 24


class DemoProgress:
    """Prints progress at a limited rate."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._live: Any = None
        self._line: StatusLine | None = None
        self._terminal = not silent and sys.stdout.isatty()
        self._started = self._shown = 0.0
        self._received = 0
        self._rates: deque[float] = deque(maxlen=HISTORY_SAMPLES)

    def open(self) -> AbstractContextManager[object]:
        """Return a context manager for the run that restores the terminal."""
        if not self._terminal:
            return nullcontext()
        try:
            from rich.live import Live
        except ImportError:
            self._line = StatusLine()
            return self._line
        self._live = Live(refresh_per_second=10, transient=True)
        return self._live  # type: ignore[no-any-return]  # rich is optional, so its type cannot be named above

    def start(self) -> None:
        """Start the clock."""
        self._started = self._shown = monotonic()

    def show(self, sent: int, received: int, depth: int) -> None:
        """Print the counts, unless the last print was too recent."""
        now = monotonic()
        elapsed = now - self._shown
        if self._silent or elapsed < (0.2 if self._terminal else 1.0):
            return
        rate = (received - self._received) / elapsed
        self._shown, self._received = now, received
        # Processes report independently, so the received count may arrive before the sent count.
        sent = max(sent, received)
        line = f"{now - self._started:5.1f} s   sent {sent:,}   received {received:,}   {rate:,.0f}/s   depth {depth:,}"
        if not self._terminal:
            print_line(line)
            return
        self._rates.append(rate)
        if self._line is not None:
            self._line.show(line)
            return
        from rich.text import Text

        self._live.update(Text.assemble(line, "   ", (self._sparkline(), "green")))

    def _sparkline(self) -> str:
        highest = max(self._rates) or 1.0
        return "".join(BLOCKS[int(rate / highest * (len(BLOCKS) - 1))] for rate in self._rates)
