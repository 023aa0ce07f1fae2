"""What the owner of this machine should know: what nobody uses any more, and how much space is left."""

import os
import shutil
from typing import Final

from ipcq.backend import Finding, Severity, holder_of_file
from ipcq_pyshm import _place, _segment

_MEBIBYTE: Final = 1 << 20
#: Share of the file system that should be free.
_ENOUGH: Final = 0.1


def findings() -> list[Finding]:
    found = [_leftover(path) for path in _place.listed(_place.FILES) if _segment.abandoned(path)]
    found += [_half(path) for path in _place.listed(_place.HALVES)]
    found += [each for path in _place.listed(_place.FILES) for each in _stuck(path)]
    if _place.SHARED is not None and os.path.isdir(_place.SHARED):
        found.append(_space(_place.SHARED))
    return found


def _leftover(path: str) -> Finding:
    return Finding(
        severity=Severity.NOTE,
        text=f"{path} is left of a last-close queue whose holders are dead; whoever looks for its name removes it",
        fix=f"rm {path}",
    )


def _half(path: str) -> Finding:
    return Finding(
        severity=Severity.NOTE,
        text=f"{path} is a queue that was being made, by a process that was killed unless it is at it now",
        fix=f"rm {path}",
    )


def _stuck(path: str) -> list[Finding]:
    with _segment.looked_at(path) as descriptor:
        holder = None if descriptor is None else holder_of_file(descriptor, 0.0)
    if holder is None or not holder.stopped:  # a running process gives the lock back in microseconds
        return []
    header = _segment.header_of(path)
    return [Finding.stuck(header.name, holder)] if header is not None else []


def _space(place: str) -> Finding:
    size, _, free = shutil.disk_usage(place)
    text = f"{place} has {free // _MEBIBYTE} of {size // _MEBIBYTE} MiB free"
    if free < size * _ENOUGH:
        larger = f"sudo mount -o remount,size={2 * size // _MEBIBYTE}m {place}"
        return Finding(severity=Severity.WARNING, text=text, fix=f"ipcq ls to see what is there, or {larger}")
    return Finding(severity=Severity.NOTE, text=text)
