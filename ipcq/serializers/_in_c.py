"""The formats that C writes and reads (`ipcq/csrc/codec.h`), where it was compiled."""

from collections.abc import Callable
from typing import Any, Literal

from ipcq._process.imports import shortage_behind
from ipcq._process.shortcuts import shortcuts_enabled

try:
    from ipcq._native import Codec
except ImportError as error:
    if shortage_behind(error):
        raise  # it is there, and can be loaded in a moment
    COMPILED = False
else:
    COMPILED = True


def in_c(
    encode: Callable[[Any], bytes], decode: Callable[[bytes], Any], format: Literal["messagepack", "bin", "raw"]
) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """Return functions that do the same as these in C, and call these for what C leaves to them.

    Args:
        encode: Encodes any item.
        decode: Decodes any message.
        format: What C writes and reads: MessagePack of most classes; of `bytes` alone; or `bytes` unchanged.
    """
    if not (COMPILED and shortcuts_enabled()):
        return encode, decode
    codec = Codec(encode, decode, format)
    return codec.encode, codec.decode
