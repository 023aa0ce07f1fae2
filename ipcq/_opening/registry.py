"""The installed backends: entry points, loaded one by one, so that a broken plugin does not affect the others.

Only this module uses `importlib.metadata` and pluggy's manager. It imports them at the first search for a backend, to
keep ``import ipcq`` fast. No other thread can fork while it loads plugins.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from ipcq._distribution import DISTRIBUTION
from ipcq._opening.address import Where, parse_where, suggestion
from ipcq._process.imports import importing, shortage_reported
from ipcq._process.limits import shortage
from ipcq._process.signals import reraise_from_handler
from ipcq.backend import Availability, Backend, Capabilities, Place, Scope
from ipcq.errors import BackendUnavailable, BackendUnknown, MessageQueueError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

#: If this environment variable is set, a plugin that cannot be loaded raises its original error, for its author.
STRICT = "IPCQ_STRICT_PLUGINS"

#: Why no backend was found: the packages of the bundled backends may be installed, but their entry points are not.
NO_METADATA = f"the installed metadata of {DISTRIBUTION}, which lists the backends, is missing"
#: Two ways out, because pip cannot repair the copy inside a frozen program or a zip archive.
WAY_OUT = (
    f"pip install --force-reinstall {DISTRIBUTION}, or add the directory {DISTRIBUTION.replace('-', '_')}-*.dist-info "
    "to the frozen program or archive"
)


class Plugin(NamedTuple):
    """One entry point: its backend, or why it could not be loaded."""

    name: str
    distribution: str
    backend: Backend | None = None
    failure: str = ""


@dataclass(frozen=True)
class BackendInfo:
    """An installed backend, as listed by `ipcq.backends`."""

    name: str
    """Its name, for the argument `backend` of `open`."""
    usable: bool
    """Whether it is usable here and now."""
    reason: str
    """Why it is unusable; empty if it is usable."""
    rank: int | None
    """Its rank for ``backend="auto"``, which creates on the highest; None means never."""
    capabilities: Capabilities | None
    """The capabilities that its queues can have; None if it could not be loaded."""
    distribution: str
    """Name of the installed distribution that provides it."""
    platforms: tuple[str, ...] | None = None
    """Prefixes of the values of `sys.platform` where it works; None means everywhere, or unknown."""


def plugins() -> list[Plugin]:
    """Load every installed backend."""
    with shortage_reported(), importing():
        return list(_plugins(tuple(sys.path)))


def known() -> list[Plugin]:
    """Load every installed backend, at least one.

    Raises:
        BackendUnavailable: No distribution provides a backend.
    """
    if found := plugins():
        return found
    raise BackendUnavailable(f"{NO_METADATA}: {WAY_OUT}")


def plugin(name: str) -> Plugin:
    """Load one backend and no other, unless the name is a scheme that a backend has beside its name.

    Raises:
        BackendUnknown: No distribution provides it.
    """
    with shortage_reported(), importing():
        offers = _offers(tuple(sys.path))
        if name in offers:
            return _load(offers[name])
    if not offers:
        raise BackendUnknown(f"{NO_METADATA}: {WAY_OUT}", backend=name)
    schemes = {scheme: each for each in reversed(plugins()) if each.backend for scheme in each.backend.schemes}
    if name in schemes:
        return schemes[name]
    raise BackendUnknown(
        f"no installed distribution provides it: {suggestion(name, {*offers, *schemes})}", backend=name
    )


def backend(where: Where) -> Backend:
    """Return a backend's descriptor, usable or not; for a place or its text, the descriptor that is bound to it.

    Raises:
        BackendUnknown: No distribution provides it.
        BackendUnavailable: Its plugin cannot be loaded, or cannot bind a descriptor.
        InvalidArgument: The text is not a place, or the backend has no such place.
    """
    if isinstance(where, str) and "://" in where:
        where = parse_where(where)
    scheme = where if isinstance(where, str) else where.scheme
    found = plugin(scheme)
    if found.backend is None:
        raise BackendUnavailable(found.failure, reasons={scheme: found.failure}, backend=scheme)
    if isinstance(where, str):
        return found.backend if scheme == found.name else _bound(found.backend, Place(scheme))
    return _bound(found.backend, where)


def _bound(descriptor: Backend, place: Place) -> Backend:
    if reason := _foreign(descriptor):  # on another platform, `at` may lack what it needs
        raise BackendUnavailable(reason, reasons={str(place): reason}, backend=str(place))
    try:
        bound: object = descriptor.at(place)
    except MessageQueueError as error:
        error.backend = error.backend or str(place)
        raise
    except Exception as error:
        reraise_from_handler(error)
        if (short := shortage(error)) is not None:
            raise short from error
        reason = f"it cannot use the place: {_description(error)}"
        raise BackendUnavailable(reason, reasons={str(place): reason}, backend=str(place)) from error
    if not isinstance(bound, Backend):
        raise BackendUnavailable(f"its method at must return a Backend, not {bound!r}", backend=str(place))
    return bound


def usable(where: Where) -> Backend:
    """Return a backend's descriptor if it is usable here.

    Raises:
        BackendUnknown: No distribution provides it.
        BackendUnavailable: It cannot be loaded or is unusable; the text says why.
        InvalidArgument: As for `backend`.
    """
    found = backend(where)
    availability = probe(found)
    if not availability.usable:
        raise BackendUnavailable(availability.reason, reasons={found.name: availability.reason}, backend=found.name)
    return found


def probe(candidate: Backend) -> Availability:
    """Probe whether a backend is usable here; if the probe raises, it is not.

    Raises:
        LimitExceeded: The probe ran out of descriptors. The backend may be usable a moment later, and in other
            processes now.
        NoSpace: The probe ran out of memory.
    """
    if reason := _foreign(candidate):
        return Availability.no(reason)
    try:
        found: object = candidate.probe()
    except Exception as error:
        reraise_from_handler(error)
        shortage_error = shortage(error)
        if shortage_error is not None:
            raise shortage_error from error
        return Availability.no(f"its probe failed: {_description(error)}")
    if not isinstance(found, Availability):
        return Availability.no(f"its probe must return an Availability, not {found!r}")
    return found


def _foreign(candidate: Backend) -> str:
    """Return why this platform is not one of the backend's, or an empty text."""
    if candidate.platforms is None or sys.platform.startswith(candidate.platforms):
        return ""
    return f"it works only on {', '.join(candidate.platforms)}, but this is {sys.platform}"


