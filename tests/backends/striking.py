"""Processes that are killed at any call on the file of a pyshm queue, one call after the other.

A script prepares a queue, and forks a victim that is killed at its first call, then one that is killed at its second
call, and so on until one survives. It also kills a process that repairs what the victim has left, at each of its calls.
"""

import json
import subprocess
import sys
from typing import Any

#: The trial that follows prints what is found afterwards, and returns whether the two victims were killed.
_BEFORE = """
import json, os, signal, sys, time
import ipcq
from ipcq_pyshm import _file
name, options, prepare, begin, act, repair = sys.argv[1], json.loads(sys.argv[2]), *sys.argv[3:7]

def struck(call, torn=False):
    def strike_or_call(*arguments):
        global calls
        calls += 1
        if calls == instant:  # before the call
            os.kill(os.getpid(), signal.SIGKILL)
        if torn:
            calls += 1
            if calls == instant:  # in the middle of the write
                descriptor, data, at = arguments
                call(descriptor, data[: len(data) // 2], at)
                os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)
    return strike_or_call

def attach():
    return ipcq.open(name, "pyshm", create=False, serializer="raw")

def killed(at, begin, act):
    global calls, instant
    pid = os.fork()
    if not pid:
        calls = instant = 0
        make_lock, make_unlock = _file.locking, _file.unlocking
        _file.locking, _file.unlocking = lambda file: struck(make_lock(file)), lambda file: struck(make_unlock(file))
        _file.pread, _file.pwrite = struck(_file.pread), struck(_file.pwrite, torn=True)
        _file.lock_byte = struck(_file.lock_byte)
        given = {"queue": attach()}
        exec(begin, given)
        calls, instant = 0, at
        exec(act, given)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), code  # else it would look as if it had no further call
    return code != 0
"""

_AFTER = """
first = 1
while True:
    second = 1 if repair else 0
    while True:
        more, more_again = trial(first, second)
        if not more_again:
            break
        second += 1
    if not more:
        break
    first += 1
"""


def kill_at_each_call(
    trial: str, name: str, prepare: str, begin: str, act: str, repair: str, **options: Any
) -> list[Any]:
    """Run a trial of each instant: a function in Python, ``trial(first, second)``; return what the trials print.

    Args:
        trial: The source of the function, which calls ``killed(instant, begin, act)`` for each victim.
        name: The queue.
        prepare: What is done before.
        begin: What the victim does before.
        act: What the victim does when it is killed.
        repair: What the second victim does, or nothing.
        options: Options of the queue.
    """
    script = _BEFORE + trial + _AFTER
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, name, json.dumps(options), prepare, begin, act, repair],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]
