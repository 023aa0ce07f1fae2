"""C3, C4, C30, C41: two machines use one Redis server; two network namespaces stand in for them.

The server is on the near machine, and listens on its end of the link. test_redis.py has the whole suite over it.
"""

import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import ipcq
from backends.network import Machine, two_machines
from backends.redis_server import ProxiedRedis, RedisProcess, ask, certify, free_port
from ipcq.errors import ConnectionLost, LeaseLost, QueueEmpty
from ipcq.testing._answers import until_answered
from ipcq.testing.processes import Peers, fresh_name, hear, own_seed, say, until
from ipcq.testing.storm import stress
from leftovers import ended
from processes.programs import SMALL
from processes.sizes import size

#: Seconds for what has no bound of its own.
PATIENCE = 100.0

Handle = ipcq.Queue[Any]


class Site:
    """Two machines with a server on the near one, and the URLs of its database by how they connect."""

    def __init__(self, near: Machine, far: Machine, server: RedisProcess, tls_port: int) -> None:
        self.near, self.far = near, far
        self.server = server
        self.plain = f"redis://{near.address}:{server.port}/0/"
        self.tls = f"rediss://{near.address}:{tls_port}/0/"

    def has_waiting_client(self) -> bool:
        return "blocked_clients:0" not in self._tell("clients")

    def calls(self) -> int:
        """Return how many scripts the server has run."""
        found = re.search(r"cmdstat_evalsha:calls=(\d+)", self._tell("commandstats"))
        return int(found[1]) if found else 0

    def _tell(self, section: str) -> str:
        with self.near.inside():
            return ask(self.server.port, "INFO", section).decode()


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("redis")
    with two_machines() as (near, far):
        certify(directory, f"IP:{near.address}")
        port = free_port()
        settings = {"bind": near.address + " 127.0.0.1", "protected_mode": "no", "tls_port": str(port)}
        settings |= {"tls_cert_file": str(directory / "certificate"), "tls_key_file": str(directory / "key")}
        with near.inside():
            server = RedisProcess(directory, tls_auth_clients="no", **settings)
        try:
            yield Site(near, far, server, port)
        finally:
            server.stop()


