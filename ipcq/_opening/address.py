"""Queue addresses: a bare name such as ``/jobs``, or a URL such as ``mqueue:///jobs?max_messages=4``.

A URL names the backend, and options of `ipcq.open` may ride in its query. What would let a string from a configuration
run code (``allow_pickle``) or is no string (``type``) may not.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ipcq._opening.names import check_name
from ipcq._process.imports import importing, shortage_told
from ipcq._redaction import shown
from ipcq.errors import InvalidArgument

_ARGUMENTS_ONLY: Final = ("allow_pickle", "type")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NO_HOST: Final = ("", "/", "?", "#")


@dataclass(frozen=True)
class Address:
    """Where a queue is, as far as its opener said."""

    name: str
    backend: str | None = None
    """None where a bare name was given."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of `open`, of their types; others as str."""


def parse(address: object) -> Address:
    """Take a name or a URL apart.

    Raises:
        InvalidName: The name breaks the rule for names.
        InvalidArgument: The URL has a host, a fragment, an option twice, or an option of another type.
    """
    scheme = _SCHEME.match(address) if isinstance(address, str) else None
    if not isinstance(address, str) or not scheme:
        return Address(check_name(address))
    if (
        address[scheme.end() :][:1] not in _NO_HOST
    ):  # first, because the texts of urlsplit quote a host with its password
        raise _elsewhere(address, scheme[1])
    with shortage_told(), importing():
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
        if option in _ARGUMENTS_ONLY:
            raise InvalidArgument(f"{option} can be given as an argument of ipcq.open only, not in a URL")
        if option in options:
            raise InvalidArgument(f"{shown(address)} gives the option {option!r} twice")
        options[option] = convert(option, text, _TYPES[option]) if option in _TYPES else text
    return Address(check_name(name), parts.scheme, options)


def _elsewhere(address: str, scheme: str) -> InvalidArgument:
    return InvalidArgument(f"{shown(address)} has a host or a fragment: write it as {scheme}:///name?option=value")


def parse_place(address: object, backend: object) -> tuple[str, str]:
    """Take apart an address that carries no options, and return name and backend.

    Raises:
        InvalidName: The name breaks the rule for names.
        InvalidArgument: As for `parse`, or the URL carries options or names another backend than the argument.
    """
    found = parse(address)
    if found.options:
        raise InvalidArgument(f"options of a URL are for ipcq.open: leave out {', '.join(found.options)}")
    return found.name, one_backend(found, backend)


def one_backend(address: Address, backend: object) -> str:
    """Return the backend that the URL or the argument names.

    Raises:
        InvalidArgument: They name two, or the argument is no str.
    """
    if not isinstance(backend, str):
        raise InvalidArgument(f"backend is a str such as 'auto', not {shown(backend)}")
    if address.backend is not None and backend not in ("auto", address.backend):
        raise InvalidArgument(f"the URL names backend {address.backend!r} and the argument {backend!r}")
    return address.backend or backend


def convert(option: str, text: str, kind: Callable[[str], Any]) -> Any:
    """Turn an option's text into its type.

    Raises:
        InvalidArgument: The text does not say such a value.
    """
    try:
        return _truth(text) if kind is bool else kind(text)
    except ValueError as error:
        raise InvalidArgument(f"option {option}={text!r}: {error}") from error


def unknown_option(option: str, known: Iterable[str]) -> InvalidArgument:
    """Make the error for an option that nobody has, with the one that was probably meant."""
    return InvalidArgument(f"no option {option!r}: {meant(option, known)}")


def meant(word: str, known: Iterable[str]) -> str:
    """Say which of the known words was probably meant, or which there are."""
    with shortage_told(), importing():
        from difflib import get_close_matches  # here, because only mistakes need it

    known = sorted(known)
    near = get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def _truth(text: str) -> bool:
    try:
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
    except KeyError:
        raise ValueError("say true or false") from None


def _octal(text: str) -> int:
    return int(text, 8)


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


_TYPES: Final[Mapping[str, Callable[[str], Any]]] = {
    "after_unlink": str,
    "buffer_size": int,
    "create": bool,
    "exclusive": bool,
    "lifetime": str,
    "max_message_size": int,
    "max_messages": int,
    "mode": _octal,
    "open_timeout": float,
    "other_users": bool,
    "priorities": bool,
    "read": bool,
    "require": _names,
    "serializer": str,
    "wait": float,
    "write": bool,
}
