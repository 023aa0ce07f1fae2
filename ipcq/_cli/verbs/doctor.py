"""``ipcq doctor``: check this machine, and print commands that fix problems."""

import os
import sys
from collections.abc import Generator, Iterator, Sequence

import click

import ipcq
from ipcq._cli._exits import Failure, line_of
from ipcq._cli._lease_checks import check_leases
from ipcq._cli._machine_checks import ERROR, NOTE, OK, WARNING, Check
from ipcq._cli._options import json_option
from ipcq._cli._output import print_json, print_line, print_table, shown
from ipcq._distribution import DISTRIBUTION, FORMER
from ipcq._opening import registry
from ipcq._opening.address import PREFERENCE
from ipcq._process.signals import reraise_from_handler
from ipcq._redaction import redacted, without_secrets
from ipcq.backend import Backend
from ipcq.errors import MessageQueueError

HEADINGS = ("result", "what", "finding", "fix")


@click.command("doctor")
@click.argument("place", required=False, metavar="[PLACE]")
@json_option("Print one JSON object per check.")
@click.option("-q", "--quiet", is_flag=True, help="Omit checks that are ok.")
def command(place: str | None, as_json: bool, quiet: bool) -> None:
    """Check this machine, and print the command that fixes each problem.

    With PLACE, the URL of a directory or a server such as redis://host/0, check only that place and its queues.

    Checks system limits, shared memory, the name lock, systemd's RemoveIPC, queues left by killed demos and benchmarks,
    each backend, and dead letters and messages that are leased for long. Exits with 1 if there is a warning or an
    error. A note is information only.
    """
    checks = list(_checks() if place is None else _checks_of_place(place))
    problems = any(each.severity in (WARNING, ERROR) for each in checks)
    if quiet:
        checks = [each for each in checks if each.severity != OK]
    if as_json:
        for each in checks:
            print_json(each._asdict())
    elif sys.stdout.isatty():
        # No columns: a command that wraps cannot be copied.
        for each in checks:
            print_line(f"{each.severity:8} {shown(each.subject)}: {shown(each.text)}")
            if each.fix:
                print_line(f"{'':8} fix: {shown(each.fix)}")
    elif checks:
        print_table(HEADINGS, [(*each[:3], each.fix or None) for each in checks], folding=())
    if problems:
        raise Failure  # each one has been printed


def _checks() -> Iterator[Check]:
    if sys.platform != "win32":
        from ipcq._cli import _machine_checks

        yield from _machine_checks.check_name_lock()
        yield from _machine_checks.check_descriptors()
        yield from _machine_checks.check_shared_memory()
        yield from _machine_checks.check_remove_ipc()
        yield from _machine_checks.check_leftovers()
    yield from _check_distribution()
    yield from _check_backends()
    yield from check_leases()


def _checks_of_place(place: str) -> Iterator[Check]:
    backend = registry.backend(place)
    yield from _check_backend(backend, f"backend {backend.name}")
    try:
        yield from check_leases(place)
    except MessageQueueError as error:
        yield Check(ERROR, f"backend {backend.name}", line_of(error))


def _check_distribution() -> Iterator[Check]:
    # Imported here because it is slow and `ipcq --help` imports every verb.
    from importlib.metadata import PackageNotFoundError, version

    try:
        other = version(FORMER)
    except PackageNotFoundError:
        return
    text = f"{FORMER} {other} is installed beside {DISTRIBUTION}; both install the package ipcq"
    fix = f"pip uninstall --yes {FORMER} && pip install --force-reinstall --no-deps {DISTRIBUTION}"
    yield Check(WARNING, "distribution", text, fix)


def _check_backends() -> Iterator[Check]:
    reachable = []
    local = persistent = False
    plugins = registry.plugins()
    for plugin in plugins:
        subject = f"backend {plugin.name}"
        if plugin.backend is None:
            yield Check(WARNING, subject, plugin.failure, f"pip uninstall {plugin.distribution}")
            continue
        # A server that nobody named is not asked: it may be away, or not exist.
        is_local = registry.is_local(plugin.backend)
        usable = yield from _check_backend(plugin.backend, subject, asked=is_local)
        if usable and plugin.backend.capabilities.scope >= ipcq.Scope.HOST:
            reachable.append(plugin.name)
            local = local or is_local
            lasts = plugin.backend.capabilities.persistence >= ipcq.Persistence.KERNEL
            persistent = persistent or (is_local and lasts)
    if not plugins:
        yield Check(ERROR, "backends", registry.NO_METADATA, registry.WAY_OUT)
    elif not local:
        text = "no usable backend reaches other processes"
        yield Check(ERROR, "backends", text, "ipcq backends   # the last column has the fix for each")
    elif not persistent:
        text = "no usable backend keeps a queue that no process has open"
        yield Check(WARNING, "backends", text, "ipcq backends   # the last column has the fix for each")
    yield from _check_preference(reachable)


def _check_backend(backend: Backend, subject: str, asked: bool = True) -> Generator[Check, None, bool]:
    """Check one backend, if `asked` with its own checks, and return whether it is usable."""
    availability = registry.probe(backend)
    if not availability.usable:
        # The reason ends with the way out.
        text, colon, fix = availability.reason.rpartition(": ")
        yield Check(NOTE, subject, text if colon else fix, fix if colon else "")
        return False
    checks: list[Check] = []
    try:
        checks += (
            Check(finding.severity.value, subject, redacted(finding.text), redacted(finding.fix))
            for finding in (backend.findings() if asked else ())
        )
    except Exception as error:  # a broken plugin must not hide the findings of others
        reraise_from_handler(error)
        checks.append(Check(WARNING, subject, redacted(f"its checks failed: {type(error).__name__}: {error}")))
    if all(each.severity != ERROR for each in checks):
        yield Check(OK, subject, "usable")
    yield from checks
    return True


def _check_preference(reachable: Sequence[str]) -> Iterator[Check]:
    """Check the backend or place in the environment."""
    named = os.environ.get(PREFERENCE, "")
    if "://" in named:
        try:
            registry.usable(named)
        except MessageQueueError as error:
            yield Check(ERROR, "environment", f"{PREFERENCE}: {line_of(error)}", f"unset {PREFERENCE}")
    elif named and named not in reachable:
        text = f"{PREFERENCE} names {without_secrets(named)!r}, which is unusable or does not reach other processes"
        yield Check(ERROR, "environment", text, f"unset {PREFERENCE}")
