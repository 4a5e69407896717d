"""One connection of a SQL store as the fence sees it, and the tables that the fence needs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import pyarrow as pa

from domain.errors import SchemaMismatchError
from domain.failpoints import fail_at
from domain.loads.checkpoint import Merged
from domain.ports.data_store import StreamSelection, Target
from domain.runs.lane import Lane
from domain.stores.capabilities import Capabilities
from domain.stores.table import Column, TableName, TableSchema
from infrastructure.sql import quote, quote_table
from infrastructure.stores.landing import landed_columns, staged_columns
from infrastructure.stores.overtaken import Compared
from infrastructure.tabular.arrow import columns_of, conform

T = TypeVar("T")

CHECKPOINT = "_headrace_checkpoint"
QUARANTINE = "_headrace_quarantine"
OWNER = "_headrace_owner"

LATER_COLUMNS = (Column("writer", "string"), Column("format", "int64"))
"""Columns that checkpoint tables of earlier versions do not have."""
DELETES = Column("deletes", "string")
"""What a pipeline has ever deleted from the table; tables of owners of earlier versions do not say it."""

COUNTS = ("read", "used", "filtered", "produced", "deduplicated", "quarantined", "failed")

QUARANTINE_COLUMNS = (
    Column("org", "string"),
    Column("pipeline", "string"),
    Column("lane", "string"),
    Column("read_set", "string"),
    Column("stream", "string"),
    Column("seq", "int64"),
    Column("ordinal", "int64"),
    Column("kind", "string"),
    Column("rule", "string"),
    Column("reason", "string"),
    Column("record", "string"),
    Column("columns", "string"),
    Column("target", "string"),
    Column("run_id", "string"),
    Column("refused_at", "timestamptz"),
    Column("state", "string"),
    Column("settled_by", "string"),
    Column("merge_key", "string"),
)
MERGE_KEY = QUARANTINE_COLUMNS[-1]
"""By what a later row of the same key is known. Tables and rows of earlier versions do not say it, nor of rows whose
key nobody knows.
"""
RECORD_BYTES = Column("record_bytes", "int64")
"""How long the record is, where a store would have to read it to tell; tables and rows of earlier versions do not say
it.
"""


class Session(ABC):
    """One connection of a SQL store, used from one thread; translates its driver's errors.

    What is written once for all SQL stores is in the SQL that they share: parameters as `$n`, UPDATE … RETURNING,
    CREATE TABLE IF NOT EXISTS, ALTER TABLE … ADD COLUMN IF NOT EXISTS, ADD COLUMN … DEFAULT with ALTER COLUMN … DROP
    DEFAULT, EXISTS, CAST, `||`, WITH, comparisons of rows, `bit_length`. Tables are made and dropped within
    transactions; TEXT and BIGINT are types, and the text of a `timestamptz` names its zone. Who says one of these
    otherwise rewrites it in `execute`.
    """

    @abstractmethod
    def begin(self) -> None:
        """Start a writing transaction."""

    @abstractmethod
    def commit(self) -> None:
        """End it; raises if the store did not say that it is durable."""

    @abstractmethod
    def rollback(self) -> None:
        """Undo it; never raises."""

    @abstractmethod
    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement with `$n` parameters and return its rows."""

    @abstractmethod
    def ingest(self, table: TableName, rows: pa.Table, columns: Sequence[Column]) -> None:
        """Append rows whose columns have been conformed to `columns`."""

    def insert_selected(
        self, table: TableName, selection: StreamSelection, constants: Mapping[str, tuple[str, str]]
    ) -> int:
        """Insert what the store itself selects, with constants as (text, our type name) by column; return the rows.

        The table is held. Raises `SchemaMismatchError` when it would not store each value unchanged.
        """
        raise _unpromised(self, "selects_inside")

    def merge(self, table: TableName, rows: pa.Table, columns: Sequence[Column], target: Target) -> Merged:
        """Merge a batch, conformed to `columns` and numbered by `_headrace_seq`, into a table by the target's key."""
        raise _unpromised(self, "merges")

    def merge_from(self, using: str, names: Sequence[str], target: Target, *, is_batch: bool = False) -> Merged:
        """Merge what a FROM item gives into the target's table, which is held: of each key the row with the greatest
        `_headrace_seq`. A key that another transaction inserts meanwhile is updated. A batch has one row for each key
        that is written in one way.
        """
        raise _unpromised(self, "merges")

    def compared(
        self, table: TableName, rows: pa.Table, columns: Sequence[Column], target: Target
    ) -> tuple[bool, list[Compared]]:
        """Whether keys that are equal in a table are written alike, and how rows, as `merge` takes them, compare."""
        raise _unpromised(self, "merges")

    @abstractmethod
    def refuse_reserved(self, table: TableName) -> None:
        """Refuse a table that only by another name is one of Headrace's or the database's own
        (`identifier.reserved`).
        """

    def uuid(self, text: str) -> pa.Scalar:
        """Spell a UUID as `ingest` takes it without converting it again for each row."""
        return pa.scalar(text)

    @abstractmethod
    def describe(self, table: TableName) -> TableSchema | None:
        """Describe a table inside the transaction, but for what would be lost with it."""

    @abstractmethod
    def describe_bound(self, table: TableName) -> TableSchema | None:
        """Describe a table with what would be lost with it, which costs more than all else and is seldom asked."""

    @abstractmethod
    def hold(self, table: TableName, merged_by: Sequence[str] = ()) -> TableSchema | None:
        """Keep a table as it is until the transaction ends, and name its columns; None where there is none.

        With the key that it will be merged by, other writers are kept out too where nothing else keeps the key unique.
        """

    @abstractmethod
    def identity(self, table: TableName) -> str | None:
        """Tell a table from one that took its place, or from itself written anew; None where there is none."""

    def keeps_rows(self, table: TableName, before: str, runs: Sequence[str] | None) -> bool:
        """Whether a table that is not told as before still has rows from before, or such as carry the id of one of
        these runs: of any where none is named, and None where rows carry no such id. True where that may not be asked.
        """
        return False

    def is_filled(self, table: TableName) -> bool | None:
        """Whether a table has any row; None where that may not be asked."""
        return bool(self.execute(f"SELECT EXISTS (SELECT 1 FROM {quote_table(table)})")[0][0])

    def may_suppress(self, table: TableName) -> bool:
        """Whether rows that are written to a table may not show in it."""
        return False

    def may_hide(self, table: TableName) -> bool:
        """Whether a table may have rows that whoever writes to it does not see."""
        return False

    def may_alter(self, table: TableName) -> bool:
        """Whether what is written to a table of ours, or changed in it, may be something else there."""
        return False

    @abstractmethod
    def type_name(self, logical: str) -> str:
        """Spell one of our types in the store's SQL."""

    def definition(self, column: Column, native: str | None = None) -> str:
        """Spell a column as `CREATE TABLE` takes it, with a type of the store's own where one is given.

        Raises:
            SchemaMismatchError: the store has no such type; the column is named.
        """
        try:
            return f"{quote(column.name)} {native or self.type_name(column.type)}"
        except SchemaMismatchError as error:
            raise SchemaMismatchError(f"The column {column.name} cannot land: {error.message}") from error

    @abstractmethod
    def create_stage(self, stage: TableName, like: TableName | None, columns: Sequence[Column]) -> None:
        """Create a staging table: the columns named, with the types of `like` where it has them."""

    @abstractmethod
    def swap(self, stage: TableName, table: TableName, names: Sequence[str]) -> None:
        """Put the stage in the place of the table, or its columns `names` where something would be lost
        with the table.
        """

    @abstractmethod
    def clear(self, stage: TableName, table: TableName, key: Sequence[str]) -> None:
        """Delete the rows of a table that what is staged takes the place of, by the key where others refer to them."""

    @abstractmethod
    def create_internal_tables(self, schema: str | None) -> None:
        """Create schema and Headrace's own tables if absent."""

    @abstractmethod
    def run_patiently(self, lane: Lane, fence: int, work: Callable[[], T]) -> T:
        """Do `work`, which may be tried again, in one transaction.

        What a stopped predecessor of the lane's owner holds is taken from it: its sessions are ended after a second.
        """

    def naming_holders(self, table: str) -> AbstractContextManager[None]:
        """Say who holds a lock on a table where one was not to be had in time; around a transaction."""
        return nullcontext()

    def run_locked(self, checkpoint: str, lane: Lane, fence: int, work: Callable[[], T]) -> T:
        """As `run_patiently`, holding every row of the lane."""

        def locked() -> T:
            self.execute(
                f'SELECT "fence" FROM {checkpoint} WHERE "org" = $1 AND "pipeline" = $2 AND "lane" = $3 '
                f"{self.for_update}",
                (lane.organization, lane.pipeline, lane.name),
            )
            return work()

        return self.run_patiently(lane, fence, locked)

    # Empty, as it is for where there are sessions.
    def end_predecessors(self, lane: Lane, fence: int, checkpoint: str) -> None:  # noqa: B027
        """End the sessions of a lane's earlier owners that hold anything beside its checkpoint table."""

    @abstractmethod
    def lock_table(self, table: str) -> None:
        """Keep other transactions from writing to a table until this one ends."""

    def names(self, table: TableName) -> Sequence[TableName]:
        """The names of a table beside which Headrace notes things of it, its own first; where nothing is kept apart for
        the others it is the only one.
        """
        return (table,)

    @abstractmethod
    def reopen(self) -> None:
        """Connect again after the connection broke."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection; never raises."""

    @abstractmethod
    def interrupt(self) -> None:
        """Make the statement that another thread is running give up; the session writes nothing any more."""

    is_interrupted = False
    """True once `interrupt` was called."""

    overriding = ""
    """What INSERT says to write also the columns that the store would number by itself."""

    owned = '"table" = $1'
    """What the owners of a table are found by, given its name."""

    aimed = '"target" = $3'
    """What the refused rows of a table are found by, given its name as text."""

    capabilities: Capabilities
    """What the store promises."""

    quarantine_columns: tuple[Column, ...] = QUARANTINE_COLUMNS

    def among(self, text: str, listed: str) -> str:
        """Say that a text is one of those that another lists, with commas between them: hundreds of thousands, so they
        are no parts of the statement.
        """
        return f"{text} = ANY(string_to_array({listed}, ','))"

    for_update = ""
    """The clause that locks selected rows, where the store has one."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Begin, and commit when the block ends well; anything else rolls back."""
        self.begin()
        try:
            yield
        except BaseException:
            self.rollback()
            raise
        self.commit()


