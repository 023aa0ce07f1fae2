"""``ipcq doctor`` and its checks of the machine."""

import json
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

import ipcq
from ipcq._cli import _machine_checks
from ipcq._cli._demo_progress import DemoProgress
from ipcq._cli._machine_checks import Check
from ipcq._cli.verbs import doctor as verb
from ipcq._cli.verbs.demo import Demo
from ipcq._opening import registry
from ipcq._process import private_directory
from ipcq.backend import Availability, Finding, Severity

fcntl = pytest.importorskip("fcntl", reason="could not import 'fcntl', which only POSIX has")
pwd = pytest.importorskip("pwd", reason="could not import 'pwd', which only POSIX has")
resource = pytest.importorskip("resource", reason="could not import 'resource', which only POSIX has")

Run = Callable[..., Result]


def only(checks: Iterator[Check]) -> Check:
    (check,) = checks
    return check


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a machine without problems."""
    monkeypatch.setattr(verb, "_checks", lambda: iter([Check("ok", "all", "is well")]))


@pytest.fixture
def sick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate one check of each severity."""
    found = [
        Check(kind, "it", f"is {kind}", "" if kind == "ok" else f"fix {kind}") for kind in ("ok", "note", "warning")
    ]
    monkeypatch.setattr(verb, "_checks", lambda: iter(found))


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Move the directory of the name lock, and return its path."""
    monkeypatch.setattr(private_directory, "_roots", lambda: (str(tmp_path / "lock"),))
    return tmp_path / "lock"


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulate systemd, configured by files of the test, for an ordinary user."""
    places = tuple(tmp_path / place for place in ("etc", "run", "lib"))
    for place in places:
        (place / "logind.conf.d").mkdir(parents=True)
    monkeypatch.setattr(_machine_checks, "SYSTEMD_DIRECTORIES", places)
    monkeypatch.setattr(_machine_checks, "SYSTEMD_RUNNING", tmp_path)
    monkeypatch.setattr(_machine_checks, "LINGERING_USERS", tmp_path / "linger")
    monkeypatch.setattr(_machine_checks, "LOGIN_DEFS", tmp_path / "login.defs")
    monkeypatch.setattr(os, "geteuid", lambda: 123456)
    return tmp_path


def install_backend(monkeypatch: pytest.MonkeyPatch, **facts: Any) -> Any:
    """Install a single backend with these attributes, and return its plugin."""
    real = registry.plugin("memory").backend
    able = replace(real.capabilities, scope=ipcq.Scope.HOST, persistence=ipcq.Persistence.KERNEL)
    facts = {"capabilities": able, **facts}
    facts = {"name": "some", "platforms": None, "probe": Availability.yes, "findings": list, **facts}
    plugin = SimpleNamespace(name="some", distribution="some-dist", failure="", backend=SimpleNamespace(**facts))
    monkeypatch.setattr(registry, "plugins", lambda: [plugin])
    return plugin


def test_healthy_machine_is_0(run: Run, healthy: None) -> None:
    """Passed checks are printed as well."""
    result = run("doctor")
    assert (result.exit_code, result.stdout) == (0, "ok\tall\tis well\t-\n")


def test_problem_is_1(run: Run, sick: None) -> None:
    """So that a script can check."""
    assert run("doctor").exit_code == 1


