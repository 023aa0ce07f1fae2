"""The findings of mqueue for `ipcq doctor`."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ipcq.backend import Finding, Severity
from ipcq_mqueue import MqueueBackend, _limits

resource = pytest.importorskip("resource", reason="could not import 'resource', which only POSIX has")
_findings = pytest.importorskip("ipcq_mqueue._findings")


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Simulate an unprivileged user and a kernel with large limits, which a test may change."""
    found = {"msg_max": 100, "msgsize_max": 65536, "queues_max": 10, "msg_default": 10, "msgsize_default": 8192}
    monkeypatch.setattr(_limits, "privileged", lambda: False)
    monkeypatch.setattr(_limits, "setting", lambda name, otherwise: found[name])
    limit(monkeypatch, resource.RLIM_INFINITY)
    return found


def limit(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (most, most))


@pytest.fixture
def queues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that creates files as the mqueue file system shows queues: name, mode, size."""

    def queues(*names: str, mode: int = 0o600, size: int = 0) -> None:
        for name in names:
            (tmp_path / name).write_text(f"QSIZE:{size:<10} NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n")
            (tmp_path / name).chmod(mode)

    return queues


def found(place: Path | None) -> list[Finding]:
    return list(_findings.findings(None if place is None else str(place)))


def test_a_well_set_up_machine_has_no_finding(settings: dict[str, int], tmp_path: Path) -> None:
    """doctor reports nothing then."""
    assert found(tmp_path) == []


def test_the_backend_returns_findings(settings: dict[str, int]) -> None:
    """It returns all of them as a list."""
    assert all(isinstance(each, Finding) for each in MqueueBackend().findings())


def test_an_unmounted_file_system_is_a_note(settings: dict[str, int]) -> None:
    """The fix is the command that mounts it."""
    assert [(each.severity, each.fix) for each in found(None)] == [(Severity.NOTE, _limits.MOUNT)]


@pytest.mark.parametrize("setting", ["msg_max", "msgsize_max"])
def test_small_limits_of_a_queue_are_a_finding(settings: dict[str, int], tmp_path: Path, setting: str) -> None:
    """A limit at the kernel's default is reported."""
    settings[setting] = 10
    assert f"({setting})" in found(tmp_path)[0].text


def test_a_privileged_user_has_no_finding_about_limits(
    settings: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits do not apply to a privileged user."""
    settings["msg_max"] = 10
    monkeypatch.setattr(_limits, "privileged", lambda: True)
    assert found(tmp_path) == []


def test_the_budget_of_a_user_is_reported_as_a_number_of_queues(
    settings: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C24: 819,200 bytes are nine queues of ten messages of 8 KiB."""
    limit(monkeypatch, 819_200)
    assert found(tmp_path)[0].text.endswith("there is space for 9")


def test_a_budget_without_room_is_a_warning(
    settings: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be created without smaller limits."""
    limit(monkeypatch, 1000)
    assert [each.severity for each in found(tmp_path)] == [Severity.WARNING]


def test_a_large_budget_is_no_finding(
    settings: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The administrator has already raised it."""
    limit(monkeypatch, 10_000_000)
    assert found(tmp_path) == []


def test_nearly_as_many_queues_as_the_limit_are_a_warning(
    settings: dict[str, int], tmp_path: Path, queues: Callable[..., None]
) -> None:
    """The text has the number of queues and the limit."""
    queues(*"abcdefghi")
    assert [each.text for each in found(tmp_path)] == ["there are 9 queues, and the limit is 10 (queues_max)"]


def test_queues_that_are_shut_down_and_empty_are_left_over(
    settings: dict[str, int], tmp_path: Path, queues: Callable[..., None]
) -> None:
    """The fix removes them, whatever their names are."""
    queues("a", "b c", mode=0o1600)
    assert [each.fix for each in found(tmp_path)] == ["ipcq rm --yes /a '/b c'"]


def test_many_left_over_queues_are_named_in_part(
    settings: dict[str, int], tmp_path: Path, queues: Callable[..., None]
) -> None:
    """The line stays short."""
    queues(*"abcdef", mode=0o1600)
    assert found(tmp_path)[0].fix == "ipcq rm --yes /a /b /c /d /e   # and others"


def test_a_queue_that_can_be_drained_is_not_left_over(
    settings: dict[str, int], tmp_path: Path, queues: Callable[..., None]
) -> None:
    """Its messages may still be wanted."""
    queues("a", mode=0o1600, size=3)
    assert found(tmp_path) == []


def test_an_empty_queue_in_use_is_not_left_over(
    settings: dict[str, int], tmp_path: Path, queues: Callable[..., None]
) -> None:
    """It is empty, but not shut down."""
    queues("a")
    assert found(tmp_path) == []


def test_a_queue_that_is_removed_meanwhile_is_not_left_over(
    settings: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes between the listing and the look at it."""
    monkeypatch.setattr(os, "listdir", lambda _: ["gone"])
    assert found(tmp_path) == []
