"""The registry of backends: plugins are loaded one by one from entry points, and a broken one is only an entry."""

import errno
import os
import sys
from collections.abc import Callable
from importlib.metadata import entry_points, metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

import ipcq
from core.conftest import Installed, Run
from core.fakes import HOST, FakeBackend, raising
from ipcq._opening import registry
from ipcq.backend import Availability, Capabilities, Request, Scope
from ipcq.compat import _nameless
from ipcq.errors import BackendUnavailable, BackendUnknown, LimitExceeded, MessageQueueError, NoSpace
from ipcq.hooks import DISTRIBUTION, GROUP, PROJECT

GOOD = """
from core.fakes import FakeBackend
from ipcq.hooks import hookimpl

@hookimpl
def ipcq_backend():
    return FakeBackend("strange")
"""

#: Plugins that cannot be loaded, and the reason that has to be reported for each.
BROKEN = {
    "a missing dependency": ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
    "an exit": ("import sys; sys.exit('not on a Tuesday')", "SystemExit: not on a Tuesday"),
    "a syntax error": ("def (", "SyntaxError"),
    "an error at import": ("1 / 0", "ZeroDivisionError: division by zero"),
    "no hook": ("x = 1", "must return one Backend, not []"),
    "a hook without the marker": ("def ipcq_backend(): return None", "must return one Backend, not []"),
    "a hook with another name": (
        "from ipcq.hooks import hookimpl\n@hookimpl\ndef ipcq_backends(): return None",
        "unknown hook 'ipcq_backends'",
    ),
    "a hook with arguments": (
        "from ipcq.hooks import hookimpl\n@hookimpl\ndef ipcq_backend(name): return None",
        "PluginValidationError",
    ),
    "a hook that raises": (
        "from ipcq.hooks import hookimpl\n@hookimpl\ndef ipcq_backend(): raise OSError(5, 'no device')",
        "no device",
    ),
    "a hook that returns nothing": (
        "from ipcq.hooks import hookimpl\n@hookimpl\ndef ipcq_backend(): return None",
        "must return one Backend, not []",
    ),
    "a hook that returns nonsense": (
        "from ipcq.hooks import hookimpl\n@hookimpl\ndef ipcq_backend(): return 'strange'",
        "must return one Backend, not ['strange']",
    ),
    "a hook that returns a class": (
        GOOD.replace('FakeBackend("strange")', "FakeBackend"),
        "must return one Backend",
    ),
    "another name than its entry point": (
        GOOD.replace("strange", "stranger"),
        "its backend is called 'stranger', but its entry point 'strange'",
    ),
    "no capabilities": (
        GOOD.replace(
            'return FakeBackend("strange")', 'fake = FakeBackend("strange")\n    del fake.capabilities\n    return fake'
        ),
        "capabilities",
    ),
    "a rank that is no number": (
        GOOD.replace('"strange"', '"strange", rank="high"'),
        "rank",
    ),
}


@pytest.fixture(params=BROKEN)
def broken(request: pytest.FixtureRequest, installed: Installed) -> str:
    """Install a broken plugin as the backend 'strange', and return the expected reason."""
    source, told = BROKEN[request.param]
    installed.plugin("strange", source, "strange-things")
    return told


def info(name: str) -> ipcq.BackendInfo:
    return next(each for each in ipcq.backends() if each.name == name)


# Broken plugins


def test_a_broken_plugin_is_listed_with_the_reason(broken: str) -> None:
    """A failure to load is not raised."""
    assert broken in info("strange").reason


def test_a_broken_plugin_is_not_usable(broken: str) -> None:
    """It is listed as unusable."""
    assert not info("strange").usable


def test_a_broken_plugin_is_listed_with_its_distribution(broken: str) -> None:
    """The user learns what to update or remove."""
    assert info("strange").distribution == "strange-things"


