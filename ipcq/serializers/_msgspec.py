"""The same MessagePack by msgspec, which is faster and supports types."""

from typing import Any

from ipcq._distribution import DISTRIBUTION
from ipcq._process.imports import importing, shortage_reported
from ipcq._process.signals import reraise_from_handler
from ipcq.errors import InvalidArgument, Unsupported

try:
    import msgspec
except ModuleNotFoundError as missing:
    raise Unsupported(
        f"type= and serializer='msgspec' need msgspec: pip install '{DISTRIBUTION}[msgspec]'"
    ) from missing


def functions(type: Any) -> tuple[Any, Any]:
    pack = msgspec.msgpack.Encoder().encode
    try:
        decoder = msgspec.msgpack.Decoder(Any if type is None else type)
    except Exception as error:  # any, because annotations of the type may run code
        reraise_from_handler(error)
        raise InvalidArgument(f"msgspec cannot decode type={type!r}: {error}") from error

    def encode(item: Any) -> bytes:
        try:
            return pack(item)
        except Exception as error:
            reraise_from_handler(error)
            with shortage_reported(), importing():
                from ipcq.serializers import _encode_errors  # here, because only an error needs it

            raise _encode_errors.encode_error(_encode_errors.MSGSPEC, item, error, pack) from error

    if type is None:
        return encode, decoder.decode
    with shortage_reported(), importing():
        from ipcq.serializers import _typed  # here, because only handles with a type need it

    _typed.check_type(type)
    return _typed.encoder(type, encode, decoder.decode), decoder.decode
