"""How conftest.py chooses the tests for a Python, and distributes them among several workers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

TESTS = [
    "docs/tutorial.md::line:1,column:1",
    "docs/tutorial.md::line:9,column:1",
    "tests/backends/test_wrong.py::test_one",
    "tests/backends/test_wrong.py::test_two",
    "tests/core/test_names.py::test_one",
    "tests/core/test_names.py::test_two",
]


class Worker:
    """A worker that notes the tests it is sent."""

    shutting_down = False
    gateway = SimpleNamespace(id="gw0")

    def __init__(self) -> None:
        self.sent: list[list[int]] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.sent.append(indices)

    def shutdown(self) -> None:
        self.shutting_down = True


@pytest.fixture
def conftest(pytestconfig: pytest.Config) -> Any:
    """Return the module conftest.py at the top of the tree."""
    return pytestconfig.pluginmanager.get_plugin(str(pytestconfig.rootpath / "conftest.py"))


@pytest.fixture
def scheduler(conftest: Any) -> Any:
    """Return the scheduler for one worker."""
    pytest.importorskip("xdist")
    stub = SimpleNamespace(getvalue=lambda name: ["popen"], option=SimpleNamespace(loadscopereorder=True))
    return conftest.pytest_xdist_make_scheduler(stub, None)


@pytest.fixture
def worker(scheduler: Any) -> Worker:
    """Return its worker, which has been given work."""
    worker = Worker()
    scheduler.add_node(worker)
    scheduler.add_node_collection(worker, TESTS)
    scheduler.schedule()
    return worker


def test_tests_that_share_something_come_together(scheduler: Any, worker: Worker) -> None:
    """A worker gets the tests of a page, and those of a file with a slow fixture, at once."""
    assert worker.sent[:2] == [[0, 1], [2, 3]]


def test_other_tests_come_one_by_one(scheduler: Any, worker: Worker) -> None:
    """They go to the next free worker."""
    for index in range(len(TESTS)):
        scheduler.mark_test_complete(worker, index)
    assert worker.sent[2:] == [[4], [5]]


def test_finished_tests_are_forgotten(scheduler: Any, worker: Worker) -> None:
    """Otherwise each test would take the longer, the more have run."""
    for index in range(len(TESTS)):
        scheduler.mark_test_complete(worker, index)
    assert scheduler.assigned_work[worker] == {}


@pytest.mark.parametrize(
    ("marks", "ignored"),
    [
        ("not storm and not once", ["docs/tutorial.md", "tests/processes/test_storm.py"]),
        ("not storm", []),
        ("once", []),
    ],
)
def test_only_a_run_without_tests_of_one_python_ignores_their_files(
    conftest: Any, pytestconfig: pytest.Config, marks: str, ignored: list[str]
) -> None:
    """Files of which it would deselect every test, and no others."""
    stub = SimpleNamespace(rootpath=pytestconfig.rootpath, option=SimpleNamespace(markexpr=marks))
    paths = ["docs/tutorial.md", "tests/processes/test_fork.py", "tests/processes/test_storm.py", "tests/processes"]
    found = [path for path in paths if conftest.pytest_ignore_collect(pytestconfig.rootpath / path, stub)]
    assert found == ignored


def test_storms_are_spread_over_the_first_half_and_the_tests_of_the_core_come_last(conftest: Any) -> None:
    """So that few storms run at a time, and all workers end at about the same time."""

    def item(path: str, *marks: str) -> Any:
        return SimpleNamespace(path=Path(path), get_closest_marker=lambda mark: mark if mark in marks else None)

    core = [item("tests/core/test_names.py") for _ in range(3)]
    others = [item("tests/processes/test_full.py") for _ in range(5)]
    storms = [item("tests/processes/test_storm.py", "storm") for _ in range(2)]
    spread = conftest.spread([*core, *storms, *others])
    assert (spread[0], spread[3], spread[-3:]) == (*storms, core)
    assert len(spread) == 10