@pytest.fixture
def site(machines: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Put the test on the far machine."""
    monkeypatch.setenv("IPCQ_REDIS_CA", str(machines.server.directory / "certificate"))
    monkeypatch.delenv("IPCQ_REDIS_INSECURE", raising=False)
    with machines.far.inside():
        try:
            yield machines
        finally:
            for machine in (machines.near, machines.far):
                machine.set_link("up")


@pytest.fixture
def url(site: Site) -> Iterator[str]:
    """Return the URL of a queue; unlink it in the end, from the server's machine."""
    url = f"{site.tls}{fresh_name('jobs')}"
    yield url
    with site.near.inside(), suppress(ipcq.QueueNotFound):
        ipcq.unlink(url)


@pytest.fixture
def jobs(url: str) -> Iterator[Handle]:
    """Return a handle on the far machine to a queue with leases."""
    with ipcq.open(url, leases=True) as queue:
        yield queue


@pytest.fixture
def peers(site: Site) -> Iterator[Peers]:
    """Start programs on the machine of the thread that asks for one."""
    with Peers(patience=PATIENCE) as peers:
        yield peers


@pytest.fixture
def pool(site: Site) -> Iterator[ThreadPoolExecutor]:
    """Return threads, which are on the far machine."""
    with ThreadPoolExecutor() as pool:
        yield pool


def work(url: str) -> None:
    """Do all jobs, and tell which."""
    with ipcq.open(url, create=False) as queue:
        say([job.item for job in queue.leases()])


def hold(url: str) -> None:
    """Lease a job; on demand acknowledge it, and tell whether the lease was lost."""
    with ipcq.open(url, create=False) as queue:
        job = queue.lease(timeout=PATIENCE)
        say(job.item)
        hear()
        try:
            job.ack()
        except LeaseLost:
            say("lost")


@pytest.mark.parametrize("kind", ["tls", "plain"])
def test_a_worker_on_another_machine_does_the_jobs(site: Site, peers: Peers, kind: str) -> None:
    """C30: encrypted by default, and in the clear if the user permits it."""
    url = f"{getattr(site, kind)}{fresh_name('jobs')}" + "?insecure=true" * (kind == "plain")
    with site.near.inside(), ipcq.open(url, leases=True) as queue:
        with site.far.inside():
            worker = peers.spawn(work, url)
        queue.put_many(range(10))
        queue.put("later", delay=0.1)
        queue.shutdown()
        assert worker.hear() == [*range(10), "later"]
        assert (queue.stats().depth, queue.stats().leased) == (0, 0)
        queue.unlink()


def test_the_job_of_a_killed_worker_returns(site: Site, peers: Peers, jobs: Handle, url: str) -> None:
    """C3: although nobody on another machine sees that it died."""
    worker = peers.spawn(hold, url)
    jobs.put("job")
    assert worker.hear() == "job"
    worker.kill()
    with site.near.inside(), ipcq.open(url, create=False) as queue, queue.lease(timeout=PATIENCE) as job:
        assert (job.item, job.deliveries) == ("job", 2)


def test_a_worker_that_is_cut_off_loses_its_lease(site: Site, peers: Peers, jobs: Handle, url: str) -> None:
    """C3, C4: another one does the job, and the first one is told once it is back."""
    worker = peers.spawn(hold, url)
    jobs.put("job")
    assert worker.hear() == "job"
    site.far.set_link("down")
    with site.near.inside(), ipcq.open(url, create=False) as queue, queue.lease(timeout=PATIENCE) as job:
        assert (job.item, job.deliveries) == ("job", 2)
    site.far.set_link("up")
    worker.say("acknowledge it")
    assert worker.hear() == "lost"


@pytest.mark.parametrize("end", ["near", "far"])
def test_a_get_tells_in_time_that_the_link_is_down(
    site: Site, pool: ThreadPoolExecutor, jobs: Handle, url: str, end: str
) -> None:
    """C41: it went down during the wait; the handle goes on once it is up."""
    seconds = 2.0
    while not (getting := cut_during_get(site, pool, jobs, end, seconds)):
        seconds *= 2  # the machine is busy
    assert getting.result() < 10 * seconds
    with site.near.inside(), ipcq.open(url, create=False) as queue:
        queue.put("in the meantime")
    getattr(site, end).set_link("up")
    assert jobs.get(timeout=PATIENCE) == "in the meantime"
    jobs.put("afterwards", timeout=PATIENCE)
    assert jobs.get(timeout=PATIENCE) == "afterwards"


def cut_during_get(
    site: Site, pool: ThreadPoolExecutor, queue: Handle, end: str, seconds: float
) -> "Future[float] | None":
    """Set a link down while a get waits; return the seconds that it takes, or None if it had ended already."""

    def get() -> float:
        with pytest.raises(ConnectionLost):
            queue.get(timeout=seconds)
        return time.monotonic() - began

    began = time.monotonic()
    getting = pool.submit(get)
    until(lambda: site.has_waiting_client() or getting.done(), PATIENCE)
    getattr(site, end).set_link("down")
    if time.monotonic() < began + seconds:
        return getting
    getattr(site, end).set_link("up")
    wait([getting])
    return None


def test_a_get_without_a_timeout_outlasts_the_outage(
    site: Site, pool: ThreadPoolExecutor, jobs: Handle, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """C41: it logs that it waits for the server, and returns what was put meanwhile."""
    getting = pool.submit(jobs.get)
    until(site.has_waiting_client, PATIENCE)
    site.near.set_link("down")
    until(lambda: "waits until the server answers again" in caplog.text, PATIENCE)
    with site.near.inside(), ipcq.open(url, create=False) as queue:
        queue.put("in the meantime")
    site.near.set_link("up")
    assert getting.result(PATIENCE) == "in the meantime"


def test_a_put_without_a_timeout_arrives_once(
    site: Site, pool: ThreadPoolExecutor, jobs: Handle, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """C41: although the kernel delivers the first request, too, once the link is up."""
    jobs.put("before")  # the server has the script, so each request is one call
    assert jobs.get() == "before"
    before = site.calls()
    site.near.set_link("down")
    putting = pool.submit(jobs.put, "once")
    until(lambda: "waits until the server answers again" in caplog.text, PATIENCE)
    site.near.set_link("up")
    putting.result(PATIENCE)
    until(lambda: site.calls() >= before + 2, PATIENCE)
    assert jobs.get_many(timeout=PATIENCE) == ["once"]
    with pytest.raises(QueueEmpty):
        until_answered(lambda seconds: jobs.get(timeout=seconds), 0.1)


def serve(directory: str) -> None:
    """Run a server and a proxy between two machines; tell their pids, and wait."""
    with two_machines() as (near, _):
        server = ProxiedRedis(Path(directory), near.address, near.inside)
        say([process.pid for process in (server.process, server.proxy) if process is not None])
        hear()


def test_a_killed_run_leaves_no_server(peers: Peers, tmp_path: Path) -> None:
    """Nor namespaces, which end with their last process."""
    run = peers.spawn(serve, str(tmp_path))
    pids = run.hear()
    assert [ended(str(pid)) for pid in pids] == [False, False]
    run.kill()
    until(lambda: all(ended(str(pid)) for pid in pids), PATIENCE)


@pytest.mark.storm
@pytest.mark.timeout(0)
def test_survivors_of_a_storm_on_another_machine_continue(site: Site, request: pytest.FixtureRequest) -> None:
    """C2, C3: each killed worker's jobs return to the others."""
    kills = request.config.getoption("--kills") or size(10, 2_500, 20_000)
    report = stress(site.tls, mode="lease", kills=kills, seed=own_seed(), patience=40.0, **SMALL)
    print(f"redis between two machines: {report}")
    assert report.ok, report.stacks
