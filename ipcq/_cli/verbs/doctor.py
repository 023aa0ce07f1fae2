"""``ipcq doctor``: what is wrong with this machine, and the command that changes it."""

import os
import sys
from collections.abc import Iterator

import click

import ipcq
from ipcq._cli._exits import Failure
from ipcq._cli._host import ERROR, NOTE, OK, WARNING, Check
from ipcq._cli._options import json_option
from ipcq._cli._output import say, say_json, say_table, shown
from ipcq._distribution import DISTRIBUTION, FORMER
from ipcq._opening import registry
from ipcq._opening.rendezvous import PREFERENCE
from ipcq._process.signals import reraise_from_handler
from ipcq._redaction import without_secrets

HEADINGS = ("result", "what", "finding", "fix")


@click.command("doctor")
@json_option("Print one JSON object for each check, on a line of its own.")
@click.option("-q", "--quiet", is_flag=True, help="Print only what is not in order.")
def command(as_json: bool, quiet: bool) -> None:
    """Check this machine, and print the command that fixes what is found.

    The limits of the system, shared memory, the lock for names, what systemd removes, what was left by processes that
    died, and each backend. Exits with 1 if there is a warning or an error; a note is worth knowing and no problem.
    """
    checks = list(_checks())
    problems = any(each.severity in (WARNING, ERROR) for each in checks)
    if quiet:
        checks = [each for each in checks if each.severity != OK]
    if as_json:
        for each in checks:
            say_json(each._asdict())
    elif sys.stdout.isatty():
        # No columns, because a command that is broken into lines cannot be copied.
        for each in checks:
            say(f"{each.severity:8} {shown(each.subject)}: {shown(each.text)}")
            if each.fix:
                say(f"{'':8} fix: {shown(each.fix)}")
    elif checks:
        say_table(HEADINGS, [(*each[:3], each.fix or None) for each in checks], folding=())
    if problems:
        raise Failure  # each has its line


def _checks() -> Iterator[Check]:
    if sys.platform != "win32":
        from ipcq._cli import _host

        yield from _host.check_name_lock()
        yield from _host.check_descriptors()
        yield from _host.check_shared_memory()
        yield from _host.check_remove_ipc()
        yield from _host.check_leftovers()
    yield from _check_distribution()
    yield from _check_backends()


def _check_distribution() -> Iterator[Check]:
    # Here, so that `ipcq --help`, which loads every verb, does not wait for it.
    from importlib.metadata import PackageNotFoundError, version

    try:
        other = version(FORMER)
    except PackageNotFoundError:
        return
    text = f"{FORMER} {other} is installed beside {DISTRIBUTION}; both write into the package ipcq"
    fix = f"pip uninstall --yes {FORMER} && pip install --force-reinstall --no-deps {DISTRIBUTION}"
    yield Check(WARNING, "distribution", text, fix)


def _check_backends() -> Iterator[Check]:
    reaching = []
    kept = False
    plugins = registry.plugins()
    for plugin in plugins:
        subject = f"backend {plugin.name}"
        if plugin.backend is None:
            yield Check(WARNING, subject, plugin.failure, f"pip uninstall {plugin.distribution}")
            continue
        availability = registry.probe(plugin.backend)
        if not availability.usable:
            # Its reason ends with the way out.
            text, colon, fix = availability.reason.rpartition(": ")
            yield Check(NOTE, subject, text if colon else fix, fix if colon else "")
            continue
        yield Check(OK, subject, "can be used")
        if plugin.backend.capabilities.scope >= ipcq.Scope.HOST:
            reaching.append(plugin.name)
            kept = kept or plugin.backend.capabilities.persistence >= ipcq.Persistence.KERNEL
        try:
            for finding in plugin.backend.findings():
                yield Check(finding.severity.value, subject, finding.text, finding.fix)
        except Exception as error:  # a stranger's plugin must not hide what the others find
            reraise_from_handler(error)
            yield Check(WARNING, subject, f"it cannot say what it finds: {type(error).__name__}: {error}")
    if not plugins:
        yield Check(ERROR, "backends", registry.NO_METADATA, registry.WAY_OUT)
    elif not reaching:
        text = "none of those that can be used here reaches other processes"
        yield Check(ERROR, "backends", text, "ipcq backends   # the last column has the way out for each")
    elif not kept:
        text = "none of those that can be used here keeps a queue that no process has open"
        yield Check(WARNING, "backends", text, "ipcq backends   # the last column has the way out for each")
    preferred = without_secrets(os.environ.get(PREFERENCE, ""))
    if preferred and preferred not in reaching:
        text = f"{PREFERENCE} names {preferred!r}, which cannot be used here or does not reach other processes"
        yield Check(ERROR, "environment", text, f"unset {PREFERENCE}")
