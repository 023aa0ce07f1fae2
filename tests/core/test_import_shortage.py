"""C24: a late import that fails because descriptors or memory ran out raises an error of ipcq."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest

import ipcq
from core.conftest import Installed
from core.fakes import FakeBackend, raising
from ipcq._opening import registry
from ipcq._process.imports import shortage_reported
from ipcq.errors import LimitExceeded, NoSpace, QueueNotFound

pytest.importorskip("resource", reason="could not import 'resource', which only POSIX has")

FULL = OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class Full:
    """An import hook that fails for one module, as if no file could be opened."""

    def __init__(self, module: str) -> None:
        self._module = module

    def find_spec(self, name: str, *_: object) -> None:
        if name == self._module:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that makes the next import of a module run out of descriptors."""

    def late(module: str) -> None:
        package, _, part = module.rpartition(".")
        monkeypatch.delitem(sys.modules, module, raising=False)
        if package:
            monkeypatch.delattr(import_module(package), part, raising=False)
        monkeypatch.setattr(sys, "meta_path", [Full(module), *sys.meta_path])

    return late


@pytest.fixture
def queue(name: str) -> Iterator["ipcq.Queue[Any]"]:
    with ipcq.open(name, "memory") as queue:
        yield queue


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("_msgpack", {}),
        ("_keys", {}),
        ("_raw", {"serializer": "raw"}),
        ("_pickle", {"serializer": "pickle", "allow_pickle": True}),
        ("_msgspec", {"serializer": "msgspec"}),
        ("_arrays", {"serializer": "arrays"}),
        ("_typed", {"type": dict[str, int]}),
    ],
)
def test_a_serializer_that_cannot_be_imported_names_the_limit(
    name: str, late: Callable[[str], None], module: str, options: dict[str, Any]
) -> None:
    """Each is imported at its first use."""
    with ipcq.open(name, "memory"):
        late(f"ipcq.serializers.{module}")
        with pytest.raises(LimitExceeded, match="RLIMIT_NOFILE"):
            ipcq.open(name, "memory", **options)


@pytest.mark.parametrize("serializer", ["msgpack", "msgspec"])
def test_an_item_that_cannot_be_put_names_the_limit(name: str, late: Callable[[str], None], serializer: str) -> None:
    """The module with the ways out is imported at the first error."""
    with ipcq.open(name, "memory", serializer=serializer) as queue:
        late("ipcq.serializers._encode_errors")
        with pytest.raises(LimitExceeded, match="RLIMIT_NOFILE"):
            queue.put(object())


def test_a_message_is_not_lost_if_a_module_cannot_be_imported(
    queue: "ipcq.Queue[Any]", late: Callable[[str], None]
) -> None:
    """C33: the decoder of tuple keys is imported before a message is taken."""
    late("ipcq.serializers._keys")
    queue.put({(1, 2): 3})
    assert queue.get() == {(1, 2): 3}


@pytest.mark.parametrize(
    ("module", "name", "backend"), [("urllib.parse", "memory:///a", "auto"), ("difflib", "/a", "memry")]
)
def test_an_address_that_needs_a_module_names_the_limit(
    late: Callable[[str], None], module: str, name: str, backend: str
) -> None:
    """Only a URL or a mistyped backend needs one."""
    late(module)
    with pytest.raises(LimitExceeded, match="RLIMIT_NOFILE"):
        ipcq.exists(name, backend)


@pytest.mark.parametrize("look", [ipcq.backends, lambda: ipcq.exists("/a", "memory")])
def test_listing_the_plugins_names_the_limit(late: Callable[[str], None], look: Callable[[], object]) -> None:
    """`importlib.metadata` is imported at the first use."""
    registry._offers.cache_clear()
    registry._plugins.cache_clear()
    late("importlib.metadata")
    with pytest.raises(LimitExceeded, match="RLIMIT_NOFILE"):
        look()


def test_a_backend_that_cannot_search_names_the_limit(installed: Installed, name: str) -> None:
    """It is not known whether the backend has the queue."""
    fake = FakeBackend("strange")
    fake.on_exists = raising(FULL)
    installed.backend(fake)
    with pytest.raises(LimitExceeded, match="RLIMIT_NOFILE"):
        ipcq.exists(name, "strange")


def test_a_backend_that_cannot_unlink_names_the_limit(
    installed: Installed, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue stays."""
    fake = FakeBackend("strange")
    fake.make(name)
    monkeypatch.setattr(fake, "unlink", raising(FULL))
    installed.backend(fake)
    with pytest.raises(LimitExceeded, match="RLIMIT_NOFILE"):
        ipcq.unlink(name, "strange")
    assert ipcq.exists(name, "strange")


def test_a_backend_that_cannot_list_is_listed_with_the_limit(installed: Installed) -> None:
    """`unlisted` has it as the reason."""
    fake = FakeBackend("strange")
    fake.on_names = raising(FULL)
    installed.backend(fake)
    assert "RLIMIT_NOFILE" in ipcq.queues().unlisted["strange"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOMEM, "Cannot allocate memory"), NoSpace),
        (ImportError(f"libz.so.1: cannot open shared object file: {os.strerror(errno.ENFILE)}"), LimitExceeded),
        (OSError(errno.EIO, "Input/output error"), OSError),
        (ImportError("no module"), ImportError),
        (QueueNotFound(), QueueNotFound),
    ],
)
def test_only_shortages_are_translated(error: Exception, kind: type[Exception]) -> None:
    """Only a lack of memory or descriptors is translated."""
    with pytest.raises(kind), shortage_reported():
        raise error
