"""A program under gevent that hangs is killed, shows its stacks, leaves nothing behind, and is not started again."""

import json
import sys
from typing import Any

import pytest

import ipcq
from greenlets import seen
from ipcq.testing.processes import fresh_name
from local_backends import local_backends

if sys.platform != "linux":
    pytest.skip("peers are installed on Linux alone", allow_module_level=True)

pytestmark = pytest.mark.once

#: Waits for messages that never come, with a queue of a given name and queues that only it knows.
HANGS = """
from gevent import monkey
monkey.patch_all()
import json, sys
import gevent
import ipcq
from ipcq.testing.processes import fresh_name

note, name, *backends = sys.argv[1:]
queues = [ipcq.open(name, backends[0])] + [ipcq.open(fresh_name(), each) for each in backends]

def wait_forever():
    queues[0].get()

gevent.spawn(wait_forever)
with open(note, "a") as started:
    print(json.dumps([queue.name for queue in queues]), file=started)
queues[1].get()
"""


@pytest.fixture(scope="module")
def hung(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the failures of two tests that use a hanging program, and the queues that each run created."""
    directory = tmp_path_factory.mktemp("hung")
    (directory / "hangs.py").write_text(HANGS)
    backends = [info.name for info in local_backends() if info.usable and info.name != "memory"]
    complaints = []
    for _ in range(2):
        with pytest.raises(pytest.fail.Exception) as failed:
            seen(directory / "hangs.py", str(directory / "note"), NAME, *backends, patience=10)
        complaints.append(str(failed.value))
    return complaints, [json.loads(line) for line in (directory / "note").read_text().splitlines()]


NAME = fresh_name()


def test_each_test_shows_where_the_program_hangs(hung: Any) -> None:
    """It shows the waiting greenlets, which are not on the stack of the thread."""
    complaints, _ = hung
    assert all("did not end within 10 s" in each and "in wait_forever" in each for each in complaints), complaints


def test_it_is_started_once(hung: Any) -> None:
    """Otherwise each test that uses it would wait again."""
    _, started = hung
    assert len(started) == 1


def test_its_queues_are_removed(hung: Any) -> None:
    """Otherwise the test would fail because of leftovers."""
    _, ((*names,),) = hung
    assert [queue for queue in ipcq.queues() if queue.name in names] == []
