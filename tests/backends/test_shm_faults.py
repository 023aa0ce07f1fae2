"""Tests of the tests: faults of the Python around the ring, seeded into a copy, that other tests must see.

tests/csan/faults.py does the same with the C core.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from processes.needs import usable

ipcq_shm = pytest.importorskip("ipcq_shm")

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("right", "wrong", "test"),
    [
        (
            "os.posix_fallocate(descriptor, offset, min(_CHUNK, size - offset))",
            "os.ftruncate(descriptor, size)",
            "test_a_file_system_that_fills_up_later_harms_no_queue",
        ),
        (
            "with _removing(descriptor):  # a remover",
            "if True:  # a remover",
            "test_an_attacher_waits_for_a_remover",
        ),
        (
            "            os.unlink(bell_of(name))\n\n\ndef _sound",
            "            pass\n\n\ndef _sound",
            "test_a_doorbell_made_during_the_removal_is_removed_too",
        ),
        (
            "if os.stat(path, follow_symlinks=False).st_ino != os.fstat(descriptor).st_ino:",
            "if False:",
            "test_a_file_that_was_removed_is_not_removed_again",
        ),
        (
            "if unless_held and _locked(descriptor, LOCKS_AT, _SLOTS):",
            "if False:",
            "test_a_queue_with_a_new_holder_is_not_removed",
        ),
        (
            "os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))\n\n\nclass",
            "os.O_NONBLOCK | os.O_CLOEXEC))\n\n\nclass",
            "test_a_link_to_another_queue_is_not_followed",
        ),
    ],
    ids=lambda text: text if text.startswith("test_") else " ",
)
def test_a_seeded_fault_is_caught(right: str, wrong: str, test: str, tmp_path: Path) -> None:
    """Each of these would pass unseen if the test named with it proved nothing."""
    usable("shm")
    package = tmp_path / "ipcq_shm"
    shutil.copytree(Path(ipcq_shm.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "csrc"))
    segment = package / "_segment.py"
    text = segment.read_text()
    assert text.count(right) == 1
    segment.write_text(text.replace(right, wrong))
    (file,) = (each for each in HERE.glob("test_shm_*.py") if f"def {test}(" in each.read_text())
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file, "-k", test],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    assert "failed" in run.stdout
