"""Findings for `ipcq doctor`: leftover files, stopped holders of a lock, and free space."""

import os
import shutil
from typing import Final

from ipcq.backend import Finding, Severity, holder_of_file
from ipcq_pyshm import _place, _segment

_MEBIBYTE: Final = 1 << 20
#: The fraction of the file system that should be free.
_FREE_SHARE: Final = 0.1


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
        text=f"{path} is left over from a last-close queue whose processes are dead; the next open removes it",
        fix=f"rm {path}",
    )


def _half(path: str) -> Finding:
    return Finding(
        severity=Severity.NOTE,
        text=f"{path} is an unfinished queue: its creator was killed, or is creating it right now",
        fix=f"rm {path}",
    )


def _stuck(path: str) -> list[Finding]:
    with _segment.looked_at(path) as descriptor:
        holder = None if descriptor is None else holder_of_file(descriptor, 0.0)
    if holder is None or not holder.stopped:  # a running process releases the lock within microseconds
        return []
    header = _segment.header_of(path)
    return [Finding.stuck(header.name, holder)] if header is not None else []


def _space(place: str) -> Finding:
    size, _, free = shutil.disk_usage(place)
    text = f"{place} has {free // _MEBIBYTE} of {size // _MEBIBYTE} MiB free"
    if free < size * _FREE_SHARE:
        larger = f"sudo mount -o remount,size={2 * size // _MEBIBYTE}m {place}"
        return Finding(severity=Severity.WARNING, text=text, fix=f"ipcq ls to list the queues, or {larger}")
    return Finding(severity=Severity.NOTE, text=text)
