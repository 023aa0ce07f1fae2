"""What the tests here need of the machine: skipped visibly where it is missing, and failed where CI runs."""

import os

import pytest

import ipcq


def required(reason: str) -> None:
    """Skip what cannot be tried here; where CI runs, fail instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must not skip: {reason}")
    pytest.skip(reason)


def usable(name: str) -> str:
    """Return the name of a backend if it can be used here, else skip; where CI runs, only for want of the platform."""
    info = next(info for info in ipcq.backends() if info.name == name)
    if not info.usable:
        pytest.skip(f"backend {name!r} cannot be used here: {info.reason}")
    return name
