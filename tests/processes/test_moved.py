"""``ipcq move`` and ``ipcq copy`` beside producers and consumers, and killed at random instants."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import ipcq
from ipcq._cli import cli
from ipcq._cli.verbs import copy as _copy  # noqa: F401 - imported here once, so that no forked process has to
from ipcq._cli.verbs import move as _move  # noqa: F401 - the same
from ipcq.testing.processes import Peer, Peers, say, until
from processes.programs import SMALL
from processes.sizes import size

KILLS = size(40, 2000)
MESSAGES = size(400, 20_000)
COPIES = size(20, 500)


@pytest.fixture
def target(name: str, queue: "ipcq.Queue[int]") -> Iterator["ipcq.Queue[int]"]:
    """Return a second queue like the first."""
    with ipcq.open(f"{name}-target", queue.backend, exclusive=True, **SMALL) as target:
        yield target
        target.unlink()


def produce(name: str, backend: str, most: int) -> None:
    """Put numbers until the queue is shut down, and report how many."""
    count = 0
    with ipcq.open(name, backend, create=False) as queue:
        try:
            while count != most:
                queue.put(count)
                count += 1
        except ipcq.QueueShutDown:
            pass
    say(count)


def consume(name: str, backend: str) -> None:
    """Take messages until the queue is shut down, and report them."""
    with ipcq.open(name, backend, create=False) as queue:
        say("ready")
        say(list(queue))


def move(source: str, target: str, file: str, times: int) -> None:
    """Move the messages a number of times, or without end if it is 0."""
    for _ in range(times) if times else itertools.count():
        run("move", source, target, "--rescue", file)
    say("done")


def copy(source: str, target: str, file: str, times: int) -> None:
    """Copy a number of times, or without end if it is 0, and drop the copies."""
    with ipcq.open(target, create=False) as queue:
        for _ in range(times) if times else itertools.count():
            run("copy", source, target, "--rescue", file)
            queue.clear()
    say("done")


def run(*arguments: str) -> int:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code in {0, 1, 3}, result.output
    return result.exit_code


def kill_at_random(peers: Peers, peer: Peer, file: Path) -> None:
    """Kill a process at a random instant of its work."""
    until(file.exists)
    time.sleep(peers.random.uniform(0, 0.005))
    peer.kill()


def load_rescued(file: Path, into: str) -> None:
    """Load the rescue file, as the killed verb advises."""
    if file.exists():
        run("load", into, str(file))
        file.unlink(missing_ok=True)  # a truncated line is reported, and its message was not taken


@pytest.mark.storm
def test_killed_moves_lose_or_duplicate_at_most_the_message_in_flight(
    name: str, queue: "ipcq.Queue[int]", target: "ipcq.Queue[int]", peers: Peers, tmp_path: Path
) -> None:
    """C37: a producer, a consumer, and moves between them that are killed again and again."""
    file = tmp_path / "rescue"
    ends = (f"{queue.backend}://{name}", f"{queue.backend}://{target.name}")
    producer = peers.fork(produce, name, queue.backend, -1)
    consumer = peers.fork(consume, target.name, queue.backend)
    consumer.hear()
    for _ in range(KILLS):
        kill_at_random(peers, peers.fork(move, *ends, str(file), 0), file)
        load_rescued(file, ends[1])
    queue.shutdown()
    sent = producer.hear()
    run("move", *ends)
    target.shutdown()
    got = consumer.hear()
    doubled, lost = len(got) - len(set(got)), sent - len(set(got))
    print(f"{queue.backend}: {KILLS} kills, {sent} messages, {doubled} doubled, {lost} lost")
    assert (set(got) <= set(range(sent)), doubled <= KILLS, lost <= (0 if queue.capabilities.peek else KILLS)) == (
        True,
        True,
        True,
    )


@pytest.mark.storm
def test_killed_copies_lose_or_duplicate_at_most_the_message_in_flight(
    name: str, queue: "ipcq.Queue[int]", target: "ipcq.Queue[int]", peers: Peers, tmp_path: Path
) -> None:
    """C37: after each kill the source has its messages again, at most one of them twice."""
    file = tmp_path / "rescue"
    ends = (f"{queue.backend}://{name}", f"{queue.backend}://{target.name}")
    worst = 0
    for _ in range(KILLS):
        queue.put_many([1, 2, 3])
        kill_at_random(peers, peers.fork(copy, *ends, str(file), 0), file)
        load_rescued(file, ends[0])
        left = queue.get_many(timeout=0)
        target.clear()
        worst = max(worst, 3 - len(set(left)))
        assert len(left) <= 4
    print(f"{queue.backend}: {KILLS} kills, {worst} lost at a time")
    assert worst <= (not queue.capabilities.peek)


def test_two_moves_and_a_consumer_share_the_messages(
    name: str, queue: "ipcq.Queue[int]", target: "ipcq.Queue[int]", peers: Peers, tmp_path: Path
) -> None:
    """C2: each message comes out once, from either queue."""
    ends = (f"{queue.backend}://{name}", f"{queue.backend}://{target.name}")
    consumers = [peers.fork(consume, each, queue.backend) for each in (name, target.name)]
    for peer in consumers:
        peer.hear()
    producer = peers.fork(produce, name, queue.backend, MESSAGES)
    movers = [peers.fork(move, *ends, str(tmp_path / f"rescue-{number}"), COPIES) for number in range(2)]
    assert [peer.hear() for peer in (producer, *movers)] == [MESSAGES, "done", "done"]
    queue.shutdown()
    target.shutdown()
    got = sorted(item for peer in consumers for item in peer.hear())
    assert got == list(range(MESSAGES))


def test_consumers_beside_copies_get_each_message_once(
    name: str, queue: "ipcq.Queue[int]", peers: Peers, tmp_path: Path
) -> None:
    """C2: with a producer and a consumer of a queue that is copied again and again."""
    with ipcq.open(f"{name}-target", queue.backend, exclusive=True, max_messages=8, max_message_size=512) as target:
        ends = (f"{queue.backend}://{name}", f"{queue.backend}://{target.name}")
        consumer = peers.fork(consume, name, queue.backend)
        consumer.hear()
        producer = peers.fork(produce, name, queue.backend, MESSAGES)
        copier = peers.fork(copy, *ends, str(tmp_path / "rescue"), COPIES)
        assert (producer.hear(), copier.hear()) == (MESSAGES, "done")
        queue.shutdown()
        got = consumer.hear()
        target.unlink()
    assert sorted(got) == list(range(MESSAGES))
