"""Programs under the real gevent, and what they saw."""

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

#: Seconds that such a program may take; each takes two on an idle machine.
PATIENCE = 60

#: Seconds that it has to write its stacks.
_LAST_WORDS = 2

#: Runs a program that can show its greenlets: the system's stack shows only gevent's event loop.
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
    """Return a command that runs a program; on SIGUSR1 it writes the stacks of all greenlets to stderr and ends."""
    return [sys.executable, "-W", "error", "-c", _PRELUDE, str(program), *arguments]


def seen(program: Path, *arguments: str, patience: float = PATIENCE) -> Facts:
    """Run a program, once in each worker, and return what its last line of output says.

    If it fails or hangs, it is not started again: every test that asks fails, with the program's stacks.
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
            complaint = _given_up(run)
        else:
            if run.returncode == 0:
                facts: Facts = json.loads(said.splitlines()[-1])
                return facts, ""
            told += f" ended with {run.returncode}"
        finally:
            with suppress(ProcessLookupError):  # what it has started has its session
                os.killpg(run.pid, signal.SIGKILL)
    for queue in ipcq.queues():  # not all backends call their files as the queue
        if queue.name in arguments or f"-{run.pid}-" in queue.name:
            with suppress(ipcq.MessageQueueError):
                ipcq.unlink(queue.name, queue.backend)
    remove(named(run.pid) - before)
    return None, f"{told}\n{complaint}"


def _given_up(run: "subprocess.Popen[str]") -> str:
    """End a program that hangs, with all that it has started, and return what it wrote to standard error."""
    # Its own handler writes the stacks if it still runs Python. If not, and in its children, the interpreter's handler
    # for fatal signals does.
    for number in (signal.SIGUSR1, signal.SIGABRT, signal.SIGKILL):
        (os.kill if number == signal.SIGUSR1 else os.killpg)(run.pid, number)
        with suppress(subprocess.TimeoutExpired):
            return run.communicate(timeout=_LAST_WORDS)[1]
    return ""
