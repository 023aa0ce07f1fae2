"""Findings for `ipcq doctor`: free space, leftovers, journals, and processes that hold a queue's lock."""

import os
import shutil
import time
from typing import Final

from ipcq.backend import Finding, Severity, suppressed
from ipcq.errors import MessageQueueError
from ipcq_sqlite import _place
from ipcq_sqlite._database import holder_of

_MEBIBYTE: Final = 1 << 20
#: Bytes that should be free.
_FREE: Final = 256 * _MEBIBYTE
#: A journal larger than this does not get smaller any more.
_LARGE_JOURNAL: Final = 256 * _MEBIBYTE
#: Seconds after which a process that still holds the lock, and has written nothing, blocks others.
_HELD_SECONDS: Final = 0.2


def findings(place: str | None) -> list[Finding]:
    """Return the findings on a directory; None: on the default place, which is created with its first queue."""
    try:
        directory = place or _place.default()
    except MessageQueueError as error:
        return [Finding(severity=Severity.NOTE, text=f"no default place: {error.detail}")]
    if place is None and not os.path.isdir(directory):
        return []
    try:
        _place.check(directory)
    except MessageQueueError as error:
        return [Finding(severity=Severity.ERROR, text=error.detail)]
    found = [_space(directory)]
    found += [_leftover(f"{directory}/{target}") for target in _place.leftovers(directory)]
    for name in _place.names(directory):
        with suppressed(OSError):
            found += _of_queue(name, f"{directory}/{_place.target_of(_place.link_of(directory, name))}")
    return found


def _space(directory: str) -> Finding:
    size, _, free = shutil.disk_usage(directory)
    text = f"{directory} has {free // _MEBIBYTE} of {size // _MEBIBYTE} MiB free"
    if free < _FREE:
        return Finding(severity=Severity.WARNING, text=text, fix=f"du -sh {directory}/* to find what takes it")
    return Finding(severity=Severity.NOTE, text=text)


def _leftover(path: str) -> Finding:
    return Finding(
        severity=Severity.NOTE,
        text=f"{path} is a queue without a name: a process was killed, or is creating or removing it right now; "
        "the next queue that is created there removes it",
        fix=f"rm -r {path}",
    )


def _of_queue(name: str, path: str) -> list[Finding]:
    journal = f"{path}/{_place.JOURNAL}"
    before = os.stat(journal) if os.path.exists(journal) else None
    if before is None:  # no process has it open
        return []
    found = []
    if before.st_size > _LARGE_JOURNAL:
        text = (
            f"queue {name!r}: its journal has {before.st_size // _MEBIBYTE} MiB, "
            "because a process reads its database all the time"
        )
        found.append(Finding(severity=Severity.WARNING, text=text, fix=f"fuser -v {path}/{_place.DATABASE}"))
    holder = holder_of(path, 0.0)
    if holder is not None and not holder.stopped:
        time.sleep(_HELD_SECONDS)
        later = holder_of(path, _HELD_SECONDS)
        working = os.stat(journal).st_mtime_ns != before.st_mtime_ns
        holder = None if working or later is None or later.pid != holder.pid else later
    if holder is not None:
        found.append(Finding.stuck(name, holder))
    return found
