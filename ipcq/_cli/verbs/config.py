"""``ipcq config``: show the effective configuration and its origin."""

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import click

import ipcq
from ipcq._cli._options import json_option
from ipcq._cli._output import print_json, print_table
from ipcq._opening.address import PREFERENCE
from ipcq._opening.options import DEFAULTS
from ipcq._opening.registry import STRICT
from ipcq._process.private_directory import private_places
from ipcq._process.shortcuts import SHORTCUTS
from ipcq._redaction import without_secrets

#: Options whose default is fixed by `ipcq.open`, not by the backend.
FIXED_DEFAULTS = ("mode", "lifetime", "serializer", "after_unlink", "open_timeout")

ENVIRONMENT = "environment"
BUILT_IN = "built in"


class Setting(NamedTuple):
    """One setting."""

    name: str
    value: Any
    source: str


@click.command("config")
@json_option("Print one JSON object per setting.")
def command(as_json: bool) -> None:
    """Show the effective configuration and the origin of each setting.

    Lists the environment variables of ipcq, the backends on which `auto` creates, the files of the name lock, the
    defaults of `ipcq.open`, and the backends.
    """
    settings = list(_settings())
    if as_json:
        for each in settings:
            print_json(each._asdict())
    else:
        print_table(("setting", "value", "source"), settings, folding={"value"})


def _settings() -> Iterator[Setting]:
    for variable in (PREFERENCE, SHORTCUTS, STRICT, "NO_COLOR"):
        value = os.environ.get(variable)
        value = value and without_secrets(value)
        yield Setting(variable, value, "not set" if value is None else ENVIRONMENT)
    yield _creation_order()
    files = [os.path.join(place, "names.lock") for place in private_places()]
    yield Setting("name lock", files, f"{BUILT_IN}, one per user in each usable directory")
    for option in FIXED_DEFAULTS:
        value = DEFAULTS[option]
        yield Setting(f"default {option}", f"{value:04o}" if option == "mode" else value, BUILT_IN)
    for each in ipcq.backends():
        yield Setting(f"backend {each.name}", "usable" if each.usable else each.reason, each.distribution)


def _creation_order() -> Setting:
    named = os.environ.get(PREFERENCE)
    if named:
        what = "place of all queues without a backend" if "://" in named else "backend auto creates on"
        return Setting(what, [without_secrets(named)], f"{ENVIRONMENT}: {PREFERENCE}")
    usable = {
        each.name: each.capabilities
        for each in ipcq.backends()
        if each.usable and each.rank is not None and each.capabilities and each.capabilities.scope == ipcq.Scope.HOST
    }
    persistent = [name for name, capabilities in usable.items() if capabilities.persistence >= ipcq.Persistence.KERNEL]
    return Setting("backend auto creates on", persistent or list(usable), "rank of the backends")
