"""One DuckDB cursor as the fence sees it: a lock taken before BEGIN and held to COMMIT, and types by name."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa

from domain.errors import ConversionError, StoreUnavailableError
from domain.loads.checkpoint import Merged
from domain.ports.data_store import Conversions, StreamSelection, Target, TextRows
from domain.runs.lane import Lane
from domain.stores.table import DELETED, SEQ, Column, TableName, TableSchema
from infrastructure.queries.duckdb_queries import IN_PROCESS, DuckDBQueries
from infrastructure.sql import quote, quote_table
from infrastructure.stores.duckdb.capabilities import CAPABILITIES
from infrastructure.stores.duckdb.catalog import bound_of, describe, natives_of_table
from infrastructure.stores.duckdb.errors import is_committed
from infrastructure.stores.duckdb.errors import translate as translate
from infrastructure.stores.duckdb.internal import create_internal_tables
from infrastructure.stores.duckdb.limits import as_arrow_has_them, refuse_cut_times, refuse_rounded_texts
from infrastructure.stores.duckdb.reserved import refuse_read, refuse_reserved
from infrastructure.stores.duckdb.respelled import DuckDBMerge, write_respelled
from infrastructure.stores.duckdb.selection import belonging, from_item
from infrastructure.stores.duckdb.typed_texts import TypedTexts
from infrastructure.stores.duckdb.wal import WriteAheadLog
from infrastructure.stores.landing import landing_changed
from infrastructure.stores.overtaken import Compared
from infrastructure.stores.planned import check_planned
from infrastructure.stores.sql.merge import merged_by
from infrastructure.stores.sql.session import QUARANTINE_COLUMNS, RECORD_BYTES, Session, T, add_landing
from infrastructure.stores.write_lock import WriteLock
from infrastructure.tabular.duckdb_types import logical_of, native_of
from infrastructure.tabular.exact import NOT_CONVERTED

_EXACT = re.compile(r"u?int[0-9]+|bool|date|time(stamp(tz)?)?|binary|decimal\(.*")
_EXACT_OR_UUID = re.compile(f"{_EXACT.pattern}|uuid")
_WHOLE = "lower(CASE WHEN contains({0}, '.') THEN {0} ELSE 'main.' || {0} END)"


class DuckDBSession(Session):
    """A cursor of the store's one connection."""

    owned = 'lower("table") = lower($1)'  # Two spellings of one table, to DuckDB.
    aimed = " = ".join(_WHOLE.format(name) for name in ('"target"', "$3"))
    capabilities = CAPABILITIES
    quarantine_columns = (*QUARANTINE_COLUMNS, RECORD_BYTES)

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        write_lock: WriteLock,
        opening: str,
        queries: DuckDBQueries = IN_PROCESS,
        log: WriteAheadLog | None = None,
    ) -> None:
        """What lies in memory only has no `log`."""
        self._queries = queries
        self._log = log
        self._connection = connection
        self._opening = opening
        self._cursor = connection.cursor()
        self._write_lock = write_lock
        self._holds_lock = False

    def begin(self) -> None:
        # Before BEGIN: a transaction that waited inside would see an old snapshot and conflict at commit.
        while not self._write_lock.acquire(timeout=0.5):
            if self.is_interrupted:
                raise StoreUnavailableError("Stopped while waiting for the file's write lock.")
        self._holds_lock = True
        try:
            self._run("BEGIN TRANSACTION")
        except BaseException:
            self._release()
            raise

    def commit(self) -> None:
        try:
            self._commit()
            if self._log is not None:
                self._log.shorten(self._cursor)
        except BaseException:
            self.rollback()
            raise
        finally:
            self._release()

    def _commit(self) -> None:
        try:
            self._cursor.execute("COMMIT")
        except duckdb.Error as error:
            if not is_committed(error):
                raise translate(error) from error
            if self._log is not None:
                self._log.has_failed = True

    def rollback(self) -> None:
        try:
            self._cursor.execute("ROLLBACK")
        except duckdb.Error:
            pass  # There was no transaction left to undo.
        finally:
            self._release()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._run(sql, list(parameters)).fetchall()
        return rows

    def ingest(self, table: TableName, rows: pa.Table, columns: Sequence[Column]) -> None:
        names = ", ".join(quote(column.name) for column in columns)
        with self._registered(rows):
            self._refuse_cut(table, rows)
            self._cursor.execute(f"INSERT INTO {quote_table(table)} ({names}) SELECT {names} FROM _headrace_rows")
            self._written(rows.num_rows, rows.nbytes)

    def merge(self, table: TableName, rows: pa.Table, columns: Sequence[Column], target: Target) -> Merged:
        names = [column.name for column in columns if column.name not in (DELETED, SEQ)]
        with self._registered(rows):
            self._refuse_cut(table, rows)
            merged = self.merge_from("_headrace_rows", names, target, is_batch=True)
            self._written(rows.num_rows, rows.nbytes)
        return merged

    def _written(self, rows: int, nbytes: int) -> None:
        if self._log is not None:
            self._log.written(self._cursor, rows, nbytes)

    @contextmanager
    def _registered(self, rows: pa.Table | pa.RecordBatchReader) -> Iterator[None]:
        """Let statements read rows as `_headrace_rows`, and keep none of them after."""
        try:
            self._cursor.register("_headrace_rows", rows)
            yield
        except duckdb.Error as error:
            raise translate(error) from error
        finally:
            with suppress(duckdb.Error):  # A transaction that is over but for its ROLLBACK forgets them with that.
                self._cursor.unregister("_headrace_rows")

    def compared(
        self, table: TableName, rows: pa.Table, columns: Sequence[Column], target: Target
    ) -> tuple[bool, list[Compared]]:
        held = self.describe(target.table)
        names = [column.name for column in columns if column.name not in (DELETED, SEQ)]
        with self._registered(rows):
            found = DuckDBMerge(self._collated("_headrace_rows", names, target), names, target).compared(self)
        return self._is_exact(target, held, _EXACT_OR_UUID), found

    def _merging(
        self, using: str, names: Sequence[str], target: Target, held: TableSchema | None, *, is_batch: bool = False
    ) -> DuckDBMerge:
        is_exact = self._is_exact(target, held)
        if not is_exact:
            using = self._collated(using, names, target)
        return DuckDBMerge(using, names, target, is_exact=is_exact, is_batch=is_batch)

    @staticmethod
    def _collated(using: str, names: Sequence[str], target: Target) -> str:
        """Put a FROM item under the table's own columns, which may have a collation."""
        own = f"SELECT {', '.join(quote(name) for name in names)} FROM {quote_table(target.table)} WHERE false"
        return f"({own} UNION ALL BY NAME SELECT * FROM {using}) AS merged"

    def merge_from(self, using: str, names: Sequence[str], target: Target, *, is_batch: bool = False) -> Merged:
        held = self.describe(target.table)
        merging = self._merging(using, names, target, held, is_batch=is_batch)
        columns = held.columns if held is not None else ()
        kept = [column.name for column in columns if column.name not in names and not column.is_computed]
        write_respelled(self, merging, natives_of_table(self._run, target.table), kept)
        repeated = merging.repeated(self)
        actions = Counter(action for (action,) in self.execute(f"{merging.statement} RETURNING merge_action"))
        return merged_by(actions.items(), repeated)

    def _is_exact(self, target: Target, held: TableSchema | None, exact: re.Pattern[str] = _EXACT) -> bool:
        """Whether two keys are equal only when they are the same values to Arrow too: no collation says otherwise."""
        kinds = [column.type for column in held.columns if column.name in target.key] if held else []
        where = (
            "lower(schema_name) = lower($1) AND lower(table_name) = lower($2) AND database_name = current_database()"
        )
        collated = self.execute(
            f"SELECT contains(lower(sql), 'collate') OR current_setting('default_collation') <> '' "
            f"FROM duckdb_tables() WHERE {where}",
            (target.table.schema or "main", target.table.table),
        )
        is_plain = collated == [(False,)]
        return all(exact.fullmatch(kind) or (kind == "string" and is_plain) for kind in kinds)

    def insert_selected(
        self, table: TableName, selection: StreamSelection, constants: Mapping[str, tuple[str, str]]
    ) -> int:
        refuse_read(self._cursor, selection.source, self._queries)
        text, parameters = from_item(selection.source, self._queries)
        natives = {row[0]: row[1] for row in self._run(f"DESCRIBE SELECT * FROM {text}", named(parameters)).fetchall()}
        where, bound = belonging(selection.source, selection.plan, selection.stream, selection.after, natives)
        columns, held = selection.passage.columns, self.describe(table)
        kinds = dict(selection.plan.columns)
        check_planned(
            [Column(*c) for c in kinds.items()], [Column(name, logical_of(kind)) for name, kind in natives.items()]
        )
        for name in columns:
            landing = held.column(name) if held else None
            if landing is None or landing.type != kinds[name]:
                raise landing_changed(table, name)
        given = {name: natives[name] for name in columns}
        landed = natives_of_table(self._run, table)
        refuse_cut_times(self._run, given, landed, f"{text} WHERE {where}", named(parameters | bound))
        names = ", ".join(quote(name) for name in (*columns, *constants))
        values = [quote(name) for name in columns]
        for number, (value, kind) in enumerate(constants.values()):
            bound[f"constant_{number}"] = value
            values.append(f"CAST($constant_{number} AS {native_of(kind)})")
        found = self._run(
            f"INSERT INTO {quote_table(table)} ({names}) SELECT {', '.join(values)} FROM {text} WHERE {where}",
            named(parameters | bound),
        )
        if self._log is not None:
            self._log.written_unseen()
        return int(found.fetchall()[0][0])

    def insert_texts(
        self, table: TableName, rows: TextRows, conversions: Conversions, constants: Mapping[str, tuple[str, str]]
    ) -> None:
        """Insert text as its conversions read it.

        Raises:
            ConversionError: a value does not convert, or a column of the table has another type.
        """
        natives = natives_of_table(self._run, table)
        if conversions.dialect != "duckdb" or any(
            natives.get(column.name) != column.type for column in conversions.columns
        ):
            raise ConversionError(f"The table {table} has columns of other types.")
        names = ", ".join(quote(name) for name in (*(column.name for column in conversions.columns), *constants))
        natives = {column.given: column.type for column in conversions.columns}
        texts = TypedTexts(pa.RecordBatchReader.from_stream(rows), natives)
        values = [texts.value(column.given, column.expression) for column in conversions.columns]
        bound = {}
        for number, (value, kind) in enumerate(constants.values()):
            bound[f"constant_{number}"] = value
            values.append(f"CAST($constant_{number} AS {native_of(kind)})")
        insert = f"INSERT INTO {quote_table(table)} ({names}) SELECT {', '.join(values)} FROM _headrace_rows"
        with self._registered(texts.reader()):
            try:
                count = int(self._cursor.execute(insert, named(bound)).fetchall()[0][0])
            except duckdb.Error as error:
                if rows.error is not None:
                    raise rows.error from error
                if NOT_CONVERTED in str(error):
                    raise ConversionError("A value does not convert.") from error
                raise
        self._written(rows.num_rows, rows.nbytes)
        if count != rows.num_rows:
            raise StoreUnavailableError(f"{rows.num_rows} rows were read and {count} written; nothing of them is kept.")

    def _refuse_cut(self, table: TableName, rows: pa.Table) -> None:
        """Refuse registered rows of which the table would keep less."""
        landing = natives_of_table(self._run, table)
        given = {name: kind for name, kind in as_arrow_has_them(landing).items() if name in rows.column_names}
        refuse_cut_times(self._run, given, landing, "_headrace_rows")
        refuse_rounded_texts(self._run, landing, rows.column_names, "_headrace_rows")

    def natives(self, table: TableName) -> dict[str, str]:
        """The types of a table's columns in DuckDB's own words; none where there is no table."""
        return natives_of_table(self._run, table) if self.describe(table) is not None else {}

    def plain_tables(self, names: Iterable[str]) -> bool:
        """Whether all of these are tables without generated columns, and not views: those may call anything."""
        tables = {
            text
            for schema, table in self.execute(
                "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database() "
                "AND NOT regexp_matches(sql, '\\bAS\\s*\\(', 'i')"
            )
            for text in (f'"{schema}"."{table}"', *((f'"{table}"',) if schema == "main" else ()))
        }
        return set(names) <= tables

    def refuse_reserved(self, table: TableName) -> None:
        refuse_reserved(self._cursor, table)

    def describe(self, table: TableName) -> TableSchema | None:
        try:
            return describe(self._cursor.execute, table)
        except duckdb.CatalogException:  # Outside of a transaction it may go between two questions.
            return None
        except duckdb.Error as error:
            raise translate(error) from error

    def describe_bound(self, table: TableName) -> TableSchema | None:
        found = self.describe(table)
        return replace(found, bound=bound_of(self._run, table)) if found is not None else None

    def hold(self, table: TableName, merged_by: Sequence[str] = ()) -> TableSchema | None:
        return self.describe(table)  # The write lock keeps it.

    def identity(self, table: TableName) -> str | None:
        where = (
            "lower(schema_name) = lower($1) AND lower(table_name) = lower($2) AND database_name = current_database()"
        )
        found = self.execute(
            f"SELECT table_oid FROM duckdb_tables() WHERE {where}", (table.schema or "main", table.table)
        )
        return f"{self._opening}:{found[0][0]}" if found else None

    def keeps_rows(self, table: TableName, before: str, runs: Sequence[str] | None) -> bool:
        # The numbers of tables are given anew when the file is opened.
        return before.partition(":")[0] != self._opening

    def type_name(self, logical: str) -> str:
        return native_of(logical)

    def create_stage(self, stage: TableName, like: TableName | None, columns: Sequence[Column]) -> None:
        natives = natives_of_table(self._run, like) if like else {}
        names = {column.name for column in columns}
        definitions = [self.definition(column, natives.get(column.name)) for column in columns]
        definitions += [
            f"{quote(name)} {kind}"
            for name, kind in natives.items()
            if name not in names and not name.startswith("_headrace_")
        ]
        self.execute(f"CREATE TABLE {quote_table(stage)} ({', '.join(definitions)})")

    def swap(self, stage: TableName, table: TableName, names: Sequence[str]) -> None:
        if bound_of(self._run, table):
            add_landing(self, stage, table, names)
            chosen = ", ".join(quote(name) for name in names)
            self.execute(f"DELETE FROM {quote_table(table)}")
            self.execute(f"INSERT INTO {quote_table(table)} ({chosen}) SELECT {chosen} FROM {quote_table(stage)}")
            self.execute(f"DROP TABLE {quote_table(stage)}")
            return
        self.execute(f"DROP TABLE IF EXISTS {quote_table(table)}")
        self.execute(f"ALTER TABLE {quote_table(stage)} RENAME TO {quote(table.table)}")

    def clear(self, stage: TableName, table: TableName, key: Sequence[str]) -> None:
        self.execute(f"DELETE FROM {quote_table(table)}")

    def create_internal_tables(self, schema: str | None) -> None:
        create_internal_tables(self, schema)

    def run_patiently(self, lane: Lane, fence: int, work: Callable[[], T]) -> T:
        with self.transaction():  # The file's one write lock already holds every row.
            return work()

    def lock_table(self, table: str) -> None:
        """Nothing to do, for the same reason."""

    def interrupt(self) -> None:
        self.is_interrupted = True
        self._cursor.interrupt()

    def reopen(self) -> None:
        self.rollback()
        self._cursor.close()
        self._cursor = self._connection.cursor()

    def close(self) -> None:
        self.rollback()
        self._cursor.close()

    def _run(self, sql: str, parameters: Any = None) -> duckdb.DuckDBPyConnection:
        try:
            return self._cursor.execute(sql, parameters) if parameters else self._cursor.execute(sql)
        except duckdb.Error as error:
            raise translate(error) from error

    def _release(self) -> None:
        if self._holds_lock:
            self._holds_lock = False
            self._write_lock.release()


def named(parameters: Mapping[str, Any]) -> dict[str, Any] | None:
    """Parameters for a statement with `$name` placeholders; DuckDB wants None when there are none."""
    return dict(parameters) or None
