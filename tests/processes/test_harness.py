"""The test harness itself: it notices every failure that it should."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ipcq
from ipcq.testing import processes
from ipcq.testing.oracle import Ledger, Tag, Verdict, judge
from ipcq.testing.processes import SPAWN, Hang, PeerDied, Peers, bound, hear, listen, say, until

# A history: the entries of producers and consumers, with instants.
PUT, TAKE, EMPTY = "put", "take", "empty"


def judge_history(directory: Path, *events: tuple[object, ...]) -> Verdict:
    """Judge a history: ("put", number, begun, stored), ("take", number, asked, taken), ("empty", since, till)."""
    producer = "".join(
        f"? 0 {number} {begun}\n" + ("" if stored is None else f"+ 0 {number} {stored}\n")
        for kind, number, begun, stored in (event for event in events if event[0] == PUT)
    )
    consumer = "".join(
        f"< 0 {event[1]} {event[2]} {event[3]}\n" if event[0] == TAKE else f"0 {event[1]} {event[2]}\n"
        for event in events
        if event[0] != PUT
    )
    (directory / "producer").write_text(producer)
    (directory / "consumer").write_text(consumer)
    return judge([directory / "producer"], [directory / "consumer"])


def test_a_history_of_one_queue_is_sound(tmp_path: Path) -> None:
    """The checker accepts what a queue can do, including overlapping calls."""
    verdict = judge_history(
        tmp_path,
        (PUT, 0, 0, 10),
        (PUT, 1, 5, 15),
        (PUT, 2, 20, 30),
        (TAKE, 1, 0, 18),
        (TAKE, 0, 0, 19),
        (EMPTY, 16, 25),
        (TAKE, 2, 21, 40),
    )
    assert verdict.sound and not verdict.lost
    assert (verdict.accepted, verdict.received, verdict.unknown, verdict.refused) == (3, 3, 0, 0)


def test_a_lost_message_is_noticed(tmp_path: Path) -> None:
    """A put that returned and whose message nobody took counts as lost."""
    assert judge_history(tmp_path, (PUT, 0, 0, 1)).lost == [Tag(0, 0)]


def test_a_put_interrupted_by_a_kill_is_not_lost(tmp_path: Path) -> None:
    """A put with only its intention entered counts as unknown."""
    verdict = judge_history(tmp_path, (PUT, 0, 0, None))
    assert (verdict.lost, verdict.unknown) == ([], 1)


def test_a_duplicated_message_is_noticed(tmp_path: Path) -> None:
    """A message taken twice counts as duplicated."""
    assert judge_history(tmp_path, (PUT, 0, 0, 1), (TAKE, 0, 2, 3), (TAKE, 0, 4, 5)).duplicated == [Tag(0, 0)]


def test_an_invented_message_is_noticed(tmp_path: Path) -> None:
    """A message taken that nobody put counts as invented."""
    assert judge_history(tmp_path, (TAKE, 7, 2, 3)).invented == [Tag(0, 7)]


def test_a_message_that_overtakes_is_noticed(tmp_path: Path) -> None:
    """A pair whose puts and gets do not overlap and are in opposite orders counts as reordered."""
    verdict = judge_history(tmp_path, (PUT, 0, 0, 1), (PUT, 1, 2, 3), (TAKE, 1, 4, 5), (TAKE, 0, 6, 7))
    assert verdict.reordered == [(Tag(0, 0), Tag(0, 1))]


def test_a_get_that_misses_a_message_is_noticed(tmp_path: Path) -> None:
    """A get that finds nothing while messages were certainly in the queue counts as missed."""
    verdict = judge_history(tmp_path, (PUT, 0, 0, 1), (PUT, 1, 2, 3), (TAKE, 0, 5, 9), (TAKE, 1, 10, 11), (EMPTY, 4, 8))
    assert verdict.missed == 1


def test_a_delivered_message_whose_put_raised_is_noticed(tmp_path: Path) -> None:
    """A message that was taken although its put raised counts as invented."""
    gave, took = Ledger(str(tmp_path / "p")), Ledger(str(tmp_path / "c"))
    gave.intend(Tag(1, 2))
    gave.refused(ipcq.QueueFull(), Tag(1, 2))
    took.took(0, Tag(1, 2))
    for ledger in (gave, took):
        ledger.close()
    assert judge([tmp_path / "p"], [tmp_path / "c"]).invented == [Tag(1, 2)]


def test_a_get_that_found_nothing_is_recorded(tmp_path: Path) -> None:
    """A get that found nothing while a message was there counts as missed."""
    gave, took = Ledger(str(tmp_path / "p")), Ledger(str(tmp_path / "c"))
    gave.intend(Tag(0, 0))
    gave.accepted(Tag(0, 0))
    took.empty(time.monotonic_ns())
    took.took(time.monotonic_ns(), Tag(0, 0))
    for ledger in (gave, took):
        ledger.close()
    assert judge([tmp_path / "p"], [tmp_path / "c"]).missed == 1


def test_an_entry_truncated_by_a_kill_does_not_count(tmp_path: Path) -> None:
    """A kill in the middle of a write leaves a part of the last entry."""
    (tmp_path / "p").write_text("? 1 0 10\n+ 1 0 20\n? 1 1 30\n+ 1 1")
    (tmp_path / "c").write_text("< 1 0 15 25\n< 1 1 30 4")
    verdict = judge([tmp_path / "p"], [tmp_path / "c"])
    assert verdict.sound and (verdict.accepted, verdict.unknown, verdict.received) == (1, 1, 1)


def test_a_torn_message_is_noticed(tmp_path: Path) -> None:
    """A message that is not whole is entered as torn, and the verdict reports it."""
    whole = Tag(3, 4).message(100)
    assert Tag.of(whole) == Tag(3, 4)
    for torn in (whole[:-1], whole[:50] + b"x" + whole[51:], b"", 5):
        with pytest.raises(ValueError, match="not a whole message"):
            Tag.of(torn)
    ledger = Ledger(str(tmp_path / "c"))
    ledger.torn(b"half")
    ledger.close()
    verdict = judge([], [tmp_path / "c"])
    assert verdict.torn == ["b'half'"] and not verdict.sound
    assert "1 torn" in str(verdict)


@pytest.mark.parametrize("size", [0, 20, 64, 511])
def test_a_message_has_the_size_that_was_asked_for(size: int) -> None:
    """Messages are at least as large as asked for, and hardly larger."""
    assert size <= len(Tag(123, 456).message(size)) <= max(size, 20)


def test_no_failure_in_so_many_trials_bounds_the_rate() -> None:
    """The printed bound is three divided by the number of trials."""
    assert (bound(3000), bound(0)) == (0.001, float("inf"))


# Peers


def echo() -> None:
    """Repeat each message that arrives."""
    while True:
        say(hear())


def sleep() -> None:
    """Report that it sleeps, and sleep forever."""
    say("asleep")
    time.sleep(1000)


def fail() -> None:
    """Raise at once."""
    raise ValueError("on purpose")


@pytest.mark.parametrize("method", ["spawn", "fork", "inherit"])
def test_a_peer_answers(method: str, peers: Peers) -> None:
    """Every kind of peer is another process, and messages go both ways."""
    peer = getattr(peers, method)(echo)
    peer.say({"a": [1, None]})
    assert peer.hear() == {"a": [1, None]}
    assert peer.pid != os.getpid()


@pytest.mark.parametrize("method", ["spawn", "fork", "inherit"])
def test_a_peer_that_fails_shows_its_traceback(method: str, peers: Peers) -> None:
    """Waiting for a peer that failed raises an error with its traceback."""
    with pytest.raises(PeerDied, match="on purpose"):
        getattr(peers, method)(fail).done()


@pytest.mark.parametrize("method", ["spawn", "fork", "inherit"])
def test_a_peer_that_ends_without_output_is_noticed(method: str, peers: Peers) -> None:
    """Waiting for a message of a peer that failed raises an error with its traceback."""
    with pytest.raises(PeerDied, match="on purpose"):
        getattr(peers, method)(fail).hear()


@pytest.mark.parametrize("method", ["spawn", "fork", "inherit"])
@pytest.mark.parametrize("wait", [lambda peer: peer.wait(0.2), lambda peer: peer.hear(0.2)])
def test_a_peer_that_hangs_shows_its_stack(method: str, wait: Callable[[object], object], peers: Peers) -> None:
    """Waiting for a peer that hangs ends with its stack."""
    peer = getattr(peers, method)(sleep)
    peer.hear()
    with pytest.raises(Hang, match="in sleep"):
        wait(peer)


@pytest.mark.parametrize("method", ["spawn", "fork", "inherit"])
def test_a_peer_is_killed_stopped_and_resumed(method: str, peers: Peers) -> None:
    """A peer does not run between stop and resume, and its exit code shows the signal that killed it."""
    peer = getattr(peers, method)(sleep)
    peer.hear()
    until(peer.asleep)
    peer.stop()
    assert peer.state() == "T"
    peer.resume()
    until(peer.asleep)
    assert peer.kill() == -signal.SIGKILL
    assert peer.wait() == -signal.SIGKILL
    assert peer.state() == "X"
    peer.send(signal.SIGKILL)
    with pytest.raises(PeerDied):
        peer.say("hello")


def put_into(queue: Any) -> None:
    """Put into a queue that was inherited."""
    queue.put("inherited")
    queue.close()
    queue.join_thread()


def test_a_queue_without_a_name_can_be_inherited(peers: Peers) -> None:
    """Nothing else leads to it."""
    queue = SPAWN.Queue()
    peer = peers.inherit(put_into, queue)
    assert queue.get(timeout=60) == "inherited"
    peer.done()
    queue.close()


def start_a_sleeper(place: str) -> None:
    """Start a peer, report its process id, and wait to be killed."""
    with Peers(patience=None, seed=0, directory=Path(place)) as mine:
        peer = mine.inherit(sleep)
        peer.hear()
        say(peer.pid)
        hear()


def test_a_peer_that_inherits_ends_with_its_parent(peers: Peers) -> None:
    """Although the parent was killed and could not end it."""
    parent = peers.spawn(start_a_sleeper, str(peers.directory))
    orphan = parent.hear()
    parent.kill()
    until(lambda: processes.state_of(orphan) in "XZ", 30, "the end of the orphan")


def test_a_signal_in_the_middle_of_a_start_is_delivered_after_it() -> None:
    """In whichever thread it arrives."""
    with pytest.raises(KeyboardInterrupt), processes._signals_deferred():
        thread = threading.Thread(target=lambda: signal.raise_signal(signal.SIGINT))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        thread.start()
        thread.join()
        reached = True
    assert reached


def test_listen_returns_the_peer_that_spoke(peers: Peers) -> None:
    """Whichever of several peers it is."""
    one, other = peers.fork(echo), peers.fork(echo)
    other.say("hello")
    assert listen([one, other], 30) == [(other, "hello")]


def test_listen_returns_a_message_in_parts_as_a_whole(peers: Peers) -> None:
    """A long report arrives in many parts."""
    peer = peers.fork(echo)
    told = ["x" * 1000] * 1000
    peer.say(told)
    assert listen([peer], 30) == [(peer, told)]


def test_listen_times_out(peers: Peers) -> None:
    """Then the result is empty."""
    assert listen([peers.fork(echo)], 0.01) == []


def test_a_death_among_several_is_noticed(peers: Peers) -> None:
    """The error has the peer and the signal that killed it."""
    one, other = peers.fork(echo), peers.fork(echo)
    other.send(signal.SIGKILL)
    with pytest.raises(PeerDied) as death:
        listen([one, other], 30)
    assert (death.value.peer, other.death()) == (other, "was killed by SIGKILL")


def test_a_death_is_described_in_one_line(peers: Peers) -> None:
    """It includes the last line that the peer wrote; a live peer has none."""
    peer = peers.spawn(fail)
    assert peer.death() == "closed its connection but still runs"
    peer.wait()
    assert peer.death() == "ended with exit code 1: ValueError: on purpose"


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_ctrl_c_on_a_terminal_is_not_for_peers(method: str, peers: Peers) -> None:
    """The terminal sends it to the foreground process group, and peers are in another one."""
    peer = getattr(peers, method)(sleep)
    assert os.getpgid(peer.pid) != os.getpgrp()


def test_the_watchdog_ends_a_group_that_waits_for_a_peer() -> None:
    """When the group's patience is over, the failure shows its peers' stacks."""
    with pytest.raises(Hang, match="in sleep"), Peers(patience=3.0) as peers:
        peers.fork(sleep).hear()
        peers.spawn(sleep).wait(30)


def test_the_watchdog_ends_a_test_that_waits_for_something_else() -> None:
    """If the test itself hangs, the failure shows its stack."""
    with pytest.raises(Hang, match="test_the_watchdog_ends_a_test_that_waits"), Peers(patience=0.5):
        time.sleep(30)


def test_the_watchdog_of_a_thread_shows_its_stack(tmp_path: Path) -> None:
    """Only the main thread can be interrupted, so the test fails at its end, with that thread's stack."""
    told: list[str] = []

    def hang() -> None:
        try:
            with Peers(patience=0.1, directory=tmp_path):
                time.sleep(3.5)
        except Hang as hang:
            told.append(str(hang))

    thread = threading.Thread(target=hang)
    thread.start()
    thread.join()
    assert len(told) == 1 and "test_harness.py" in told[0]
    assert tmp_path.exists()


