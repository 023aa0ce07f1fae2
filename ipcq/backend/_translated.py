"""Exceptions of the system and of libraries, turned into ours."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ipcq._process.signals import reraise_from_handler
from ipcq.errors import MessageQueueError


@contextmanager
def translated(
    table: Mapping[type[BaseException], type[MessageQueueError]], queue: str, backend: str
) -> Iterator[None]:
    """Turn foreign exceptions into ours by a table, chained; an unlisted `OSError` becomes the root with its errno."""
    try:
        yield
    except MessageQueueError as error:
        error.at(queue, backend)
        raise
    except tuple(table) as error:
        reraise_from_handler(error)
        kind = next(ours for theirs, ours in table.items() if isinstance(error, theirs))
        raise kind(queue=queue, backend=backend) from error
    except OSError as error:
        reraise_from_handler(error)
        raise MessageQueueError(
            f"the system refused: {error}", queue=queue, backend=backend, errno=error.errno
        ) from error
