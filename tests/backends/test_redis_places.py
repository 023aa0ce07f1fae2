"""Places and names on a Redis server: the database of a URL, and the key of a queue."""

from contextlib import closing
from typing import Any

import pytest

from backends import redis_database
from backends.redis_server import RedisProcess, ask
from ipcq.backend import Place, Request
from ipcq.errors import InvalidArgument
from ipcq_redis import RedisBackend, _place

server, backend = redis_database.server, redis_database.backend


@pytest.mark.parametrize("name", ["/{a}", "/a*b?[c]", "/100%", "/ä\n", "/a\\b"])
def test_any_name_has_a_key_of_its_own(server: RedisProcess, backend: Any, name: str) -> None:
    """Clause 1: braces and patterns are escaped, and the listing has the name; keys of others are not listed."""
    ask(server.port, "HSET", "ipcq:{other}:x", "field", "theirs")
    with closing(backend.create(name, Request())):
        assert backend.names() == [name]
    assert _place.name_of("ipcq:jobs") is None


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://Host/", "redis://host:6379/0/"),
        ("valkey://host:6379/00/", "redis://host:6379/0/"),
        ("valkeys://host/3/", "rediss://host:6379/3/"),
        ("redis://localhost:6379/0/", "redis"),
        ("redis:///0/", "redis"),
    ],
)
def test_two_spellings_of_a_place_have_one_text(url: str, text: str) -> None:
    """Clause 35: port, database and aliases of the scheme are filled in."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    name, _, port = host.lower().partition(":")
    place = Place(scheme, name, int(port) if port else None, tuple(filter(None, path.split("/"))))
    assert RedisBackend().at(place).name == text


@pytest.mark.parametrize("path", [("jobs",), ("0", "1"), ("-1",)])
def test_a_place_is_a_database(path: tuple[str, ...]) -> None:
    """Clause 35: databases have numbers."""
    with pytest.raises(InvalidArgument, match="not a database"):
        RedisBackend().at(Place("redis", "host", None, path))
