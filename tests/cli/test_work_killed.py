"""``ipcq work`` and ``ipcq dead`` as programs, on each backend whose queues other processes can lease from."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import ipcq
from ipcq.testing.processes import state_of, until
from processes.needs import usable

if sys.platform == "win32":
    pytest.skip("Windows has neither fork nor process groups", allow_module_level=True)

Program = Callable[..., "subprocess.CompletedProcess[str]"]
Queue = ipcq.Queue[Any]

#: At least one backend has leases on each platform.
ACROSS = [
    each.name
    for each in ipcq.backends()
    if each.capabilities is not None and each.capabilities.leases and each.capabilities.scope == ipcq.Scope.HOST
] or ["shm"]

#: A promise gives a tenth of a second.
RETURN_SECONDS = 1.0

#: Appends its process, its item and what it does to the file "$1". The first delivery does not end.
JOB = 'echo "$$ $2 begins" >> "$1"; test "$IPCQ_DELIVERY" -gt 1 || { sleep 1000 & wait; }; echo "$$ $2 ends" >> "$1"'


@pytest.fixture(params=ACROSS)
def jobs(request: pytest.FixtureRequest, name: str) -> Iterator[Queue]:
    """Return a queue with leases that other processes can use."""
    with ipcq.open(name, usable(request.param), leases=True) as queue:
        yield queue


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a file into which jobs write, with one line for the test."""
    path = tmp_path / "log"
    path.write_text("")
    return path


def words(log: Path) -> list[tuple[int, str, str]]:
    """Return what the jobs have written: process, item, and what it does."""
    lines = (line.split() for line in log.read_text().splitlines())
    return [(int(pid), item, verb) for pid, item, verb in lines]


def has_begun(log: Path, number: int) -> bool:
    return len(words(log)) >= number


def is_gone(pid: int) -> bool:
    return state_of(pid) in "ZX"


@pytest.fixture
def worker(start: Callable[..., Any], jobs: Queue, log: Path) -> Callable[..., Any]:
    """Return a function that starts a worker."""

    def worker(*options: str, script: str = JOB) -> "subprocess.Popen[str]":
        return start("work", jobs.name, *options, "--", "sh", "-c", script, "sh", str(log), "{}")

    return worker


def test_job_of_a_killed_worker_is_done_by_another(worker: Callable[..., Any], jobs: Queue, log: Path) -> None:
    """C3: within a tenth of a second of the kill."""
    jobs.put("a")
    first = worker()
    until(partial(has_begun, log, 1), what="the job")
    worker(script='echo "$$ $2 begins" >> "$1"; echo "$$ $2 ends" >> "$1"')
    jobs.put("b")
    until(lambda: len(words(log)) == 3 and jobs.stats().leased == 1, what="a job of the other worker")
    first.kill()
    killed = time.monotonic()
    until(partial(has_begun, log, 4), what="the second delivery")
    took = time.monotonic() - killed
    until(lambda: words(log)[-1][1:] == ("a", "ends"), what="the end of the job")
    assert took < RETURN_SECONDS
    jobs.join(timeout=10)


def test_command_of_a_killed_worker_is_killed(worker: Callable[..., Any], jobs: Queue, log: Path) -> None:
    """Otherwise two processes would work on one message."""
    jobs.put("a")
    first = worker()
    until(lambda: words(log), what="the job")
    ((command, _, _),) = words(log)
    first.kill()
    until(lambda: is_gone(command), what="the end of the command")


def test_no_job_of_killed_workers_is_lost(worker: Callable[..., Any], jobs: Queue, log: Path) -> None:
    """Five workers are killed one after the other, each in the middle of four jobs."""
    jobs.put_many(list(map(str, range(20))))
    for killed in range(1, 6):
        one = worker("--jobs", "4", "--retries", "100", script='echo "$$ $2 begins" >> "$1"; sleep 1000')
        until(partial(has_begun, log, 4 * killed), what="four jobs")
        one.kill()
        until(lambda: all(is_gone(pid) for pid, _, _ in words(log)), what="the end of the commands")
    process = worker("--jobs", "4", "--all", "--retries", "100", script='echo "$$ $2 done" >> "$1"')
    process.communicate(timeout=60)
    assert sorted(int(item) for _, item, verb in words(log) if verb == "done") == list(range(20))


