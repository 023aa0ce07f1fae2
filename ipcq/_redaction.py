"""Redaction: user names, passwords and secret options are removed from texts.

A wrong variable or a paste can pass another product's URL as a queue's name, and errors get logged. So texts are
redacted by their form, as far as it shows what is secret. A library's text may quote a password without the URL around
it. So each password of an address is a `Secret`, which is removed from every text as long as it exists.
"""

import re
import weakref
from typing import Any, Final, NoReturn

_HIDDEN: Final = "***"
# To the last "@", because people do not escape an "@" in their passwords.
_USERINFO: Final = re.compile(r"(?<=://).*@")
_BEFORE_HOST: Final = re.compile(r"((?:[A-Za-z][A-Za-z0-9+.-]*:(?=/))?/*).*@", re.DOTALL)
_CREDENTIALS: Final = re.compile(r"(?<=://)[^/?#]*@")
_TELLTALE: Final = r"[^=&#]*(?:pass|pwd|secret|token|key|cred|auth)[^=&#]*"
_SECRET_OPTION: Final = re.compile(rf"([?&]{_TELLTALE}=)[^&#]*", re.IGNORECASE)

#: A shorter secret is not removed from texts: too many other words contain it.
_SHORTEST: Final = 4

#: All secrets that exist.
_secrets: "weakref.WeakValueDictionary[int, Secret]" = weakref.WeakValueDictionary()


class Secret:
    """A password: it is not shown, not pickled, and removed from errors.

    Args:
        text: The password.
    """

    __slots__ = ("__weakref__", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        _secrets[id(self)] = self

    def reveal(self) -> str:
        """Return the password."""
        return self._text

    def _hidden_in(self, text: str) -> str:
        return text.replace(self._text, _HIDDEN) if len(self._text) >= _SHORTEST else text

    def __repr__(self) -> str:
        return _HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled: give it to the other process in its environment or a file")


def redacted(text: str) -> str:
    """Return a text that may quote URLs, without what is between ``://`` and ``@``, and without any secret."""
    if not text:
        return text
    if "@" in text:
        text = _USERINFO.sub(f"{_HIDDEN}@", text)
    for secret in filter(None, [reference() for reference in _secrets.valuerefs()]):
        text = secret._hidden_in(text)
    return text


def without_secrets(address: str) -> str:
    """Return an address, valid or not, without user name, password, and options whose names suggest a secret."""
    before = address.rpartition("@")[0]
    if ":" in before or "//" in before:
        address = _BEFORE_HOST.sub(rf"\1{_HIDDEN}@", address, count=1)
    return _SECRET_OPTION.sub(rf"\1{_HIDDEN}", address)


def without_credentials(url: str) -> str:
    """Return a valid URL without user name and password; it still leads to the same queue."""
    return _CREDENTIALS.sub("", url)


def shown(address: object) -> str:
    """Return the repr of an address without its secrets; for anything but a str, only the type."""
    if isinstance(address, str):
        return repr(without_secrets(address))
    return "None" if address is None else f"an object of type {type(address).__name__}"


def value_shown(option: str, value: Any) -> str:
    """Return the repr of an option's value, unless the option's name suggests a secret."""
    return repr(_HIDDEN if re.fullmatch(_TELLTALE, option, re.IGNORECASE) else value)
