"""Deliberately faulty backends between processes, each with one fault; they show that `ipcq stress` can fail."""

import time
from dataclasses import replace
from typing import ClassVar

from ipcq.backend import Backend, Channel, Received, Request
from ipcq.hooks import hookimpl
from ipcq_pyshm import PyshmBackend
from ipcq_pyshm._channel import PyshmChannel


class Doubling(PyshmChannel):
    """Returns every third message twice."""

    def try_get(self) -> Received | None:
        self.gets = getattr(self, "gets", 0) + 1
        return self.peek() if self.gets % 3 == 0 else super().try_get()


class Hanging(PyshmChannel):
    """Never returns from a get once fifty messages have been taken."""

    def try_get(self) -> Received | None:
        if (self.stats().gets or 0) >= 50:
            get_that_hangs()
        return super().try_get()


def get_that_hangs() -> None:
    while True:
        time.sleep(1)


class Wrong(PyshmBackend):
    Faulty: ClassVar[type[PyshmChannel]]

    @classmethod
    @hookimpl
    def ipcq_backend(cls) -> Backend:
        return cls()

    def create(self, name: str, request: Request) -> Channel:
        channel = super().create(name, request)
        channel.__class__ = self.Faulty
        return channel

    def attach(self, name: str, request: Request) -> Channel:
        channel = super().attach(name, request)
        channel.__class__ = self.Faulty
        return channel


class Endless(PyshmBackend):
    """A correct backend whose queues cannot be shut down."""

    name = "endless"
    capabilities = replace(PyshmBackend.capabilities, shutdown=False)

    @classmethod
    @hookimpl
    def ipcq_backend(cls) -> Backend:
        return cls()

    def create(self, name: str, request: Request) -> Channel:
        return _endless(super().create(name, request))

    def attach(self, name: str, request: Request) -> Channel:
        return _endless(super().attach(name, request))


def _endless(channel: Channel) -> Channel:
    channel.capabilities = replace(channel.capabilities, shutdown=False)
    return channel


class Doubles(Wrong):
    name = "doubles"
    Faulty = Doubling


class Hangs(Wrong):
    name = "hangs"
    Faulty = Hanging
