"""Addresses: a bare name such as ``/jobs``, or a URL such as ``mqueue:///jobs?max_messages=4``.

A URL names the backend, and its query may set those options of `ipcq.open` that have `in_url` in the table of options.
What is between the ``//`` and the last ``/`` names a place. A URL that ends in a slash is a place without a queue; it
may stand wherever the name of a backend may.

The path is split before it is decoded, so an encoded slash does not end a part. Errors never quote a part of the URL
on its own: it may be a part of a password with a special character in it.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

from ipcq._opening.names import check_name
from ipcq._opening.options import OPTIONS, parse_bool
from ipcq._process.imports import importing, shortage_reported
from ipcq._redaction import Secret, shown, value_shown
from ipcq.backend import Place
from ipcq.errors import InvalidArgument, InvalidName

#: Where queues are searched: on the backend of a name, or in a place.
Where: TypeAlias = str | Place

AUTO: Final = "auto"
#: The environment variable that names the only backend on which `auto` creates, or the place that `auto` stands for.
PREFERENCE: Final = "IPCQ_BACKEND"

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
#: After the credentials; the part in brackets is an IPv6 address (RFC 3986, section 3.2.2).
_HOST: Final = re.compile(r"(?:\[([^\[\]@]*)\]|([^:\[\]]*))(?::([0-9]{0,5}))?")
_MAX_PORT: Final = 65535


class Address(NamedTuple):
    """A parsed address: name, backend or place, and the options of a URL."""

    name: str
    backend: Where = AUTO
    options: Mapping[str, Any] = MappingProxyType({})
    """Options of `open`, converted to their types; others as str."""


def parse(address: object, backend: object = AUTO) -> Address:
    """Parse a name or a URL; `backend` is the argument of that name.

    Raises:
        InvalidName: The name is invalid.
        InvalidArgument: The URL has a fragment, a duplicate option, or an option of a wrong type; or its host, port or
            path is invalid; or URL and argument name different backends; or `backend` is neither the name of a backend
            nor the URL of a place.
    """
    scheme = _SCHEME.match(address) if isinstance(address, str) else None
    if not isinstance(address, str) or not scheme:
        return Address(check_name(address), _one_backend(None, backend))
    where, name, given = _split(address, scheme)
    if not name:
        raise InvalidName(f"{shown(address)} is a place: add a queue's name after its last '/'")
    options: dict[str, Any] = {}
    for option, text in given:
        known = OPTIONS.get(option)
        if known is not None and not known.in_url:
            raise InvalidArgument(f"a URL cannot set {option}: pass it as an argument of ipcq.open")
        if option in options:
            raise InvalidArgument(f"{shown(address)} sets the option {option!r} twice: leave one of them out")
        options[option] = text if known is None else convert(option, text, known.kind.parse)
    return Address(check_name(f"/{name}"), _one_backend(where, backend), options)


def parse_bare(address: object, backend: object) -> tuple[str, Where]:
    """Parse an address that must not have options, and return name, and backend or place.

    Raises:
        InvalidName: The name is invalid.
        InvalidArgument: As for `parse`, or the URL has options.
    """
    found = parse(address, backend)
    if found.options:
        raise InvalidArgument(f"only ipcq.open takes options in a URL: leave out {', '.join(found.options)}")
    return found.name, found.backend


def parse_where(text: object) -> Where:
    """Parse the name of a backend or the URL of a place, whose last slash may be missing.

    For ``"auto"``, return the place that the environment names, if it does.

    Raises:
        InvalidArgument: It is not a str, or the URL is invalid.
    """
    if not isinstance(text, str):
        raise InvalidArgument(f"backend must be a str such as 'auto', not {shown(text)}")
    if text == AUTO:
        return _preferred_place() or AUTO
    scheme = _SCHEME.match(text)
    if scheme is None:
        return text
    if "?" in text:
        raise InvalidArgument(f"{shown(text)} is a place, which has no options: pass them as arguments")
    return _split(text if text.endswith("/") else f"{text}/", scheme)[0]


def _preferred_place() -> Where | None:
    named = os.environ.get(PREFERENCE, "")
    if "://" not in named:
        return None
    try:
        return parse_where(named)
    except InvalidArgument as error:
        error.add_way_out(f"or unset the environment variable {PREFERENCE}")
        raise


def _one_backend(of_url: Where | None, argument: object) -> Where:
    """Return the backend or place that the URL or the argument names."""
    if of_url is None:
        return parse_where(argument)
    if argument != AUTO and (named := parse_where(argument)) != of_url:
        raise InvalidArgument(f"the URL names backend {str(of_url)!r}, but the argument names {str(named)!r}")
    return of_url


def _split(url: str, scheme: re.Match[str]) -> tuple[Where, str, list[tuple[str, str]]]:
    """Split a URL into backend or place, the name without its slash, and the options."""
    with shortage_reported(), importing():
        from urllib.parse import parse_qsl, unquote  # here, because most addresses are bare names

    rest, _, query = url[scheme.end() :].partition("?")
    authority, slash, path = rest.partition("/")
    try:
        if "#" in url:
            raise ValueError("write '#' as %23")
        if any(blank in url for blank in "\t\r\n"):
            raise ValueError("write tabs and line breaks as %XX")
        user, password, host, port = _server(authority, unquote)
        *parts, name = path.split("/")
        if any(not part or "@" in part for part in parts):
            raise ValueError("a part of its path is empty, or has an at sign: write that as %40")
        decoded = [unquote(part, errors="strict") for part in (*parts, name)]
        if any("/" in part or "\0" in part for part in decoded[:-1]):
            raise ValueError("a part of its path has an encoded '/' or NUL")
        given = parse_qsl(query, keep_blank_values=True, errors="strict") if slash else []
    except UnicodeDecodeError:
        raise InvalidArgument(f"{shown(url)} is not a URL: it is not UTF-8") from None
    except ValueError as error:
        raise InvalidArgument(f"{shown(url)} is not a URL: {error}") from error
    lower = scheme[1].lower()
    place = Place(lower, host, port, tuple(decoded[:-1]), user, password)
    return place if authority or parts else lower, decoded[-1], given


def _server(authority: str, unquote: Callable[..., str]) -> tuple[str, Secret | None, str, int | None]:
    """Split an authority into user name, password, host and port."""
    userinfo, _, server = authority.rpartition("@")
    user, colon, password = userinfo.partition(":")
    found = _HOST.fullmatch(server)
    if found is None or int(found[3] or 0) > _MAX_PORT:
        raise ValueError("its host or port is invalid: write HOST:PORT, with special characters of a password as %XX")
    host = found[1] or unquote(found[2] or "", errors="strict")
    return (
        unquote(user, errors="strict"),
        Secret(unquote(password, errors="strict")) if colon else None,
        host if host.startswith("/") else host.lower(),  # a path of a Unix socket
        int(found[3]) if found[3] else None,
    )


def convert(option: str, text: str, kind: Callable[[str], Any]) -> Any:
    """Convert an option's text to its type.

    Raises:
        InvalidArgument: The text is not a valid value.
    """
    try:
        return parse_bool(text) if kind is bool else kind(text)
    except ValueError as error:
        if value_shown(option, text) != repr(text):
            raise InvalidArgument(f"option {option} has a wrong value: it is not {kind.__name__}") from None
        raise InvalidArgument(f"option {option}={text!r}: {error}") from error


def unknown_option(option: str, known: Iterable[str]) -> InvalidArgument:
    """Make the error for an unknown option, with a suggestion."""
    return InvalidArgument(f"no option {option!r}: {suggestion(option, known)}")


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return a suggestion for a misspelled word: the closest known word, or all of them."""
    with shortage_reported(), importing():
        from difflib import get_close_matches  # here, because only an error needs it

    known = sorted(known)
    near = get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}"
