"""What PyInstaller adds to a program that has ipcq's command line."""

from ipcq._pyinstaller import verbs

hiddenimports = verbs()
