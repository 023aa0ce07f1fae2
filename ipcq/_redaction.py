"""Redaction of addresses in errors: user names, passwords and secret options are removed.

A wrong variable or a paste can pass another product's URL as a queue's name, and errors get logged.
"""

import re
from typing import Final

_HIDDEN: Final = "***"
# To the last "@", because people do not escape an "@" in their passwords.
_USERINFO: Final = re.compile(r"(?<=://).*@")
_BEFORE_HOST: Final = re.compile(r"((?:[A-Za-z][A-Za-z0-9+.-]*:(?=/))?/*).*@", re.DOTALL)
_SECRET_OPTION: Final = re.compile(r"([?&][^=&#]*(?:pass|pwd|secret|token|key|cred|auth)[^=&#]*=)[^&#]*", re.IGNORECASE)


def redacted(text: str) -> str:
    """Return a text that may quote URLs, with everything between ``://`` and ``@`` replaced."""
    return _USERINFO.sub(f"{_HIDDEN}@", text) if "@" in text else text


def without_secrets(address: str) -> str:
    """Return an address, valid or not, without user name, password, and options whose names suggest a secret."""
    before = address.rpartition("@")[0]
    if ":" in before or "//" in before:
        address = _BEFORE_HOST.sub(rf"\1{_HIDDEN}@", address, count=1)
    return _SECRET_OPTION.sub(rf"\1{_HIDDEN}", address)


def shown(address: object) -> str:
    """Return the repr of an address without its secrets; for anything but a str, only the type."""
    if isinstance(address, str):
        return repr(without_secrets(address))
    return "None" if address is None else f"an object of type {type(address).__name__}"
