"""One Postgres connection as the fence sees it: ADBC for rows, COPY inside the transaction, types checked first."""

import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

import pyarrow as pa

from domain.errors import InvalidInputError, NotFoundError, PlatformError, SourceChangedError, StoreUnavailableError
from domain.loads.checkpoint import Merged
from domain.ports.data_store import BATCH_BYTES, StreamSelection, Target
from domain.runs.lane import Lane
from domain.stores.table import DELETED, SEQ, Column, TableName, TableSchema
from infrastructure.postgres.settings import pinned
from infrastructure.queries.postgres_query import PostgresQueries
from infrastructure.sql import quote, quote_table
from infrastructure.stores.overtaken import Compared
from infrastructure.stores.postgres.capabilities import CAPABILITIES
from infrastructure.stores.postgres.casts import cast, naming_column, staged_type
from infrastructure.stores.postgres.catalog import (
    catalog_columns,
    check_landing_types,
    check_type,
    collations,
    describe,
    types_told,
)
from infrastructure.stores.postgres.channel import Channel
from infrastructure.stores.postgres.connection import LastResort, PostgresAddress
from infrastructure.stores.postgres.hiding import insert_counted, may_alter, may_hide, may_suppress
from infrastructure.stores.postgres.internal import create_internal_tables
from infrastructure.stores.postgres.landing import LooksAtLandings
from infrastructure.stores.postgres.limits import refuse_far_times
from infrastructure.stores.postgres.losses import refuse_losses
from infrastructure.stores.postgres.merge import are_told, hold_merged, merge
from infrastructure.stores.postgres.owners import AIMED, names_of
from infrastructure.stores.postgres.predecessors import end_holders, naming_holders, run_patiently
from infrastructure.stores.postgres.replace import bound_of, clear, is_referred, swap
from infrastructure.stores.postgres.reserved import refuse_reserved
from infrastructure.stores.postgres.resolving import runs_inside
from infrastructure.stores.postgres.selection import Selection
from infrastructure.stores.postgres.types import logical_of, native_of, needs_cast, with_binary_uuids
from infrastructure.stores.postgres.unasked import refuse_calling_casts
from infrastructure.stores.sql.merge import Merge
from infrastructure.stores.sql.session import Session, T

_TEMPORARY = "pg_temp"
# What ends a use waits for nobody.
_PROMPT = ("ROLLBACK", "DISCARD ALL")
# A server that restarts is back within seconds; longer is for the next claim of the run.
_RECONNECT_PAUSES_SECONDS = (0.1, 0.5, 1.0, 2.0, 4.0)


