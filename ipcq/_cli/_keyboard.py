"""Keys, as they are pressed."""

import os
import select
from contextlib import ExitStack
from time import sleep
from typing import Self

from ipcq._cli._signals import slices
from ipcq._cli._streams import asks, stdin


class Keyboard:
    """The terminal at stdin, without waiting for whole lines; nothing where there is none.

    In a ``with`` statement, and whole again afterwards.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._stack = ExitStack()

    def pressed(self, key: bytes, seconds: float) -> bool:
        """Wait for a key, and tell whether it was pressed in time or the terminal has gone."""
        for each in slices(seconds):
            if self._descriptor is None:
                sleep(each)
            elif select.select([self._descriptor], [], [], each)[0]:
                keys = os.read(self._descriptor, 64)
                if not keys or key in keys.lower():
                    return True
        return False

    def __enter__(self) -> Self:
        if asks():
            import termios
            import tty

            descriptor = self._descriptor = stdin().fileno()
            before = termios.tcgetattr(descriptor)
            self._stack.callback(termios.tcsetattr, descriptor, termios.TCSADRAIN, before)
            tty.setcbreak(descriptor, termios.TCSADRAIN)  # what was typed meanwhile is kept
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
