"""The suite catches each deliberately faulty backend, by the clause that it breaks."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

import pytest

from backends import wrong, wrong_leases, wrong_native, wrong_places, wrong_queues

#: The modules with the faults. test_wrong_servers.py has those of a backend with a server.
FAMILIES = (wrong_leases, wrong_native, wrong_places, wrong_queues)

#: Each faulty backend is memory with one fault. The first test waits for the run of all.
pytestmark = [pytest.mark.needs("memory"), pytest.mark.once, pytest.mark.timeout(400)]

#: A test that none of the faults affects: it shows that the backend works otherwise.
UNTOUCHED = "test_a_handle_knows_its_name_and_backend"

_RUN = """
import sys
import pytest
from backends import wrong
from ipcq.testing import BackendContract

class TestRight(BackendContract):
    backend = "memory"

class Hasty(BackendContract):
    # Otherwise each fault that shows as an event that never comes would take its ten seconds.
    @pytest.fixture(autouse=True)
    def _short_bounds(self, monkeypatch):
        for name, module in list(sys.modules.items()):
            for bound in {"HANG", "NOTICED", "WOKEN"} & vars(module).keys():
                if name.startswith("ipcq.testing.contract"):
                    monkeypatch.setattr(module, bound, 2.0)

for fault in wrong.FAULTS:
    kind = "Test" + fault.__name__
    places = tuple(f"{fault.name}://{host}/" for host in ("one", "two"))
    globals()[kind] = type(kind, (Hasty,), {"backend": fault.name, "patience": 10.0, "places": places})
for odd in wrong.ODDITIES:
    kind = "Test" + odd.__name__
    places = tuple(f"{odd.name}://{host}/" for host in ("one", "two"))
    globals()[kind] = type(kind, (BackendContract,), {"backend": odd.name, "small": odd.small, "places": places})
"""

Verdicts = dict[tuple[str, str], set[str]]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """Return how each test of each class ended. One run serves all, because starting pytest takes most of the time."""
    place = tmp_path_factory.mktemp("installed")
    metadata = place / "wrong-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: wrong\nVersion: 1\n")
    lines = [f"{fault.name} = {fault.__module__}:{fault.__name__}\n" for fault in (*wrong.FAULTS, *wrong.ODDITIES)]
    (metadata / "entry_points.txt").write_text("".join(["[ipcq.backends]\n", *lines]))
    script = place / "test_run.py"
    script.write_text(f"import {', '.join(family.__name__ for family in FAMILIES)}\n{_RUN}")
    wanted = {(fault.right, fault.caught_by) for fault in wrong.FAULTS}
    wanted |= {(fault.__name__, test) for fault in wrong.FAULTS for test in (fault.caught_by, UNTOUCHED)}
    wanted |= {(odd.__name__, test) for odd in wrong.ODDITIES for test in odd.passes}
    report = place / "report.xml"
    path = [str(place), str(Path(wrong.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    run = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "-c",
                os.devnull,
                "--rootdir",
                str(place),
            ),
            *(f"--junitxml={report}", "-o", "junit_family=xunit1"),
            *sorted(f"{script}::Test{kind}::{test}" for kind, test in wanted),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert report.exists(), run.stdout + run.stderr
    found: Verdicts = defaultdict(set)
    for case in ET.parse(report).iter("testcase"):
        kind = case.attrib["classname"].rpartition(".Test")[2]
        ended = {child.tag for child in case} & {"failure", "error", "skipped"} or {"passed"}
        name = case.attrib["name"]
        for key in {name, name.partition("[")[0]}:
            found[kind, key] |= ended
    return found


faults = pytest.mark.parametrize("fault", wrong.FAULTS, ids=lambda fault: fault.name)


@faults
def test_a_wrong_backend_is_caught_by_the_clause_that_it_breaks(fault: type[wrong.Wrong], verdicts: Verdicts) -> None:
    """The suite can fail: each fault fails the test that is named for it."""
    assert "failure" in verdicts[fault.__name__, fault.caught_by]


@faults
def test_the_clause_holds_on_the_right_backend(fault: type[wrong.Wrong], verdicts: Verdicts) -> None:
    """The fault fails the test, not the test itself."""
    assert verdicts[fault.right, fault.caught_by] == {"passed"}


@faults
def test_a_wrong_backend_passes_an_unaffected_test(fault: type[wrong.Wrong], verdicts: Verdicts) -> None:
    """Only the fault fails the test: the backend otherwise works."""
    assert verdicts[fault.__name__, UNTOUCHED] == {"passed"}


@pytest.mark.parametrize(
    ("odd", "test"), [(odd.__name__, test) for odd in wrong.ODDITIES for test in odd.passes], ids=lambda part: part
)
def test_an_unusual_but_correct_backend_passes(odd: str, test: str, verdicts: Verdicts) -> None:
    """The suite requires what the contract requires, and nothing more."""
    assert verdicts[odd, test] == {"passed"}
