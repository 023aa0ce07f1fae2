"""C42: no text shows a password from an address: the tests search for a canary in each error of each call."""

import asyncio
import logging
import traceback
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import pytest

import ipcq
import ipcq.logging
from ipcq._redaction import shown
from ipcq.compat import baseplate, posix_ipc, shmqueue
from processes.needs import library

CANARY = "s3cret"

ADDRESSES = [
    f"redis://:{CANARY}@h/jobs",
    f"redis://user:{CANARY}@h:6379/jobs?max_messages=4",
    f"redis://{CANARY}@h/jobs",
    f"redis://:{CANARY}/x@h/jobs",
    f"redis://:{CANARY}#?@h/jobs",
    f"redis://:x@{CANARY}@h/jobs",
    f"redis://:{CANARY}\t@h/jobs",
    f"redis://:{CANARY}@[h/jobs",
    f"redis://:{CANARY}@h℀/jobs",
    f"redis:///:{CANARY}@h/jobs",
    f"redis:///:{CANARY}@h/jobs?create=maybe",
    f"redis:///:{CANARY}@h\t/jobs",
    f"redis:///:{CANARY}@h/jobs#x",
    f"redis:///:{CANARY}@h/jobs?wait=1&wait=2",
    f"redis:/:{CANARY}@h/jobs",
    f" redis://:{CANARY}@h/jobs",
    f"user:{CANARY}@h",
    f":{CANARY}@h/jobs",
    f"//:{CANARY}@h/jobs",
    f"//:{CANARY}@" + "h" * 300,
    f"//:{CANARY}@\udc80",
    f"redis:///jobs?password={CANARY}#x",
    f"redis:///jobs?a=1&a=2&API_KEY={CANARY}",
    f"redis://:{CANARY}@h/jobs".encode(),
    PurePosixPath(f"redis://:{CANARY}@h/jobs"),
    {"url": f"redis://:{CANARY}@h/jobs"},
]


async def _aio(address: Any) -> None:
    library("anyio")
    import ipcq.aio

    async with ipcq.aio.open(address):
        pass


CALLS: dict[str, Callable[[Any], Any]] = {
    "open": ipcq.open,
    "aio.open": lambda address: asyncio.run(_aio(address)),
    "unlink": ipcq.unlink,
    "exists": ipcq.exists,
    "backend of open": lambda address: ipcq.open("/jobs", address),
    "backend of unlink": lambda address: ipcq.unlink("/jobs", address),
    "backend of exists": lambda address: ipcq.exists("/jobs", address),
    "QueueHandler": lambda address: ipcq.logging.QueueHandler(address).queue.qsize(),
    "QueueListener": lambda address: ipcq.logging.QueueListener(address).queue.qsize(),
    "RecordQueue": lambda address: ipcq.logging.RecordQueue(address).qsize(),
    "queues": ipcq.queues,
    "posix_ipc": posix_ipc.MessageQueue,
    "posix_ipc.unlink": posix_ipc.unlink_message_queue,
    "shmqueue": lambda address: shmqueue.ShmQueue(address, allow_pickle=False),
    "baseplate": lambda address: baseplate.MessageQueue(address, 4, 64),
}


def _text_of(call: Callable[[Any], Any], address: Any) -> str:
    with pytest.raises(Exception, match=r".") as caught:  # of any class
        call(address)
    error: BaseException | None = caught.value
    told = [repr(error)]
    while error is not None:
        # Without the frames: they show lines of this file.
        told += traceback.format_exception_only(error)
        error = error.__cause__ or error.__context__
    return "\n".join(told)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("redis://:s3cret@h/jobs?a=1", "'redis://***@h/jobs?a=1'"),
        ("redis:///jobs?password=s3cret&a=1", "'redis:///jobs?password=***&a=1'"),
        ("user:s3cret@h", "'***@h'"),
        ("jobs@h", "'jobs@h'"),
        ("/a:b", "'/a:b'"),
        (None, "None"),
        (5, "an object of type int"),
    ],
)
def test_the_rest_of_an_address_is_shown(address: object, text: str) -> None:
    """The reader of the error can still recognise the address."""
    assert shown(address) == text


@pytest.mark.parametrize(
    ("call", "address"),
    # shmqueue prepends a slash, which makes it a valid name.
    [(call, each) for call in CALLS for each in ADDRESSES if (call, each) != ("shmqueue", f"user:{CANARY}@h")],
    ids=lambda part: part if part in list(CALLS) else ascii(part),
)
def test_no_error_shows_the_password_of_an_address(call: str, address: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The canary is not in the text, the repr, a cause or a log record."""
    caplog.set_level(logging.DEBUG)
    assert CANARY not in _text_of(CALLS[call], address) + caplog.text
