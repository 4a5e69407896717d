"""Arrow types in our names, and casts that refuse rather than change a value; shared by the adapter families."""

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import SchemaMismatchError, WorkFailedError
from domain.ports.batches import LARGE_BYTES
from domain.ports.data_store import Batch, are_large
from domain.stores.table import Column
from infrastructure.tabular.arrow_texts import texts_of_decimals, texts_of_uuids
from infrastructure.tabular.nested_types import (
    KEPT_JSON,
    digits_of,
    entries_of,
    fields_of,
    is_text_on_the_way,
    item_of,
    struct_of,
)
from infrastructure.tabular.pieces import joined

_SIMPLE: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "interval": pa.month_day_nano_interval(),
    # Text on the way, checked and stored as what they are by the destination.
    "uuid": pa.string(),
    "json": pa.string(),
    KEPT_JSON: pa.string(),
}
_OF_LARGE_ROWS = LARGE_BYTES
_EXTENSIONS = {"arrow.uuid": "uuid", "arrow.json": KEPT_JSON}


def arrow_type(name: str) -> pa.DataType:
    """Return the Arrow type that carries one of our type names.

    Raises:
        SchemaMismatchError: the name is none of ours.
    """
    if name in _SIMPLE:
        return _SIMPLE[name]
    if is_text_on_the_way(name):
        return pa.string()  # Read as the store writes it in text, and cast back by the store that takes it.
    if (digits := digits_of(name)) != (0, 0):
        return pa.decimal128(*digits)
    if (item := item_of(name)) is not None:
        return pa.list_(arrow_type(item))
    if (fields := fields_of(name)) is not None:
        return pa.struct([(field, arrow_type(kind)) for field, kind in fields])
    if (entries := entries_of(name)) is not None:
        return pa.map_(arrow_type(entries[0]), arrow_type(entries[1]))
    raise SchemaMismatchError(f"There is no type {name}.")


def logical_type(kind: pa.DataType) -> str:
    """Name an Arrow type in our names."""
    for name, simple in _SIMPLE.items():
        if kind.equals(simple):
            return name
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _EXTENSIONS.get(kind.extension_name, f"native:{kind}")
    if types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    if types.is_float16(kind):
        return "float32"
    if types.is_timestamp(kind):
        return "timestamptz" if kind.tz else "timestamp"
    if types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind):
        return "string"
    if types.is_large_binary(kind) or types.is_fixed_size_binary(kind) or types.is_binary_view(kind):
        return "binary"
    if types.is_date(kind):
        return "date"
    if types.is_time(kind):
        return "time"
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return logical_type(kind.value_type)
    return _nested_type(kind) or f"native:{kind}"