def test_note_is_no_problem(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is only information."""
    monkeypatch.setattr(verb, "_checks", lambda: iter([Check("note", "it", "is so", "do")]))
    assert run("doctor").exit_code == 0


def test_each_finding_has_its_fix(run: Run, sick: None) -> None:
    """One line each, tab-separated in a pipe."""
    assert run("doctor").stdout.splitlines()[1:] == [
        "note\tit\tis note\tfix note",
        "warning\tit\tis warning\tfix warning",
    ]


def test_passed_checks_can_be_left_out(run: Run, sick: None) -> None:
    """With --quiet."""
    assert [line.split("\t")[0] for line in run("doctor", "-q").stdout.splitlines()] == ["note", "warning"]


def test_healthy_machine_can_be_silent(run: Run, healthy: None) -> None:
    """With --quiet."""
    assert run("doctor", "-q").output == ""


def test_json_has_a_line_for_each_check(run: Run, sick: None) -> None:
    """With stable keys."""
    assert json.loads(run("doctor", "--json").stdout.splitlines()[1]) == {
        "severity": "note",
        "subject": "it",
        "text": "is note",
        "fix": "fix note",
    }


def test_terminal_has_the_fix_on_one_line(terminal: Callable[..., Any], sick: None) -> None:
    """A command that is broken into lines cannot be copied."""
    assert terminal("doctor").text == (
        "ok       it: is ok\r\nnote     it: is note\r\n         fix: fix note\r\n"
        "warning  it: is warning\r\n         fix: fix warning\r\n"
    )


@pytest.mark.needs("memory")
def test_everything_is_checked(run: Run) -> None:
    """On the real machine."""
    subjects = {line.split("\t")[1] for line in run("doctor").stdout.splitlines()}
    assert {"name lock", "open files", "shared memory", "RemoveIPC", "backend memory"} <= subjects


def test_program_runs(program: Callable[..., Any]) -> None:
    """The findings depend on the machine."""
    assert program("doctor").returncode in (0, 1)


def test_missing_lock_directory_is_ok(lock: Path) -> None:
    """It is created when it is needed."""
    assert only(_machine_checks.check_name_lock()).severity == "ok"


def test_lock_directory_of_this_user_is_ok(lock: Path) -> None:
    """With the required mode."""
    lock.mkdir(0o700)
    assert only(_machine_checks.check_name_lock()).text == f"{lock} belongs to this user and has mode 0700"


def test_lock_directory_open_to_others_is_an_error(lock: Path) -> None:
    """No queue can be created."""
    lock.mkdir()
    lock.chmod(0o755)
    check = only(_machine_checks.check_name_lock())
    assert (check.severity, check.fix, "has mode 0755" in check.text) == ("error", f"sudo rm -r {lock}", True)


def test_lock_directory_of_another_user_is_an_error(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A squatter's."""
    lock.mkdir(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 123456)
    assert ", not to this one (123456)" in only(_machine_checks.check_name_lock()).text


def test_link_instead_of_the_lock_directory_is_an_error(lock: Path) -> None:
    """It is not followed."""
    lock.symlink_to("/tmp")
    assert "is not a directory" in only(_machine_checks.check_name_lock()).text


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the name lock two directories, of which the first is usable; return the second."""
    places = tmp_path / "first" / "lock", tmp_path / "second" / "lock"
    for place in places:
        place.parent.mkdir()
    monkeypatch.setattr(private_directory, "_roots", lambda: tuple(map(str, places)))
    return places[1]


def check_of(place: Path) -> Check:
    return next(check for check in _machine_checks.check_name_lock() if check.text.startswith(str(place)))


def make_unwritable(monkeypatch: pytest.MonkeyPatch, place: Path, *, read_only: bool) -> None:
    monkeypatch.setattr(private_directory, "writable", lambda path: path != str(place))
    monkeypatch.setattr(private_directory, "read_only", lambda path: read_only)


def test_a_squatted_lock_directory_is_a_warning(second: Path) -> None:
    """The other directory works, but somebody has squatted at this one."""
    second.write_text("")
    assert check_of(second) == Check("warning", "name lock", f"{second} is not a directory", f"sudo rm -r {second}")


def test_an_unusable_lock_directory_does_not_affect_the_others(second: Path) -> None:
    """Each has its own line."""
    second.write_text("")
    assert [check.severity for check in _machine_checks.check_name_lock()] == ["ok", "warning"]


def test_a_missing_parent_of_a_lock_directory_is_ok(second: Path) -> None:
    """Without a login session there is no /run/user, and the other directory works."""
    second.parent.rmdir()
    assert check_of(second) == Check(
        "ok", "name lock", f"{second} cannot be created: {second.parent} does not exist", ""
    )


@pytest.mark.parametrize(
    ("read_only", "text", "fix"),
    [
        (True, "is read-only", "sudo mount -t tmpfs -o mode=1777 tmpfs "),
        (False, "this user may not write to ", "sudo chmod 1777 "),
    ],
)
def test_an_unwritable_parent_of_a_lock_directory_is_a_note(
    second: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool, text: str, fix: str
) -> None:
    """With the command that fits."""
    make_unwritable(monkeypatch, second.parent, read_only=read_only)
    check = check_of(second)
    assert (check.severity, text in check.text, check.fix.startswith(f"{fix}{second.parent}")) == (
        "note",
        True,
        True,
    )


@pytest.mark.parametrize(
    ("read_only", "text", "fix"),
    [
        (True, "is on a read-only file system", "sudo mount -t tmpfs -o mode=1777 tmpfs "),
        (False, "has mode 0700, which denies this user access", "chmod 700 "),
    ],
)
def test_an_unwritable_lock_directory_is_a_note(
    second: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool, text: str, fix: str
) -> None:
    """With the command that fits."""
    second.mkdir(0o700)
    make_unwritable(monkeypatch, second, read_only=read_only)
    check = check_of(second)
    assert (check.severity, check.text, check.fix.startswith(fix)) == ("note", f"{second} {text}", True)


def test_no_usable_lock_directory_is_an_error(second: Path) -> None:
    """No queue can be created."""
    second.parent.rmdir()
    second.parent.with_name("first").rmdir()
    checks = list(_machine_checks.check_name_lock())
    assert [check.severity for check in checks] == ["error", "error"]
    assert all("no queue can be created" in check.text for check in checks)
    assert checks[0].fix.startswith("sudo mkdir -p ")


def test_a_missing_directory_in_run_user_is_fixed_by_lingering(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lingering creates the directory."""
    monkeypatch.setattr(private_directory, "_roots", lambda: ("/run/user/none/ipcq",))
    assert only(_machine_checks.check_name_lock()).fix == f"sudo loginctl enable-linger {os.geteuid()}"


def lock_file(descriptor: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 3, 1, 0))


