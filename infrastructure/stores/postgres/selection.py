"""What a Postgres source selects: a FROM item with its columns, and conditions whose values are bound settings."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import InvalidInputError, PlatformError, SchemaMismatchError
from domain.loads.checkpoint import Position
from domain.loads.read_set import SourcePlan, Stream
from domain.pipelines.spec import SourceSpec
from domain.ports.data_store import BATCH_BYTES
from domain.stores.table import Column
from infrastructure.queries.postgres_judging import untrusted_type
from infrastructure.sql import quote, quote_table
from infrastructure.stores.planned import check_planned
from infrastructure.stores.positions import TIES, is_plain, told_as_text, whole_ties
from infrastructure.stores.postgres import row_size
from infrastructure.stores.postgres.reserved import refuse_read, system_held
from infrastructure.stores.postgres.resolving import Resolving, as_text, is_own, look_up, names_of, own_types, path_of
from infrastructure.stores.postgres.types import logical_of
from infrastructure.stores.postgres.unasked import placing_types
from infrastructure.tabular.arrow import arrow_type, logical_type, rechunk

_KEY = "_headrace_sorting_"
# 4714-11-24 BC, in days and in microseconds since 1970.
_EARLIEST = {
    "date32[day]": -2_440_588,
    "timestamp[us]": -210_866_803_200_000_000,
    "timestamp[us, tz=UTC]": -210_866_803_200_000_000,
}
# What the driver makes of -infinity: the least number, shifted from 2000 to 1970.
_BELOW_ALL = {
    "date32[day]": -(2**31) + 10_957,
    "timestamp[us]": -(2**63) + 946_684_800_000_000,
    "timestamp[us, tz=UTC]": -(2**63) + 946_684_800_000_000,
}


class Described(Resolving, Protocol):
    """What a selection needs of a session."""

    def bind(self, settings: Mapping[str, str]) -> None:
        """Set values that statements of this transaction read by `current_setting`."""

    def result_types(self, sql: str) -> dict[str, str]:
        """Names and native types of a query's columns."""

    def stream(self, sql: str, most: int) -> Generator[pa.RecordBatch]:
        """Stream a query's result, of which no row has more than so many bytes."""


