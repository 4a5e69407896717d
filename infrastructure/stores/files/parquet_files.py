"""Parquet files as batches of Arrow: what Arrow reads as another type is read as what it is, or refused by
its column.
"""

import struct
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from domain.errors import InvalidInputError, SchemaMismatchError
from domain.ports.data_store import BATCH_BYTES
from domain.ports.security import TOO_LARGE
from domain.stores.table import Column
from infrastructure.bench.in_process import Calls
from infrastructure.descriptors import need_descriptors
from infrastructure.memory_room import Room
from infrastructure.queries.parquet_footers import look_at_footer
from infrastructure.stores.files.csv_faults import unreadable
from infrastructure.stores.files.formats import differing
from infrastructure.stores.files.opening import FilePlace
from infrastructure.stores.files.parquet_footer import COPIES, LOOKED_AT_BYTES, footer_bytes
from infrastructure.stores.files.parquet_leaves import Leaf, leaves_of
from infrastructure.stores.files.parquet_pages import FileLimits, RowGroup
from infrastructure.tabular.arrow import conform, logical_type, not_utf8
from infrastructure.tabular.nested_types import KEPT_JSON
from infrastructure.threads import stop_if_unwanted

T = TypeVar("T")
_LARGEST = 2**31 - 1
_BUFFER_BYTES = 1024 * 1024
"""Without it Arrow reads all of a column of a row group before it unpacks the first page."""
_UNKNOWN_TO_ARROW = ("GEOMETRY", "GEOGRAPHY", "VARIANT")


