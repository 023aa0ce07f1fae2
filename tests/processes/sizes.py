"""How much the long tests do: what a change has to pass, or what `nox -s nightly` asks for."""

import os

NIGHTLY = os.environ.get("IPCQ_TESTS_SIZE") == "nightly"


def size(daily: int, nightly: int) -> int:
    return nightly if NIGHTLY else daily
