"""The same bare MessagePack through msgspec, which is faster and knows types."""

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
    except Exception as error:  # whatever the type's own annotations raise, too
        reraise_from_handler(error)
        raise InvalidArgument(f"type={type!r} is no type that msgspec can decode: {error}") from error

    def encode(item: Any) -> bytes:
        try:
            return pack(item)
        except Exception as error:
            reraise_from_handler(error)
            with shortage_reported(), importing():
                from ipcq.serializers import _ways  # here, because most programs never need it

            raise _ways.encode_error(_ways.MSGSPEC, item, error, pack) from error

    if type is None:
        return encode, decoder.decode
    with shortage_reported(), importing():
        from ipcq.serializers import _typed  # here, because it is for handles with a type alone

    _typed.check_type(type)
    return _typed.encoder(type, encode, decoder.decode), decoder.decode