class ParquetData:
    """One file; `name` is what people know it by. A large footer is looked at by `calls` and then read in `room`, where
    these are given.
    """

    def __init__(
        self,
        place: Path | FilePlace,
        name: str,
        limits: FileLimits | None = None,
        calls: Calls | None = None,
        room: Room | None = None,
    ) -> None:
        self._place = FilePlace.of(place)
        self.name = name
        self._limits = limits or FileLimits()
        self._calls = calls
        self._room = room
        self._footer_bytes = 0
        """Of the footer that was looked at."""

    def check_footer(self, calls: Calls) -> None:
        """Let a process apart look at what reading asks of the footer first, as that may end the process.

        Raises:
            InvalidInputError: it did, or the footer is none (`file.malformed`).
        """
        try:
            is_sound = calls.call(look_at_footer, str(self._place.judged()))
        except InvalidInputError as error:
            if error.code != TOO_LARGE:
                raise
            raise InvalidInputError(
                f"The footer of {self.name} cannot be looked at: the file is damaged, or has too many columns, row "
                "groups or keys of metadata.",
                code="file.malformed",
            ) from error
        if not is_sound:
            raise self._malformed()

    def columns(self) -> tuple[tuple[str, str], ...]:
        """Name the columns with their types.

        Raises:
            InvalidInputError: it is not Parquet, or two columns have one name.
            SchemaMismatchError: nothing carries the values of a column unchanged.
        """
        self.schema()
        schema, leaves = self._told(lambda parquet: (parquet.schema_arrow, leaves_of(parquet)))
        if any(leaf.physical == "BYTE_ARRAY" and leaf.logical == "NONE" for parts in leaves for leaf in parts):
            self._refuse_unknown()
        return tuple((f.name, self._type(f, parts)) for f, parts in zip(schema, leaves, strict=True))

    def schema(self) -> pa.Schema:
        """Read what Arrow takes the columns for.

        Raises:
            InvalidInputError: it is not Parquet, or two columns have one name.
        """
        schema: pa.Schema = self._told(lambda parquet: parquet.schema_arrow.remove_metadata())
        names: list[str] = schema.names
        doubled = next((name for name in names if names.count(name) > 1), None) if len({*names}) < len(names) else None
        if doubled is not None:
            raise InvalidInputError(f"{self.name}: two columns are named {doubled}.", code="file.malformed")
        return schema

    def no_rows(self) -> pa.Table:
        """A table as batches have it, without a row."""
        schema, changes = self._told(
            lambda parquet: (parquet.schema_arrow, _changes(parquet)), coerce_int96_timestamp_unit="us"
        )
        arrays = [pa.nulls(0, field.type) for field in schema]
        return pa.Table.from_batches([self._changed(pa.record_batch(arrays, names=schema.names), changes)])

    def times_in_utc(self) -> tuple[str, ...]:
        """Name the columns that are times of day in UTC, which Arrow reads as times without a zone."""
        return self._told(_times_in_utc)

    def batches(self, rows: int, most_bytes: int = BATCH_BYTES, room: Room | None = None) -> Generator[pa.RecordBatch]:
        """Read the rows, at most so many at a time, and fewer where they are large; what takes much waits for `room`.

        Raises:
            InvalidInputError: the file is damaged, or takes more memory than it may.
            SchemaMismatchError: a value is none of what its column is carried as.
            WorkFailedError: a value is larger than a batch (`source.row_too_large`).
        """
        with (
            self._faults(),
            self._place.opened() as place,
            pa.OSFile(place) as file,
            self._opened(place, file, room) as (parquet, beside),
        ):
            leaves = leaves_of(parquet)
            finer = [
                n for n, (leaf, *_) in zip(parquet.schema_arrow.names, leaves, strict=True) if leaf.physical == "INT96"
            ]
            groups = range(parquet.metadata.num_row_groups)
            size = (rows, most_bytes)
            if finer:
                for group in groups:
                    RowGroup(parquet, file.fileno(), self.name, group, size, self._limits)
                self._refuse_nanoseconds(finer, rows)
            changes = _changes(parquet)
            for group in groups:
                found = RowGroup(parquet, file.fileno(), self.name, group, size, self._limits)
                with _taken(room, found.most_bytes + beside):
                    for batch in _read(parquet, group, found):
                        self._check_texts(batch)
                        yield self._changed(_dense(batch), changes) if changes else _dense(batch)

    def _told(self, by: Callable[[pq.ParquetFile], T], **options: Any) -> T:
        """What the file says of itself."""
        with self._faults(), self._place.opened() as file:
            size = footer_bytes(file, self.name, self._limits.footer_bytes)
            if size > LOOKED_AT_BYTES and size != self._footer_bytes and self._calls is not None:
                self.check_footer(self._calls)
                self._footer_bytes = size
            with _taken(self._room, COPIES * size):
                return _told(by, file, options)

    @contextmanager
    def _opened(self, place: str, file: pa.NativeFile, room: Room | None) -> Generator[tuple[pq.ParquetFile, int]]:
        """The file for its rows, and what room its footer takes meanwhile."""
        size = COPIES * footer_bytes(place, self.name, self._limits.footer_bytes)
        # Arrow wraps nanoseconds around, so that the year 1500 is 2084; microseconds have room for the years that there
        # are.
        with _taken(room, size):
            parquet = pq.ParquetFile(file, coerce_int96_timestamp_unit="us", buffer_size=_BUFFER_BYTES)
        with parquet:
            yield parquet, size

    def _changed(self, batch: pa.RecordBatch, changes: dict[int, Callable[[pa.Array], pa.Array]]) -> pa.RecordBatch:
        arrays = list(batch.columns)
        for place, change in changes.items():
            try:
                arrays[place] = change(arrays[place])
            except (pa.ArrowInvalid, struct.error) as error:
                raise SchemaMismatchError(
                    f"Column {batch.schema.names[place]} of {self.name} holds a value that is none of its type; "
                    "write it with another type."
                ) from error
        return pa.record_batch(arrays, names=batch.schema.names)

    def _check_texts(self, batch: pa.RecordBatch) -> None:
        """Arrow takes the bytes of a text as they are, and whoever makes a text of them stumbles."""
        for field, values in zip(batch.schema, batch.columns, strict=True):
            try:
                for texts in _texts_in(values):
                    texts.validate(full=True)
            except pa.ArrowInvalid as error:
                raise not_utf8(f"Column {field.name} of {self.name}") from error

    def _refuse_nanoseconds(self, names: list[str], rows: int) -> None:
        """Refuse times of INT96 with more digits than six: read as nanoseconds, modulo 2**64, they say so."""
        with (
            self._place.opened() as file,
            pq.ParquetFile(file) as fine,
            pq.ParquetFile(file, coerce_int96_timestamp_unit="us") as coarse,
        ):
            batches = (f.iter_batches(batch_size=rows, columns=names) for f in (fine, coarse))
            for nanoseconds, microseconds in zip(*batches, strict=True):
                stop_if_unwanted()
                for name in names:
                    exact = pc.multiply(microseconds.column(name).view(pa.int64()), 1000)  # It wraps around, too.
                    if not exact.equals(nanoseconds.column(name).view(pa.int64())):
                        raise SchemaMismatchError(
                            f"Column {name} of {self.name} holds a time with more than six digits of a second, which "
                            "would be cut; write it with microseconds.",
                            code="value.precision",
                        )

    def _type(self, field: pa.Field, parts: list[Leaf]) -> str:
        for leaf in parts:
            if leaf.is_whole and leaf.converted in ("INTERVAL", "ENUM"):
                return "interval" if leaf.converted == "INTERVAL" else "string"
            if leaf.converted in ("INTERVAL", "ENUM") or (leaf.physical == "INT96" and not leaf.is_whole):
                what = "a timestamp of 96 bits" if leaf.physical == "INT96" else leaf.converted
                raise self._refused(field.name, f"holds {what} in a list, struct or map")
        kind = logical_type(field.type)
        if kind.startswith("native:") and kind != KEPT_JSON:
            raise self._refused(field.name, f"is {field.type}")
        return kind

    def _refuse_unknown(self) -> None:
        """Refuse the types that Arrow knows nothing of and reads as bytes; DuckDB tells them."""
        need_descriptors()
        with self._place.opened() as file, duckdb.connect(":memory:") as connection:
            try:
                found = connection.execute("SELECT name, duckdb_type FROM parquet_schema($1)", [file]).fetchall()
            except duckdb.Error:
                return  # What Arrow reads and DuckDB does not has none of them.
        for name, kind in found:
            if str(kind).startswith(_UNKNOWN_TO_ARROW):
                raise self._refused(name, f"is {str(kind).partition('(')[0]}")

    def _refused(self, column: str, what: str) -> SchemaMismatchError:
        return SchemaMismatchError(
            f"Column {column} of {self.name} {what}, which nothing here can carry unchanged; write the file with "
            "another type for it, such as text, or without it."
        )

    @contextmanager
    def _faults(self) -> Generator[None]:
        """Turn what goes wrong between the bytes and the rows into a sentence with the file."""
        try:
            yield
        except OSError as error:
            raise (unreadable(self.name, error) if error.errno else self._malformed()) from error
        except (pa.ArrowException, UnicodeDecodeError) as error:  # A name in it may be no text.
            raise self._malformed() from error

    def _malformed(self) -> InvalidInputError:
        return InvalidInputError(f"The file {self.name} is not Parquet, damaged, or encrypted.", code="file.malformed")


