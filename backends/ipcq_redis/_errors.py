"""What the errors of a server mean."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from redis import exceptions

from ipcq.errors import (
    ConnectionLost,
    CorruptQueue,
    MessageQueueError,
    NoSpace,
    PermissionDenied,
    Unsupported,
)

#: Codes of a server that refuses to do anything now: it loads its data, became a replica, or is busy.
_NOT_NOW: Final = {
    "LOADING": "the server is loading its data",
    "READONLY": "the server is a replica: the main server has changed",
    "MASTERDOWN": "the server is a replica without its main server",
    "CLUSTERDOWN": "the cluster is down",
    "TRYAGAIN": "the cluster moves the queue",
    "NOREPLICAS": "the server has too few replicas (min-replicas-to-write)",
    "BUSY": "a script of another program keeps the server busy",
    "IPCQLATE": "the request arrived too late, or the server's clock was set",
}

_TABLE: Final[Mapping[str, Callable[[], MessageQueueError]]] = {
    "OOM": partial(
        NoSpace,
        "the server has no memory left: take messages out, or raise its limit with "
        "redis-cli CONFIG SET maxmemory BYTES",
    ),
    "MISCONF": partial(
        NoSpace, "the server cannot save its data on its disk, and refuses writes: see its log, and free space there"
    ),
    "WRONGTYPE": partial(
        CorruptQueue, "a key of the queue belongs to another program: choose another name, or another database"
    ),
    "WRONGPASS": partial(
        PermissionDenied,
        "the server refused user name or password: correct the URL, IPCQ_REDIS_USER, IPCQ_REDIS_PASSWORD or the file "
        "that IPCQ_REDIS_PASSWORD_FILE names",
    ),
    "NOAUTH": partial(
        PermissionDenied,
        "the server wants a password: put it into IPCQ_REDIS_PASSWORD, or into a file that IPCQ_REDIS_PASSWORD_FILE "
        "names",
    ),
    "NOPERM": partial(
        PermissionDenied,
        "the server's access rules deny it: the user needs the keys ipcq:* and the commands "
        "@hash @list @sortedset @stream @string @scripting @keyspace time select info",
    ),
    "MOVED": partial(
        Unsupported, "the server is one of a cluster, and another one has the queue: use the URL of a server or a proxy"
    ),
    "ASK": partial(Unsupported, "the server is one of a cluster, which moves the queue: try again later"),
}
_CODES: Final = re.compile(rf"(?<![A-Z])({'|'.join((*_NOT_NOW, *_TABLE))})(?![A-Za-z])")


#: The codes of errors whose text lacks them in older releases of the library.
_CLASSES: Final[Mapping[type[Exception], str]] = {
    exceptions.OutOfMemoryError: "OOM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.BusyLoadingError: "LOADING",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.TryAgainError: "TRYAGAIN",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.AuthenticationError: "WRONGPASS",
    exceptions.MovedError: "MOVED",
    exceptions.AskError: "ASK",
    exceptions.ClusterDownError: "CLUSTERDOWN",
}


def with_code(error: Exception) -> str:
    """Return the text of a library's error as the server sent it, with its code."""
    text = str(error)
    if "Authentication required" in text:
        return f"NOAUTH {text}"
    if "without any password" in text:
        return text
    return f"{_CLASSES.get(type(error), '')} {text}"


def explained_reply(error: str) -> MessageQueueError:
    """Return our error for an error that a server has replied: it has changed nothing.

    Args:
        error: Its text, perhaps in the text of a script's error.
    """
    found = _CODES.search(error)
    if found is not None and found[1] in _NOT_NOW:
        return ConnectionLost(_NOT_NOW[found[1]], outcome="not done")
    if found is not None:
        return _TABLE[found[1]]()
    if "without any password" in error:
        return PermissionDenied("the server has no password or not this user: leave the password out of the URL")
    if "a message is missing" in error:
        return CorruptQueue("the server has lost messages of the queue, perhaps by eviction: see ipcq doctor")
    if "DB index" in error:
        return PermissionDenied(
            "the server does not have this database: use database 0, or raise its setting databases"
        )
    return MessageQueueError(f"the server refused: {error}")
