"""Queue addresses: a bare name such as ``/jobs``, or a URL such as ``mqueue:///jobs?max_messages=4``.

A URL names the backend, and its query may set those options of `ipcq.open` that have `in_url` in the table of options.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from ipcq._opening.names import check_name
from ipcq._opening.options import OPTIONS, parse_bool
from ipcq._process.imports import importing, shortage_reported
from ipcq._redaction import shown
from ipcq.errors import InvalidArgument

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NO_HOST: Final = ("", "/", "?", "#")


class Address(NamedTuple):
    """A parsed address: name, backend and the options of a URL."""

    name: str
    backend: str = "auto"
    options: Mapping[str, Any] = MappingProxyType({})
    """Options of `open`, converted to their types; others as str."""


def parse(address: object, backend: object = "auto") -> Address:
    """Parse a name or a URL; `backend` is the argument of that name.

    Raises:
        InvalidName: The name is invalid.
        InvalidArgument: The URL has a host, a fragment, a duplicate option, or an option of a wrong type; or URL and
            argument name different backends; or `backend` is not a str.
    """
    scheme = _SCHEME.match(address) if isinstance(address, str) else None
    if not isinstance(address, str) or not scheme:
        return Address(check_name(address), _one_backend(None, backend))
    # Before urlsplit, because its errors would quote a host with its password.
    if address[scheme.end() :][:1] not in _NO_HOST:
        raise _no_host(address, scheme[1])
    with shortage_reported(), importing():
        from urllib.parse import parse_qsl, unquote, urlsplit  # here, because most addresses are bare names

    try:
        if any(blank in address for blank in "\t\r\n"):  # urlsplit would remove them silently
            raise ValueError("write tabs and line breaks as %XX")
        parts = urlsplit(address)
        name = unquote(parts.path, errors="strict")
        given = parse_qsl(parts.query, keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise InvalidArgument(f"{shown(address)} is not a URL: {error}") from error
    if parts.fragment:
        raise _no_host(address, parts.scheme)
    options: dict[str, Any] = {}
    for option, text in given:
        known = OPTIONS.get(option)
        if known is not None and not known.in_url:
            raise InvalidArgument(f"a URL cannot set {option}: pass it as an argument of ipcq.open")
        if option in options:
            raise InvalidArgument(f"{shown(address)} sets the option {option!r} twice: leave one of them out")
        options[option] = text if known is None else convert(option, text, known.kind.parse)
    return Address(check_name(name), _one_backend(parts.scheme, backend), options)


def _no_host(address: str, scheme: str) -> InvalidArgument:
    return InvalidArgument(f"{shown(address)} has a host or a fragment: write it as {scheme}:///name?option=value")


def parse_place(address: object, backend: object) -> tuple[str, str]:
    """Parse an address that must not have options, and return name and backend.

    Raises:
        InvalidName: The name is invalid.
        InvalidArgument: As for `parse`, or the URL has options.
    """
    found = parse(address, backend)
    if found.options:
        raise InvalidArgument(f"only ipcq.open takes options in a URL: leave out {', '.join(found.options)}")
    return found.name, found.backend


def _one_backend(scheme: str | None, backend: object) -> str:
    """Return the backend that the URL or the argument names."""
    if not isinstance(backend, str):
        raise InvalidArgument(f"backend must be a str such as 'auto', not {shown(backend)}")
    if scheme is not None and backend not in ("auto", scheme):
        raise InvalidArgument(f"the URL names backend {scheme!r}, but the argument names {backend!r}")
    return scheme or backend


def convert(option: str, text: str, kind: Callable[[str], Any]) -> Any:
    """Convert an option's text to its type.

    Raises:
        InvalidArgument: The text is not a valid value.
    """
    try:
        return parse_bool(text) if kind is bool else kind(text)
    except ValueError as error:
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
