"""Hooks for PyInstaller, which finds them by the entry point `hook-dirs` of the group `pyinstaller40`.

PyInstaller packs what a program imports by name. It sees neither the metadata in which distributions offer their
backends nor the modules that ipcq imports by a name that it computes. The files beside this one have the names that
PyInstaller prescribes: `hook-MODULE.py` is run when a program imports MODULE.
"""

import os
from typing import Any

from ipcq.hooks import GROUP


def get_hook_dirs() -> list[str]:
    """Return the directory of the hooks."""
    return [os.path.dirname(__file__)]


def collected() -> tuple[list[Any], list[str]]:
    """Return the data files and the modules that every program with ipcq needs.

    These are the metadata of each distribution that offers a backend, the backends themselves, every serializer, and
    the library of mqueue, which is imported by its name so that the posix_ipc face can stand in for it.
    """
    # Only PyInstaller itself runs this.
    from PyInstaller.utils.hooks import collect_entry_point, collect_submodules

    datas, modules = collect_entry_point(GROUP)
    return datas, [*modules, *collect_submodules("ipcq.serializers"), "posix_ipc"]


def verbs() -> list[str]:
    """Return the modules of the command line, which are imported when a verb is called."""
    from PyInstaller.utils.hooks import collect_submodules

    return list(collect_submodules("ipcq._cli"))
