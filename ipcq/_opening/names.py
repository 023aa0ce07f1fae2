"""What a queue may be called: one rule on every backend and every platform."""

from ipcq._redaction import shown
from ipcq.errors import InvalidName

LONGEST = 254


def check_name(name: object) -> str:
    """Return `name` if it may name a queue.

    Raises:
        InvalidName: It is not a str of '/' and then 1 to 254 bytes of UTF-8 without '/' and NUL, or it is '/.' or
        '/..'.
    """
    if not isinstance(name, str):
        raise InvalidName(f"a queue's name is a str such as '/jobs', not {shown(name)}")
    if not name.startswith("/"):
        bare = name.strip("/")
        way = InvalidName.wording if not bare or "/" in bare else f"call it {shown('/' + bare)}"
        raise InvalidName(f"{shown(name)} does not start with '/': {way}")
    try:
        size = len(name[1:].encode())
    except UnicodeEncodeError:
        raise InvalidName(f"{shown(name)} cannot be written as UTF-8") from None
    if not size:
        raise InvalidName("'/' alone names nothing: add 1 to 254 bytes")
    if size > LONGEST:
        raise InvalidName(f"{shown(name)[:20]}…' has {size} bytes after its '/', the limit is {LONGEST}")
    if "/" in name[1:] or "\0" in name or name in ("/.", "/.."):
        raise InvalidName(f"{shown(name)} has a second '/' or a NUL, or is a directory: {InvalidName.wording}")
    return name
