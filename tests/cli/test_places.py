"""Verbs for queues in places: a server, a directory; no verb shows the password of its URL."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import Result

import ipcq
from core.fakes import HOST, PlacedBackend, raising
from ipcq._cli.verbs import rm
from ipcq._opening import registry
from ipcq.backend import Availability, Backend, Finding, Secret, Severity
from ipcq.errors import Unsupported
from ipcq.hooks import GROUP, hookimpl

Run = Callable[..., Result]

PLACE = "placed://host:7000/3/"
CANARY = "c4n4ry"
#: The same place with credentials.
SECRET_PLACE = f"placed://user:{CANARY}@host/3"
ADDRESS = f"{SECRET_PLACE}/jobs"


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> PlacedBackend:
    """Return an installed backend with places."""
    placed = PlacedBackend(options={"shape": str, "word": Secret})

    @hookimpl
    def ipcq_backend() -> Backend:
        return placed

    module = ModuleType("ipcq_placed_fake")
    module.ipcq_backend = ipcq_backend
    monkeypatch.setitem(sys.modules, module.__name__, module)
    offers = {**registry._offers(tuple(sys.path)), "placed": EntryPoint("placed", module.__name__, GROUP)}
    monkeypatch.setattr(registry, "_offers", lambda _: offers)
    monkeypatch.setattr(registry, "_plugins", registry._plugins.__wrapped__)
    monkeypatch.setattr(registry, "_load", cache(registry._load.__wrapped__))
    return placed


@pytest.fixture
def jobs(placed: PlacedBackend) -> Any:
    """Return a queue with one message in a place, as the verbs find it."""
    with ipcq.open(ADDRESS, serializer="msgpack") as queue:
        queue.put("job")
        placed.given.clear()
        yield queue


@pytest.mark.parametrize("place", [PLACE, "placed://host/3"])
def test_the_queues_of_a_place_are_listed(run: Run, jobs: Any, place: str) -> None:
    """The name of their backend is the text of the place."""
    ipcq.open("/elsewhere", "placed").close()
    assert run("ls", place).stdout == f"/jobs\t{PLACE}\t1\t8\t8192\t0600\n"


def test_a_place_may_follow_backend(run: Run, jobs: Any) -> None:
    """Where the name of a backend may."""
    assert json.loads(run("ls", "--json", "--backend", PLACE).stdout)["backend"] == PLACE


@pytest.mark.parametrize("verb", [["ls"], ["top", "--once"]])
def test_a_place_and_another_backend_are_refused(run: Run, placed: PlacedBackend, verb: list[str]) -> None:
    """A place names its backend."""
    result = run(*verb, PLACE, "--backend", "shm")
    assert (result.exit_code, "leave out --backend" in result.stderr) == (2, True)


def test_a_place_that_cannot_be_listed_is_an_error(run: Run, jobs: Any, placed: PlacedBackend) -> None:
    """An empty list would be wrong."""
    placed.bound[PLACE].on_names = raising(Unsupported("the server is away"))
    result = run("ls", PLACE)
    assert (result.exit_code, result.stderr) == (1, f"ipcq: backend '{PLACE}': the server is away\n")


def test_each_queue_of_a_place_is_opened_with_the_credentials(run: Run, jobs: Any, placed: PlacedBackend) -> None:
    """A listing has none, so they come from the command line."""
    run("ls", SECRET_PLACE)
    assert [place.password for place in placed.given] == [Secret(CANARY)] * 2


def test_queues_of_the_preferred_place_are_opened_with_its_credentials(
    run: Run, jobs: Any, placed: PlacedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come from the variable."""
    monkeypatch.setenv("IPCQ_BACKEND", SECRET_PLACE)
    assert run("ls").stdout.startswith("/jobs\t")
    assert [place.password for place in placed.given] == [Secret(CANARY)] * 2


def test_top_shows_the_queues_of_a_place(run: Run, jobs: Any) -> None:
    """And no others."""
    result = run("top", "--once", "--json", "--interval", "0.01", PLACE)
    assert [json.loads(line)["name"] for line in result.stdout.splitlines()] == ["/jobs"]


def test_stat_shows_place_and_options(run: Run, placed: PlacedBackend) -> None:
    """By a URL."""
    with ipcq.open(f"{PLACE}jobs", shape="round"):
        facts = json.loads(run("stat", "--json", f"{PLACE}jobs").stdout)
    assert (facts["backend"], facts["attributes"]["options"]) == (PLACE, {"shape": "round"})


def test_stat_shows_options_in_its_table(run: Run, placed: PlacedBackend) -> None:
    """One to a line."""
    with ipcq.open(f"{PLACE}jobs", shape="round"):
        assert "attributes.options.shape\tround\n" in run("stat", f"{PLACE}jobs").stdout


