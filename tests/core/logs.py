"""Functions that the tests of logging run in other processes, configured by `dictConfig` alone."""

import logging
import logging.config
import os
import signal
from typing import Any

from ipcq.logging import QueueListener
from ipcq.testing.processes import hear, say


def configured(queue: str, **options: Any) -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"queue": {"class": "ipcq.logging.QueueHandler", "queue": queue, **options}},
            "root": {"level": "DEBUG", "handlers": ["queue"]},
        }
    )


def log(queue: str, count: int) -> None:
    """Log `count` records, and let the program exit normally."""
    configured(queue, timeout=10)
    for number in range(count):
        logging.getLogger("app.part").warning("number %d", number, extra={"number": number})
    say(os.getpid())


def log_and_die(queue: str, count: int) -> None:
    """Log `count` records, and kill this process at once."""
    configured(queue, timeout=10)
    for number in range(count):
        logging.getLogger("app").info("number %d", number)
    os.kill(os.getpid(), signal.SIGKILL)


def log_on_and_on(queue: str) -> None:
    configured(queue, timeout=10)
    say("logging")
    while True:
        logging.getLogger("app").info("again")


def log_in_a_child(queue: str) -> None:
    """Log before and after a fork, through the same handler."""
    configured(queue, timeout=10)
    logging.getLogger("app").info("parent")
    child = os.fork()
    if child == 0:
        logging.getLogger("app").info("child")
        os._exit(0)
    os.waitpid(child, 0)
    logging.getLogger("app").info("parent again")
    say([os.getpid(), child])


def write(queue: str, path: str) -> None:
    """Run the process that writes the log; the listener gets its handler by its name in the configuration."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"format": "%(levelname)s %(name)s %(process)d %(message)s"}},
            "handlers": {"file": {"class": "logging.FileHandler", "filename": path, "formatter": "line"}},
            "root": {"handlers": ["file"]},
        }
    )
    with QueueListener(queue, "file"):
        say("listening")
        hear()
