"""The columns of a Parquet file in their smallest parts, as the file itself describes them."""

import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Leaf:
    """What the file itself says of one of its columns; `is_whole` where no list, struct or map is around it."""

    physical: str
    logical: str
    converted: str
    is_whole: bool
    is_in_utc: bool


def leaves_of(parquet: pq.ParquetFile) -> list[list[Leaf]]:
    """The leaves of each column: one of a plain value, some of what holds other values."""
    schema, found, place = parquet.schema, [], 0
    for field in parquet.schema_arrow:
        count = _count(field.type)
        columns = [schema.column(place + number) for number in range(count)]
        is_whole = count == 1 and columns[0].max_repetition_level == 0 and columns[0].path == field.name
        found.append([_leaf(column, is_whole) for column in columns])
        place += count
    return found


def _leaf(column: pq.ColumnSchema, is_whole: bool) -> Leaf:
    logical = column.logical_type
    is_in_utc = logical.type == "TIME" and json.loads(logical.to_json())["isAdjustedToUTC"]
    return Leaf(column.physical_type, logical.type, column.converted_type, is_whole, is_in_utc)


def _count(kind: pa.DataType) -> int:
    """How many leaves a type has."""
    if isinstance(kind, pa.BaseExtensionType):
        return _count(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _count(kind.value_type)
    return sum(_count(kind.field(number).type) for number in range(kind.num_fields)) if kind.num_fields else 1
