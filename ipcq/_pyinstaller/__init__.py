"""Hooks for PyInstaller, which finds them by the entry point `hook-dirs` of the group `pyinstaller40`.

PyInstaller packs the modules that a program imports by name. It misses the metadata in which distributions declare
their backends, and the modules that ipcq imports by a computed name. PyInstaller prescribes the names of the files in
this directory: it runs `hook-MODULE.py` when a program imports MODULE.
"""

import os
from typing import Any

from ipcq.hooks import GROUP


def get_hook_dirs() -> list[str]:
    """Return the directory of the hooks."""
    return [os.path.dirname(__file__)]


def collected() -> tuple[list[Any], list[str]]:
    """Return the data files and the modules that every program with ipcq needs.

    These are the metadata of each distribution that has a backend, the backends, all serializers, and mqueue's library,
    posix_ipc, which is imported by a computed name.
    """
    # Imported here, because only PyInstaller runs this.
    from PyInstaller.utils.hooks import collect_entry_point, collect_submodules

    datas, modules = collect_entry_point(GROUP)
    return datas, [*modules, *collect_submodules("ipcq.serializers"), "posix_ipc"]


def verbs() -> list[str]:
    """Return the modules of the command line, which imports a verb's module when the verb is called."""
    from PyInstaller.utils.hooks import collect_submodules

    return list(collect_submodules("ipcq._cli"))
