"""Prerequisites of the tests: without them a test is skipped visibly, and fails in CI."""

import os
from importlib import import_module
from typing import Any, NoReturn

import pytest

import ipcq

#: Backends and libraries whose tests are left out, separated by spaces; set by `nox -s bare` and `nox -s hidden`.
WITHOUT = os.environ.get("IPCQ_TESTS_WITHOUT", "").split()


def required(reason: str) -> NoReturn:
    """Skip a test that cannot run here; in CI, fail instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must not skip: {reason}")
    pytest.skip(reason, allow_module_level=True)


def library(name: str) -> Any:
    """Return an optional library, or skip; in CI, fail unless this run is the one without it."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        reason = f"this cannot be used here without {name}"
    if name in WITHOUT:
        pytest.skip(reason, allow_module_level=True)
    required(reason)


def usable(name: str) -> str:
    """Return the name of a backend if it is usable here, or skip; in CI, a skip is allowed only for the platform."""
    info = next(info for info in ipcq.backends() if info.name == name)
    if not info.usable:
        pytest.skip(f"backend {name!r} cannot be used here: {info.reason}")
    return name


def needs_leases(backend: str) -> None:
    """Skip a test on a backend without leases."""
    info = next(info for info in ipcq.backends() if info.name == backend)
    if info.capabilities is None or not info.capabilities.leases:
        pytest.skip("capabilities.leases is not claimed")
