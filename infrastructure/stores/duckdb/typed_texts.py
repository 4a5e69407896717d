"""Texts that Arrow reads before DuckDB does, where all that a block of them can mean is what Arrow reads.

Arrow's parsers take less than DuckDB's and are several times as fast as reading a value and comparing how it is
spelled. What they may take in another sense (`007`, the year 0) or not at all is left to the SQL, block by block.
"""

from collections.abc import Iterator, Mapping
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from infrastructure.sql import quote

_INTEGERS = {
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
}
_TYPES: dict[str, pa.DataType] = {**_INTEGERS, "DATE": pa.date32(), "TIMESTAMP": pa.timestamp("us")}
_DATE_LENGTH, _MINUTES_LENGTH, _MICROSECONDS_LENGTH = 10, 16, 26


class TypedTexts:
    """A stream of text columns with a column beside each that Arrow may read; of the two one holds a value.

    `natives` are types of columns by their names, whatever their order.
    """

    def __init__(self, texts: pa.RecordBatchReader, natives: Mapping[str, str]) -> None:
        self._texts = texts
        names = texts.schema.names
        self._types = {place: _TYPES[natives[name]] for place, name in enumerate(names) if natives.get(name) in _TYPES}
        self._places = {names[place]: place for place in self._types}
        fields = [pa.field(_beside(place), kind) for place, kind in self._types.items()]
        self.schema = pa.schema([*texts.schema, *fields])

    def reader(self) -> pa.RecordBatchReader:
        """The stream; it can be read once."""
        return pa.RecordBatchReader.from_batches(self.schema, self._batches())

    def value(self, name: str, expression: str) -> str:
        """Return SQL for the value of a column, which the expression reads where Arrow did not."""
        place = self._places.get(name)
        return expression if place is None else f"coalesce({quote(_beside(place))}, {expression})"

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for batch in self._texts:
            columns, beside = list(batch.columns), []
            for place, kind in self._types.items():
                found = read_exactly(columns[place], kind)
                if found is not None:
                    columns[place] = pa.nulls(batch.num_rows, columns[place].type)
                beside.append(found if found is not None else pa.nulls(batch.num_rows, kind))
            yield pa.RecordBatch.from_arrays([*columns, *beside], schema=self.schema)


def read_exactly(texts: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """Read texts as values that are written in this one way; None where some may not be."""
    try:
        if pa.types.is_integer(kind):
            return None if _has_codes(texts) else texts.cast(kind)
        lengths = pc.min_max(pc.binary_length(texts)).as_py()
        if lengths["min"] is None:
            return None
        if pa.types.is_date(kind):
            is_whole = lengths["min"] == lengths["max"] == _DATE_LENGTH
            return _since_year_one(texts.cast(kind)) if is_whole else None
        is_whole = lengths["min"] >= _MINUTES_LENGTH and lengths["max"] <= _MICROSECONDS_LENGTH
        return _since_year_one(texts.cast(kind)) if is_whole else None
    except pa.ArrowInvalid:
        return None


def _has_codes(texts: pa.Array) -> bool:
    """Whether any is no number as it is spelled: with a zero in front, which is how hexadecimal ones begin too."""
    is_code = pc.and_(pc.starts_with(texts, "0"), pc.greater(pc.binary_length(texts), 1))
    return bool(pc.any(pc.or_(is_code, pc.starts_with(texts, "-0"))).as_py())


def _since_year_one(values: pa.Array) -> pa.Array | None:
    """The values, if none lies before: what stands for the year 0 in a text is another one in DuckDB."""
    first = pa.scalar(date.min, pa.date32()).cast(values.type)
    return values if pc.all(pc.greater_equal(values, first)).as_py() else None


def _beside(place: int) -> str:
    return f"_headrace_read_{place}"
