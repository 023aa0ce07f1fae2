"""C2, C3, C15, C41: kills of the programs that use a Redis server, and of the server."""

import time
from collections.abc import Iterator

import pytest

import ipcq
from backends.redis_server import RedisProcess, running
from ipcq.testing.processes import own_seed
from ipcq.testing.storm import MODES, Mode, stress
from processes.programs import SMALL
from processes.sizes import size

#: Patience of a storm in seconds: what a killed consumer has leased returns after 12.
RETURNED = 40.0

pytestmark = [pytest.mark.storm, pytest.mark.timeout(0)]


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int | None:
    """Return the number of kills in each storm, if the command line gives one."""
    given: int | None = request.config.getoption("--kills")
    return given


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.mark.parametrize("mode", MODES)
def test_survivors_of_a_storm_continue(mode: Mode, server: RedisProcess, kills: int | None) -> None:
    """C2, C3, C15: nothing is duplicated, torn or reordered, and each killed consumer loses at most what it had got."""
    kills = kills or size(12, 2_500, 20_000)
    report = stress(server.url, mode=mode, kills=kills, seed=own_seed(), patience=RETURNED, **SMALL)
    print(f"redis {mode} {report}")
    assert report.ok, report.stacks


def test_restarts_of_the_server_lose_and_double_nothing(server: RedisProcess) -> None:
    """C41: it is killed during puts and gets, and what it had acknowledged is there."""
    restarts = size(5, 200, 1000)
    sent = 0
    taken: list[int] = []
    with ipcq.open("/restarts", server.url, max_messages=100_000, max_message_size=512) as queue:
        for _ in range(restarts):
            server.stop()
            server.start()
            until = time.monotonic() + 0.2
            while time.monotonic() < until:
                queue.put(sent, timeout=60)
                sent += 1
                if sent % 3:
                    taken.append(queue.get(timeout=60))
            taken += queue.get_many(timeout=60)
        assert queue.empty()
        queue.unlink()
    assert taken == list(range(sent))
