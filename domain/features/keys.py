"""Keys of entities as bytes: equal exactly where the entities are, whatever process or version wrote them."""

import hashlib
import re
import struct
from collections.abc import Sequence
from datetime import date
from uuid import UUID

KeyValue = bool | int | str | date | UUID
"""A column of a key. Floats are none: two that look alike need not be equal."""

MOST_KEY_BYTES = 1024
_VERSION = b"\x01"
_INTEGERS = {
    f"{sign}int{bits}": range(-(2 ** (bits - 1)), 2 ** (bits - 1)) if not sign else range(2**bits)
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}
KEY_TYPES = (*_INTEGERS, "string", "bool", "date", "uuid")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,19})")
_BOOLEANS = {"true": True, "false": False}


def key_of(values: Sequence[KeyValue], types: Sequence[str]) -> bytes:
    """Write the values of a key's columns: each with a tag of its type and its length, so that 1 is not "1", and
    ("a", "bc") is not ("ab", "c").

    Raises:
        ValueError: there are more or fewer than columns, one is of another type or out of its range, or all are longer
            than `MOST_KEY_BYTES`.
    """
    if len(values) != len(types):
        raise ValueError(f"the key has {len(types)} columns, and {len(values)} values are given")
    key = _VERSION + b"".join(map(_part, values, types))
    if len(key) > MOST_KEY_BYTES:
        raise ValueError(f"a key has at most {MOST_KEY_BYTES} bytes")
    return key


def value_of_text(text: str, kind: str) -> KeyValue:
    """Read a value of a type as it stands in an address: one spelling for each value.

    Raises:
        ValueError: it is none of that type.
    """
    try:
        if kind in _INTEGERS:
            if not _NUMBER.fullmatch(text) or text == "-0":
                raise ValueError
            return int(text)
        if kind == "bool":
            return _BOOLEANS[text]
        if kind in ("date", "uuid"):
            value = date.fromisoformat(text) if kind == "date" else UUID(text)
            if str(value) != text.lower():
                raise ValueError
            return value
    except (KeyError, ValueError):
        raise ValueError(f"a value of the type {kind} is due") from None
    return text


def short_hash(key: bytes) -> bytes:
    """Eight bytes that tell a key's value from another's, should an answer ever come to the wrong question."""
    return hashlib.blake2b(key, digest_size=8).digest()


def _part(value: KeyValue, kind: str) -> bytes:
    tag, content = _tagged(value, kind)
    return tag + struct.pack(">H", len(content)) + content


def _tagged(value: KeyValue, kind: str) -> tuple[bytes, bytes]:
    if kind in _INTEGERS and type(value) is int and value in _INTEGERS[kind]:
        return b"i", b"%d" % value
    if kind == "string" and isinstance(value, str):
        try:
            content = value.encode()
        except UnicodeEncodeError:
            raise ValueError("a text of a key is no Unicode") from None
        if len(content) > MOST_KEY_BYTES:
            raise ValueError(f"a key has at most {MOST_KEY_BYTES} bytes")
        return b"s", content
    if kind == "bool" and isinstance(value, bool):
        return b"b", b"\x01" if value else b"\x00"
    if kind == "date" and type(value) is date:
        return b"d", value.isoformat().encode()
    if kind == "uuid" and isinstance(value, UUID):
        return b"u", value.bytes
    raise ValueError(f"a value of the type {kind} is due")
