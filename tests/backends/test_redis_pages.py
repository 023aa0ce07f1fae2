"""The programs of the documentation run on each engine if only the address of the queue changes."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import ipcq
from backends.redis_server import RedisProcess, running
from ipcq.testing.processes import fresh_name
from processes.needs import usable

PAGES = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: Seconds for one command.
PATIENCE = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["shm", "sqlite", "redis"])
def place(request: pytest.FixtureRequest, server: RedisProcess, tmp_path: Path) -> str:
    """Return what stands before the names of queues in their URLs."""
    return {"shm": "shm:///", "sqlite": f"sqlite://{tmp_path}/", "redis": server.url}[usable(request.param)]


@pytest.fixture
def urls(place: str) -> Iterator[dict[str, str]]:
    """Return the URLs of the queues of the pages, by their names there; unlink them after the test."""
    urls = {name: f"{place}{fresh_name(name[1:])}" for name in ("/jobs", "/results")}
    yield urls
    for url in urls.values():
        with suppress(ipcq.QueueNotFound):
            ipcq.unlink(url)


def blocks(page: str, section: str) -> list[tuple[str, str]]:
    """Return the examples of a page up to the end of a section, with their languages."""
    text = (PAGES / page).read_text(encoding="utf-8")
    before, heading, after = text.partition(f"\n## {section}\n")
    assert heading
    return BLOCK.findall(before + after.partition("\n## ")[0])


def moved(text: str, urls: dict[str, str]) -> str:
    """Return an example with URLs in place of names and backends."""
    for name, url in urls.items():
        text = re.sub(rf'"{name}"(, "memory")?', f'"{url}"', text)
        text = re.sub(rf"(?<= ){name}\b", url, text)
    return text


def run(examples: list[tuple[str, str]]) -> dict[str, Any]:
    """Run the examples as one program and commands in between; return the program's variables."""
    variables: dict[str, Any] = {}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    for language, text in examples:
        if language == "python":
            exec(text, variables)
            continue
        for command in re.findall(r"^\$ (.*)", text, re.MULTILINE):
            subprocess.run(command, shell=True, env={**os.environ, "PATH": path}, check=True, timeout=PATIENCE)
    return variables


def test_the_tutorial_runs_on_each_engine(urls: dict[str, str]) -> None:
    """Its worker, the errors before it, and the commands."""
    examples = blocks("tutorial.md", "Clean up")
    assert any("for number in jobs:" in text for _, text in examples)
    run([(language, moved(text, urls)) for language, text in examples])


def test_the_worker_with_leases_runs_on_each_engine(urls: dict[str, str]) -> None:
    """It retries one of its jobs, which becomes a dead letter."""
    variables = run([(language, moved(text, urls)) for language, text in blocks("how-to/run-jobs.md", "A worker")])
    with variables["jobs"] as jobs:
        assert ipcq.exists(urls["/jobs"])
        assert jobs.stats().dead == 1