def test_lock_that_is_held_long_is_a_warning(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process was stopped while it created a queue."""
    monkeypatch.setattr(_machine_checks, "HOLD_SECONDS", 0.01)
    lock.mkdir(0o700)
    with (lock / "names.lock").open("w") as file:
        lock_file(file.fileno())
        assert only(_machine_checks.check_name_lock()).fix == f"sudo fuser -v {lock}/names.lock"


def test_lock_that_is_held_briefly_is_ok(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is normal."""
    lock.mkdir(0o700)
    with (lock / "names.lock").open("w") as file:
        lock_file(file.fileno())
        monkeypatch.setattr(_machine_checks, "sleep_in_slices", lambda _: file.close())
        assert only(_machine_checks.check_name_lock()).severity == "ok"


def test_each_lock_directory_is_checked() -> None:
    """The checks use the real paths."""
    texts = [check.text for check in _machine_checks.check_name_lock()]
    assert [text.split()[0] for text in texts] == list(private_directory.private_places())


@pytest.mark.parametrize(
    ("limits", "severity", "fix"),
    [
        ((1024, 4096), "ok", ""),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), "ok", ""),
        ((256, 4096), "warning", "ulimit -n 1024"),
        ((256, resource.RLIM_INFINITY), "warning", "ulimit -n 1024"),
        ((256, 256), "warning", "sudo prlimit --pid $$ --nofile=1024"),
    ],
)
def test_few_open_files_are_a_warning(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], severity: str, fix: str
) -> None:
    """The fix is a command that this user can run."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    check = only(_machine_checks.check_descriptors())
    assert (check.severity, check.fix) == (severity, fix)


def test_shared_memory_is_reported_in_figures() -> None:
    """Size and free space."""
    assert "MiB free" in only(_machine_checks.check_shared_memory()).text


def test_full_shared_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixes are the command that makes it larger, and the option for a container."""
    found = SimpleNamespace(f_blocks=64 << 8, f_frsize=4096, f_bavail=256)
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    check = only(_machine_checks.check_shared_memory())
    assert (check.severity, check.text, "--shm-size=128m" in check.fix) == (
        "warning",
        "/dev/shm has 1 MiB of 64 MiB free",
        True,
    )


def test_missing_shared_memory_is_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Some backends do not need it."""
    monkeypatch.setattr(_machine_checks, "SHARED_MEMORY", str(tmp_path / "missing"))
    assert only(_machine_checks.check_shared_memory()).severity == "note"


def test_shared_memory_of_others_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be created there."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(_machine_checks, "SPARE_BYTES", 0)
    assert only(_machine_checks.check_shared_memory()).fix == "sudo chmod 1777 /dev/shm"


def test_without_systemd_nothing_is_removed(systemd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd would be the one to remove them."""
    monkeypatch.setattr(_machine_checks, "SYSTEMD_RUNNING", systemd / "missing")
    assert only(_machine_checks.check_remove_ipc()).severity == "ok"


def test_default_of_systemd_is_a_warning(systemd: Path) -> None:
    """It removes the queues of users; user 123456 has no name here."""
    check = only(_machine_checks.check_remove_ipc())
    assert (check.severity, check.fix, "by default" in check.text) == (
        "warning",
        "sudo loginctl enable-linger 123456",
        True,
    )


