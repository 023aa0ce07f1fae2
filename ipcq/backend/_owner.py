"""Check of who owns a queue."""

import os

from ipcq.backend._request import Request
from ipcq.errors import PermissionDenied


def check_owner(uid: int, request: Request) -> None:
    """Refuse an object owned by a user other than this one or root, unless the request trusts other users (clause 7).

    Raises:
        PermissionDenied: `uid` is another user.
    """
    if not request.other_users and uid not in (0, os.geteuid()):
        raise PermissionDenied(
            f"its owner is user {uid}, not this user ({os.geteuid()}) or root: "
            "open it with other_users=True if you trust that user"
        )
