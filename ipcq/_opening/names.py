"""The rule for queue names, the same on every backend and platform."""

from ipcq._redaction import shown
from ipcq.errors import InvalidName

MAX_BYTES = 254


def check_name(name: object) -> str:
    """Return `name` if it is a valid queue name.

    Raises:
        InvalidName: It is not a str of '/' and 1 to 254 bytes of UTF-8 without '/' and NUL, or it is '/.' or '/..'.
    """
    if not isinstance(name, str):
        raise InvalidName(f"a queue's name must be a str such as '/jobs', not {shown(name)}")
    if not name.startswith("/"):
        bare = name.strip("/")
        advice = InvalidName.wording if not bare or "/" in bare else f"call it {shown('/' + bare)}"
        raise InvalidName(f"{shown(name)} does not start with '/': {advice}")
    try:
        size = len(name[1:].encode())
    except UnicodeEncodeError:
        raise InvalidName(f"{shown(name)} cannot be encoded as UTF-8") from None
    if not size:
        raise InvalidName("'/' is not a queue's name: add 1 to 254 bytes")
    if size > MAX_BYTES:
        raise InvalidName(f"{shown(name)[:20]}…' has {size} bytes after its '/', the limit is {MAX_BYTES}")
    if "/" in name[1:] or "\0" in name or name in ("/.", "/.."):
        raise InvalidName(f"{shown(name)} has a second '/' or a NUL, or is a directory: {InvalidName.wording}")
    return name
