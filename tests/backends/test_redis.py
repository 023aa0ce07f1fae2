"""Queues on a Redis server keep the contract, between real processes and a real server.

As root, the server is on another machine than the processes: two network namespaces stand in for them. In the nightly
run, some replies are late.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext

import pytest
from hypothesis import seed
from hypothesis.stateful import run_state_machine_as_test

from backends.redis_server import ProxiedRedis
from ipcq.testing import BackendContract
from ipcq.testing.machine import QueueMachine, end_helper, profile
from ipcq.testing.processes import own_seed
from processes.sizes import size


class Site:
    """A server, and the machine from which the tests use it."""

    def __init__(self, tmp_path_factory: pytest.TempPathFactory, stack: ExitStack) -> None:
        place, slow = tmp_path_factory.mktemp("redis"), size(0, 5)
        if os.geteuid() == 0:
            from backends.network import two_machines

            near, far = stack.enter_context(two_machines())
            self._inside = far.inside
            self.server = ProxiedRedis(place, near.address, near.inside, slow)
        else:  # only root can make namespaces
            self._inside = nullcontext
            self.server = ProxiedRedis(place, slow=slow)
        stack.callback(self.server.end)

    def inside(self) -> AbstractContextManager[None]:
        """Move this thread to the machine of the tests."""
        return self._inside()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ExitStack() as stack:
        site = Site(tmp_path_factory, stack)
        one = site.server.url
        for suite in (TestRedis, RedisMachine):
            suite.backend = one
        TestRedis.places = (one.replace("/0/", "/1/"), one.replace("/0/", "/2/"))
        yield site


@pytest.fixture(autouse=True)
def _beyond_loopback(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("IPCQ_REDIS_INSECURE", "1")
    with site.inside():
        yield


class TestRedis(BackendContract):
    backend = "redis"

    @pytest.fixture
    def server(self, site: Site) -> ProxiedRedis:
        return site.server


class RedisMachine(QueueMachine):
    backend = "redis"


def test_it_agrees_with_the_model() -> None:
    """C25: sequences of calls on several handles."""
    try:
        run_state_machine_as_test(seed(own_seed())(RedisMachine), settings=profile(10))
    finally:
        end_helper()