def test_system_user_keeps_its_queues(systemd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """logind.conf(5): system users are excluded."""
    monkeypatch.setattr(os, "geteuid", lambda: 999)
    assert only(_machine_checks.check_remove_ipc()).severity == "ok"


def test_which_users_are_system_users_is_configured(systemd: Path) -> None:
    """login.defs(5): SYS_UID_MAX."""
    (systemd / "login.defs").write_text("# SYS_UID_MAX 5\nSYS_UID_MAX\t200000\n")
    assert "is a system user" in only(_machine_checks.check_remove_ipc()).text


def test_other_settings_of_login_defs_do_not_matter(systemd: Path) -> None:
    """Then the default of 999 applies."""
    (systemd / "login.defs").write_text("UID_MAX 60000\n")
    assert only(_machine_checks.check_remove_ipc()).severity == "warning"


def test_lingering_user_keeps_its_queues(systemd: Path) -> None:
    """loginctl(1): its session does not end."""
    (systemd / "linger").mkdir()
    (systemd / "linger" / "123456").touch()
    assert "lingers" in only(_machine_checks.check_remove_ipc()).text


def test_lingering_user_is_looked_for_by_name(systemd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd stores the name."""
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_name="ann"))
    assert only(_machine_checks.check_remove_ipc()).fix == "sudo loginctl enable-linger ann"


@pytest.mark.parametrize(
    ("files", "severity"),
    [
        ({"etc/logind.conf": "[Login]\nRemoveIPC=no\n"}, "ok"),
        ({"etc/logind.conf": "[Login]\n#RemoveIPC=no\n"}, "warning"),
        ({"lib/logind.conf": "RemoveIPC=no"}, "ok"),
        ({"etc/logind.conf": "RemoveIPC=yes", "lib/logind.conf": "RemoveIPC=no"}, "warning"),
        ({"etc/logind.conf": "RemoveIPC=yes", "lib/logind.conf.d/a.conf": "RemoveIPC=no"}, "ok"),
        ({"etc/logind.conf.d/a.conf": "RemoveIPC=no", "lib/logind.conf.d/b.conf": "RemoveIPC=on"}, "warning"),
        ({"etc/logind.conf.d/a.conf": "", "lib/logind.conf.d/a.conf": "RemoveIPC=no"}, "warning"),
        ({"etc/logind.conf.d/a.conf": "RemoveIPC=1\nRemoveIPC = off"}, "ok"),
    ],
)
def test_last_setting_counts(systemd: Path, files: dict[str, str], severity: str) -> None:
    """logind.conf(5): the first main file, then drop-ins in order of their names; /etc wins for equal names."""
    for path, text in files.items():
        (systemd / path).write_text(text)
    assert only(_machine_checks.check_remove_ipc()).severity == severity


def test_setting_that_cannot_be_read_is_ignored(systemd: Path) -> None:
    """Not every entry there is a regular file."""
    (systemd / "etc" / "logind.conf.d" / "a.conf").mkdir()
    assert only(_machine_checks.check_remove_ipc()).severity == "warning"


def list_queues(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(ipcq, "queues", lambda: [ipcq.QueueInfo(name, "some") for name in names])


def test_queue_of_a_dead_demo_is_left_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo that was killed together with all its workers."""
    list_queues(monkeypatch, "/jobs", "/ipcq-demo-99999999-0123abcd", f"/ipcq-demo-{'9' * 30}-0123abcd")
    assert (
        next(check.fix for check in _machine_checks.check_leftovers()) == "ipcq rm --yes /ipcq-demo-99999999-0123abcd"
    )


def test_queue_of_a_demo_is_known_by_its_name() -> None:
    """The pattern matches the demo's own names."""
    assert _machine_checks.OWN_NAME.fullmatch(Demo("auto", 0, DemoProgress(silent=True)).name)


def test_queue_of_a_demo_that_runs_is_not_left_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in use."""
    list_queues(monkeypatch, f"/ipcq-demo-{os.getpid()}-0123abcd")
    assert list(_machine_checks.check_leftovers()) == []


def test_queue_of_another_users_demo_is_not_left_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signalling its process is not permitted, but the process exists."""

    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    list_queues(monkeypatch, "/ipcq-demo-1-0123abcd")
    assert list(_machine_checks.check_leftovers()) == []


def test_locks_are_unknown_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then no lock is reported."""
    assert _machine_checks._locks("/no/such/file") == set()


def test_findings_of_a_backend_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come from the backend."""
    found = Finding(severity=Severity.WARNING, text="so", fix="do")
    install_backend(monkeypatch, findings=lambda: [found])
    assert Check("warning", "backend some", "so", "do") in verb._check_backends()


def test_a_backend_with_an_error_is_not_called_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a place whose directory is missing."""
    found = Finding(severity=Severity.ERROR, text="so", fix="do")
    install_backend(monkeypatch, findings=lambda: [found])
    assert next(iter(verb._check_backends())) == Check("error", "backend some", "so", "do")


def test_backend_whose_checks_fail_hides_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third-party plugin."""

    def fail() -> None:
        raise RuntimeError("broken")

    install_backend(monkeypatch, findings=fail)
    assert [check.text for check in verb._check_backends()][1] == "its checks failed: RuntimeError: broken"


def test_a_server_that_nobody_named_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """C41: it may be away or not exist; and it is no way to reach processes of this machine."""

    def fail() -> None:
        raise RuntimeError("it was asked")

    able = ipcq.Capabilities(scope=ipcq.Scope.NETWORK, persistence=ipcq.Persistence.SYNCED)
    install_backend(monkeypatch, findings=fail, capabilities=able)
    checks = list(verb._check_backends())
    assert [check.severity for check in checks] == ["ok", "error"]
    assert "no usable backend reaches other processes" in checks[1].text


def test_backend_that_cannot_be_loaded_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its distribution."""
    plugin = install_backend(monkeypatch)
    plugin.backend, plugin.failure = None, "ImportError: x"
    first, _ = verb._check_backends()
    assert first == Check("warning", "backend some", "ImportError: x", "pip uninstall some-dist")


@pytest.mark.parametrize(
    ("reason", "text", "fix"),
    [
        ("x is not installed: pip install x", "x is not installed", "pip install x"),
        ("this kernel has none", "this kernel has none", ""),
    ],
)
def test_backend_that_cannot_be_used_has_its_reason(
    monkeypatch: pytest.MonkeyPatch, reason: str, text: str, fix: str
) -> None:
    """With the way out, if there is one."""
    install_backend(monkeypatch, probe=lambda: Availability.no(reason))
    first, _ = verb._check_backends()
    assert first == Check("note", "backend some", text, fix)


def test_no_backend_at_all_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata is missing, and the fix says so."""
    monkeypatch.setattr(registry, "plugins", list)
    assert only(verb._check_backends()) == Check("error", "backends", registry.NO_METADATA, registry.WAY_OUT)


def test_another_distribution_in_our_package_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Removing it removes files of ours, so the fix installs ours again."""
    place = tmp_path / "ipcq-7.1.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: ipcq\nVersion: 7.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert only(verb._check_distribution()) == Check(
        "warning",
        "distribution",
        "ipcq 7.1 is installed beside ipcq-queue; both install the package ipcq",
        "pip uninstall --yes ipcq && pip install --force-reinstall --no-deps ipcq-queue",
    )


def test_no_other_distribution_is_not_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then all is well."""
    monkeypatch.setattr(verb, "FORMER", "no-such-distribution")
    assert list(verb._check_distribution()) == []


def test_no_backend_between_processes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """ipcq is of little use then."""
    install_backend(monkeypatch, capabilities=ipcq.Capabilities())
    assert [check.severity for check in verb._check_backends()] == ["ok", "error"]


def test_no_persistent_backend_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue would end with the program that created it."""
    install_backend(monkeypatch, capabilities=ipcq.Capabilities(scope=ipcq.Scope.HOST))
    assert [check.severity for check in verb._check_backends()] == ["ok", "warning"]


def test_unknown_preferred_backend_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """No queue can be created."""
    install_backend(monkeypatch)
    monkeypatch.setenv("IPCQ_BACKEND", "nonsense")
    assert [check.fix for check in verb._check_backends()] == ["", "unset IPCQ_BACKEND"]


def test_known_preferred_backend_is_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is the intended use."""
    install_backend(monkeypatch)
    monkeypatch.setenv("IPCQ_BACKEND", "some")
    assert [check.severity for check in verb._check_backends()] == ["ok"]


def test_read_only_shared_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of permissions would not help."""
    monkeypatch.setattr(private_directory, "read_only", lambda path: True)
    check = only(_machine_checks.check_shared_memory())
    assert (check.severity, check.fix) == ("warning", "sudo mount -o remount,rw /dev/shm")
