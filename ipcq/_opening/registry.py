"""The backends that are installed: entry points, loaded one by one, so that a broken one is a line in a list.

This is the only place that knows `importlib.metadata` and pluggy's manager. It imports them when the first backend is
looked for, so that ``import ipcq`` costs nothing that may never be needed. No other thread can fork while it loads
plugins.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ipcq._distribution import DISTRIBUTION
from ipcq._opening.address import meant
from ipcq._process.imports import importing, shortage_reported
from ipcq._process.limits import shortage
from ipcq._process.signals import reraise_from_handler
from ipcq.backend import Availability, Backend, Capabilities, Scope
from ipcq.errors import BackendUnavailable, BackendUnknown, MessageQueueError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

#: Set it to anything and a plugin that cannot be loaded raises what it raises, for its author to see.
STRICT = "IPCQ_STRICT_PLUGINS"

#: Why there is no backend at all: the packages of the bundled ones may be here, but nothing lists them.
NO_METADATA = f"the installed metadata of {DISTRIBUTION}, which lists the backends, is missing"
#: Two ways out: a frozen program or a zip archive has its own copy of everything, and pip cannot mend it.
WAY_OUT = (
    f"pip install --force-reinstall {DISTRIBUTION}, or pack the directory {DISTRIBUTION.replace('-', '_')}-*.dist-info "
    "into the frozen program or archive as well"
)


@dataclass(frozen=True)
class Plugin:
    """One entry point: the backend that it led to, or why it led to none."""

    name: str
    distribution: str
    backend: Backend | None = None
    failure: str = ""


@dataclass(frozen=True)
class BackendInfo:
    """What `ipcq.backends` tells of one backend."""

    name: str
    """What `open` calls it."""
    usable: bool
    """Whether it can be used here and now."""
    reason: str
    """Why it cannot; empty where it can."""
    rank: int | None
    """Its place in the order in which ``backend="auto"`` creates; None: never."""
    capabilities: Capabilities | None
    """What it can do at best; None where it could not be loaded."""
    distribution: str
    """Name of the installed distribution that it comes from."""
    platforms: tuple[str, ...] | None = None
    """Beginnings of `sys.platform` where it works; None: everywhere, or not known."""


def plugins() -> list[Plugin]:
    """Load every backend that is installed."""
    with shortage_reported(), importing():
        return list(_plugins(tuple(sys.path)))


def known() -> list[Plugin]:
    """Load every installed backend; there has to be at least one.

    Raises:
        BackendUnavailable: No distribution offers any.
    """
    if found := plugins():
        return found
    raise BackendUnavailable(f"{NO_METADATA}: {WAY_OUT}")


def plugin(name: str) -> Plugin:
    """Load one backend and no other.

    Raises:
        BackendUnknown: No distribution offers it.
    """
    with shortage_reported(), importing():
        offers = _offers(tuple(sys.path))
        if name in offers:
            return _load(offers[name])
    if not offers:
        raise BackendUnknown(f"{NO_METADATA}: {WAY_OUT}", backend=name)
    raise BackendUnknown(f"no installed distribution offers it: {meant(name, offers)}", backend=name)


def backend(name: str) -> Backend:
    """Return a backend's descriptor, usable or not.

    Raises:
        BackendUnknown: No distribution offers it.
        BackendUnavailable: Its plugin cannot be loaded.
    """
    found = plugin(name)
    if found.backend is None:
        raise BackendUnavailable(found.failure, reasons={name: found.failure}, backend=name)
    return found.backend


def usable(name: str) -> Backend:
    """Return a backend's descriptor if it can be used here.

    Raises:
        BackendUnknown: No distribution offers it.
        BackendUnavailable: It cannot be loaded or used; the text says why.
    """
    found = backend(name)
    availability = probe(found)
    if not availability.usable:
        raise BackendUnavailable(availability.reason, reasons={name: availability.reason}, backend=name)
    return found


def probe(candidate: Backend) -> Availability:
    """Ask a backend whether it can be used here; one that raises instead of answering cannot.

    Raises:
        LimitExceeded: It could not look because descriptors ran out. That is no answer: it may be usable in a moment,
            and by other processes now.
        NoSpace: It could not look because memory ran out.
    """
    if candidate.platforms is not None and not sys.platform.startswith(candidate.platforms):
        return Availability.no(f"it works on {', '.join(candidate.platforms)}, this is {sys.platform}")
    try:
        found: object = candidate.probe()
    except Exception as error:
        reraise_from_handler(error)
        short = shortage(error)
        if short is not None:
            raise short from error
        return Availability.no(f"its probe failed: {_told(error)}")
    if not isinstance(found, Availability):
        return Availability.no(f"its probe has to return an Availability, not {found!r}")
    return found


def _seen(candidate: Backend) -> Availability:
    try:
        return probe(candidate)
    except MessageQueueError as error:
        return Availability.no(error.detail)


def able(ability: str) -> list[str]:
    """Name the usable backends that have a capability, those that cross processes first.

    Raises:
        BackendUnavailable: No distribution offers any backend.
    """
    found = [each.backend for each in known() if each.backend is not None]
    found = [each for each in found if getattr(each.capabilities, ability) and _seen(each).usable]
    found.sort(key=lambda each: (each.capabilities.scope < Scope.HOST, -(each.rank or 0), each.name))
    return [each.name for each in found]


def backends() -> list[BackendInfo]:
    """Describe every backend that is installed, in the order in which `auto` creates, then by name."""
    infos = []
    for each in plugins():
        if each.backend is None:
            infos.append(BackendInfo(each.name, False, each.failure, None, None, each.distribution))
            continue
        found = _seen(each.backend)
        infos.append(
            BackendInfo(
                each.name,
                found.usable,
                found.reason,
                each.backend.rank,
                each.backend.capabilities,
                each.distribution,
                each.backend.platforms,
            )
        )
    return sorted(infos, key=lambda info: (info.rank is None, -(info.rank or 0), info.name))


@cache
def _offers(path: tuple[str, ...]) -> "dict[str, EntryPoint]":
    """Map names to entry points, cached by `sys.path`, on which the answer depends: a scan takes milliseconds."""
    from importlib.metadata import entry_points

    from ipcq import hooks

    _check_descriptors()
    offers: dict[str, EntryPoint] = {}
    # A distribution on the path twice counts once; of two distributions that offer one name, ours wins, then the first
    # by name, so that no installation order decides and nobody can replace a bundled backend.
    found = entry_points(group=hooks.GROUP)
    for entry in sorted(found, key=lambda entry: (_distribution(entry) != DISTRIBUTION, _distribution(entry))):
        offers.setdefault(entry.name, entry)
    return dict(sorted(offers.items()))


@cache
def _plugins(path: tuple[str, ...]) -> tuple[Plugin, ...]:
    return tuple(_load(entry) for entry in _offers(path).values())


def _check_descriptors() -> None:
    """Refuse to look where nothing can be opened: `importlib.metadata` takes such a directory for an empty one."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        reraise_from_handler(error)
        raise shortage(error) or error


