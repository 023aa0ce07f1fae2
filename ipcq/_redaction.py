"""Addresses as errors show them: without user name and password.

A URL of another product ends up where a queue's name belongs, by a wrong variable or a paste, and errors get logged.
"""

import re
from typing import Final

_HIDDEN: Final = "***"
# To the last "@", because people do not escape what their passwords hold.
_USERINFO: Final = re.compile(r"(?<=://).*@")
_BEFORE_HOST: Final = re.compile(r"((?:[A-Za-z][A-Za-z0-9+.-]*:(?=/))?/*).*@", re.DOTALL)
_SECRET_OPTION: Final = re.compile(r"([?&][^=&#]*(?:pass|pwd|secret|token|key|cred|auth)[^=&#]*=)[^&#]*", re.IGNORECASE)


def redacted(text: str) -> str:
    """Return text that may quote URLs without what stands before their ``@``."""
    return _USERINFO.sub(f"{_HIDDEN}@", text) if "@" in text else text


def without_secrets(address: str) -> str:
    """Return an address, valid or not, without its user name, its password, and options that sound like secrets."""
    before = address.rpartition("@")[0]
    if ":" in before or "//" in before:
        address = _BEFORE_HOST.sub(rf"\1{_HIDDEN}@", address, count=1)
    return _SECRET_OPTION.sub(rf"\1{_HIDDEN}", address)


def shown(address: object) -> str:
    """Return the repr of what was given as an address, without its secrets; of anything but a str, the type alone."""
    if isinstance(address, str):
        return repr(without_secrets(address))
    return "None" if address is None else f"an object of type {type(address).__name__}"
