"""Modules that PyInstaller adds to a program that imports ipcq's command line."""

from ipcq._pyinstaller import verbs

hiddenimports = verbs()
