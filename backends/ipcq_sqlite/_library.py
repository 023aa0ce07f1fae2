"""The version of SQLite that this Python has."""

from typing import Final

#: RETURNING, UPDATE FROM, STRICT tables and JSON functions without a compile option.
_NEEDED: Final = (3, 38)


def _missing() -> str:
    try:
        import sqlite3
    except ImportError:  # a Python that was built without it
        return "this Python has no module sqlite3: install the package of your system that has it, or another Python"
    if sqlite3.sqlite_version_info < _NEEDED:
        needed = ".".join(map(str, _NEEDED))
        return f"SQLite {sqlite3.sqlite_version} is too old, and {needed} is needed: use a newer Python or SQLite"
    return ""


#: Why the backend cannot be used; empty if it can.
MISSING: Final = _missing()
