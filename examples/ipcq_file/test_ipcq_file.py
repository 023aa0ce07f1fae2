from ipcq.testing import BackendContract, stress
from ipcq.testing.machine import machine_for


class TestFile(BackendContract):
    backend = "file"


TestFileAgrees = machine_for("file")


def test_file_survives_kills():
    report = stress("file", kills=250, max_messages=4, max_message_size=512)
    assert report.ok, report.stacks or report
