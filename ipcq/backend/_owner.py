"""Check of who owns a queue."""

import os

from ipcq.backend._request import Request
from ipcq.errors import PermissionDenied


def check_owner(uid: int, request: Request, *, shareable: bool = False) -> None:
    """Refuse an object owned by a user other than this one or root, unless the request trusts other users (clause 7).

    Args:
        uid: The owner.
        request: What the caller of `ipcq.open` asked for.
        shareable: Whether the backend has the capability `other_users`. Only then the error advises
            ``other_users=True``.

    Raises:
        PermissionDenied: `uid` is another user.
    """
    if request.other_users or uid in (0, os.geteuid()):
        return
    if shareable:
        way_out = "open it with other_users=True if you trust that user"
    else:
        way_out = f"use another name, or run as user {uid}, because this backend's queues are for one user"
    raise PermissionDenied(f"its owner is user {uid}, not this user ({os.geteuid()}) or root: {way_out}")
