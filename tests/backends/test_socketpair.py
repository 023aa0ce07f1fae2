"""The pair of sockets keeps the contract, with a bound in messages and without."""

from ipcq.testing import BackendContract


class TestSocketpair(BackendContract):
    backend = "socketpair"
