"""The benchmark code: payloads, checks, worker processes, and arithmetic."""

import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import liars
from ipcq._bench import machine, queues, references, sample, worker
from ipcq._bench.comparison import best, play, ratio
from ipcq._bench.contestant import PEER, Declined, Failed, ReadEnd, Sample, WriteEnd
from ipcq._bench.payloads import Cycle, Numbered, Wrong, data
from ipcq._bench.report import figure, times
from ipcq._bench.workload import WORKLOADS, Workload
from ipcq.testing._program import Connection
from ipcq.testing.processes import SPAWN, Peer, PeerDied, Peers
from ipcq.testing.tally import judge_tallies

SHORT_SECONDS = 0.02
SMALL = WORKLOADS["64B"]
LARGE = WORKLOADS["64KiB"]
IDLE = replace(WORKLOADS["idle"], lasts=0.05)

# The payloads


def cycle(workload: Workload) -> Cycle:
    return Cycle(workload, dict, itemgetter("id"))


@pytest.mark.parametrize("name", ["64B", "1KiB", "64KiB", "1MiB", "batch", "dict"])
def test_messages_that_arrive_as_they_were_put_are_right(name: str) -> None:
    """Over several cycles, in the chunks in which a consumer takes them."""
    made, seen = cycle(WORKLOADS[name]), cycle(WORKLOADS[name])
    messages = [message for _ in range(3) for message in made.block()]
    for index in range(0, len(messages), seen.step):
        seen.take(messages[index : index + seen.step])
    assert judge_tallies([len(messages)], [seen.report()]).faults == []


