"""``ipcq version``: print versions."""

import os
import platform
import re
import sys

import click

import ipcq
from ipcq._cli._options import json_option
from ipcq._cli._output import flat, print_json, print_line, print_table
from ipcq._distribution import DISTRIBUTION


@click.command("version")
@click.option("-v", "--verbose", is_flag=True, help="Also print Python, system, libraries and backends.")
@json_option("Print one JSON object; implies --verbose.")
def command(verbose: bool, as_json: bool) -> None:
    """Print the version.

    Include the output of --verbose in bug reports.
    """
    if as_json:
        print_json(_facts())
    elif verbose:
        print_table(("what", "value"), flat(_facts()), folding={"value"})
    else:
        print_line(line())


def line() -> str:
    """Return the version as one line, or that it is unknown."""
    return f"ipcq {_installed(DISTRIBUTION) or 'of an unknown version: its metadata is missing'}"


def _facts() -> dict[str, object]:
    system = os.uname() if hasattr(os, "uname") else platform.uname()
    return {
        "ipcq": _installed(DISTRIBUTION),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "executable": sys.executable,
        "platform": sys.platform,
        "machine": system.machine,
        "kernel": f"{platform.system()} {system.release}",
        "libc": " ".join(platform.libc_ver()).strip(),
        "libraries": {name: _installed(name) for name in _libraries()},
        "backends": {each.name: each.reason or "usable" for each in ipcq.backends()},
    }


def _libraries() -> list[str]:
    """Return the required and the optional dependencies of ipcq."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        needs = requires(DISTRIBUTION) or ()
    except PackageNotFoundError:
        return []  # without metadata; the version is null, too
    named = [re.match(r"[\w.-]+", each) for each in needs]
    return sorted({match[0] for match in named if match})


def _installed(name: str) -> str | None:
    # Imported here because it is slow and `ipcq --help` imports every verb.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None
