"""``ipcq config``, ``ipcq version`` and ``ipcq completion``: about the command itself."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import ipcq
from ipcq._cli import _options
from ipcq._cli.verbs import completion, version
from ipcq._process import private_directory

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]


def settings(run: Run) -> dict[str, tuple[Any, str]]:
    found = [json.loads(line) for line in run("config", "--json").stdout.splitlines()]
    return {each["name"]: (each["value"], each["source"]) for each in found}


def test_variable_that_is_set_is_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its source."""
    monkeypatch.setenv("IPCQ_BACKEND", "some")
    assert settings(run)["IPCQ_BACKEND"] == ("some", "environment")


def test_variable_that_is_not_set_is_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that users learn that it exists."""
    monkeypatch.delenv("IPCQ_STRICT_PLUGINS", raising=False)
    assert settings(run)["IPCQ_STRICT_PLUGINS"] == (None, "not set")


def test_backends_for_creation_are_in_order_of_rank(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that reach other processes, the best first."""
    monkeypatch.delenv("IPCQ_BACKEND", raising=False)
    order, source = settings(run)["backend auto creates on"]
    assert (order[0], "memory" in order, source) == (ipcq.backends()[0].name, False, "rank of the backends")


def test_backends_for_creation_are_persistent_ones(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as there is a persistent one."""
    monkeypatch.delenv("IPCQ_BACKEND", raising=False)
    able = ipcq.Capabilities(scope=ipcq.Scope.HOST, persistence=ipcq.Persistence.KERNEL)
    keeps = replace(ipcq.backends()[0], name="keeps", usable=True, rank=1, capabilities=able)
    forgets = replace(keeps, name="forgets", rank=2, capabilities=replace(able, persistence=ipcq.Persistence.HOLDERS))
    orders = []
    for infos in ([forgets, keeps], [forgets]):
        monkeypatch.setattr(ipcq, "backends", lambda infos=infos: infos)
        orders.append(settings(run)["backend auto creates on"][0])
    assert orders == [["keeps"], ["forgets"]]


def test_backend_for_creation_can_be_chosen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment."""
    monkeypatch.setenv("IPCQ_BACKEND", "memory")
    assert settings(run)["backend auto creates on"] == (["memory"], "environment: IPCQ_BACKEND")


def test_path_of_the_name_lock_is_shown(run: Run) -> None:
    """It is the one that opening uses."""
    assert settings(run)["name lock"][0] == [f"{place}/names.lock" for place in private_directory.private_places()]


def test_defaults_are_those_of_open(run: Run) -> None:
    """The mode is octal, as everywhere."""
    found = settings(run)
    assert [found[f"default {each}"][0] for each in ("mode", "serializer", "open_timeout")] == ["0600", "msgpack", 10.0]


@pytest.mark.needs("memory")
def test_backends_are_shown_with_their_distribution(run: Run) -> None:
    """With whether it is usable, or why not."""
    assert settings(run)["backend memory"] == ("usable", "ipcq-queue")


def test_config_is_tab_separated_in_a_pipe(run: Run) -> None:
    """As every table."""
    assert "default lifetime\tpersistent\tbuilt in\n" in run("config").stdout


def test_version_is_one_line(run: Run) -> None:
    """Of the installed distribution."""
    assert run("version").stdout.split()[0] == "ipcq"


@pytest.mark.needs("memory")
def test_verbose_version_has_the_facts_for_a_bug_report(run: Run) -> None:
    """Python, system, libraries, backends."""
    keys = {line.split("\t")[0] for line in run("version", "--verbose").stdout.splitlines()}
    assert {"python", "kernel", "platform", "libraries.click", "libraries.posix_ipc", "backends.memory"} <= keys


def test_version_in_json_is_verbose(run: Run) -> None:
    """One object."""
    told = json.loads(run("version", "--json").stdout)
    assert told["python"].endswith(f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--version",), "ipcq of an unknown version: its metadata is missing\n"),
        (("version",), "ipcq of an unknown version: its metadata is missing\n"),
        (("version", "--verbose"), "ipcq\t-\n"),
    ],
)
def test_version_without_metadata_is_unknown(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: str
) -> None:
    """For example in an archive that contains only the packages."""
    monkeypatch.setattr(version, "DISTRIBUTION", "no-such-distribution")
    assert told in run(*arguments).stdout


def test_library_that_is_not_installed_has_no_version() -> None:
    """It is an extra."""
    assert version._installed("no-such-distribution") is None


@pytest.mark.parametrize("shell", list(completion.SHELLS))
def test_script_of_each_shell_calls_ipcq(run: Run, shell: str) -> None:
    """Whatever else it contains."""
    assert "_IPCQ_COMPLETE" in run("completion", shell).stdout


def test_shell_can_be_left_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default is the shell in use."""
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert "complete --no-files --command ipcq" in run("completion").stdout


@pytest.mark.parametrize("shell", ["/bin/tcsh", ""])
def test_shell_that_is_not_known_is_2(run: Run, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    """The error lists the known shells."""
    monkeypatch.setenv("SHELL", shell)
    assert run("completion").exit_code == 2


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
def test_bash_takes_the_script(program: Callable[..., Any], tmp_path: Path) -> None:
    """And completes a verb by it."""
    script = tmp_path / "script"
    script.write_text(program("completion", "bash").stdout)
    tool = tmp_path / "ipcq"
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ipcq "$@"\n')
    tool.chmod(0o755)
    told = subprocess.run(
        [
            "bash",
            "-c",
            f'source "{script}"; COMP_WORDS=(ipcq shut); COMP_CWORD=1; _ipcq_completion ipcq; echo "$COMPREPLY"',
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        check=False,
    )
    assert told.stdout == "shutdown\n"


def test_backends_are_completed() -> None:
    """Auto is one of them."""
    assert _options.complete_backend(None, None, "") == ["auto", *(each.name for each in ipcq.backends())]


@pytest.mark.needs("memory")
def test_backends_are_completed_by_their_beginning() -> None:
    """Others do not match."""
    assert _options.complete_backend(None, None, "mem") == ["memory"]


@pytest.mark.needs("memory")
@pytest.mark.parametrize("verb", ["peek", "drain", "shutdown", "create"])
def test_names_and_backends_are_completed_after_each_verb(program: Callable[..., Any], verb: str) -> None:
    """The protocol of bash, end to end."""
    words = {"COMP_WORDS": f"ipcq {verb} --backend mem", "COMP_CWORD": "3"}
    told = program(env={**os.environ, "_IPCQ_COMPLETE": "bash_complete", **words}).stdout
    assert told == "plain,memory\n"
