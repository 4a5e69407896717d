"""What is cached of an entity in a view, as bytes: where a value comes from, and the values of its features.

The number of its publication comes first, eight bytes, as that is what `put_newer` compares. Then what each answer
tells anyway (event time, run, revision), a hash of the key, a bit for each feature that is NULL, all that is of a fixed
size as one struct, and at the end what is not.
"""

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import IntFlag
from typing import Any, NamedTuple
from uuid import UUID

FORMAT = 1
_HEADER = struct.Struct(">QBBI8sq16s")
_LENGTH = struct.Struct(">I")
_VECTOR = re.compile(r"vector\(([1-9][0-9]{0,4})\)")
_EPOCH, _DAY = datetime(1970, 1, 1, tzinfo=UTC), date(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)


class UnreadableError(ValueError):
    """It is no value of this layout and key; as it is one of a cache, the store is asked."""


class Status(IntFlag):
    """What is so of an entity beside its values."""

    TOMBSTONE = 1
    QUARANTINED = 2


NO_STATUS = Status(0)
_STATUSES = tuple(map(Status, range(4)))


class Origin(NamedTuple):
    """Where the values of an entity come from; a `publication` of 0 says that there are none.

    `event_time` is in microseconds since 1970 in UTC, `run` the 16 bytes of the run's id or the push's, `key_hash` that
    of `domain.features.keys.short_hash`.
    """

    publication: int
    event_time: int = 0
    run: bytes = bytes(16)
    revision: int = 0
    key_hash: bytes = bytes(8)
    status: Status = NO_STATUS


@dataclass(frozen=True)
class _Fixed:
    """A type of a fixed size: its place in the struct, and the ways there and back."""

    code: str
    there: Callable[[Any], Any]
    back: Callable[[Any], Any]
    empty: Any = 0


@dataclass(frozen=True)
class _Tail:
    """A type of any size."""

    there: Callable[[Any], bytes]
    back: Callable[[bytes], Any]


def _same(value: Any) -> Any:
    return value


def _day_time(value: time) -> int:
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond


def _time_of_day(microseconds: int) -> time:
    return (_EPOCH + timedelta(microseconds=microseconds)).time()