def _told(by: Callable[[pq.ParquetFile], T], file: str, options: dict[str, Any]) -> T:
    """Nothing of the footer is left in memory where this returns."""
    with pq.ParquetFile(file, **options) as parquet:
        return by(parquet)


def _times_in_utc(parquet: pq.ParquetFile) -> tuple[str, ...]:
    if (parquet.metadata.created_by or "").startswith("parquet-cpp"):
        return ()  # Earlier versions of Arrow marked every time of day so.
    found = zip(parquet.schema_arrow.names, leaves_of(parquet), strict=True)
    return tuple(name for name, parts in found if any(leaf.is_in_utc for leaf in parts))


def _taken(room: Room | None, size: int) -> AbstractContextManager[None]:
    return room.taken(size) if room is not None else nullcontext()


def columns_of_all(files: Sequence[ParquetData]) -> tuple[tuple[str, str], ...]:
    """Name the columns of files that all have the same ones, with the types of the first file that knows them.

    Raises:
        InvalidInputError: a file is not Parquet, or has other columns than the first (`source.columns_differ`).
        SchemaMismatchError: nothing carries the values of a column unchanged, or as the type of the first file.
    """
    columns, schema = files[0].columns(), files[0].schema()
    unknown = {field.name for field in schema if pa.types.is_null(field.type)}
    # What holds nothing but NULL has the type of the next file that knows one.
    for file in files[1:] if unknown else ():
        found = {name: kind for name, kind in file.columns() if not pa.types.is_null(file.schema().field(name).type)}
        columns = tuple((name, found.get(name, kind) if name in unknown else kind) for name, kind in columns)
        unknown -= found.keys()
        if not unknown:
            break
    for file in files[1:]:
        other = file.schema()
        if other.equals(schema):
            continue
        if {*other.names} != {*schema.names}:
            raise InvalidInputError(
                differing(files[0].name, schema.names, file.name, other.names), code="source.columns_differ"
            )
        conform_file(file.no_rows(), columns, file.name)
    return columns