def test_terminated_worker_finishes_its_job(worker: Callable[..., Any], jobs: Queue, log: Path) -> None:
    """And leaves the others to other workers."""
    jobs.put_many(["a", "b"])
    process = worker(script='echo "$$ $2 begins" >> "$1"; until test -e "$1.go"; do sleep 0.01; done')
    until(lambda: words(log), what="the job")
    process.terminate()
    assert "waiting for 1 running command" in process.stderr.readline()
    log.with_suffix(".go").touch()
    process.communicate(timeout=60)
    assert (process.returncode, jobs.get(timeout=0), jobs.stats().leased) == (143, "b", 0)


def test_second_signal_does_not_wait(worker: Callable[..., Any], jobs: Queue, log: Path) -> None:
    """The job is killed, and its message is back."""
    jobs.put("a")
    process = worker()
    until(lambda: words(log), what="the job")
    process.terminate()
    assert "a second signal kills" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    ((command, _, _),) = words(log)
    assert (process.returncode, jobs.qsize(), is_gone(command)) == (130, 1, True)


def test_job_of_a_stopped_worker_is_done_after_its_hold(worker: Callable[..., Any], jobs: Queue, log: Path) -> None:
    """And the stopped one finds out when it continues."""
    jobs.put("a")
    first = worker("--hold", "1")
    until(lambda: words(log), what="the job")
    ((command, _, _),) = words(log)
    first.send_signal(signal.SIGSTOP)
    worker("--hold", "1")
    until(lambda: ("a", "ends") in [line[1:] for line in words(log)], what="the end of the job")
    first.send_signal(signal.SIGCONT)
    until(lambda: is_gone(command), what="the end of the first command")
    assert "its lease ended before its command" in first.stderr.readline()


#: The worker is killed in the middle of its job, and another one does it.
FIVE_LINES = """
ipcq create "$JOBS" --leases && ipcq put "$JOBS" a b c
ipcq work "$JOBS" -- sh -c 'echo "$1"; sleep 1000' sh {} > first & worker=$!
until test -s first; do sleep 0.01; done
kill -9 $worker
ipcq work "$JOBS" --all -- sh -c 'echo "$1"' sh {} > second
"""


@pytest.mark.parametrize("backend", ACROSS)
def test_five_lines_of_shell_lose_no_job(name: str, backend: str, tmp_path: Path) -> None:
    """C3: a worker is killed by ``kill -9`` in the middle of a job, and another one does it."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    env = {**os.environ, "PATH": path, "JOBS": name, "IPCQ_BACKEND": usable(backend)}
    subprocess.run(["sh", "-e", "-c", FIVE_LINES], cwd=tmp_path, env=env, check=True, timeout=60, capture_output=True)
    assert ((tmp_path / "first").read_text(), (tmp_path / "second").read_text()) == ("a\n", "a\nb\nc\n")


def test_dead_letters_can_be_requeued_from_the_shell(program: Program, jobs: Queue) -> None:
    """After the cause was corrected."""
    jobs.put("a")
    program("work", jobs.name, "--all", "--retries", "0", "--", "false")
    seen = program("dead", jobs.name).stdout
    told = program("dead", jobs.name, "--requeue").stdout
    assert (seen, told, jobs.get(timeout=0)) == ("1\t0\t1\t2\texit 1\ta\n", "1 dead letter requeued\n", "a")


def test_doctor_names_the_process_that_holds_a_message(
    worker: Callable[..., Any], jobs: Queue, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker."""
    from ipcq._cli import _lease_checks

    monkeypatch.setattr(_lease_checks, "HELD_SECONDS", 0.0)
    jobs.put("a")
    process = worker()
    until(lambda: words(log), what="the job")
    (check,) = (each for each in _lease_checks.check_leases() if each.subject == f"queue {jobs.name}")
    assert check.text.startswith(f"process {process.pid} (")
