"""How much the long tests do: what a change has to pass, or what `nox -s nightly` or `nox -s release` asks for."""

import os

_SIZE = os.environ.get("IPCQ_TESTS_SIZE", "daily")


def size(daily: int, nightly: int, release: int | None = None) -> int:
    """Return one of these; a release does what a night does where nothing else is said."""
    return {"daily": daily, "nightly": nightly, "release": release or nightly}[_SIZE]