def conform_file(rows: pa.Table, columns: Sequence[tuple[str, str]], name: str) -> pa.Table:
    """Give the rows of a file the types that were planned.

    Raises:
        SchemaMismatchError: a column, or a value, is none of its type.
    """
    try:
        return conform(rows, [Column(column, kind) for column, kind in columns])
    except SchemaMismatchError as error:
        raise SchemaMismatchError(f"{name}: {error.message}", code=error.code) from error


def note_on_times(file: ParquetData) -> str | None:
    """Say which columns are more than the type in which they land."""
    names = file.times_in_utc()
    return f"{', '.join(names)}: times of day in UTC, which land as times without a zone" if names else None


def _read(parquet: pq.ParquetFile, group: int, found: RowGroup) -> Generator[pa.RecordBatch]:
    """Read a row group in parts, each looked at before it is unpacked."""
    rows, done = found.rows_at_a_time(), 0
    found.check(rows)
    for batch in parquet.iter_batches(batch_size=rows, row_groups=[group]):
        done += batch.num_rows
        yield batch
        found.check(done + rows)


def _texts_in(values: pa.Array) -> Iterator[pa.Array]:
    """The texts of a column, also those inside of other values."""
    kind, types = values.type, pa.types
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        yield values
    elif isinstance(values, pa.DictionaryArray):
        yield from _texts_in(values.dictionary)
    elif isinstance(values, pa.ExtensionArray):
        yield from _texts_in(values.storage)
    elif types.is_struct(kind):
        for number in range(kind.num_fields):
            yield from _texts_in(values.field(number))
    elif types.is_map(kind):
        yield from _texts_in(values.keys)
        yield from _texts_in(values.items)
    elif types.is_nested(kind):
        yield from _texts_in(values.values)


def _dense(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch whose size is what it takes: a value that many rows share counts for each."""
    kinds = [_without_dictionaries(kind) for kind in batch.schema.types]
    if kinds == batch.schema.types:
        return batch
    columns = [column.cast(kind) for column, kind in zip(batch.columns, kinds, strict=True)]
    return pa.record_batch(columns, names=batch.schema.names)


def _without_dictionaries(kind: pa.DataType) -> pa.DataType:
    """The same type, with no value in it that many rows share."""
    types = pa.types
    if types.is_dictionary(kind):
        return _without_dictionaries(kind.value_type)
    if types.is_struct(kind):
        return pa.struct([_field_without(kind.field(number)) for number in range(kind.num_fields)])
    if types.is_map(kind):
        return pa.map_(_field_without(kind.key_field), _field_without(kind.item_field), keys_sorted=kind.keys_sorted)
    if types.is_fixed_size_list(kind):
        return pa.list_(_field_without(kind.value_field), kind.list_size)
    if types.is_large_list(kind):
        return pa.large_list(_field_without(kind.value_field))
    return pa.list_(_field_without(kind.value_field)) if types.is_list(kind) else kind


def _field_without(field: pa.Field) -> pa.Field:
    return field.with_type(_without_dictionaries(field.type))


def _changes(parquet: pq.ParquetFile) -> dict[int, Callable[[pa.Array], pa.Array]]:
    """What makes of columns, by their places, what the file says that they are, where Arrow does not."""
    known = {"INTERVAL": _intervals, "ENUM": _texts}
    return {
        place: known[leaf.converted]
        for place, (leaf, *_) in enumerate(leaves_of(parquet))
        if leaf.is_whole and leaf.converted in known
    }


def _texts(values: pa.Array) -> pa.Array:
    return pc.cast(values, pa.string())


def _intervals(values: pa.Array) -> pa.Array:
    """Months, days and milliseconds, each of four bytes without a sign."""
    found = [None if value is None else struct.unpack("<III", value) for value in values.to_pylist()]
    if any(part > _LARGEST for value in found if value is not None for part in value[:2]):
        raise pa.ArrowInvalid("more months or days than fit")
    return pa.array(
        [None if v is None else pa.MonthDayNano([v[0], v[1], v[2] * 1_000_000]) for v in found],
        pa.month_day_nano_interval(),
    )