class PostgresSession(LooksAtLandings, Session):
    """A connection for writing: explicit BEGIN and COMMIT, one statement at a time."""

    for_update = "FOR UPDATE"
    overriding = " OVERRIDING SYSTEM VALUE"
    aimed = AIMED
    capabilities = CAPABILITIES

    def __init__(self, address: PostgresAddress, application_name: str, queries: PostgresQueries | None = None) -> None:
        super().__init__()
        self._address = address
        self.queries = queries or PostgresQueries()
        self.trusted_schemas = address.trusted_schemas
        self._path: str | None = None
        self._name = application_name
        self._channel = Channel(address, application_name)
        self._last_resort = LastResort(address)
        self._natives: dict[str, dict[str, str]] = {}
        self._stages: dict[str, str] = {}
        self._writes = False
        self._is_begun = False

    def begin(self) -> None:
        self._writes = True
        self._held.clear()
        self.execute("BEGIN")

    def commit(self) -> None:
        self._held.clear()
        self.execute("COMMIT")
        self._is_begun = False

    def rollback(self) -> None:
        self._held.clear()
        with suppress(PlatformError):  # If the connection is gone, the server has rolled back.
            self.end()
        self._stages.clear()

    def end(self) -> None:
        """Roll back what was begun; where nothing was, the server would write a warning into its log."""
        if self._is_begun:
            self._is_begun = False
            self.execute("ROLLBACK")

    @property
    def _cursor(self) -> Any:
        return self._channel.cursor

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        if sql.startswith("BEGIN"):
            self._is_begun = True
            if not self._writes:
                self._last_resort.know(self._channel.ask)
        seconds = self._address.prompt_seconds if sql in _PROMPT else None
        return self._channel.ask(sql, parameters, seconds=seconds, writes=self._writes)

    def ask(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement for which the server has nothing to do and nobody to wait for: its answer is due at once.

        Raises:
            StoreUnavailableError: there is none.
        """
        return self._channel.ask(sql, parameters, seconds=self._address.prompt_seconds, writes=self._writes)

    def bind(self, settings: Mapping[str, str]) -> None:
        """Set values that statements of this transaction read by `current_setting`."""
        if settings:
            calls = ", ".join(f"set_config(${2 * n + 1}, ${2 * n + 2}, true)" for n in range(len(settings)))
            self.execute(f"SELECT {calls}", [part for item in settings.items() for part in item])

    def use_own_path(self) -> None:
        """Look for names where the role says, until the transaction ends or another path is bound."""
        if self._path is None:
            self._path = str(self.execute("SELECT current_setting('search_path')")[0][0])
        self.bind({"search_path": self._path})

    def stream(self, sql: str, most: int = BATCH_BYTES) -> Generator[pa.RecordBatch]:
        """Stream a query's result by COPY, of which no row has more than so many bytes; ending early
        cancels the query.
        """
        return self._channel.stream(sql, most)

    def rename(self, name: str) -> None:
        """Take a session name, by which a take-over finds the sessions of its predecessors, and set what
        `clean` reset.
        """
        self._name = name
        self.ask(f"SELECT set_config('application_name', $1, false), {pinned()}", (name,))

    def clean(self) -> None:
        """End whatever is left of a use: transaction, temporary tables, settings, remembered types."""
        self.end()
        self.execute("DISCARD ALL")
        self._writes = False
        self._natives.clear()
        self._stages.clear()
        self._path = None

    def interrupt(self) -> None:
        self.is_interrupted = True
        self._channel.cancel()
        if not self._writes:
            self._last_resort.asked_to_stop()

    def result_types(self, sql: str) -> dict[str, str]:
        """Names and native types of a query's columns.

        Raises:
            InvalidInputError: two columns have one name (`query.duplicate_column`).
        """
        schema = self._channel.schema(sql)
        if repeated := {name for name in schema.names if schema.names.count(name) > 1}:
            raise InvalidInputError(f"Two columns are named {min(repeated)}.", code="query.duplicate_column")
        types = types_told(self, schema)
        own = [name for name, native in types.items() if not native]
        if own:  # Whose schema the driver does not tell. A row of NULLs has the types that the query gives.
            kinds = ", ".join(f"pg_typeof(described.{quote(name)})::text" for name in own)
            rows = self.execute(f"SELECT {kinds} FROM (SELECT 1) AS always LEFT JOIN ({sql}) AS described ON true")
            types |= dict(zip(own, rows[0], strict=True))
        return types

    def ingest(self, table: TableName, rows: pa.Table, columns: Sequence[Column]) -> None:
        self._append(table, rows, self._native_types(table))

    def _append(self, table: TableName, rows: pa.Table, natives: Mapping[str, str]) -> None:
        if not any(needs_cast(natives[name]) for name in rows.column_names):
            uuids = [name for name in rows.column_names if natives[name] == "uuid"]
            self._copy(table, with_binary_uuids(rows, uuids))
            return
        refuse_calling_casts(self, {name: natives[name] for name in rows.column_names if needs_cast(natives[name])})
        stage = self._cast_stage(rows)
        self._copy(stage, rows)
        names = ", ".join(quote(name) for name in rows.column_names)
        values = ", ".join(cast(name, natives[name]) for name in rows.column_names)
        try:
            refuse_losses(self, quote_table(stage), {name: natives[name] for name in rows.column_names})
            into = f"INSERT INTO {quote_table(table)} ({names}){self.overriding}"
            self.execute(f"{into} SELECT {values} FROM {quote_table(stage)}")
        except PlatformError as error:
            raise naming_column(error, rows, natives) from error
        self.execute(f"TRUNCATE {quote_table(stage)}")

    def merge(self, table: TableName, rows: pa.Table, columns: Sequence[Column], target: Target) -> Merged:
        names = [column.name for column in columns if column.name not in (DELETED, SEQ)]
        with self._staged(table, rows) as stage:
            return self.merge_from(stage, names, target, is_batch=True)

    def compared(
        self, table: TableName, rows: pa.Table, columns: Sequence[Column], target: Target
    ) -> tuple[bool, list[Compared]]:
        named = [*target.key, *([target.newest_by] if target.newest_by is not None else [])]
        with self._staged(table, rows.select([*dict.fromkeys(named), SEQ])) as stage:
            return are_told(self, target), Merge(stage, named, target).compared(self)

    @contextmanager
    def _staged(self, table: TableName, rows: pa.Table) -> Iterator[str]:
        """Rows in a temporary table with the types and collations of another."""
        natives = {**self._native_types(table), DELETED: "boolean", SEQ: "bigint"}
        collated = collations(self, table)
        stage = self._temporary("merge", {name: natives[name] + collated.get(name, "") for name in rows.column_names})
        self._append(stage, rows, natives)
        yield quote_table(stage)
        self.execute(f"TRUNCATE {quote_table(stage)}")

    def merge_from(self, using: str, names: Sequence[str], target: Target, *, is_batch: bool = False) -> Merged:
        return merge(self, using, names, target, is_batch=is_batch)

    def _copy(self, table: TableName, rows: pa.Table) -> None:
        refuse_far_times(rows)
        if table.schema == _TEMPORARY:
            self._channel.ingest(table.table, rows, temporary=True)
        else:
            held = self._held.get(str(table))  # The driver would ask for the schema.
            self._channel.ingest(table.table, rows, db_schema_name=held.schema if held is not None else table.schema)

    def sorts(self, sql: str) -> bool:
        """Whether a query has to sort although it would rather not: no index is in its order."""
        self.bind(dict.fromkeys(("enable_sort", "enable_seqscan", "enable_bitmapscan"), "off"))
        with self._channel.uncopied():
            plan = str(self.execute(f"EXPLAIN (FORMAT JSON) {sql}")[0][0])
        return '"Sort"' in plan or '"Incremental Sort"' in plan

    def _cast_stage(self, rows: pa.Table) -> TableName:
        """A temporary table in which what the wire cannot carry lies as text."""
        return self._temporary("cast", {field.name: staged_type(field.type) for field in rows.schema})

    def _temporary(self, purpose: str, natives: Mapping[str, str]) -> TableName:
        """A temporary table of these columns, made once for the session."""
        definitions = ", ".join(f"{quote(name)} {native}" for name, native in natives.items())
        if definitions not in self._stages:
            name = f"headrace_{purpose}_{hashlib.sha256(definitions.encode()).hexdigest()[:12]}"
            self.execute(f"CREATE TEMPORARY TABLE IF NOT EXISTS {quote(name)} ({definitions})")
            self._stages[definitions] = name
        return TableName(self._stages[definitions], _TEMPORARY)

    def insert_selected(
        self, table: TableName, selection: StreamSelection, constants: Mapping[str, tuple[str, str]]
    ) -> int:
        columns, plan = selection.passage.columns, selection.plan
        if not runs_inside(self, selection.source):
            raise SourceChangedError(
                "What is read may call somebody's code now, which it did not when the run was planned; run it again."
            )
        chosen = Selection.of(self, selection.source, is_inside=True)
        chosen.check([Column(name, kind) for name, kind in plan.columns])
        check_landing_types(table, {name: chosen.natives[name] for name in columns}, self._native_types(table))
        where = chosen.belonging(selection.source, plan, selection.stream)
        if selection.after is not None:
            where = f"{where} AND {chosen.after(plan.order, selection.after)}"
        names = ", ".join(quote(name) for name in (*columns, *constants))
        values = [quote(name) for name in columns]
        for number, (value, kind) in enumerate(constants.values()):
            chosen.settings[f"headrace.constant_{number}"] = value
            values.append(f"(SELECT current_setting('headrace.constant_{number}')::{native_of(kind)})")
        self.bind(chosen.settings)
        rows = f"SELECT {', '.join(values)} FROM (SELECT * FROM {chosen.text}) AS selected WHERE {where}"
        into = f"INSERT INTO {quote_table(table)} ({names}){self.overriding}"
        if may_suppress(self, table):
            return insert_counted(self, into, rows, names)
        return self._channel.changed(f"{into} {rows}")

    def refuse_reserved(self, table: TableName) -> None:
        refuse_reserved(self, table)

    def uuid(self, text: str) -> pa.Scalar:
        return pa.scalar(UUID(text).bytes, pa.binary(16))

    def describe(self, table: TableName) -> TableSchema | None:
        self.refuse_reserved(table)
        return describe(self, table)

    def describe_bound(self, table: TableName) -> TableSchema | None:
        found = self.describe(table)
        return replace(found, bound=bound_of(self, table)) if found is not None else None

    def hold(self, table: TableName, merged_by: Sequence[str] = ()) -> TableSchema | None:
        try:
            if merged_by:
                hold_merged(self, table, merged_by)
            else:
                self.execute(f"LOCK TABLE {quote_table(table)} IN ROW EXCLUSIVE MODE")
        except NotFoundError:
            return None
        held = self.look_at(table)  # Somebody may have changed a type since the batch before.
        self._natives[str(table)] = {name: kind for name, kind, _ in held.columns}
        return TableSchema(
            table, tuple(Column(name, logical_of(kind), is_null) for name, kind, is_null in held.columns)
        )

    def _native_types(self, table: TableName) -> dict[str, str]:
        key = str(table)
        if key not in self._natives:
            self._natives[key] = {name: kind for name, kind, _ in catalog_columns(self, table)}
        return self._natives[key]

    def may_suppress(self, table: TableName) -> bool:
        return may_suppress(self, table)

    def may_hide(self, table: TableName) -> bool:
        return may_hide(self, table)

    def may_alter(self, table: TableName) -> bool:
        return may_alter(self, table)

    def type_name(self, logical: str) -> str:
        return native_of(logical)

    def definition(self, column: Column, native: str | None = None) -> str:
        definition = super().definition(column, native)
        if native is None:
            check_type(self, column)
        return definition

    def create_stage(self, stage: TableName, like: TableName | None, columns: Sequence[Column]) -> None:
        natives = {name: kind for name, kind, _ in catalog_columns(self, like)} if like else {}
        collated = collations(self, like) if like else {}
        natives = {name: kind + collated.get(name, "") for name, kind in natives.items()}
        names = {column.name for column in columns}
        definitions = [self.definition(column, natives.get(column.name)) for column in columns]
        definitions += [
            f"{quote(name)} {kind}"
            for name, kind in natives.items()
            if name not in names and not name.startswith("_headrace_")
        ]
        self.execute(f"CREATE TABLE {quote_table(stage)} ({', '.join(definitions)})")

    def swap(self, stage: TableName, table: TableName, names: Sequence[str]) -> None:
        swap(self, stage, table, names)

    def clear(self, stage: TableName, table: TableName, key: Sequence[str]) -> None:
        clear(self, stage, table, key if is_referred(self, table) else ())

    def create_internal_tables(self, schema: str | None) -> None:
        create_internal_tables(self, schema)

    def run_patiently(self, lane: Lane, fence: int, work: Callable[[], T]) -> T:
        return run_patiently(self, lane, fence, work)

    def naming_holders(self, table: str) -> AbstractContextManager[None]:
        return naming_holders(self, table)

    def end_predecessors(self, lane: Lane, fence: int, checkpoint: str) -> None:
        end_holders(self, lane, fence, checkpoint)

    def lock_table(self, table: str) -> None:
        self.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")

    def names(self, table: TableName) -> Sequence[TableName]:
        return names_of(self, table)

    def reopen(self) -> None:
        self.close()
        for pause_seconds in _RECONNECT_PAUSES_SECONDS:
            try:
                self._channel = Channel(self._address, self._name)
                break
            except StoreUnavailableError:
                time.sleep(pause_seconds)
        else:
            self._channel = Channel(self._address, self._name)
        self._is_begun = False
        self._stages.clear()

    def hang_up(self) -> None:
        """Free the thread that waits for the server; the session is of no use after it."""
        self._channel.hang_up()

    def close(self) -> None:
        self._channel.close()
