"""Places: where a backend keeps its queues, if there is a choice."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from ipcq._process.imports import importing, shortage_reported
from ipcq._process.signals import reraise_from_handler
from ipcq._redaction import Secret
from ipcq.errors import InvalidArgument, PermissionDenied

#: The longest password file, in bytes.
_MAX_PASSWORD_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class Place:
    """Where a backend keeps queues: a directory, or a database of a server. Its text is a URL that ends in a slash.

    Two places are equal if their texts are equal. The credentials are in no text, and are not pickled.
    """

    scheme: str
    """Scheme of the URL, in lower case: the backend's name, or one of its `schemes`."""
    host: str = ""
    """Name or address of the server, in lower case, without brackets; empty if the URL has none."""
    port: int | None = None
    """Port of the server; None if the URL has none."""
    path: tuple[str, ...] = ()
    """The parts of the path, decoded. None of them is empty or contains a slash."""
    user: str = field(default="", repr=False, compare=False)
    """User name; empty if the URL has none."""
    password: Secret | None = field(default=None, repr=False, compare=False)
    """Password; None if the URL has none."""

    @property
    def directory(self) -> str:
        """The path as an absolute path of the file system."""
        return "/" + "/".join(self.path)

    def __str__(self) -> str:
        with shortage_reported(), importing():
            from urllib.parse import quote  # here, because few programs have places

        host = f"[{self.host}]" if ":" in self.host else quote(self.host, safe="")
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{host}{port}/" + "".join(quote(part, safe=_SAFE) + "/" for part in self.path)

    def __reduce__(self) -> tuple[Callable[..., "Place"], tuple[Any, ...]]:
        return Place, (self.scheme, self.host, self.port, self.path)


#: Characters that need no escape in a part of a path (RFC 3986, section 3.3), without the "@" of credentials.
_SAFE: Final = "!$&'()*+,;=:"


def credentials(place: Place | None, backend: str) -> tuple[str, Secret | None]:
    """Return user name and password for a place.

    Each comes from the place's URL. Otherwise the user name comes from the environment variable
    ``IPCQ_<BACKEND>_USER``, and the password from ``IPCQ_<BACKEND>_PASSWORD``, or from the first line of the file that
    ``IPCQ_<BACKEND>_PASSWORD_FILE`` names.

    Args:
        place: The place; None: the default place.
        backend: Name of the backend.

    Returns:
        The user name, empty if there is none; and the password, None if there is none.

    Raises:
        PermissionDenied: The password file cannot be read.
        InvalidArgument: The password file is not a text.
    """
    prefix = f"IPCQ_{backend.upper().replace('-', '_')}"
    user = (place.user if place else "") or os.environ.get(f"{prefix}_USER", "")
    if place is not None and place.password is not None:
        return user, place.password
    given = os.environ.get(f"{prefix}_PASSWORD")
    if given is not None:
        return user, Secret(given)
    path = os.environ.get(f"{prefix}_PASSWORD_FILE")
    return user, None if path is None else Secret(_first_line(path, f"{prefix}_PASSWORD_FILE"))


def _first_line(path: str, variable: str) -> str:
    try:
        with shortage_reported(), open(path, "rb") as file:
            data = file.read(_MAX_PASSWORD_BYTES)
    except OSError as error:
        reraise_from_handler(error)
        raise PermissionDenied(
            f"the password file {path!r} cannot be read ({error.strerror}): correct the variable {variable}",
            errno=error.errno,
        ) from error
    with suppress(UnicodeDecodeError):
        return data.partition(b"\n")[0].removesuffix(b"\r").decode()
    raise InvalidArgument(f"the password file {path!r} is not UTF-8: correct the variable {variable}")


def check_plaintext(place: Place, allowed: bool, way_out: str) -> None:
    """Refuse a connection without encryption to a server on another machine.

    Args:
        place: The server's place.
        allowed: The user has asked for it.
        way_out: How to encrypt, and how to ask for it.

    Raises:
        PermissionDenied: The host is not this machine, and `allowed` is False.
    """
    if not (allowed or _is_loopback(place.host)):
        raise PermissionDenied(
            f"messages and password would cross the network to {place.host!r} without encryption: {way_out}"
        )


def _is_loopback(host: str) -> bool:
    # A name may resolve to anything, except this one (RFC 6761, section 6.3). A path is a Unix socket.
    if host in ("", "localhost") or host.startswith("/"):
        return True
    with shortage_reported(), importing():
        from ipaddress import ip_address  # here, because only places with a server need it

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
