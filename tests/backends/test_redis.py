"""Queues on a Redis server keep the contract, between real processes and a real server."""

from collections.abc import Iterator

import pytest
from hypothesis import seed
from hypothesis.stateful import run_state_machine_as_test

from backends.redis_server import ProxiedRedis
from ipcq.testing import BackendContract
from ipcq.testing.machine import QueueMachine, end_helper, profile
from ipcq.testing.processes import own_seed


@pytest.fixture(scope="module", autouse=True)
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedRedis]:
    server = ProxiedRedis(tmp_path_factory.mktemp("redis"))
    one = server.url
    two = one.replace("/0/", "/1/")
    for suite in (TestRedis, RedisMachine):
        suite.backend = one
    TestRedis.places = (two, one.replace("/0/", "/2/"))
    yield server
    server.end()


class TestRedis(BackendContract):
    backend = "redis"

    @pytest.fixture
    def server(self, running_server: ProxiedRedis) -> ProxiedRedis:
        return running_server


class RedisMachine(QueueMachine):
    backend = "redis"


def test_it_agrees_with_the_model() -> None:
    """C25: sequences of calls on several handles."""
    try:
        run_state_machine_as_test(seed(own_seed())(RedisMachine), settings=profile(10))
    finally:
        end_helper()