@cache
def _load(entry: "EntryPoint") -> Plugin:
    try:
        return Plugin(entry.name, _distribution(entry), backend=_ask(entry))
    except (Exception, SystemExit) as error:
        reraise_from_handler(error)
        if os.environ.get(STRICT):
            raise
        short = shortage(error)
        if short is not None:
            raise short from error  # and remember nothing: it can be loaded later
        return Plugin(entry.name, _distribution(entry), failure=f"its plugin {entry.value!r} failed: {_told(error)}")


def _ask(entry: "EntryPoint") -> Backend:
    import pluggy

    from ipcq import hooks

    # A manager for each plugin: whatever is wrong with one then concerns no other.
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    manager.register(entry.load(), name=entry.name)
    manager.check_pending()
    found = manager.hook.ipcq_backend()
    if len(found) != 1 or not isinstance(found[0], Backend):
        raise TypeError(f"its hook ipcq_backend has to return one Backend, not {found!r}")
    facts = {"capabilities": Capabilities, "rank": int | None, "options": Mapping, "platforms": tuple | None}
    for fact, kind in facts.items():
        value = getattr(found[0], fact, None)
        if not isinstance(value, kind):
            raise TypeError(f"its backend's {fact} cannot be {value!r}")
    if found[0].name != entry.name:
        raise ValueError(f"its backend is called {found[0].name!r} and its entry point {entry.name!r}")
    return found[0]


def _distribution(entry: "EntryPoint") -> str:
    return entry.dist.name if entry.dist is not None else ""


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
