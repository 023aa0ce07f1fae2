from ipcq.testing import BackendContract


class TestFile(BackendContract):
    backend = "file"