def test_a_broken_plugin_is_listed_without_capabilities(broken: str) -> None:
    """They are unknown, because it was not loaded."""
    assert info("strange").capabilities is None


@pytest.mark.needs("memory")
def test_a_broken_plugin_leaves_the_others_alone(broken: str) -> None:
    """Each entry point is loaded separately."""
    assert info("memory").usable


def test_naming_a_broken_plugin_raises_with_the_reason(broken: str, name: str) -> None:
    """The reason is the same as in the list."""
    with pytest.raises(BackendUnavailable) as caught:
        ipcq.open(name, "strange")
    assert broken in str(caught.value)


def test_the_error_for_a_broken_plugin_carries_the_reason(broken: str) -> None:
    """Programs find the reason in an attribute."""
    with pytest.raises(BackendUnavailable) as caught:
        registry.backend("strange")
    assert broken in caught.value.reasons["strange"]


def test_a_broken_plugin_is_reported_if_no_backend_can_be_used(broken: str, name: str) -> None:
    """The error lists each backend with its reason."""
    with pytest.raises(BackendUnavailable) as caught:
        ipcq.open(name, require=["nameless"])
    assert broken in str(caught.value)


def test_the_strict_switch_raises_what_the_plugin_raises(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """IPCQ_STRICT_PLUGINS helps authors of plugins."""
    monkeypatch.setenv("IPCQ_STRICT_PLUGINS", "1")
    with pytest.raises((Exception, SystemExit)) as caught:
        registry.plugins()
    assert not isinstance(caught.value, MessageQueueError)


def test_an_empty_strict_switch_is_off(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable counts as unset."""
    monkeypatch.setenv("IPCQ_STRICT_PLUGINS", "")
    installed.plugin("strange", "1 / 0")
    assert not info("strange").usable


def test_an_interrupt_while_a_plugin_is_loaded_passes_through(installed: Installed) -> None:
    """C12: Ctrl-C is not a failure to load."""
    installed.plugin("strange", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        ipcq.backends()


# Plugins that load and then misbehave


@pytest.mark.parametrize("error", [RuntimeError("no"), OSError(5, "no device"), MessageQueueError("no")])
def test_a_probe_that_raises_is_a_reason(installed: Installed, error: Exception) -> None:
    """A backend whose `probe` raises cannot be used."""
    fake = FakeBackend("strange")
    fake.on_probe = raising(error)
    installed.backend(fake)
    assert info("strange").reason == f"its probe failed: {type(error).__name__}: {error}"


SHORTAGES = [
    (OSError(errno.EMFILE, "Too many open files"), LimitExceeded),
    (ImportError(f"libz.so.1: cannot open shared object file: {os.strerror(errno.ENFILE)}"), LimitExceeded),
    (MemoryError(), NoSpace),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), NoSpace),
]


def test_the_error_for_an_unusable_named_backend_has_the_reason(installed: Installed) -> None:
    """`BackendUnavailable` has the reason that `probe` returned."""
    fake = FakeBackend("strange")
    installed.backend(fake)
    fake.availability = Availability.no("its library is missing: install it")
    with pytest.raises(BackendUnavailable, match="its library is missing: install it"):
        registry.usable("strange")


@pytest.mark.parametrize(("error", "kind"), SHORTAGES)
def test_a_probe_that_runs_out_of_resources_is_an_error(
    installed: Installed, name: str, error: Exception, kind: type[MessageQueueError]
) -> None:
    """C31: the choice must not depend on free resources, so no other backend is used instead."""
    fake = FakeBackend("strange", rank=900)
    fake.on_probe = raising(error)
    installed.backend(fake)
    with pytest.raises(kind) as caught:
        ipcq.open(name)
    assert caught.value.__cause__ is error


def test_a_backend_whose_probe_runs_out_of_resources_is_listed_with_the_limit(installed: Installed) -> None:
    """The list has each backend."""
    fake = FakeBackend("strange")
    fake.on_probe = raising(OSError(errno.EMFILE, "Too many open files"))
    installed.backend(fake)
    assert "RLIMIT_NOFILE" in info("strange").reason


def test_a_plugin_that_could_not_be_loaded_for_lack_of_descriptors_is_loaded_later(
    installed: Installed, name: str
) -> None:
    """C31: a temporary shortage is not cached."""
    source = """
        import errno
        from core.fakes import FakeBackend
        from ipcq import hooks

        @hooks.hookimpl
        def ipcq_backend():
            if shortages:
                raise OSError(shortages.pop(), "Too many open files")
            return FakeBackend("strange", rank=900)

        shortages = [errno.EMFILE]
    """
    installed.plugin("strange", source)
    with pytest.raises(LimitExceeded, match="RLIMIT_NOFILE"):
        ipcq.open(name)
    with ipcq.open(name) as queue:
        assert queue.backend == "strange"


@pytest.mark.needs("mqueue")
@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES])
def test_backends_are_not_searched_if_no_file_can_be_opened(
    installed: Installed, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """C31: `importlib.metadata` would find none, and that result would be cached."""

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as full:
        full.setattr(os, "open", refuse)
        with pytest.raises(LimitExceeded if number == errno.EMFILE else PermissionError):
            ipcq.backends()
    assert "mqueue" in {each.name for each in ipcq.backends()}


def test_a_backend_of_another_platform_is_not_probed(installed: Installed) -> None:
    """Its probe may need modules that only its platform has."""
    fake = FakeBackend("strange")
    fake.platforms = ("plan", "inferno")
    fake.on_probe = raising(ZeroDivisionError())
    installed.backend(fake)
    assert info("strange").reason == f"it works only on plan, inferno, but this is {sys.platform}"


@pytest.mark.parametrize("platforms", [(sys.platform,), ("plan", sys.platform[:3]), None])
def test_a_backend_of_this_platform_is_probed(installed: Installed, platforms: tuple[str, ...] | None) -> None:
    """A prefix is enough, because names of BSDs contain the version; None means every platform."""
    fake = FakeBackend("strange")
    fake.platforms = platforms
    installed.backend(fake)
    assert info("strange").usable


def test_the_list_has_the_platforms(installed: Installed) -> None:
    """This includes backends that cannot be used here."""
    fake = FakeBackend("strange")
    fake.platforms = ("plan",)
    installed.backend(fake)
    assert info("strange").platforms == ("plan",)


@pytest.mark.parametrize("answer", [None, True, "yes", (True, "")])
def test_a_backend_whose_probe_returns_nonsense_is_unusable(installed: Installed, answer: object) -> None:
    """`probe` has to return an Availability."""
    fake = FakeBackend("strange")
    fake.availability = answer
    installed.backend(fake)
    assert not info("strange").usable


def test_an_unusable_backend_is_listed_with_its_reason(installed: Installed) -> None:
    """The backend gives the reason."""
    installed.backend(FakeBackend("strange", availability=Availability.no("it needs a tail wind")))
    assert info("strange").reason == "it needs a tail wind"


def test_naming_an_unusable_backend_raises_with_the_reason(installed: Installed, name: str) -> None:
    """The error has queue, backend and reason."""
    installed.backend(FakeBackend("strange", availability=Availability.no("it needs a tail wind")))
    with pytest.raises(BackendUnavailable, match=f"queue '{name}' on backend 'strange': it needs a tail wind"):
        ipcq.open(name, "strange")


def test_a_backend_whose_search_fails_does_not_stop_auto(installed: Installed, name: str) -> None:
    """A broken plugin must not affect other backends."""
    fake = FakeBackend("strange", rank=1)
    fake.on_exists = raising(ValueError("what name?"))
    installed.backend(fake)
    installed.backend(FakeBackend("other", rank=900))
    with ipcq.open(name) as queue:
        assert queue.backend == "other"


def test_a_named_backend_whose_search_fails_is_an_error(installed: Installed, name: str) -> None:
    """It becomes BackendUnavailable with the cause in the text."""
    fake = FakeBackend("strange")
    fake.on_exists = raising(ValueError("what name?"))
    installed.backend(fake)
    with pytest.raises(BackendUnavailable, match="its search for the queue failed: ValueError: what name"):
        ipcq.open(name, "strange")


# Which distribution offers which backend


def test_a_backend_of_another_distribution_is_found(installed: Installed) -> None:
    """It only needs an entry point."""
    installed.plugin("strange", GOOD)
    assert info("strange").usable


def test_a_backend_of_another_distribution_is_described(installed: Installed) -> None:
    """The list has name, rank, capabilities and distribution."""
    installed.backend(FakeBackend("strange", rank=7), "strange-things")
    assert info("strange") == ipcq.BackendInfo("strange", True, "", 7, HOST, "strange-things")


def test_the_list_has_the_order_in_which_auto_creates(installed: Installed) -> None:
    """It is sorted by rank; backends without a rank follow, sorted by name."""
    fakes = [FakeBackend("bb"), FakeBackend("aa"), FakeBackend("low", rank=-1), FakeBackend("top", rank=999)]
    for fake in fakes:
        installed.backend(fake)
    names = [each.name for each in ipcq.backends()]
    assert [name for name in names if name in {fake.name for fake in fakes}] == ["top", "low", "aa", "bb"]


def test_if_two_distributions_offer_one_backend_the_first_by_name_wins(installed: Installed) -> None:
    """The order of installation does not matter."""
    installed.backend(FakeBackend("strange", rank=2), "zebra")
    installed.backend(FakeBackend("strange", rank=1), "aardvark")
    assert info("strange").distribution == "aardvark"


def test_a_name_that_is_offered_twice_is_listed_once(installed: Installed) -> None:
    """A name stands for one backend."""
    for distribution in ("zebra", "aardvark"):
        installed.backend(FakeBackend("strange"), distribution)
    assert [each.name for each in ipcq.backends()].count("strange") == 1


@pytest.mark.needs("memory")
@pytest.mark.parametrize("distribution", ["aaaa", "ipcq", "zzzz"])
def test_a_bundled_backend_cannot_be_replaced(installed: Installed, distribution: str) -> None:
    """Other distributions that offer its name are ignored."""
    installed.backend(FakeBackend("memory"), distribution)
    assert info("memory").distribution == "ipcq-queue"


#: Calls that need a backend.
ANY = {
    "open": ipcq.open,
    "open what exists": lambda name: ipcq.open(name, create=False),
    "open by backend": lambda name: ipcq.open(name, "memory"),
    "exists": ipcq.exists,
    "unlink": ipcq.unlink,
    "list": lambda _: ipcq.queues(),
    "multiprocessing's face": lambda _: _nameless.create(Request()),
}


@pytest.fixture
def no_entry_points(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide all entry points, as in a frozen program."""
    monkeypatch.setattr(registry, "_offers", lambda _: {})
    monkeypatch.syspath_prepend(tmp_path)  # because plugins are cached by the path


@pytest.mark.parametrize("call", ANY.values(), ids=ANY)
def test_without_any_entry_point_the_error_says_what_is_missing(
    name: str, call: Callable[[str], object], no_entry_points: None
) -> None:
    """Frozen programs and archives without metadata have none; each call names the two ways out."""
    with pytest.raises(MessageQueueError) as caught:
        call(name)
    assert f"{registry.NO_METADATA}: {registry.WAY_OUT}" in str(caught.value)


def test_without_any_entry_point_the_list_is_empty(no_entry_points: None) -> None:
    """`ipcq.backends` lists what is installed."""
    assert ipcq.backends() == []


def test_the_distribution_has_its_installed_name() -> None:
    """The code and pyproject.toml have the name that pip uses."""
    assert (metadata(DISTRIBUTION)["Name"], PROJECT) == ("ipcq-queue", "ipcq")


def test_an_entry_point_may_lack_a_distribution() -> None:
    """`importlib.metadata` allows that."""
    assert registry._distribution(SimpleNamespace(dist=None)) == ""


@pytest.mark.needs("memory")
def test_a_mistyped_backend_gets_a_suggestion() -> None:
    """The text has the most similar name."""
    with pytest.raises(BackendUnknown, match="did you mean 'memory'"):
        registry.plugin("memry")


def test_an_unknown_backend_without_a_similar_name_gets_the_list() -> None:
    """The text lists the installed backends, and the schemes that lead to one."""
    found = [each.backend for each in registry.plugins() if each.backend is not None]
    names = {info.name for info in ipcq.backends()}.union(*(each.schemes for each in found))
    with pytest.raises(BackendUnknown, match=f"choose from {', '.join(sorted(names))}$"):
        registry.plugin("zzzzzz")


@pytest.mark.parametrize(
    "call",
    [
        lambda name: ipcq.open(name, "zzz"),
        lambda name: ipcq.open(f"zzz://{name}"),
        lambda name: ipcq.exists(name, "zzz"),
        lambda name: ipcq.unlink(name, "zzz"),
    ],
)
def test_an_unknown_backend_is_the_same_error_everywhere(name: str, call: Callable[[str], object]) -> None:
    """Each call raises BackendUnknown."""
    with pytest.raises(BackendUnknown):
        call(name)


def test_backends_with_a_capability_are_sorted_by_rank(installed: Installed) -> None:
    """A refusal names the best alternative first, and no unusable one."""
    peeking = Capabilities(scope=Scope.HOST, peek=True)
    installed.backend(FakeBackend("low", rank=1, capabilities=peeking))
    installed.backend(FakeBackend("top", rank=2, capabilities=peeking))
    installed.backend(FakeBackend("off", rank=3, capabilities=peeking, availability=Availability.no("off")))
    assert [name for name in registry.able("peek") if name in ("top", "low")] == ["top", "low"]


# When plugins are loaded

MODULES = sorted([*(entry.module for entry in entry_points(group=GROUP)), "strange_module"])
TELL_LOADED = """
import sys, ipcq
{call}
print(sorted(set({modules!r}) & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("call", "loaded"),
    [
        ("", []),
        ("ipcq.open('/jobs', 'memory').close()", ["ipcq_memory"]),
        ("ipcq.open('memory:///jobs').close()", ["ipcq_memory"]),
        ("ipcq.exists('/jobs', 'memory')", ["ipcq_memory"]),
        ("ipcq.exists('/jobs')", MODULES),
        ("ipcq.backends()", MODULES),
    ],
)
@pytest.mark.needs("memory")
def test_naming_a_backend_loads_only_that_one(run: Run, installed: Installed, call: str, loaded: list[str]) -> None:
    """``auto`` and the list load all, and an import loads none."""
    Path(installed.place, "strange_module.py").write_text(GOOD)
    installed.distribution("strange-things", {"strange": "strange_module"})
    assert run(TELL_LOADED.format(call=call, modules=MODULES)) == str(loaded)


def test_importing_ipcq_imports_no_heavy_modules(run: Run) -> None:
    """pluggy, importlib.metadata and the serializers are imported later."""
    heavy = {"pluggy", "importlib.metadata", "click", "msgpack", "multiprocessing"}
    assert run(f"import sys, ipcq; print(sorted({heavy!r} & set(sys.modules)))") == "[]"


def test_a_plugin_is_loaded_once(installed: Installed) -> None:
    """Its hook is called once per process."""
    installed.plugin("strange", "print('loaded')\n" + GOOD)
    assert registry.plugin("strange") is registry.plugin("strange")
