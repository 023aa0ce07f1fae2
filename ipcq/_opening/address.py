"""Queue addresses: a bare name such as ``/jobs``, or a URL such as ``mqueue:///jobs?max_messages=4``.

A URL names the backend, and its query may carry those options of `ipcq.open` that the table of options allows there.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from ipcq._opening.names import check_name
from ipcq._opening.options import OPTIONS, truth
from ipcq._process.imports import importing, shortage_reported
from ipcq._redaction import shown
from ipcq.errors import InvalidArgument

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NO_HOST: Final = ("", "/", "?", "#")


class Address(NamedTuple):
    """Where a queue is, as far as its opener said."""

    name: str
    backend: str = "auto"
    options: Mapping[str, Any] = MappingProxyType({})
    """Options of `open`, of their types; others as str."""


def parse(address: object, backend: object = "auto") -> Address:
    """Take a name or a URL apart; the backend may be named beside it.

    Raises:
        InvalidName: The name breaks the rule for names.
        InvalidArgument: The URL has a host, a fragment, an option twice, or an option of another type; or it names
            another backend than the argument, or that is no str.
    """
    scheme = _SCHEME.match(address) if isinstance(address, str) else None
    if not isinstance(address, str) or not scheme:
        return Address(check_name(address), _one_backend(None, backend))
    # First, because the texts of urlsplit quote a host with its password.
    if address[scheme.end() :][:1] not in _NO_HOST:
        raise _elsewhere(address, scheme[1])
    with shortage_reported(), importing():
        from urllib.parse import parse_qsl, unquote, urlsplit  # here, because most addresses are bare names

    try:
        if any(blank in address for blank in "\t\r\n"):  # urlsplit would leave them out in silence
            raise ValueError("write tabs and line ends as %XX")
        parts = urlsplit(address)
        name = unquote(parts.path, errors="strict")
        given = parse_qsl(parts.query, keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise InvalidArgument(f"{shown(address)} is not a URL: {error}") from error
    if parts.fragment:
        raise _elsewhere(address, parts.scheme)
    options: dict[str, Any] = {}
    for option, text in given:
        known = OPTIONS.get(option)
        if known is not None and not known.in_url:
            raise InvalidArgument(f"{option} can be given as an argument of ipcq.open only, not in a URL")
        if option in options:
            raise InvalidArgument(f"{shown(address)} gives the option {option!r} twice")
        options[option] = text if known is None else convert(option, text, known.kind.parse)
    return Address(check_name(name), _one_backend(parts.scheme, backend), options)


def _elsewhere(address: str, scheme: str) -> InvalidArgument:
    return InvalidArgument(f"{shown(address)} has a host or a fragment: write it as {scheme}:///name?option=value")


def parse_place(address: object, backend: object) -> tuple[str, str]:
    """Take apart an address that carries no options, and return name and backend.

    Raises:
        InvalidName: The name breaks the rule for names.
        InvalidArgument: As for `parse`, or the URL carries options.
    """
    found = parse(address, backend)
    if found.options:
        raise InvalidArgument(f"options of a URL are for ipcq.open: leave out {', '.join(found.options)}")
    return found.name, found.backend


def _one_backend(scheme: str | None, backend: object) -> str:
    """Return the backend that the URL or the argument names."""
    if not isinstance(backend, str):
        raise InvalidArgument(f"backend is a str such as 'auto', not {shown(backend)}")
    if scheme is not None and backend not in ("auto", scheme):
        raise InvalidArgument(f"the URL names backend {scheme!r} and the argument {backend!r}")
    return scheme or backend


def convert(option: str, text: str, kind: Callable[[str], Any]) -> Any:
    """Turn an option's text into its type.

    Raises:
        InvalidArgument: The text does not say such a value.
    """
    try:
        return truth(text) if kind is bool else kind(text)
    except ValueError as error:
        raise InvalidArgument(f"option {option}={text!r}: {error}") from error


def unknown_option(option: str, known: Iterable[str]) -> InvalidArgument:
    """Make the error for an option that nobody has, with the one that was probably meant."""
    return InvalidArgument(f"no option {option!r}: {meant(option, known)}")


def meant(word: str, known: Iterable[str]) -> str:
    """Say which of the known words was probably meant, or which there are."""
    with shortage_reported(), importing():
        from difflib import get_close_matches  # here, because only mistakes need it

    known = sorted(known)
    near = get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