def damage(messages: list[Any], fault: str) -> list[Any]:
    if fault == "lost":
        del messages[20]
    elif fault == "doubled":
        messages.insert(20, messages[20])
    elif fault == "swapped":
        messages[20], messages[21] = messages[21], messages[20]
    elif fault == "a cycle lost":
        del messages[0 : len(messages) // 3]
    else:
        messages[17] = messages[17][:30] + b"?" + messages[17][31:]
    return messages


@pytest.mark.parametrize("fault", ["lost", "doubled", "swapped", "a cycle lost", "damaged"])
@pytest.mark.parametrize("workload", [SMALL, LARGE], ids=["small", "large"])
def test_damaged_messages_are_wrong(workload: Workload, fault: str) -> None:
    """Whatever the damage."""
    made, seen = cycle(workload), cycle(workload)
    messages = damage([message for _ in range(3) for message in made.block()], fault)

    def take() -> None:
        for index in range(0, len(messages), seen.step):
            seen.take(messages[index : index + seen.step])
        seen.report()

    with pytest.raises(Wrong):
        take()


def test_a_count_that_differs_is_wrong() -> None:
    """For example where cycles are too short to have a number, and a whole one is lost."""
    made, seen = cycle(WORKLOADS["1MiB"]), cycle(WORKLOADS["1MiB"])
    seen.take(made.block())
    faults = judge_tallies([8], [seen.report()]).faults
    assert faults == ["4 lost (no. 4 of producer 0, no. 5 of producer 0, no. 6 of producer 0, no. 7 of producer 0)"]


def report_on(*blocks: list[bytes]) -> Any:
    payloads = Numbered(0)
    for block in blocks:
        payloads.take(block)
    return payloads.report()


def test_two_consumers_may_share_the_messages_of_two_producers() -> None:
    """Each message goes to one of them."""
    one, other = Numbered(0).block(), Numbered(1).block()
    reports = [report_on(one[::2], other[:5]), report_on(one[1::2], other[5:])]
    assert judge_tallies([128, 128], reports).faults == []


@pytest.mark.parametrize(
    ("take", "told"),
    [
        (lambda block: [block[:-1]], "1 lost (no. 127 of producer 0)"),
        (lambda block: [block, block[:1]], "1 duplicated"),
        (lambda block: [block, Numbered(7).block()[:1]], "1 invented"),
    ],
)
def test_a_fault_between_two_consumers_is_found(take: Callable[[list[bytes]], Any], told: str) -> None:
    """Fewer, more, or other messages than were put."""
    assert judge_tallies([128], [report_on(each) for each in take(Numbered(0).block())]).faults == [told]


@pytest.mark.parametrize(("order", "told"), [([0, 1, 0], "1 duplicated"), ([1, 0], "1 reordered")])
def test_a_fault_at_one_consumer_is_found(order: list[int], told: str) -> None:
    """A message twice, or out of order."""
    block = Numbered(0).block()
    assert judge_tallies([2], [report_on([block[index] for index in order])]).faults == [told]


def test_an_absurd_number_is_wrong() -> None:
    """It does not allocate memory for all numbers below it."""
    assert judge_tallies([0], [report_on([data((1 << 48) - 1, 64)])]).faults == ["1 invented"]


# The workers, run here


class Near(queues.Queues):
    """A queue between threads."""

    name = "near"

    def __init__(self, *, batches: bool = False) -> None:
        self._batches = batches

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[list[Any]]:
        yield [queue.Queue(100) for _ in range(workload.queues)]

    def writer(self, address: Any, workload: Workload) -> WriteEnd:
        many = (lambda items: [address.put(item) for item in items]) if self._batches else None
        return WriteEnd(put=address.put, put_many=many)

    def reader(self, address: Any, workload: Workload) -> ReadEnd:
        return ReadEnd(get=address.get, get_many=(lambda most: [address.get()]) if self._batches else None)


class Thread(Peer):
    """A worker that runs in a thread instead of a process."""

    def __init__(self, job: Any, place: Path) -> None:
        ours, theirs = socket.socketpair()
        self._theirs = Connection(theirs)
        self._thread = threading.Thread(target=self._run, args=(job,))
        super().__init__(job.role, 0, ours, place, self._join, 10.0)
        self._thread.start()

    def _run(self, job: Any) -> None:
        with self._theirs.end:
            try:
                worker.work(job, worker.Talk(self._theirs.say, self._theirs.hear))
            except (EOFError, BrokenPipeError):
                pass  # the sample is over
            except Exception as error:
                self._theirs.say({"error": f"{type(error).__name__}: {error}"})

    def _join(self, timeout: float) -> int | None:
        self._thread.join(timeout)
        return None if self._thread.is_alive() else 0

    def send(self, number: int) -> None:
        """Close the line: a thread ends by itself."""
        self._line.end.close()


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run the workers in threads, so that coverage measures them."""

    def inherit(self: Peers, program: Any, job: Any) -> Peer:
        assert program is worker.main
        self.peers.append(Thread(job, tmp_path / "errors"))
        return self.peers[-1]

    monkeypatch.setattr(Peers, "inherit", inherit)


@pytest.mark.parametrize("workload", [*list(WORKLOADS.values())[:-1], IDLE], ids=lambda each: each.name)
def test_every_workload_has_a_figure(in_threads: None, workload: Workload) -> None:
    """It is positive, and the messages are counted."""
    if workload.typed:
        pytest.importorskip("msgspec")
    sample = Near().sample(workload, SHORT_SECONDS)
    assert sample.value > 0
    assert sample.messages > 0


def test_batches_are_used_if_the_contestant_has_them(in_threads: None) -> None:
    """Also if a get returns other portions than were put."""
    assert Near(batches=True).sample(WORKLOADS["batch"], SHORT_SECONDS).messages > 100


class Echo(Near):
    """A queue that returns the same message whatever was put."""

    def writer(self, address: Any, workload: Workload) -> WriteEnd:
        return WriteEnd(put=lambda item: None)

    def reader(self, address: Any, workload: Workload) -> ReadEnd:
        return ReadEnd(get=lambda: data(7, 64))


@pytest.mark.parametrize(("workload", "producer"), [("ping-pong", 0), ("wake-up", None)])
def test_a_wrong_message_is_noticed_where_each_is_timed(workload: str, producer: int | None) -> None:
    """The message that comes back is not the one that was sent, or was there before."""
    job = worker.Job(Echo(), WORKLOADS[workload], (None, None), producer, SHORT_SECONDS)
    with pytest.raises(Wrong, match=r"not what was sent|out of order"):
        worker.work(job, SimpleNamespace(go=lambda: None))


class Awaited(Near):
    """Ends whose calls have to be awaited."""

    awaited = True

    def writer(self, address: Any, workload: Workload) -> WriteEnd:
        end = super().writer(address, workload)

        async def put(item: Any) -> None:
            end.put(item)

        return WriteEnd(put=put, finish=end.finish)

    def reader(self, address: Any, workload: Workload) -> ReadEnd:
        end = super().reader(address, workload)

        async def get() -> Any:
            return end.get()

        return ReadEnd(get=get, finish=end.finish)


def test_round_trips_can_be_awaited(in_threads: None) -> None:
    """Each side runs in its own event loop."""
    sample = Awaited().sample(WORKLOADS["ping-pong"], SHORT_SECONDS)
    assert sample.value > 0
    assert sample.messages > 0


def test_a_wrong_message_is_noticed_where_it_is_awaited() -> None:
    """It is not the message that was sent."""

    class Echoing(Echo):
        awaited = True

        def writer(self, address: Any, workload: Workload) -> WriteEnd:
            async def put(item: Any) -> None:
                pass

            return WriteEnd(put=put)

        def reader(self, address: Any, workload: Workload) -> ReadEnd:
            async def get() -> Any:
                return data(7, 64)

            return ReadEnd(get=get)

    job = worker.Job(Echoing(), WORKLOADS["ping-pong"], (None, None), 0, SHORT_SECONDS)
    with pytest.raises(Wrong, match="not what was sent"):
        worker.work(job, SimpleNamespace(go=lambda: None))


def test_a_single_message_is_too_few(in_threads: None) -> None:
    """There is no interval to measure."""

    class Lone(Near):
        def payloads(self, workload: Workload, producer: int) -> Any:
            payloads = super().payloads(workload, producer)
            block = payloads.block

            def one() -> list[Any]:
                time.sleep(2 * SHORT_SECONDS)
                return block()[:1]

            payloads.block = one
            return payloads

    with pytest.raises(Failed, match="1 messages are too few to measure"):
        Lone().sample(SMALL, SHORT_SECONDS)


def test_a_count_that_differs_is_a_failure_where_each_is_timed(in_threads: None) -> None:
    """Only the count shows that one wake-up is lost."""

    class Forgetful(Near):
        def reader(self, address: Any, workload: Workload) -> ReadEnd:
            end = super().reader(address, workload)
            end.get()
            return end

        def writer(self, address: Any, workload: Workload) -> ReadEnd:
            end = super().writer(address, workload)
            end.put(data(0, 64))
            end.put(data(1, 64))
            return end

    with pytest.raises(Failed, match=r"^\d+ (lost|invented)"):
        Forgetful().sample(WORKLOADS["wake-up"], SHORT_SECONDS)


# The contestants, each end used here


@pytest.fixture
def own_heap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Release the shared memory that multiprocessing keeps for its next use at the end of the test."""
    import multiprocessing.heap

    monkeypatch.setattr(multiprocessing.heap.BufferWrapper, "_heap", multiprocessing.heap.Heap())


def plans() -> list[queues.Queues]:
    """Return every contestant in the wheel that moves bytes, with its variants."""
    return [
        *(reference() for reference in references.REFERENCES.values()),
        queues.Ipcq("socketpair", max_messages=4, max_message_size=1 << 17),
        queues.Ipcq("socketpair", "ipcq raw", serializer="raw"),
    ]


@pytest.mark.parametrize("plan", plans(), ids=lambda plan: plan.name)
@pytest.mark.parametrize("workload", ["64B", "64KiB", "dict"])
def test_a_contestant_returns_the_message_that_was_put(own_heap: None, plan: queues.Queues, workload: str) -> None:
    """One message goes in and comes out, and then both ends finish."""
    asked = WORKLOADS[workload]
    message = plan.payloads(asked, 0).block()[0]
    try:
        with plan.queues(asked) as (address,):
            reader = plan.reader(address, asked)
            writer = plan.writer(address, asked)
            writer.put(message)
            came = reader.get()
            writer.finish()
            reader.finish()
    except Declined as reason:
        assert str(reason)
    else:
        assert came == message


@pytest.mark.parametrize(
    ("plan", "workload"), [(references.Pipe(), "1MiB"), (references.SocketPair(), "64B")], ids=["os.pipe", "socketpair"]
)
def test_a_contestant_waits_while_it_is_empty_or_full(in_threads: None, plan: queues.Queues, workload: str) -> None:
    """It continues with the part of a message that it already has."""
    assert plan.sample(WORKLOADS[workload], SHORT_SECONDS).messages > 1


def test_a_contestant_that_does_not_work_here_is_a_failure() -> None:
    """Though it is installed."""

    class Broken(Near):
        def queues(self, workload: Workload) -> Any:
            raise ModuleNotFoundError("No module named 'pkg_resources'")

    with pytest.raises(Failed, match="cannot create its queues: ModuleNotFoundError: No module"):
        Broken().sample(SMALL, SHORT_SECONDS)


@pytest.mark.parametrize("plan", plans(), ids=lambda plan: plan.name)
def test_a_contestant_has_a_version(plan: queues.Queues) -> None:
    """Those of the standard library have none."""
    assert bool(plan.version) == bool(plan.distribution)


@pytest.mark.parametrize(
    ("plan", "workload", "reason"),
    [
        pytest.param(queues.Ipcq("mqueue"), "1MiB", "msgsize_max", marks=pytest.mark.needs("mqueue")),
        (queues.Ipcq("socketpair", serializer="raw"), "dict", "bytes"),
        (references.Pipe(), "dict", "bytes"),
        (references.SocketPair(), "dict", "bytes"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_contestant_declines_a_workload_that_it_cannot_run(plan: queues.Queues, workload: str, reason: str) -> None:
    """The exception has the reason."""
    with pytest.raises(Declined, match=reason):
        plan.sample(WORKLOADS[workload], SHORT_SECONDS)


def test_a_packet_that_no_socket_takes_is_declined() -> None:
    """The kernel has a limit."""
    with pytest.raises(Declined, match="wmem_max"), references.SocketPair().queues(replace(SMALL, size=1 << 40)):
        pass


def test_a_socket_pair_polls_until_a_packet_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """It polls only if no packet is there."""
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with sender, receiver:
        monkeypatch.setattr(references, "poll_for", lambda end, *, writing: lambda: sender.send(b"late"))
        read = references.SocketPair().reader((sender, receiver), SMALL)
        assert read.get() == b"late"


@pytest.mark.needs("socketpair")
def test_without_msgspec_a_typed_queue_is_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exception names what to install."""
    monkeypatch.setattr(queues, "find_spec", lambda _: None)
    with pytest.raises(Declined, match="pip install"), queues.Ipcq("socketpair").queues(WORKLOADS["typed"]):
        pass


@pytest.mark.needs("socketpair")
def test_a_typed_queue_moves_structs() -> None:
    """Both ends have the type."""
    pytest.importorskip("msgspec")
    plan, typed = queues.Ipcq("socketpair"), WORKLOADS["typed"]
    with plan.queues(typed) as (address,):
        reader, writer = plan.reader(address, typed), plan.writer(address, typed)
        message = plan.payloads(typed, 0).block()[0]
        writer.put(message)
        assert reader.get() == message
        writer.finish()
        reader.finish()


def test_a_base_class_is_no_contestant() -> None:
    """Each contestant has to implement every method."""
    nobody = queues.Queues()
    for call in (nobody.queues, lambda _: nobody.writer(0, SMALL), lambda _: nobody.reader(0, SMALL)):
        with pytest.raises(NotImplementedError):
            call(SMALL)


# Processes and their failures


@pytest.mark.needs("socketpair")
def test_a_sample_of_processes_has_a_figure() -> None:
    """With ipcq itself."""
    assert queues.Ipcq("socketpair").sample(SMALL, SHORT_SECONDS).value > 0


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("loses", "consumer failed: message"),
        ("doubles", "consumer failed: message"),
        ("swaps", "consumer failed: message"),
        ("damages", "consumer failed: message"),
        ("raises", "consumer failed: ZeroDivisionError"),
        ("dies", "consumer was killed by SIGKILL"),
        ("leaves", "consumer ended with exit code 0"),
    ],
)
def test_a_liar_is_a_failure(fault: str, told: str) -> None:
    """The error says what is wrong, and none of its processes is left."""
    with pytest.raises(Failed, match=told):
        liars.Liar(fault).sample(SMALL, 0.3)


@pytest.mark.parametrize("fault", ["loses", "doubles"])
def test_a_liar_among_several_is_a_failure(fault: str) -> None:
    """In a workload whose messages are numbered."""
    with pytest.raises(Failed, match=r"duplicated|reordered|lost"):
        liars.Liar(fault).sample(WORKLOADS["2P2C"], 0.2)


def test_a_stall_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the patience is over."""
    monkeypatch.setattr(sample, "PATIENCE", 3.0)
    with pytest.raises(Failed, match=r"the consumer stalled|the producer 0 stalled"):
        liars.Liar("stalls").sample(SMALL, SHORT_SECONDS)


def test_a_worker_that_does_not_end_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has reported its result, but does not exit."""
    monkeypatch.setattr(sample, "PATIENCE", 2.0)
    with pytest.raises(Failed, match="the producer 0 does not exit"):
        liars.Stayer().sample(SMALL, SHORT_SECONDS)


def test_a_worker_that_ends_badly_is_a_failure() -> None:
    """Although it has reported its result."""
    with pytest.raises(Failed, match="the producer 0 ended with exit code 3"):
        liars.Leaver().sample(SMALL, SHORT_SECONDS)


@pytest.mark.needs("socketpair")
def test_a_worker_that_cannot_be_started_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its pipe nor the workers that were started before it."""
    started = SPAWN.Process.start

    def refuse(self: Any) -> None:
        if calls:
            raise OSError("no more processes")
        calls.append(started(self))

    calls: list[Any] = []
    monkeypatch.setattr(SPAWN.Process, "start", refuse)
    with pytest.raises(OSError, match="no more"):
        queues.Ipcq("socketpair").sample(SMALL, SHORT_SECONDS)


def test_the_death_of_the_benchmark_ends_its_workers(tmp_path: Path) -> None:
    """Whatever they are waiting for."""
    script = tmp_path / "killed.py"
    script.write_text(
        "import liars, os, signal, threading, time, multiprocessing\n"
        "from ipcq._bench.workload import WORKLOADS\n"
        "def die():\n"
        "    while len(multiprocessing.active_children()) < 2: time.sleep(0.01)\n"
        "    time.sleep(1)\n"
        "    print(*(each.pid for each in multiprocessing.active_children()), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "if __name__ == '__main__':\n"
        "    threading.Thread(target=die).start()\n"
        "    liars.Liar('stalls').sample(WORKLOADS['64B'], 0.1)\n"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, env=env, check=False)
    pids = run.stdout.split()
    assert len(pids) == 2
    until = time.monotonic() + 30
    while alive := [pid for pid in pids if Path("/proc", pid).exists()]:
        assert time.monotonic() < until, alive
        time.sleep(0.01)


def test_a_message_to_a_dead_worker_is_lost() -> None:
    """The next attempt to hear from it reports its death."""
    crew = sample.Crew(Near(), SMALL, (), SHORT_SECONDS)

    def deaf(word: object) -> None:
        raise PeerDied("it does not listen", peer)

    peer: Any = SimpleNamespace(say=deaf)
    assert crew.say(peer, "go") is None


# Rounds and ratios


class Fixed:
    """A contestant with predetermined figures."""

    kind = PEER
    version = "1"

    def __init__(self, name: str, *values: Any) -> None:
        self.name = name
        self.values = list(values)

    def sample(self, workload: Workload, seconds: float) -> Sample:
        value = self.values.pop(0)
        if isinstance(value, Exception):
            raise value
        return Sample(value, 1)


def test_contestants_take_turns() -> None:
    """A B, A B, and not A A, B B."""
    seen: list[str] = []
    play([Fixed("A", 1, 2), Fixed("B", 3, 4)], SMALL, 2, 0.1, lambda number, who: seen.append(f"{number}{who.name}"))
    assert seen == ["0A", "0B", "1A", "1B"]


def test_a_contestant_that_failed_or_declined_is_not_run_again() -> None:
    """The reason is kept, with the round."""
    results = play([Fixed("A", 1, Failed("lost"), 3), Fixed("B", Declined("too large"), 2, 3)], SMALL, 3, 0.1)
    assert [(each.values, each.failed, each.declined) for each in results] == [
        ([], "round 2: lost", ""),
        ([], "", "too large"),
    ]


def test_ratios_are_paired_by_round() -> None:
    """The result is the median of the ratios, not the ratio of the medians."""
    found = ratio([10, 20, 90], [1, 10, 10], SMALL)
    assert found is not None
    assert (found.median, found.low, found.high) == (9, 2, 10)


def test_less_time_is_a_larger_ratio() -> None:
    """A ratio above 1 is better, whatever the unit."""
    found = ratio([5.0], [10.0], WORKLOADS["ping-pong"])
    assert found is not None
    assert found.median == 2


def test_a_time_of_zero_has_no_ratio() -> None:
    """With a clock that is too coarse there is no result."""
    assert ratio([0.0], [1.0], WORKLOADS["idle"]) is None


@pytest.mark.parametrize(("workload", "champion"), [("64B", "B"), ("ping-pong", "A")])
def test_the_best_is_the_fastest(workload: str, champion: str) -> None:
    """By its median."""
    found = best(play([Fixed("A", 1), Fixed("B", 2)], WORKLOADS[workload], 1, 0.1), WORKLOADS[workload], PEER)
    assert found is not None
    assert found.contestant.name == champion


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0.00"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (999.9, "1.00 k"),
        (1234.0, "1.23 k"),
        (999_700.0, "1.00 M"),
        (12_345_678.0, "12.3 M"),
    ],
)
def test_a_figure_has_three_digits(value: float | None, text: str) -> None:
    """And a letter for thousands and millions."""
    assert figure(value) == text


def test_no_ratio_is_a_dash() -> None:
    """Like an empty cell."""
    assert times(None) == "–"


def test_the_processor_has_a_name() -> None:
    """Also where the system has no such file."""
    assert machine.processor()
    assert machine.processor("/no/such/file")