class Selection:
    """A source as a FROM item with its columns. Values reach the statement through bound settings of the transaction.

    COPY takes no parameters, so each value is bound to a setting with `set_config($1)` and read back, cast to its
    type, by `current_setting`: no value is ever part of a statement's text. Conditions gather the `settings` that they
    need; whoever runs a statement binds them first.
    """

    def __init__(
        self,
        text: str,
        natives: Mapping[str, str],
        settings: dict[str, str],
        casts: Mapping[str, str] | None = None,
        *,
        is_table: bool = False,
    ) -> None:
        self.text = text
        self.is_table = is_table
        self.natives = natives
        self.settings = settings
        self.casts = natives if casts is None else casts
        self.columns = tuple(Column(name, logical_of(native)) for name, native in natives.items())
        self._has_room: dict[tuple[int, tuple[str, ...]], bool] = {}

    @classmethod
    def of(cls, session: Described, source: SourceSpec, *, is_inside: bool = False) -> "Selection":
        """Check and describe a source; blocking. What is selected inside a statement that writes leaves the path as it
        is.
        """
        if source.table is not None:
            text = quote_table(source.table)
            natives = session.result_types(f"SELECT * FROM {text} LIMIT 0")
            refuse_read(session, [text], None)
            return cls(text, natives, {}, placing_types(session, natives, _placed(source)), is_table=True)
        if source.query is None:
            raise InvalidInputError("A Postgres source names a table or a query.", code="source.kind")
        return cls._of_query(session, source, source.query, is_inside=is_inside)

    @classmethod
    def _of_query(cls, session: Described, source: SourceSpec, written: str, *, is_inside: bool) -> "Selection":
        settings: dict[str, str] = {}
        render = {
            name: _bound(settings, f"parameter_{number}", value, _parameter_type(value))
            for number, (name, value) in enumerate(source.parameters.items())
        }
        query = session.queries.analyzed(written, session.trusted_schemas)
        known = look_up(session, query)
        text = f"(\n{session.queries.resolved(written, known, render)}\n) AS source"
        if not is_inside:  # A statement that writes may wake triggers, which look for names where the role says.
            settings["search_path"] = path_of(session.trusted_schemas)
        session.bind(settings)
        before = system_held(session)
        casts = session.result_types(f"SELECT * FROM {text} LIMIT 0")
        refuse_read(session, names_of(query, known), before)
        own = own_types(session, casts.values())
        placed = _placed(source)
        for name, native in casts.items():
            if name in placed and own.get(native, ("", False))[1]:
                raise untrusted_type(own[native][0])
        if own:
            session.bind(settings)
        natives = {name: own[native][0] if native in own else native for name, native in casts.items()}
        return cls(text, natives, settings, casts)

    def check(self, planned: Sequence[Column]) -> None:
        """Refuse a source whose columns are not what the read set says any more."""
        check_planned(planned, self.columns)

    def belonging(self, source: SourceSpec, plan: SourcePlan, stream: Stream) -> str:
        """Say that a row belongs to a read set's stream."""
        where = self.bounds(source.cursor.column, plan.lo, plan.hi) if source.cursor else "true"
        return f"{where} AND {self.within(plan.partition, stream)}"

    def bounds(self, cursor: str, lo: str | None, hi: str | None) -> str:
        """Say `lo <= cursor < hi`, either side open when None."""
        conditions = ["true"]
        if lo is not None:
            conditions.append(
                f"{quote(cursor)} {self._sign('>=', cursor)} {_bound(self.settings, 'lo', lo, self.casts[cursor])}"
            )
        if hi is not None:
            conditions.append(
                f"{quote(cursor)} {self._sign('<', cursor)} {_bound(self.settings, 'hi', hi, self.casts[cursor])}"
            )
        return " AND ".join(conditions)

    def within(self, column: str | None, stream: Stream) -> str:
        """Say that a row belongs to a stream."""
        if column is None or (stream.lower is None and stream.upper is None):
            return "true"
        name, native = quote(column), self.casts[column]
        conditions = []
        if stream.lower is not None:
            conditions.append(
                f"{name} {self._sign('>=', column)} {_bound(self.settings, 'lower', stream.lower, native)}"
            )
        if stream.upper is not None:
            conditions.append(
                f"{name} {self._sign('<', column)} {_bound(self.settings, 'upper', stream.upper, native)}"
            )
        text = " AND ".join(conditions)
        return text if stream.lower is not None else f"({text} OR {name} IS NULL)"

    def after(self, order: Sequence[str], position: Position, *, name: str = "after", comparison: str = ">") -> str:
        """Compare the rows' place in the order with a position; by default, strictly after it."""
        left = ", ".join(quote(name) for name in order)
        right = ", ".join(
            _bound(self.settings, f"{name}_{number}", value, self.casts[column])
            for number, (column, value) in enumerate(zip(order, position, strict=True))
        )
        return f"({left}) {self._sign(comparison, *order)} ({right})"

    def text_of(self, name: str) -> str:
        """The text of a column of `selected`."""
        return as_text(f"selected.{quote(name)}", self.casts[name])

    def _sign(self, sign: str, *columns: str) -> str:
        """An operator of Postgres' own where the types are: one that somebody has made for just these would come before
        it.
        """
        if all(is_own(self.casts[column]) for column in columns):
            return f"OPERATOR(pg_catalog.{sign})"
        return sign

    def rows(
        self,
        session: Described,
        batch_rows: int,
        sizes: tuple[int | None, int] = (None, BATCH_BYTES),
        *,
        where: str = "true",
        order: Sequence[str] = (),
        limit: int | None = None,
        only: Sequence[str] | None = None,
        places: bool = False,
        ties: bool = False,
    ) -> Generator[pa.Table]:
        """Stream the rows by COPY; what Arrow has no type for comes as text, but is ordered as what it is.

        Additional columns have the text of the order's values (`places`), and which rows are equal in it (`ties`).

        Raises:
            WorkFailedError: a row has more bytes than it may (`source.row_too_large`). `sizes` are those of a batch and
            of a row.
        """
        batch_bytes, most = sizes
        keys = ", ".join(f"selected.{quote(name)}" for name in order)
        ordered = f" ORDER BY {keys}" if order else ""
        columns, chosen, natives = self._chosen(only, order if places else (), keys if ties else None)
        bounded = f" LIMIT {limit:d}" if limit is not None else ""
        session.bind(self.settings)
        measured = row_size.measured(natives, most)
        if measured and self.is_table and not self._may_have_room(session, natives, most):
            measured = []
        names = [c.name for c in chosen]
        sorting = {
            f"{_KEY}{number}": f"selected.{quote(name)}" for number, name in enumerate(order if measured else ())
        }
        columns += "".join(f", {key} AS {name}" for name, key in sorting.items())
        query = f"SELECT {columns} FROM (SELECT * FROM {self.text}) AS selected WHERE {where}{ordered}{bounded}"
        if measured:
            query = row_size.refusing(query, names, measured, list(sorting), most)
        stream = session.stream(query, most)
        try:
            tables = rechunk(_decoded(stream, chosen), batch_rows, batch_bytes)
            yield from whole_ties(tables, order, batch_bytes) if ties else tables
        except PlatformError as error:
            refused = row_size.told(error, names, measured, most)
            if refused is None:
                raise
            raise refused from error
        finally:
            stream.close()  # Here and not whenever it is collected: it ends a statement of the session.

    def _chosen(
        self, only: Sequence[str] | None, placed: Sequence[str], tied_by: str | None
    ) -> tuple[str, list[Column], list[str]]:
        """What is selected, as SQL, with the columns that it gives and their types at the server."""
        chosen = [c for c in self.columns if only is None or c.name in only]
        natives = [self.natives[c.name] for c in chosen]
        columns = ", ".join(
            f"{self.text_of(c.name)} AS {quote(c.name)}" if _is_sent_as_text(c.type) else quote(c.name) for c in chosen
        )
        if placed:
            kinds = {c.name: c.type for c in self.columns}
            told = told_as_text(placed, lambda name: is_plain(kinds[name]) or _is_sent_as_text(kinds[name]))
            columns += "".join(f", {self.text_of(name)} AS {place}" for place, name in told.items())
            chosen += [Column(place, "string") for place in told]
            natives += [self.natives[name] for name in told.values()]
        if tied_by is not None:
            columns += f", rank() OVER (ORDER BY {tied_by}) AS {TIES}"
            chosen.append(Column(TIES, "int64"))
            natives.append("bigint")
        return columns, chosen, natives

    def _may_have_room(self, session: Described, natives: Sequence[str], most: int) -> bool:
        """As `row_size.has_room`, asked once: a selection is of one snapshot, for which the answer stays right."""
        asked = (most, tuple(natives))
        if asked not in self._has_room:
            self._has_room[asked] = row_size.has_room(session, self.text, natives, most)
        return self._has_room[asked]


