"""Tables and columns as every store describes them, in type names of our own.

Types are: bool, int8 … int64, uint8 … uint64, float32, float64, decimal(p,s), string, binary, date, time, timestamp,
timestamptz, uuid, json, interval, and `list<type>`, `map<type,type>`, `struct<name:type,…>`. Anything else is
`native:<the store's own name>`, which no other store accepts, but for `native:json`: JSON whose text is kept.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

INTERNAL_PREFIX = "_headrace"
LOADED_AT = "_headrace_loaded_at"
RUN_ID = "_headrace_run_id"
ORDINAL = "_headrace_ordinal"
SEQ = "_headrace_seq"
"""In what is merged: the batch of a row and its place there, so that the last row of each key is found."""
DELETED = "_headrace_deleted"
"""In what is merged: the row says that its key is gone."""
DELETED_AT = "_headrace_deleted_at"
"""At a destination with `delete_missing: soft`: when the key was missing for the first time."""

MAX_IDENTIFIER_BYTES = 63
_IDENTIFIER = re.compile(r"[^\x00\r\n\"]+")
RECORDS_SCHEMA = "headrace"
"""Where the platform's records are on Postgres."""

RESERVED = (
    "the schemas headrace, pg_* and information_schema, and tables whose names start with _headrace, cannot be used"
)


class ReservedNameError(ValueError):
    """A name is Headrace's or the database's own."""

    code = "identifier.reserved"


@dataclass(frozen=True)
class Column:
    """One column: its name as stored, its type in our names. The table itself works out what `is_computed`."""

    name: str
    type: str
    nullable: bool = True
    is_computed: bool = False


@dataclass(frozen=True)
class TableName:
    """A table in a schema; no schema means the store's default one."""

    table: str
    schema: str | None = None

    @classmethod
    def parse(cls, text: str) -> "TableName":
        """Read `table` or `schema.table`.

        Raises:
            ValueError: a part is empty, too long, internal, in a system schema, or there are more than two.
        """
        parts = text.split(".")
        if len(parts) > 2:
            raise ValueError("a table is written as table or schema.table")
        for part in parts:
            check_identifier(part)
        if len(parts) == 2 and is_reserved_schema(parts[0]):
            raise ReservedNameError(f"the schema belongs to Headrace or the database ({RESERVED})")
        if parts[-1].lower().startswith(INTERNAL_PREFIX):
            raise ReservedNameError(f"the table belongs to Headrace or the database ({RESERVED})")
        return cls(table=parts[-1], schema=parts[0] if len(parts) == 2 else None)

    def beside(self, table: str) -> "TableName":
        """Name another table in the same schema."""
        return TableName(table=table, schema=self.schema)

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}" if self.schema else self.table


@dataclass(frozen=True)
class TableSchema:
    """What a store knows of a table."""

    name: TableName
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    uniques: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Unique indexes and exclusion constraints that are checked row by row: name and columns, those in an expression
    too.
    """
    bound: str = field(default="", compare=False)
    """What would be lost with the table, were another put in its place: nothing, its `key` alone, or `more`; told on
    request.
    """

    def unique_besides(self, key: Collection[str], written: Collection[str] | None = None) -> str | None:
        """Name a unique index over something else than a key, of columns that are written; of any column if None."""
        for name, columns in self.uniques:
            lower = {column.lower() for column in columns}
            if lower != {column.lower() for column in key} and (written is None or lower & {*written}):
                return name
        return None

    def may_be_rebuilt(self, merged_by: Collection[str]) -> bool:
        """Whether a table of other types may take its place: a run that merges makes the key again."""
        return not self.bound or (self.bound == "key" and bool(merged_by) and set(self.primary_key) == set(merged_by))

    def has(self, name: str) -> bool:
        """Say whether there is a column of that name."""
        return self.column(name) is not None

    def column(self, name: str) -> Column | None:
        """Find a column by its exact name."""
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        return {column.name: column for column in reversed(self.columns)}


def is_reserved_schema(name: str) -> bool:
    """Say whether a schema is the records' or the database's own, however its name is written."""
    lowered = name.lower()
    return lowered in (RECORDS_SCHEMA, "information_schema") or lowered.startswith("pg_")


def check_identifier(text: str) -> None:
    """Refuse what no store can take as a name.

    Raises:
        ValueError: empty, over 63 bytes, or with a quote, NUL or line break.
    """
    if not text:
        raise ValueError("an identifier cannot be empty")
    if len(text.encode()) > MAX_IDENTIFIER_BYTES:
        raise ValueError(f"an identifier has at most {MAX_IDENTIFIER_BYTES} bytes")
    if not _IDENTIFIER.fullmatch(text):
        raise ValueError("an identifier cannot hold quotes, NUL or line breaks")