def test_doctor_checks_one_place(run: Run, jobs: Any, placed: PlacedBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the findings of its backend about that place."""
    finding = Finding(severity=Severity.NOTE, text="the disk is full", fix="rm /var/log/*")
    monkeypatch.setattr(placed.bound[PLACE], "findings", lambda: [finding])
    result = run("doctor", PLACE)
    expected = f"ok\tbackend {PLACE}\tusable\t-\nnote\tbackend {PLACE}\tthe disk is full\trm /var/log/*\n"
    assert (result.exit_code, result.stdout) == (0, expected)


def test_doctor_reports_a_place_that_cannot_be_listed(run: Run, jobs: Any, placed: PlacedBackend) -> None:
    """Its queues may have dead letters."""
    placed.bound[PLACE].on_names = raising(Unsupported("the server is away"))
    result = run("doctor", "--quiet", PLACE)
    words = f"error\tbackend {PLACE}\tbackend '{PLACE}': the server is away\t-\n"
    assert (result.exit_code, result.stdout) == (1, words)


def test_doctor_finds_dead_letters_in_a_place(
    run: Run, jobs: Any, placed: PlacedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command names the place, without credentials."""
    stats = replace(jobs.stats(), dead=2)
    placed.bound[PLACE].capabilities = replace(HOST, leases=True)
    monkeypatch.setattr(type(jobs._channel), "stats", lambda _: stats)
    monkeypatch.setattr(type(jobs._channel), "held", lambda *_: [], raising=False)
    assert f"ipcq dead /jobs --backend {PLACE}   #" in run("doctor", SECRET_PLACE).stdout


@pytest.mark.parametrize(
    ("usable", "words"),
    [
        (Availability.no("the library is missing"), "IPCQ_BACKEND: backend 'placed://host:7000/3/': the library"),
        (Availability.yes(), ""),
    ],
)
def test_doctor_checks_the_preferred_place(
    run: Run, jobs: Any, placed: PlacedBackend, monkeypatch: pytest.MonkeyPatch, usable: Availability, words: str
) -> None:
    """Every queue without a backend is there."""
    monkeypatch.setenv("IPCQ_BACKEND", SECRET_PLACE)
    placed.bound[PLACE].availability = usable
    lines = [line for line in run("doctor").stdout.splitlines() if line.startswith("error\tenvironment\t")]
    assert [words in line for line in lines] == [True] * bool(words)


def test_config_shows_the_preferred_place(run: Run, placed: PlacedBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials."""
    monkeypatch.setenv("IPCQ_BACKEND", SECRET_PLACE)
    output = run("config").output
    assert ("place of all queues without a backend\t" in output, CANARY in output) == (True, False)


def test_the_question_before_a_removal_has_no_password(run: Run, jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """C42: it names the queue without."""
    monkeypatch.setattr(rm, "stdin_is_terminal", lambda: True)
    output = run("rm", ADDRESS, input="n\n").output
    assert ("Remove queue placed://host/3/jobs on" in output, CANARY in output) == (True, False)


@pytest.mark.parametrize("verb", ["move", "copy"])
def test_messages_go_from_one_place_to_another(
    run: Run, jobs: Any, placed: PlacedBackend, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same name in two places is two queues."""
    monkeypatch.chdir(tmp_path)
    result = run(verb, ADDRESS, f"placed://user:{CANARY}@host/4/jobs")
    assert (result.exit_code, len(placed.bound["placed://host:7000/4/"].queues["/jobs"].messages)) == (0, 1)
    assert jobs.qsize() == (verb == "copy")


@pytest.mark.parametrize(("verb", "target"), [("move", "placed://host/4/jobs"), ("copy", "placed://host/3/jobs")])
def test_the_command_that_recovers_names_the_place(
    run: Run, jobs: Any, verb: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without credentials, so that it can be copied."""
    monkeypatch.chdir(tmp_path)
    result = run(verb, ADDRESS, f"placed://user:{CANARY}@host/4/jobs")
    assert f"`ipcq load {target} " in result.stderr


COMMANDS = [
    ["ls", SECRET_PLACE],
    ["ls", "--json", SECRET_PLACE],
    ["top", "--once", "--interval", "0.01", SECRET_PLACE],
    ["doctor", SECRET_PLACE],
    ["stat", ADDRESS],
    ["stat", "--json", ADDRESS],
    ["put", ADDRESS, "x"],
    ["get", ADDRESS],
    ["get", "--json", ADDRESS],
    ["get", "--timeout", "0", f"{SECRET_PLACE}/missing"],
    ["create", f"{SECRET_PLACE}/new"],
    ["create", "/new", "--backend", SECRET_PLACE],
    ["create", f"{SECRET_PLACE}/new?word={CANARY}&max_messages=4"],
    ["create", f"{SECRET_PLACE}/new?word={CANARY}&shape=round&colour=red"],
    ["rm", "--yes", ADDRESS],
    ["rm", "--yes", "--json", ADDRESS],
    ["rm", ADDRESS],
    ["rm", "--yes", f"{SECRET_PLACE}/missing"],
    ["shutdown", ADDRESS],
    ["shutdown", "--json", ADDRESS],
    ["move", ADDRESS, f"placed://user:{CANARY}@host/4/jobs"],
    ["move", "--json", ADDRESS, f"placed://user:{CANARY}@host/4/jobs"],
    ["move", ADDRESS, ADDRESS],
    ["copy", ADDRESS, f"placed://user:{CANARY}@host/4/jobs"],
    ["drain", ADDRESS, "messages"],
    ["drain", ADDRESS, "-"],
    ["load", ADDRESS, "-"],
    ["dead", ADDRESS],
    ["tail", "--count", "1", ADDRESS],
    ["peek", ADDRESS],
    ["--traceback", "peek", ADDRESS],
    ["--traceback", "get", f"placed://user:{CANARY}@host/x/jobs"],
    ["stress", "--backend", SECRET_PLACE, "--mode", "nonsense"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command).replace(CANARY, "***"))
def test_no_verb_shows_the_password(
    run: Run, jobs: Any, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C42: neither in its output nor in a file that it leaves, whether it succeeds or fails."""
    monkeypatch.chdir(tmp_path)
    result = run(*command, input="n\n")
    files = "".join(path.name + path.read_text() for path in tmp_path.iterdir())
    assert CANARY not in result.output + result.stderr + files