def _availability(candidate: Backend) -> Availability:
    try:
        return probe(candidate)
    except MessageQueueError as error:
        return Availability.no(error.detail)


def is_local(candidate: Backend) -> bool:
    """Return whether a backend works without other machines; their answers may take any time."""
    return candidate.capabilities.scope < Scope.NETWORK


def able(ability: str) -> list[str]:
    """Return the names of the usable backends that have a capability; those between processes come first.

    Backends of other machines are left out, as in the choice of `auto`.

    Raises:
        BackendUnavailable: No distribution provides a backend.
    """
    found = [each.backend for each in known() if each.backend is not None and is_local(each.backend)]
    found = [each for each in found if getattr(each.capabilities, ability) and _availability(each).usable]
    found.sort(key=lambda each: (each.capabilities.scope < Scope.HOST, -(each.rank or 0), each.name))
    return [each.name for each in found]


def backends() -> list[BackendInfo]:
    """List the installed backends, in the order of preference of `auto`, then by name."""
    infos = []
    for each in plugins():
        if each.backend is None:
            infos.append(BackendInfo(each.name, False, each.failure, None, None, each.distribution))
            continue
        found = _availability(each.backend)
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
    """Map names to entry points; a scan takes milliseconds, so the result is cached for each `sys.path`."""
    from importlib.metadata import entry_points

    from ipcq import hooks

    _check_descriptors()
    offers: dict[str, EntryPoint] = {}
    # A distribution that is on the path twice counts once. If two distributions provide the same name, ours wins, then
    # the first by name: the order of installation does not matter, and no other distribution can replace a bundled
    # backend.
    found = entry_points(group=hooks.GROUP)
    for entry in sorted(found, key=lambda entry: (_distribution(entry) != DISTRIBUTION, _distribution(entry))):
        offers.setdefault(entry.name, entry)
    return dict(sorted(offers.items()))


@cache
def _plugins(path: tuple[str, ...]) -> tuple[Plugin, ...]:
    return tuple(_load(entry) for entry in _offers(path).values())


def _check_descriptors() -> None:
    """Raise if no file can be opened: `importlib.metadata` would treat every directory as empty."""
    with shortage_reported():
        os.close(os.open(os.devnull, os.O_RDONLY))


@cache
def _load(entry: "EntryPoint") -> Plugin:
    try:
        return Plugin(entry.name, _distribution(entry), backend=_descriptor_of(entry))
    except (Exception, SystemExit) as error:
        reraise_from_handler(error)
        if os.environ.get(STRICT):
            raise
        shortage_error = shortage(error)
        if shortage_error is not None:
            raise shortage_error from error  # not cached: it can be loaded later
        failure = f"its plugin {entry.value!r} failed: {_description(error)}"
        return Plugin(entry.name, _distribution(entry), failure=failure)


def _descriptor_of(entry: "EntryPoint") -> Backend:
    import pluggy

    from ipcq import hooks

    # One manager per plugin, so that a faulty plugin does not affect the others.
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    manager.register(entry.load(), name=entry.name)
    manager.check_pending()
    found = manager.hook.ipcq_backend()
    if len(found) != 1 or not isinstance(found[0], Backend):
        raise TypeError(f"its hook ipcq_backend must return one Backend, not {found!r}")
    expected_types = {
        "capabilities": Capabilities,
        "rank": int | None,
        "options": Mapping,
        "platforms": tuple | None,
        "schemes": tuple,
    }
    for attribute, kind in expected_types.items():
        value = getattr(found[0], attribute, None)
        if not isinstance(value, kind):
            raise TypeError(f"its backend's {attribute} cannot be {value!r}")
    if found[0].name != entry.name:
        raise ValueError(f"its backend is called {found[0].name!r}, but its entry point {entry.name!r}")
    return found[0]


def _distribution(entry: "EntryPoint") -> str:
    return entry.dist.name if entry.dist is not None else ""


def _description(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
