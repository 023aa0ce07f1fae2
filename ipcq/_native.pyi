from collections.abc import Callable
from typing import Any, Literal, Self, TypeVar, final

_F = TypeVar("_F", bound=Callable[..., Any])

class Base:
    _session: Any
    @property
    def _armed(self) -> bool: ...
    def _arm(
        self,
        table: object,
        encode: Callable[[Any], bytes],
        decode: Callable[[bytes], Any],
        puts: bool,
        gets: bool,
        waits: bool,
        lease: type[LeaseBase] | None = None,
        /,
    ) -> None: ...
    def _disarm(self) -> None: ...
    def _await_uses(self) -> None: ...
    def _forget_uses(self) -> None: ...

class LeaseBase:
    item: Any
    priority: int
    deliveries: int
    failures: int
    _lessor: Any
    _session: Any
    _token: int
    _end: str

class Serials:
    def serial(self, count: int, /) -> int: ...

@final
class Codec:
    def __new__(
        cls,
        encode: Callable[[Any], bytes],
        decode: Callable[[bytes], Any],
        /,
        format: Literal["messagepack", "bin", "raw"] = ...,  # noqa: A002  # the parameter's public name
    ) -> Self: ...
    def encode(self, item: Any, /) -> bytes: ...
    def decode(self, data: bytes, /) -> Any: ...

@final
class Verb: ...

def in_c(method: _F, /) -> _F: ...