def _unpromised(session: Session, promise: str) -> AssertionError:
    return AssertionError(f"{type(session).__name__} does not promise {promise}, and is asked for it.")


def checkpoint_ddl(table: str, *, primary_key: bool) -> str:
    """Return the checkpoint table's DDL, in types that every SQL store knows."""
    counts = ", ".join(f'"{name}" BIGINT NOT NULL' for name in COUNTS)
    key = ', PRIMARY KEY ("org", "pipeline", "lane", "stream")' if primary_key else ""
    return (
        f'CREATE TABLE IF NOT EXISTS {table} ("org" TEXT NOT NULL, "pipeline" TEXT NOT NULL, "lane" TEXT NOT NULL, '
        '"stream" TEXT NOT NULL, "read_set" TEXT, "fence" BIGINT NOT NULL, "seq" BIGINT NOT NULL, "position" TEXT, '
        f'"state" TEXT NOT NULL, {counts}, "stats" TEXT NOT NULL, "writer" TEXT, "format" BIGINT{key})'
    )


def bring_up_to_date(session: Session, checkpoint: TableName) -> None:
    """Give tables of checkpoints and owners of an earlier version what came since; twice is as good as once."""
    for table, columns in ((checkpoint, LATER_COLUMNS), (checkpoint.beside(OWNER), (DELETES,))):
        existing = session.describe(table)
        if existing is not None:
            add_columns(session, existing, columns)