def _nested_type(kind: pa.DataType) -> str | None:
    """Name a list, struct or map, unless something in it is no value of Arrow's own."""
    types = pa.types
    inner: list[pa.DataType] = []
    if _is_list(kind):
        inner = [kind.value_type]
    elif types.is_struct(kind):
        inner = [field.type for field in kind]
    elif types.is_map(kind):
        inner = [kind.key_type, kind.item_type]
    names = [logical_type(part) for part in inner]
    if not inner or any(map(is_text_on_the_way, names)) or any(isinstance(i, pa.BaseExtensionType) for i in inner):
        return None
    if types.is_struct(kind):
        return struct_of([(field.name, name) for field, name in zip(kind, names, strict=True)])
    return f"map<{','.join(names)}>" if types.is_map(kind) else f"list<{names[0]}>"


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    is_view = types.is_list_view(kind) or types.is_large_list_view(kind)
    return bool(is_view or types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def to_table(batch: Batch) -> pa.Table:
    """Take a batch of any library as an Arrow table, without a copy."""
    return batch if isinstance(batch, pa.Table) else pa.table(batch)


def columns_of(schema: pa.Schema) -> tuple[Column, ...]:
    """Describe an Arrow schema in our type names."""
    return tuple(Column(field.name, logical_type(field.type)) for field in schema)


def conform(table: pa.Table, columns: Sequence[Column]) -> pa.Table:
    """Give each column the Arrow type of its namesake in `columns`, in that order; absent ones become NULL.

    Raises:
        SchemaMismatchError: a column without a namesake, or a value that would change.
    """
    known = {column.name for column in columns}
    extra = [name for name in table.column_names if name not in known]
    if extra:
        raise SchemaMismatchError(f"The destination has no column named {', '.join(extra)}.")
    arrays = []
    for column in columns:
        wanted = arrow_type(column.type)
        if column.name in table.column_names:
            arrays.append(_cast(table.column(column.name), wanted, column))
        else:
            arrays.append(pa.nulls(table.num_rows, wanted))
    return pa.table(arrays, names=[column.name for column in columns])


def _cast(values: pa.ChunkedArray, wanted: pa.DataType, column: Column) -> pa.ChunkedArray:
    if values.type.equals(wanted):
        _refuse_finer(values, column)
        return values
    given = logical_type(values.type)
    if given.startswith("native:") and given != KEPT_JSON:
        raise SchemaMismatchError(
            f"Column {column.name} is {given.removeprefix('native:')}, which nothing here can carry; write it with "
            "another type, or leave it out in the source query."
        )
    try:
        values = _plain(values, given, column.type)
        if values.type.equals(wanted):
            return values
        if not _is_exact_pair(values.type, wanted) or is_text_on_the_way(given) != is_text_on_the_way(column.type):
            raise SchemaMismatchError(
                f"Column {column.name} is {given} and is to become {column.type}; change one of them with a cast in a "
                "step or in the source query."
            )
        return pc.cast(values, wanted, safe=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaMismatchError(
            f"Column {column.name} holds a value that {column.type} cannot take unchanged; round or cast it in a step "
            "or in the source query."
        ) from error


def _refuse_finer(values: pa.ChunkedArray, column: Column) -> None:
    """Refuse intervals of nanoseconds, which every store would cut to microseconds."""
    if not pa.types.is_interval(values.type):
        return
    for chunk in values.drop_null().chunks:  # What lies where a NULL is says nothing.
        data = memoryview(chunk.buffers()[1] or b"").cast("q")[1::2][chunk.offset : chunk.offset + len(chunk)]
        if any(nanoseconds % 1000 for nanoseconds in data):
            raise SchemaMismatchError(
                f"Column {column.name} holds an interval of nanoseconds, which would be cut; round it in the source "
                "query."
            )


def _plain(values: pa.ChunkedArray, given: str, wanted: str) -> pa.ChunkedArray:
    """Give what is more than its storage says the form in which it travels."""
    kind = values.type
    if pa.types.is_run_end_encoded(kind):
        return pa.chunked_array([pc.run_end_decode(chunk) for chunk in values.chunks], kind.value_type)
    if isinstance(kind, pa.BaseExtensionType) and given in ("uuid", KEPT_JSON):
        storage = [chunk.storage for chunk in values.chunks]
        if given == "uuid":
            return pa.chunked_array([texts_of_uuids(chunk) for chunk in storage], pa.string())
        return pa.chunked_array(storage, kind.storage_type)
    if given == wanted and digits_of(given) != (0, 0) and is_text_on_the_way(given):
        return pa.chunked_array([texts_of_decimals(chunk) for chunk in values.chunks], pa.string())
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return pa.chunked_array([_listed(chunk) for chunk in values.chunks], pa.list_(kind.value_type))
    return values


def _listed(views: pa.Array) -> pa.Array:
    """A list view as a list; Arrow's own cast gives arrays that are not valid."""
    return pa.array(views.to_pylist(), pa.list_(views.type.value_type))


def _is_exact_pair(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a safe cast either keeps every value or raises. Decimal ← float rounds silently, so it is not."""
    types = pa.types
    if types.is_null(given):
        return True
    if types.is_integer(given):
        return bool(types.is_integer(wanted) or types.is_floating(wanted) or types.is_decimal(wanted))
    if types.is_floating(given):
        return bool(types.is_floating(wanted) and wanted.bit_width >= given.bit_width)
    if types.is_decimal(given):
        return bool(types.is_decimal(wanted))
    if types.is_timestamp(given):
        return bool(types.is_timestamp(wanted) and bool(given.tz) == bool(wanted.tz))
    if types.is_date(given):
        return bool(types.is_date(wanted))
    if types.is_time(given):
        return bool(types.is_time(wanted))
    if types.is_dictionary(given):
        return bool(given.value_type.equals(wanted))
    texts = types.is_large_string(given) or types.is_string(given) or types.is_string_view(given)
    if texts:
        return bool(types.is_string(wanted) or types.is_large_string(wanted))
    binaries = types.is_large_binary(given) or types.is_binary_view(given) or types.is_fixed_size_binary(given)
    if binaries:
        return bool(types.is_binary(wanted))
    if types.is_map(given) and types.is_map(wanted):
        is_same_key = _same_or_exact(given.key_type, wanted.key_type)
        return is_same_key and _same_or_exact(given.item_type, wanted.item_type)
    if types.is_struct(given) and types.is_struct(wanted):
        is_named = [field.name for field in given] == [field.name for field in wanted]
        return is_named and all(_same_or_exact(g.type, w.type) for g, w in zip(given, wanted, strict=True))
    if _is_list(given):
        return bool(types.is_list(wanted) and (_same_or_exact(given.value_type, wanted.value_type)))
    return False


def _same_or_exact(given: pa.DataType, wanted: pa.DataType) -> bool:
    return bool(given.equals(wanted)) or _is_exact_pair(given, wanted)


def not_utf8(what: str) -> SchemaMismatchError:
    """Say that texts hold bytes that no text is made of."""
    return SchemaMismatchError(
        f"{what} holds a text that is not UTF-8: write it again in UTF-8, or as bytes.", code="value.encoding"
    )


def rechunk(batches: Iterable[pa.RecordBatch], rows: int, size_bytes: int | None = None) -> Iterator[pa.Table]:
    """Join and cut record batches so that each table has exactly `rows` rows, the last one fewer; and fewer, too, where
    they would have more than `size_bytes`, are so large that few of them are enough, or have much longer names than
    values.

    Raises:
        WorkFailedError: a single row is larger (`source.row_too_large`).
    """
    waiting: list[pa.RecordBatch] = []
    count, waiting_bytes = 0, 0
    for batch in batches:
        rows = _few_enough(rows, batch.schema, size_bytes)
        while batch.num_rows:
            part = batch.slice(0, rows - count)
            most = _room(part, size_bytes)
            if size_bytes is not None and most is not None and waiting_bytes + part.nbytes > most:
                part = _within(part, most - waiting_bytes, is_first=not waiting, limit=size_bytes)
            batch = batch.slice(part.num_rows)
            if part.num_rows:
                waiting.append(part)
            count += part.num_rows
            waiting_bytes += part.nbytes
            if count == rows or (
                batch.num_rows and most is not None and waiting_bytes + batch.slice(0, 1).nbytes > most
            ):
                table = joined(waiting)
                waiting, count, waiting_bytes = [], 0, 0
                yield table
                if are_large(table):
                    del table, part
                    pa.default_memory_pool().release_unused()  # What the ones before have left behind.
    if waiting:
        yield joined(waiting)


def _few_enough(rows: int, schema: pa.Schema, size_bytes: int | None) -> int:
    """So many rows that they take little more than `size_bytes` where they are refused, each with all names."""
    if size_bytes is None:
        return rows
    return max(1, min(rows, 2 * size_bytes // sum((len(name) + 6 for name in schema.names), start=1)))


def _room(part: pa.RecordBatch, size_bytes: int | None) -> int | None:
    """What a table may have: several are on their way at a time, each in several forms, so of large rows it is less."""
    return size_bytes if size_bytes is None or not are_large(part) else min(size_bytes, _OF_LARGE_ROWS)


def _within(part: pa.RecordBatch, room: int, *, is_first: bool, limit: int) -> pa.RecordBatch:
    """The longest beginning of a batch, by halves, that has at most so many bytes; one row may have more, up to the
    limit.
    """
    while part.num_rows > 1 and part.nbytes > room:
        part = part.slice(0, part.num_rows // 2)
    if part.nbytes <= room:
        return part
    if not is_first:
        return part.slice(0, 0)
    if part.nbytes > limit:
        raise row_too_large(limit)
    return part


def row_too_large(limit: int, column: str | None = None) -> WorkFailedError:
    """Say that one row has more bytes than a batch may have, and which column has most of them if that is known."""
    where = f", most of it in the column {column}" if column is not None else ""
    return WorkFailedError(
        f"A row of the source is larger than a batch may be ({limit:,} bytes){where}; leave the column out, or raise "
        "run.batch_bytes.",
        code="source.row_too_large",
    )
