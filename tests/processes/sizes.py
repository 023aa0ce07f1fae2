"""The sizes of the long tests: those for each change, and those of `nox -s nightly` and `nox -s release`."""

import os

_SIZE = os.environ.get("IPCQ_TESTS_SIZE", "daily")


def size(daily: int, nightly: int, release: int | None = None) -> int:
    """Return the size for this run; a release uses the nightly size unless it has its own."""
    return {"daily": daily, "nightly": nightly, "release": release or nightly}[_SIZE]