def _placed(source: SourceSpec) -> set[str]:
    """The columns that tell the places of rows."""
    named = [part.column for part in (source.cursor, source.partitions) if part is not None]
    return {*source.order, *named}


def _decoded(batches: Iterator[pa.RecordBatch], columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
    """Take numerics, which come as text of an opaque type, as decimals."""
    schema = pa.schema([(column.name, arrow_type(column.type)) for column in columns])
    for batch in batches:
        arrays = [_plain(array, field) for array, field in zip(batch.columns, schema, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _plain(array: pa.Array, field: pa.Field) -> pa.Array:
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if array.type.equals(field.type):
        _refuse_wrapped(array, field.name)
        return array
    try:
        return pc.cast(array, field.type, safe=True)
    except pa.ArrowInvalid as error:
        raise SchemaMismatchError(
            f"The source's column {field.name} holds a value that {logical_type(field.type)} cannot carry, such as "
            f"NaN; turn it into NULL in the source query, for example with nullif({field.name}, 'NaN')."
        ) from error


def _refuse_wrapped(array: pa.Array, name: str) -> None:
    """Refuse times that Arrow cannot carry: the driver shifts them to another epoch, and they come round at the other
    end, below the earliest time that Postgres knows.
    """
    earliest = _EARLIEST.get(str(array.type))
    if earliest is None or array.null_count == len(array):
        return
    kind = pa.int32() if pa.types.is_date(array.type) else pa.int64()
    found = array.view(kind)
    if pc.min(found).as_py() < earliest:
        is_below = pc.any(pc.equal(found, _BELOW_ALL[str(array.type)])).as_py()
        value = "-infinity" if is_below else "infinity"
        shown = f"{value}, which" if is_below else f"{value} or a time so far in the future that it"
        raise SchemaMismatchError(
            f"The source's column {name} holds {shown} cannot be carried; turn it "
            f"into NULL in the source query, for example with nullif({name}, '{value}').",
            code="source.time_out_of_range",
        )


def _is_sent_as_text(kind: str) -> bool:
    """What Arrow has no type for; and numerics, since the server writes them as text faster than the driver does."""
    return kind in ("uuid", "json") or kind.startswith(("native:", "decimal("))


def _bound(settings: dict[str, str], name: str, value: object, native: str) -> str:
    if value is None:
        return f"NULL::{native}"
    settings[f"headrace.{name}"] = str(value).lower() if isinstance(value, bool) else str(value)
    return f"current_setting('headrace.{name}')::{native}"


def _parameter_type(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "bigint"
        case float():
            return "double precision"
        case _:
            return "text"
