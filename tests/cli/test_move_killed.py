"""``ipcq move`` and ``ipcq copy`` killed before and after each step: no message is lost that could be kept."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import moving
from cli.moving import Queue, Run, take_all

directory, make = moving.directory, moving.make

DYING = """
import os, signal, sys
import ipcq
from ipcq._cli import main
from ipcq._cli._sinks import FileSink
from ipcq._cli._putter import Putter

verb, source, target, file, method, when, number = sys.argv[1:]
owner = {"get_message": ipcq.Queue, "put": Putter}.get(method, FileSink)
real = getattr(owner, method)
calls = 0


def dying(*arguments, **options):
    global calls
    calls += 1
    if calls == int(number) and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*arguments, **options)
    if calls == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return result


setattr(owner, method, dying)
main([verb, source, target, "--rescue", file])
"""


def run_and_die(*arguments: str) -> None:
    program = [sys.executable, "-c", DYING, *arguments]
    assert subprocess.run(program, timeout=60, check=False, capture_output=True).returncode == -signal.SIGKILL


#: Where a move dies in the second message of three, and which message is then duplicated or lost.
DEATHS = (
    ("get_message", "before", ["b"], []),  # in the source and in the file
    ("get_message", "after", [], ["b"]),  # in the file, if the backend has peek
    ("write", "before", [], ["b"]),
    ("put", "before", [], []),
    ("put", "after", ["b"], []),  # in the target and in the file
    ("clear", "before", ["b"], []),
    ("clear", "after", [], []),
)


@pytest.mark.parametrize("backend", ["mqueue", "shm"])
@pytest.mark.parametrize(("method", "when", "doubled", "lost"), DEATHS)
def test_killed_move_loses_at_most_the_message_in_flight(
    run: Run,
    make: Callable[..., Queue],
    directory: Path,
    backend: str,
    method: str,
    when: str,
    doubled: list[str],
    lost: list[str],
) -> None:
    """C37: a SIGKILL before and after each step; the suggested command puts the messages of the file."""
    source, target = make("-source", "abc", backend), make("-target", (), backend)
    # The first line that is written is the header.
    run_and_die("move", source.name, target.name, "mine", method, when, "3" if method == "write" else "2")
    run("load", target.name, "mine")
    looks = source.capabilities.peek
    if not looks and method == "get_message" and when == "before":
        doubled = []
    expected = [each for each in "abc" if looks or each not in lost]
    assert sorted([*take_all(target), *take_all(source)]) == sorted([*expected, *doubled])


@pytest.mark.parametrize("backend", ["mqueue", "shm"])
@pytest.mark.parametrize("number", ["2", "5"])
@pytest.mark.parametrize(("method", "when"), [("put", "before"), ("put", "after"), ("get_message", "after")])
def test_killed_copy_loses_no_message_that_is_in_the_file(
    run: Run, make: Callable[..., Queue], directory: Path, backend: str, number: str, method: str, when: str
) -> None:
    """C37: the suggested command puts back the missing messages; at most the one in flight is there twice."""
    if method == "get_message":
        number = str((int(number) + 1) // 2)
    source, target = make("-source", "abc", backend), make("-target", (), backend)
    run_and_die("copy", source.name, target.name, "mine", method, when, number)
    run("load", source.name, "mine")
    left = take_all(source)
    lost = 1 if method == "get_message" and not source.capabilities.peek else 0
    assert len(set(left)) == 3 - lost and len(left) <= 4
