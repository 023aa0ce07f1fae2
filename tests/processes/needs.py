"""What the tests here need of the machine: skipped visibly where it is missing, and failed where CI runs."""

import os
from importlib import import_module
from typing import Any, NoReturn

import pytest

import ipcq

#: Backends and libraries whose tests are left out, as `nox -s bare` and `nox -s hidden` ask for, separated by blanks.
WITHOUT = os.environ.get("IPCQ_TESTS_WITHOUT", "").split()


def required(reason: str) -> NoReturn:
    """Skip what cannot be tried here; where CI runs, fail instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must not skip: {reason}")
    pytest.skip(reason, allow_module_level=True)


def library(name: str) -> Any:
    """Return a library that ipcq can do without, else skip; where CI runs, fail unless the run is one without it."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        reason = f"this cannot be used here without {name}"
    if name in WITHOUT:
        pytest.skip(reason, allow_module_level=True)
    required(reason)


def usable(name: str) -> str:
    """Return the name of a backend if it can be used here, else skip; where CI runs, only for want of the platform."""
    info = next(info for info in ipcq.backends() if info.name == name)
    if not info.usable:
        pytest.skip(f"backend {name!r} cannot be used here: {info.reason}")
    return name