def owner_ddl(table: str) -> str:
    """Return the DDL of the table of table owners (D4)."""
    return (
        f'CREATE TABLE IF NOT EXISTS {table} ("table" TEXT NOT NULL, "org" TEXT NOT NULL, "pipeline" TEXT NOT NULL, '
        '"mode" TEXT NOT NULL, "deletes" TEXT)'
    )


def prepare_target(session: Session, target: Target, existing: TableSchema | None) -> None:
    """Create the table or give the existing one the columns it lacks, or create an empty stage, which becomes the table
    if there is none yet.
    """
    _fit_table(session, target, existing)
    if target.shadow is None:
        return
    stage = target.table.beside(target.shadow)
    session.execute(f"DROP TABLE IF EXISTS {quote_table(stage)}")
    session.create_stage(stage, target.table if existing and not target.rebuilds else None, staged_columns(target))


def fit_target(session: Session, target: Target) -> None:
    """Create the table, or add the columns that it and an open stage lack (D5); to do it twice changes nothing.

    A table that the run replaces by another is left as it is, and one of a run with a stage is not created: should
    nothing be published, there is none.
    """
    if target.shadow is not None:
        stage = session.describe(target.table.beside(target.shadow))
        if stage is not None:
            add_columns(session, stage, staged_columns(target))
    _fit_table(session, target, session.describe(target.table))


