"""``python -m ipcq`` is the command ``ipcq``."""

from ipcq._cli import main

main()
