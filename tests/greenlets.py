"""Runs programs under the real gevent and returns what they report."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import ipcq
from leftovers import named, remove

#: Timeout of such a program, in seconds; on an idle machine it takes two.
PATIENCE = 60

#: Seconds that a program gets to write its stacks.
_DUMP_SECONDS = 2

#: Runs a program that dumps its greenlets on SIGUSR1: the stack of the thread shows only gevent's event loop.
_PRELUDE = """
import faulthandler, os, runpy, signal, sys
def show(number, frame):
    faulthandler.dump_traceback()
    if "gevent" in sys.modules:
        from gevent.util import print_run_info
        print_run_info()
    os._exit(1)
signal.signal(signal.SIGUSR1, show)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

Facts = dict[str, Any]


def command(program: Path, *arguments: str) -> list[str]:
    """Return a command that runs a program; on SIGUSR1 it writes the stacks of all greenlets to stderr and exits."""
    return [sys.executable, "-W", "error", "-c", _PRELUDE, str(program), *arguments]


def seen(program: Path, *arguments: str, patience: float = PATIENCE) -> Facts:
    """Run a program, once per worker, and return the facts in its last line of output.

    A program that failed or hung is not started again: every test that needs it fails and shows the program's stacks.
    """
    facts, complaint = _ran(program, arguments, patience)
    if facts is None:
        pytest.fail(complaint, pytrace=False)
    return facts


@cache
def _ran(program: Path, arguments: tuple[str, ...], patience: float) -> tuple[Facts | None, str]:
    before = named()
    run = subprocess.Popen(
        command(program, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONFAULTHANDLER": "1"},
        start_new_session=True,
    )
    told = " ".join([program.name, *arguments])
    with run:
        try:
            said, complaint = run.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            told += f" did not end within {patience} s"
            complaint = _kill(run)
        else:
            if run.returncode == 0:
                facts: Facts = json.loads(said.splitlines()[-1])
                return facts, ""
            told += f" ended with {run.returncode}"
        finally:
            with suppress(ProcessLookupError):  # its children are in its session
                os.killpg(run.pid, signal.SIGKILL)
    for queue in ipcq.queues():  # some backends do not name their files after the queue
        if queue.name in arguments or f"-{run.pid}-" in queue.name:
            with suppress(ipcq.MessageQueueError):
                ipcq.unlink(queue.name, queue.backend)
    remove(named(run.pid) - before)
    return None, f"{told}\n{complaint}"


def _kill(run: "subprocess.Popen[str]") -> str:
    """Kill a program that hangs and its children, and return what it wrote to stderr."""
    # The handler in _PRELUDE writes the stacks if the program still runs Python. If not, and in its children,
    # faulthandler does, on SIGABRT.
    for number in (signal.SIGUSR1, signal.SIGABRT, signal.SIGKILL):
        (os.kill if number == signal.SIGUSR1 else os.killpg)(run.pid, number)
        with suppress(subprocess.TimeoutExpired):
            return run.communicate(timeout=_DUMP_SECONDS)[1]
    return ""
