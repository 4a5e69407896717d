"""Rows as JSON objects and back, without loss: what a refused row is kept as, and what a replay reads."""

import json
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from itertools import accumulate, pairwise
from typing import Any

import pyarrow as pa

from domain.errors import InvalidInputError
from domain.stores.table import Column
from infrastructure.tabular.arrow import arrow_type, not_utf8
from infrastructure.tabular.arrow_texts import texts_of_times, times_of_texts

_LETTERS_AT_ONCE = 1024 * 1024


def shape_of(columns: Sequence[Column], *, is_text: bool, guessed: Sequence[str] = ()) -> str:
    """Say of which types the values of a record are; with `is_text` they are text still to be converted to these, the
    `guessed` ones only where they stay what was written.
    """
    shape = {"columns": [[column.name, column.type] for column in columns], "is_text": is_text}
    return json.dumps(shape | ({"guessed": list(guessed)} if guessed else {}))


def guessed_of(shapes: Sequence[str]) -> tuple[str, ...]:
    """The columns whose types were guessed in any of several shapes."""
    return tuple(dict.fromkeys(name for shape in shapes for name in json.loads(shape).get("guessed", ())))


def merged_shape(shapes: Sequence[str]) -> tuple[tuple[Column, ...], bool]:
    """The columns of records of several shapes, and whether their values are text.

    Raises:
        InvalidInputError: a column has two types, or names in two letter cases (`quarantine.types`).
    """
    types: dict[str, str] = {}
    spelled: dict[str, str] = {}
    found = [json.loads(shape) for shape in shapes]
    for shape in found:
        for name, kind in shape["columns"]:
            if (other := spelled.setdefault(name.casefold(), name)) != name:
                raise InvalidInputError(
                    f"The refused rows were read when a column was called {other}, and when it was called {name}; "
                    "replay them run by run.",
                    code="quarantine.types",
                )
            if types.setdefault(name, kind) != kind:
                raise InvalidInputError(
                    f"The refused rows were read when {name} had different types; replay them run by run.",
                    code="quarantine.types",
                )
    if len({shape["is_text"] for shape in found}) > 1:
        raise InvalidInputError(
            "The refused rows come from sources of different kinds; replay them run by run.", code="quarantine.types"
        )
    return tuple(Column(name, kind) for name, kind in types.items()), any(shape["is_text"] for shape in found)


def encoded(rows: pa.Table) -> list[str]:
    """Write each row as a JSON object; what JSON has no type for is text, or a list of numbers.

    Raises:
        SchemaMismatchError: a text is not UTF-8 (`value.encoding`).
    """
    columns = [_told(name, column) for name, column in zip(rows.column_names, rows.columns, strict=True)]
    return [
        json.dumps(dict(zip(rows.column_names, values, strict=True)), ensure_ascii=False, allow_nan=False)
        for values in (zip(*columns, strict=True) if columns else [() for _ in range(rows.num_rows)])
    ]


def decoded(records: Sequence[str], columns: Sequence[Column], *, is_text: bool) -> pa.Table:
    """Read records; a column that one does not have is NULL in it."""
    # A few at a time: as dictionaries they have many times the size.
    tables = [_decoded(part, columns, is_text=is_text) for part in _parted(records)]
    return pa.concat_tables(tables).combine_chunks() if len(tables) > 1 else tables[0]


def _parted(records: Sequence[str]) -> Iterator[Sequence[str]]:
    """One part at least, and none without records but where there are none."""
    start, room = 0, _LETTERS_AT_ONCE
    for number, record in enumerate(records):
        if len(record) > room and number > start:
            yield records[start:number]
            start, room = number, _LETTERS_AT_ONCE
        room -= len(record)
    yield records[start:]


def _decoded(records: Sequence[str], columns: Sequence[Column], *, is_text: bool) -> pa.Table:
    found = [json.loads(record) for record in records]
    arrays = [
        _array([row.get(column.name) for row in found], pa.string() if is_text else arrow_type(column.type))
        for column in columns
    ]
    return pa.table(arrays, names=[column.name for column in columns])


def _told(name: str, column: pa.ChunkedArray) -> list[Any]:
    try:
        return _plain(column.combine_chunks())
    except UnicodeDecodeError as error:
        raise not_utf8(f"The column {name} of a refused row") from error


def _plain(values: pa.Array) -> list[Any]:
    kind, types = values.type, pa.types
    if types.is_dictionary(kind):
        return _plain(values.dictionary_decode())
    if types.is_floating(kind):
        return _each(values, lambda value: value if abs(value) < float("inf") else _spelled(value))
    if types.is_decimal(kind):
        return _each(values, lambda value: f"{value:f}")
    if types.is_interval(kind):
        return _each(values, list)
    if types.is_temporal(kind):
        return texts_of_times(values)
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return _each(values, bytes.hex)
    if types.is_struct(kind):
        fields = [_plain(values.field(number)) for number in range(kind.num_fields)]
        rows = [dict(zip([field.name for field in kind], row, strict=True)) for row in zip(*fields, strict=True)]
        return [row if valid else None for row, valid in zip(rows, values.is_valid().to_pylist(), strict=True)]
    if types.is_map(kind):
        entries = list(zip(_plain(values.keys), _plain(values.items), strict=True))
        return [None if part is None else [list(entry) for entry in entries[part]] for part in _parts(values)]
    if types.is_list(kind) or types.is_large_list(kind):
        items = _plain(values.values)
        return [None if part is None else items[part] for part in _parts(values)]
    plain: list[Any] = values.to_pylist()
    return plain


def _parts(values: pa.Array) -> list[slice | None]:
    """Where the items of each list lie, None for NULL."""
    borders = values.offsets.to_pylist()
    valid = values.is_valid().to_pylist()
    return [slice(*pair) if is_valid else None for pair, is_valid in zip(pairwise(borders), valid, strict=True)]


def _each(values: pa.Array, spell: Callable[[Any], Any]) -> list[Any]:
    return [None if value is None else spell(value) for value in values.to_pylist()]


def _spelled(value: float) -> str:
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    types = pa.types
    if types.is_floating(kind):
        return pa.array([None if value is None else float(value) for value in values], kind)
    if types.is_decimal(kind):
        return pa.array([None if value is None else Decimal(value) for value in values], kind)
    if types.is_interval(kind):
        return pa.array([None if value is None else pa.MonthDayNano(value) for value in values], kind)
    if types.is_temporal(kind):
        return times_of_texts(values, kind)
    if types.is_binary(kind):
        return pa.array([None if value is None else bytes.fromhex(value) for value in values], kind)
    if types.is_struct(kind):
        missing = pa.array([value is None for value in values], pa.bool_())
        fields = [_array([None if v is None else v.get(field.name) for v in values], field.type) for field in kind]
        return pa.StructArray.from_arrays(fields, fields=list(kind), mask=missing)
    if types.is_map(kind):
        entries = [entry for value in values for entry in value or ()]
        keys = _array([key for key, _ in entries], kind.key_type)
        return pa.MapArray.from_arrays(_offsets(values), keys, _array([item for _, item in entries], kind.item_type))
    if types.is_list(kind):
        return pa.ListArray.from_arrays(
            _offsets(values), _array([item for value in values for item in value or ()], kind.value_type)
        )
    return pa.array(values, kind)


def _offsets(values: list[Any]) -> pa.Array:
    """Where the items of each list begin, NULL for NULL."""
    ends = list(accumulate((len(value or ()) for value in values), initial=0))
    begins = [None if value is None else begin for value, begin in zip(values, ends, strict=False)]
    return pa.array([*begins, ends[-1]], pa.int32())
