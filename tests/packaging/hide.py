"""Hides backends of an installed ipcq by removing their entry points; run by `nox -s hidden`.

Without arguments it prints the bundled backends that can be hidden: without any of them, another one still crosses
processes. Otherwise there would be nothing to test.
"""

import sys
from importlib.metadata import distribution
from pathlib import Path

import ipcq


def main(names: list[str]) -> None:
    """Hide the backends of these names, or print those that can be hidden."""
    if not names:
        print(*hideable())
        return
    listing = Path(str(distribution("ipcq-queue").locate_file("."))) / entry_points()
    lines = listing.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.partition("=")[0].strip() not in names]
    if len(lines) - len(kept) != len(names):
        sys.exit(f"not all of {names} are in {listing}")
    listing.write_text("".join(kept), encoding="utf-8")


def entry_points() -> str:
    (found,) = (str(file) for file in distribution("ipcq-queue").files or () if file.name == "entry_points.txt")
    return found


def hideable() -> list[str]:
    bundled = [info for info in ipcq.backends() if info.distribution == "ipcq-queue"]
    crossing = {info.name for info in bundled if info.usable and info.capabilities.scope == ipcq.Scope.HOST}
    return [info.name for info in bundled if crossing - {info.name}]


if __name__ == "__main__":
    main(sys.argv[1:])