_INTEGERS = {
    **dict(zip(("int8", "int16", "int32", "int64"), "bhiq", strict=True)),
    **dict(zip(("uint8", "uint16", "uint32", "uint64"), "BHIQ", strict=True)),
}
_FIXED: dict[str, _Fixed] = {
    "bool": _Fixed("?", bool, _same, empty=False),
    **{name: _Fixed(code, int, _same) for name, code in _INTEGERS.items()},
    "float32": _Fixed("f", float, _same),
    "float64": _Fixed("d", float, _same),
    "date": _Fixed("i", lambda day: (day - _DAY).days, lambda days: _DAY + timedelta(days=days)),
    "time": _Fixed("q", _day_time, _time_of_day),
    "timestamp": _Fixed(
        "q",
        lambda at: (at.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND,
        lambda number: (_EPOCH + number * _MICROSECOND).replace(tzinfo=None),
    ),
    "timestamptz": _Fixed("q", lambda at: (at - _EPOCH) // _MICROSECOND, lambda number: _EPOCH + number * _MICROSECOND),
    "uuid": _Fixed("16s", lambda value: value.bytes, lambda content: UUID(bytes=content), empty=bytes(16)),
}
_TAILS: dict[str, _Tail] = {
    "string": _Tail(str.encode, bytes.decode),
    "json": _Tail(str.encode, bytes.decode),
    "binary": _Tail(bytes, _same),
    "decimal": _Tail(lambda value: format(value, "f").encode(), lambda content: Decimal(content.decode())),
}


class Codec:
    """Writes and reads the values of one layout: types of features in their order."""

    def __init__(self, types: Sequence[str]) -> None:
        """Raises ValueError for a type that cannot be served."""
        self._count = len(types)
        self._nulls = (len(types) + 7) // 8
        self._fixed = [(place, _FIXED[kind]) for place, kind in enumerate(types) if kind in _FIXED]
        self._tails = [(place, tail_of(kind)) for place, kind in enumerate(types) if kind not in _FIXED]
        self._struct = struct.Struct(">" + "".join(fixed.code for _, fixed in self._fixed))
        self._places = [place for place, _ in self._fixed]
        self._changed = [(place, fixed.back) for place, fixed in self._fixed if fixed.back is not _same]

    def encode(self, origin: Origin, values: Sequence[Any]) -> bytes:
        """Write values of the layout's types, None for NULL."""
        nulls = 0
        packed: list[Any] = []
        tail: list[bytes] = []
        for place, fixed in self._fixed:
            value = values[place]
            if value is None:
                nulls |= 1 << place
                packed.append(fixed.empty)
            else:
                packed.append(fixed.there(value))
        for place, kind in self._tails:
            if values[place] is None:
                nulls |= 1 << place
            else:
                content = kind.there(values[place])
                tail += (_LENGTH.pack(len(content)), content)
        return b"".join((header_of(origin), nulls.to_bytes(self._nulls, "little"), self._struct.pack(*packed), *tail))

    def decode(self, content: bytes, key_hash: bytes) -> tuple[Origin, list[Any]]:
        """Read what `encode` wrote; where there are no values, all are None.

        Raises:
            UnreadableError: it is of another format, layout or key.
        """
        try:
            origin = origin_of(content, key_hash)
            if origin.publication == 0:
                return origin, [None] * self._count
            start = _HEADER.size + self._nulls
            nulls = int.from_bytes(content[_HEADER.size : start], "little")
            values: list[Any] = list(self._struct.unpack_from(content, start))
            start += self._struct.size
            if self._tails:
                values, start = self._with_tails(content, start, values, nulls)
            for place, back in self._changed:
                values[place] = back(values[place])
        except (struct.error, ValueError, ArithmeticError) as error:
            raise UnreadableError("another layout") from error
        if start != len(content):
            raise UnreadableError("another layout")
        if nulls:
            values = [None if nulls >> place & 1 else value for place, value in enumerate(values)]
        return origin, values

    def _with_tails(self, content: bytes, start: int, fixed: Sequence[Any], nulls: int) -> tuple[list[Any], int]:
        values: list[Any] = [None] * self._count
        for place, value in zip(self._places, fixed, strict=True):
            values[place] = value
        for place, kind in self._tails:
            if not nulls >> place & 1:
                start, part = _next(content, start)
                values[place] = kind.back(part)
        return values, start


def header_of(origin: Origin) -> bytes:
    """What stands before the values; alone it says that there are none."""
    return _HEADER.pack(
        origin.publication, FORMAT, origin.status, origin.revision, origin.key_hash, origin.event_time, origin.run
    )


def origin_of(content: bytes, key_hash: bytes) -> Origin:
    """Read it.

    Raises:
        UnreadableError: it is of another format or key.
    """
    if len(content) < _HEADER.size:
        raise UnreadableError("too short")
    publication, version, status, revision, found, event_time, run = _HEADER.unpack_from(content)
    if version != FORMAT or found != key_hash:
        raise UnreadableError("another format or key")
    return Origin(publication, event_time, run, revision, found, _STATUSES[status & 3])


def tail_of(kind: str) -> _Tail:
    """How a type of any size is written; a list is a layout of its own, with as many places as it has items.

    Raises:
        ValueError: it cannot be served.
    """
    if kind.startswith("decimal("):
        return _TAILS["decimal"]
    if (vector := _VECTOR.fullmatch(kind)) is not None:
        floats = struct.Struct(f">{vector[1]}f")
        return _Tail(lambda value: floats.pack(*value), lambda content: list(floats.unpack(content)))
    if kind.startswith("list<") and kind.endswith(">"):
        return _list_of(kind[5:-1])
    if kind not in _TAILS:
        raise ValueError(f"the type {kind} cannot be served")
    return _TAILS[kind]


def _list_of(kind: str) -> _Tail:
    if kind not in _FIXED:
        tail_of(kind)

    def there(items: Sequence[Any]) -> bytes:
        return _LENGTH.pack(len(items)) + Codec([kind] * len(items)).encode(_NOBODY, items)[_HEADER.size :]

    def back(content: bytes) -> list[Any]:
        (count,) = _LENGTH.unpack_from(content)
        if count > 8 * len(content):  # A bit for each of them is there at least.
            raise UnreadableError("another layout")
        return Codec([kind] * count).decode(header_of(_NOBODY) + content[_LENGTH.size :], _NOBODY.key_hash)[1]

    return _Tail(there, back)


_NOBODY = Origin(1)


def _next(content: bytes, start: int) -> tuple[int, bytes]:
    (length,) = _LENGTH.unpack_from(content, start)
    end = start + _LENGTH.size + length
    if end > len(content):
        raise UnreadableError("another layout")
    return end, content[start + _LENGTH.size : end]
