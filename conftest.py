"""Settings for tests and documentation: parallel runs, tests for one Python only, and examples that are executed."""

import doctest
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sybil import Example, Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser

import ipcq
from local_backends import local_backends

#: Names of the queues that the examples may use.
QUEUES = ("/jobs", "/logs", "/results", "/sensors")

#: Timeout of one command of an example.
COMMAND_SECONDS = 60.0


class ConsoleParser(CodeBlockParser):
    """Runs the commands after ``$`` and compares their output; ``...`` matches anything."""

    language = "console"

    def evaluate(self, example: Example) -> str | None:
        commands: list[tuple[str, list[str]]] = []
        for line in example.parsed.splitlines():
            if line.startswith("$ "):
                commands.append((line[2:], []))
            elif line.startswith("> ") and not commands[-1][1]:
                commands[-1] = (f"{commands[-1][0]}\n{line[2:]}", [])
            else:
                commands[-1][1].append(line)
        for command, lines in commands:
            printed = self.run(command)
            expected = "".join(f"{line}\n" for line in lines)
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            if not doctest.OutputChecker().check_output(expected, printed, flags):
                return f"$ {command}\nprinted:\n{printed}\nand not:\n{expected}"
        return None

    def run(self, command: str) -> str:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        finished = subprocess.run(
            ["/bin/sh", "-c", command],
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        return finished.stdout


def begin(namespace: dict[str, Any]) -> None:
    """Refuse to touch existing queues with the names that the examples use."""
    # Queues within this process are leftovers of another test.
    free(lambda backend: backend.capabilities is not None and backend.capabilities.scope < ipcq.Scope.HOST)
    there = [name for name in QUEUES if ipcq.exists(name)]
    if there:
        raise RuntimeError(f"the examples use the queues {there}, which exist already: ipcq rm --yes {there[0]}")


def end(namespace: dict[str, Any]) -> None:
    """Close the handles and unlink the queues of the examples."""
    for value in list(namespace.values()):
        if isinstance(value, ipcq.Queue):
            value.close()
    free(lambda _: True)


def free(which: Callable[[ipcq.BackendInfo], bool]) -> None:
    for name in QUEUES:
        for each in filter(which, local_backends()):
            with suppress(ipcq.MessageQueueError):
                ipcq.unlink(name, each.name)


#: Tests that hardly depend on the version of Python: pages, programs, tests that start or kill processes, and the
#: conformance suite over what other tests run on each version: the asyncio interface, and queues on a server.
ONCE = (
    "README.md",
    "docs",
    "tests/aio/test_contract.py",
    "tests/backends/test_example.py",
    "tests/backends/test_mqueue_kernel.py",
    "tests/backends/test_mqueue_limits.py",
    "tests/backends/test_pyshm_hostile.py",
    "tests/backends/test_pyshm_killed.py",
    "tests/backends/test_pyshm_leases_batches.py",
    "tests/backends/test_pyshm_leases_during.py",
    "tests/backends/test_pyshm_leases_hostile.py",
    "tests/backends/test_pyshm_leases_killed.py",
    "tests/backends/test_pyshm_leases_order.py",
    "tests/backends/test_pyshm_leases_owners.py",
    "tests/backends/test_pyshm_leases_shortage.py",
    "tests/backends/test_pyshm_leases_waiting.py",
    "tests/backends/test_pyshm_versions.py",
    "tests/backends/test_redis.py",
    "tests/backends/test_redis_network.py",
    "tests/backends/test_redis_storms.py",
    "tests/backends/test_servers.py",
    "tests/backends/test_shm_faults.py",
    "tests/backends/test_shm_leases.py",
    "tests/backends/test_shm_life.py",
    "tests/backends/test_shm_limits.py",
    "tests/backends/test_shm_versions.py",
    "tests/backends/test_sqlite_errors.py",
    "tests/backends/test_sqlite_findings.py",
    "tests/backends/test_sqlite_leases.py",
    "tests/backends/test_sqlite_power.py",
    "tests/backends/test_suite.py",
    "tests/backends/test_wrong.py",
    "tests/benchmarks",
    "tests/cli",
    "tests/core/test_serializers_tables.py",
    "tests/csan",
    "tests/packaging",
    "tests/processes",
)
#: Exceptions among these, which do depend on it.
EACH = (
    "tests/packaging/test_public.py",
    "tests/processes/test_exit.py",
    "tests/processes/test_fork.py",
    "tests/processes/test_fork_in_import.py",
    "tests/processes/test_signals.py",
    "tests/processes/test_threads.py",
)


#: Files whose tests share something that takes long to make, such as one run of many programs.
SHARED = (
    "tests/backends/test_wrong.py",
    "tests/benchmarks/test_instructions.py",
    "tests/packaging/test_versions.py",
    "tests/processes/test_leftovers.py",
)


def is_once(path: Path) -> bool:
    """Return whether the tests of a file need to run on one Python only."""
    places = {place.as_posix() for place in (path, *path.parents)}
    return not places.isdisjoint(ONCE) and places.isdisjoint(EACH)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import files of which every test would be deselected: making their tests takes as long as running some."""
    if "not once" not in config.option.markexpr or not collection_path.is_file():
        return None
    return is_once(collection_path.relative_to(config.rootpath)) or None


def pytest_configure(config: pytest.Config) -> None:
    """Give each of several workers its own queues and files."""
    if hasattr(config, "workerinput"):
        import apart

        apart.move(Path(config.option.basetemp).parent)
        gc.disable()  # until the tests are collected, which all stay: each run would look at all of them in vain


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several workers, keep tests on one worker that share a page, a program, a run or built distributions.

    Every other test goes to the next free worker.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByPage(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            if "/test_built" in file:  # they share one build of the distributions
                return "built"
            if file.endswith("test_gevent.py") and "[" in test:  # tests with the same two parameters share one program
                return " ".join([file, *sorted(test.partition("[")[2].rstrip("]").split("-")[:2])])
            together = test.startswith("line:") or file.endswith("test_greenlets.py") or file in SHARED
            return file if together else nodeid

        def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
            super().mark_test_complete(node, item_index, duration)
            # After each test, xdist counts the tests of all units that the worker has had: 20 s for 19,000 units.
            units = self.assigned_work[node]
            unit = self._split_scope(self.registered_collections[node][item_index])
            if all(units[unit].values()):
                del units[unit]

    return ByPage(config, log)


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests that need one Python only; several workers get the storms among the tests that mostly wait."""
    for item in items:
        if item.path.is_relative_to(config.rootpath) and is_once(item.path.relative_to(config.rootpath)):
            item.add_marker("once")
    if hasattr(config, "workerinput"):
        items[:] = spread(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep the garbage collector of a worker from looking at all tests: each of its runs would take half a second."""
    if hasattr(session.config, "workerinput"):
        import hypothesis  # noqa: F401  # its plugins look for the referrers of objects, which must not be frozen then

        gc.enable()
        gc.collect()
        gc.freeze()


def spread(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests with the storms spread over the first half, so that few run at a time, and the core's last.

    Tests of the core are short, so no worker waits long for the last test of another.
    """
    storms = [item for item in items if item.get_closest_marker("storm") is not None]
    others = [item for item in items if item.get_closest_marker("storm") is None]
    others.sort(key=lambda item: "core" in item.path.parts)
    distance = len(others) // (2 * len(storms) + 1) + 1
    for number, storm in enumerate(storms):
        others.insert(number * (distance + 1), storm)
    return others


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outside a test's timeout
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """With several workers, run a test that is marked as `alone` without others beside it."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    import apart

    with apart.turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), ConsoleParser()],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    excludes=["docs/_build/**"],
    setup=begin,
    teardown=end,
).pytest()
