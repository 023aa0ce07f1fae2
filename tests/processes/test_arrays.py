"""Arrays go from one process to another, and back."""

import array

import numpy as np
import pytest

import ipcq
from processes.needs import usable
from scripts import run

ANSWER = """
    import sys, numpy, ipcq
    with ipcq.open(sys.argv[1], sys.argv[2], create=False, serializer="arrays") as queue:
        item = queue.get(timeout=20)
        frame = item["frame"]
        assert not frame.flags.writeable and frame.flags.f_contiguous and item["gains"].tolist() == [1.0, 0.5]
        queue.put([frame.sum(axis=2, dtype="u2"), numpy.datetime64("2024-01-01"), memoryview(b"done")])
    """


@pytest.mark.parametrize("which", ["shm", "sqlite"])
def test_another_process_gets_arrays_and_answers_with_others(name: str, which: str) -> None:
    """A frame of a camera of 640 by 480 pixels."""
    frame = np.asfortranarray(np.random.default_rng(1).integers(0, 256, (480, 640, 3), "u1"))
    with ipcq.open(name, usable(which), max_messages=2, max_message_size=1 << 20, serializer="arrays") as queue:
        queue.put({"frame": frame, "gains": array.array("d", [1.0, 0.5])})
        run(ANSWER, name, which)
        grey, day, text = queue.get(timeout=20)
    assert np.array_equal(grey, frame.sum(axis=2))
    assert (day, text.tobytes()) == (np.datetime64("2024-01-01"), b"done")
