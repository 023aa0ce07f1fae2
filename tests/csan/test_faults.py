"""The seeded faults of the C core are still faults of it. `nox -s csan -- faults` tries whether they are caught."""

import runpy
from pathlib import Path
from typing import Any

import pytest

SEEDS = runpy.run_path(str(Path(__file__).with_name("faults.py")))


@pytest.mark.parametrize("fault", SEEDS["faults"](), ids=lambda fault: fault.name)
def test_what_a_fault_changes_is_there_once(fault: Any) -> None:
    """Else nobody would seed it, and it would prove nothing."""
    text = (SEEDS["CORE"] / fault.file).read_text()
    for right, wrong in fault.changes:
        assert text.count(right) == 1
        text = text.replace(right, wrong)
