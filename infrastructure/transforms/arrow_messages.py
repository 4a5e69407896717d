"""What the messages of an Arrow stream say of themselves, read before Arrow makes room for anything."""

import struct

import pyarrow as pa

_DICTIONARY, _ROWS = 2, 3
_HEADER_TYPE, _HEADER = 1, 2
_INNER_ROWS = 1
_BUFFERS, _COMPRESSION = 2, 3


def check_stream(content: bytes | pa.Buffer) -> None:
    """Refuse rows that take more than the bytes they came in: compressed ones, or such as have the same bytes several
    times.

    Raises:
        pa.ArrowException: they do, or are no such stream.
    """
    for message in pa.ipc.MessageReader.open_stream(content):
        body = message.body.size if message.body is not None else 0
        try:
            compressed, size = _claimed(message.metadata.to_pybytes())
        except struct.error as error:
            raise pa.ArrowInvalid("a message ends early") from error
        if compressed:
            raise pa.ArrowInvalid("the rows are compressed")
        if size > body:
            raise pa.ArrowInvalid(f"{size} bytes of values in a message of {body}")


def _claimed(metadata: bytes) -> tuple[bool, int]:
    """Whether the rows of a message are compressed, and the bytes that all their buffers have; nothing of
    another one.
    """
    message = _offset(metadata, 0)
    kind = _field(metadata, message, _HEADER_TYPE)
    if kind is None or metadata[kind] not in (_DICTIONARY, _ROWS):
        return False, 0
    rows = _table(metadata, message, _HEADER)
    if rows is not None and metadata[kind] == _DICTIONARY:
        rows = _table(metadata, rows, _INNER_ROWS)
    if rows is None:
        return False, 0
    buffers = _table(metadata, rows, _BUFFERS)
    size = 0
    if buffers is not None:
        (count,) = struct.unpack_from("<I", metadata, buffers)
        size = sum(length for _, length in struct.iter_unpack("<qq", metadata[buffers + 4 : buffers + 4 + 16 * count]))
    return _field(metadata, rows, _COMPRESSION) is not None, size


def _field(metadata: bytes, table: int, number: int) -> int | None:
    """Where a table of FlatBuffers has a field; None where it has not."""
    names = table - struct.unpack_from("<i", metadata, table)[0]
    (length,) = struct.unpack_from("<H", metadata, names)
    if 4 + 2 * number >= length:
        return None
    (place,) = struct.unpack_from("<H", metadata, names + 4 + 2 * number)
    return table + place if place else None


def _table(metadata: bytes, table: int, number: int) -> int | None:
    place = _field(metadata, table, number)
    return None if place is None else _offset(metadata, place)


def _offset(metadata: bytes, place: int) -> int:
    return place + int(struct.unpack_from("<I", metadata, place)[0])
