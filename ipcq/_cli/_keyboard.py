"""Single key presses from a terminal."""

import os
import select
from contextlib import ExitStack
from time import sleep
from typing import Self

from ipcq._cli._signals import slices
from ipcq._cli._streams import stdin, stdin_is_terminal


class Keyboard:
    """Key presses on stdin, without line buffering. Without a terminal, no key is ever pressed.

    A context manager that restores the terminal's mode.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._stack = ExitStack()

    def pressed(self, key: bytes, seconds: float) -> bool:
        """Wait for a key. Return True if it is pressed in time or the terminal is closed."""
        for each in slices(seconds):
            if self._descriptor is None:
                sleep(each)
            elif select.select([self._descriptor], [], [], each)[0]:
                keys = os.read(self._descriptor, 64)
                if not keys or key in keys.lower():
                    return True
        return False

    def __enter__(self) -> Self:
        if stdin_is_terminal():
            import termios
            import tty

            descriptor = self._descriptor = stdin().fileno()
            before = termios.tcgetattr(descriptor)
            self._stack.callback(termios.tcsetattr, descriptor, termios.TCSADRAIN, before)
            tty.setcbreak(descriptor, termios.TCSADRAIN)  # keeps keys typed so far
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
