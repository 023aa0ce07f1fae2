"""The table of backends' capabilities, from their descriptors, for the reference; a test compares the README."""

from collections.abc import Iterator, Sequence
from dataclasses import fields

import ipcq

#: Names of platforms, by their prefixes of `sys.platform`.
PLATFORMS = {"linux": "Linux", "darwin": "macOS", "win32": "Windows", "freebsd": "FreeBSD", "netbsd": "NetBSD"}


def table(infos: Sequence[ipcq.BackendInfo]) -> Iterator[str]:
    """Yield the table's lines, with a column for each backend."""
    yield f"| | {' | '.join(f'`{info.name}`' for info in infos)} |"
    yield "|---|" + "---|" * len(infos)
    yield f"| platforms | {' | '.join(places(info.platforms) for info in infos)} |"
    for field in fields(ipcq.Capabilities):
        values = [shown(getattr(info.capabilities, field.name)) for info in infos]
        yield f"| `{field.name}` | {' | '.join(values)} |"


def places(platforms: tuple[str, ...] | None) -> str:
    return "all" if platforms is None else ", ".join(PLATFORMS[each] for each in platforms)


def shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "as memory allows"
    return str(getattr(value, "name", value)).lower()
