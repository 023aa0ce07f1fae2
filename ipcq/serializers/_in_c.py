"""The message formats of the codec in C (`ipcq/csrc/codec.h`), if the extension is installed."""

from collections.abc import Callable
from typing import Any, Literal

from ipcq._process.imports import shortage_behind
from ipcq._process.shortcuts import shortcuts_enabled

try:
    from ipcq._native import Codec
except ImportError as error:
    if shortage_behind(error):
        raise  # it is installed, and a later import may succeed
    COMPILED = False
else:
    COMPILED = True


def in_c(
    encode: Callable[[Any], bytes], decode: Callable[[bytes], Any], format: Literal["messagepack", "bin", "raw"]
) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """Return faster functions in C that do the same as these two; without the extension, return these two.

    Args:
        encode: Encodes any item. C calls it for items that it cannot encode.
        decode: Decodes any message. C calls it for messages that it cannot decode.
        format: What C encodes and decodes: MessagePack of most classes, MessagePack of `bytes` alone, or `bytes`
            unchanged.
    """
    if not (COMPILED and shortcuts_enabled()):
        return encode, decode
    codec = Codec(encode, decode, format)
    return codec.encode, codec.decode