def _fit_table(session: Session, target: Target, existing: TableSchema | None) -> None:
    if target.rebuilds or (target.replaces and not target.merges):
        return
    columns = landed_columns(target)
    if existing is not None:
        add_columns(session, existing, columns)
        return
    if target.shadow is None:
        create_target(session, target)


def create_target(session: Session, target: Target) -> None:
    """Create the table of a run."""
    parts = [session.definition(column) for column in landed_columns(target)]
    if target.merges and session.capabilities.enforces_keys:
        parts.append(f"PRIMARY KEY ({', '.join(quote(name) for name in target.key)})")
    session.execute(f"CREATE TABLE {quote_table(target.table)} ({', '.join(parts)})")


def add_columns(session: Session, existing: TableSchema, columns: Sequence[Column]) -> None:
    """Add the columns that a table lacks."""
    for column in columns:
        if not existing.has(column.name):
            definition = session.definition(column)
            session.execute(f"ALTER TABLE {quote_table(existing.name)} ADD COLUMN IF NOT EXISTS {definition}")
            fail_at("ddl.between_columns")


def add_landing(session: Session, stage: TableName, table: TableName, names: Sequence[str]) -> None:
    """Add the columns of a stage that its table lacks, when its rows take the place of the table's."""
    existing, staged = session.describe(table), session.describe(stage)
    if existing is not None and staged is not None:
        add_columns(session, existing, [column for column in staged.columns if column.name in names])


def append_rows(session: Session, table: TableName, tables: Sequence[pa.Table]) -> int:
    """Append tables of one schema in one transaction, creating the table if absent; blocking."""
    with session.transaction():
        if session.describe(table) is None:
            if table.schema:
                session.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(table.schema)}")
            columns = columns_of(tables[0].schema)
            definitions = ", ".join(session.definition(column) for column in columns)
            session.execute(f"CREATE TABLE {quote_table(table)} ({definitions})")
        described = session.describe(table)
        assert described is not None
        for rows in tables:
            landing = tuple(c for c in described.columns if c.name in rows.column_names)
            session.ingest(table, conform(rows, landing), landing)
    return sum(rows.num_rows for rows in tables)