def test_a_group_can_be_interrupted() -> None:
    """Ctrl-C raises KeyboardInterrupt as before."""
    with pytest.raises(KeyboardInterrupt), Peers():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)


def test_a_group_ignores_signals_that_were_ignored_before() -> None:
    """A program that ignores Ctrl-C still ignores it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Peers() as peers:
            os.kill(os.getpid(), signal.SIGINT)
            assert not peers.hang
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_missing_output_of_a_peer_is_reported(peers: Peers) -> None:
    """The error of a peer whose output is gone says so."""
    peer = peers.spawn(sleep)
    peer.hear()
    peer.errors.unlink()
    peer.kill()
    assert "cannot be read" in peer.stacks()


def test_a_group_leaves_no_process_behind() -> None:
    """The peers of a group end with it, whatever they do."""
    with Peers() as peers:
        processes = [peers.spawn(sleep), peers.fork(sleep)]
        for peer in processes:
            peer.hear()
    assert not any(Path(f"/proc/{peer.pid}").exists() for peer in processes)


def test_waiting_for_an_event_that_never_comes_is_a_hang() -> None:
    """`until` gives up in time."""
    with pytest.raises(Hang, match="the miracle did not happen"):
        until(lambda: False, 0.01, "the miracle")


def test_a_seed_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment fixes the seed of a group."""
    monkeypatch.setenv("IPCQ_TEST_SEED", "7")
    with Peers() as first, Peers() as second:
        assert first.seed == 7
        assert first.random.random() == second.random.random()


def wait_for_word(address: str) -> None:
    say("here")
    hear()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the system has no /proc with command lines")
def test_the_arguments_of_a_program_are_in_no_command_line() -> None:
    """C42: other users can read command lines, and an address may have a password."""
    with Peers(patience=30.0, seed=0) as peers:
        program = peers.spawn(wait_for_word, "redis://:c4n4ry@host/jobs")
        script = peers.script("from ipcq.testing._program import hear, say; say('here'); hear()", "c4n4ry")
        for peer in (program, script):
            assert peer.hear() == "here"
            assert b"c4n4ry" not in Path(f"/proc/{peer.pid}/cmdline").read_bytes()
            peer.say("end")
            peer.done()
