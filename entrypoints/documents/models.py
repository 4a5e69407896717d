"""Strict models of every kind of document that exists by now; they also write the JSON Schemas editors use."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from domain.pipelines.spec import parse_duration, parse_size
from domain.pipelines.table import TableName, check_identifier

_SECRET_REFERENCE = re.compile(r"(env|file):[^\x00\r\n]{1,300}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|\[?[0-9A-Fa-f:.]{2,45}\]?")
_TYPE = re.compile(
    r"bool|u?int(8|16|32|64)|float(32|64)|decimal\([0-9]{1,2},[0-9]{1,2}\)|string|binary|date|time|timestamp|timestamptz"
    r"|uuid|json"
)

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
Text = Annotated[str, StringConstraints(max_length=2000)]
Sql = Annotated[str, StringConstraints(min_length=1, max_length=100_000)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Count = Annotated[int, Field(ge=0, le=2**62, strict=True)]
Number = Annotated[int, Field(ge=-(2**63), le=2**63 - 1, strict=True)] | Annotated[float, Field(strict=True)]
Bound = Number | Annotated[str, StringConstraints(max_length=100, strict=True)]
Scalar = bool | Number | Annotated[str, StringConstraints(max_length=10_000, strict=True)] | None


class Model(BaseModel):
    """Strict, closed, and silent about values."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


def _identifier(value: str) -> str:
    check_identifier(value)
    return value


def _table(value: str) -> str:
    TableName.parse(value)
    return value


class Cursor(Model):
    """The column that grows with time."""

    column: str
    hold_back: str | Count | None = None

    _column = field_validator("column")(_identifier)

    @field_validator("hold_back")
    @classmethod
    def _hold_back(cls, value: str | int | None) -> str | int | None:
        if isinstance(value, str):
            parse_duration(value)
        return value


class FileOptions(Model):
    """How a file is read."""

    null_text: str | list[str] | None = None
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] | None = None
    types: dict[str, str] | None = None

    @field_validator("types")
    @classmethod
    def _known(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        for kind in (value or {}).values():
            if not _TYPE.fullmatch(kind):
                raise ValueError("a type is one of bool, int64, float64, decimal(p,s), string, date, timestamp, …")
        return value


def _duration(value: str | None) -> str | None:
    if value is not None:
        parse_duration(value)
    return value


class Partitions(Model):
    """Ranges of a column, read as parallel streams."""

    column: str
    count: Annotated[int, Field(ge=1, le=256, strict=True)]

    _column = field_validator("column")(_identifier)


class Source(Model):
    """Where rows come from."""

    connection: Name | None = None
    table: str | None = None
    query: Sql | None = None
    path: Annotated[str, StringConstraints(min_length=1, max_length=1000)] | None = None
    format: Literal["csv", "parquet"] | None = None
    options: FileOptions | None = None
    parameters: dict[Name, Scalar] | None = None
    cursor: Cursor | None = None
    key: list[str] | None = None
    partitions: Partitions | None = None

    _table = field_validator("table")(lambda value: value if value is None else _table(value))

    @field_validator("path")
    @classmethod
    def _inside(cls, value: str | None) -> str | None:
        if value is not None and (value.startswith(("/", "~")) or ".." in value.split("/") or "\x00" in value):
            raise ValueError("a path is relative and stays inside the folder of its connection")
        return value

    @field_validator("key")
    @classmethod
    def _columns(cls, value: list[str] | None) -> list[str] | None:
        for column in value or []:
            check_identifier(column)
        if value is not None and (not value or len(set(value)) != len(value)):
            raise ValueError("a key names at least one column, each once")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> "Source":
        given = [name for name in ("table", "query", "path") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("a source names exactly one of table, query and path")
        if self.path is None and (self.format or self.options):
            raise ValueError("format and options belong to a path")
        if self.parameters and self.query is None:
            raise ValueError("parameters belong to a query")
        if self.path is not None and (self.cursor is not None or self.partitions is not None):
            raise ValueError("files have no cursor and no partitions")
        if self.cursor is not None and self.query is not None and not self.key:
            raise ValueError("a cursor needs a key: the columns that make a row unique among equal cursor values")
        return self


class SqlStep(Model):
    """A row-wise SELECT over `batch`."""

    sql: Sql


class Rule(Model):
    """A quality rule; which keys it takes depends on `rule`."""

    rule: Literal[
        "not_null",
        "between",
        "accepted_values",
        "matches",
        "sql",
        "unique",
        "row_count",
        "completeness",
        "null_rate",
    ]
    on_violation: Literal["fail", "quarantine", "warn"] = "fail"
    column: str | None = None
    columns: list[str] | None = None
    min: Bound | None = None
    max: Bound | None = None
    values: list[Scalar] | None = None
    pattern: Annotated[str, StringConstraints(max_length=1000)] | None = None
    sql: Sql | None = None
    expected: Literal["source_count"] | Count | Sql | None = None
    threshold: Share | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Rule":
        needed: dict[str, tuple[set[str], set[str]]] = {
            "not_null": ({"column"}, set()),
            "between": ({"column"}, {"min", "max"}),
            "accepted_values": ({"column", "values"}, set()),
            "matches": ({"column", "pattern"}, set()),
            "sql": ({"sql"}, set()),
            "unique": ({"columns"}, set()),
            "row_count": (set(), {"min", "max"}),
            "completeness": ({"expected", "threshold"}, set()),
            "null_rate": ({"column", "max"}, set()),
        }
        required, either = needed[self.rule]
        given = {name for name in Rule.model_fields if getattr(self, name) is not None} - {"rule", "on_violation"}
        if missing := sorted(required - given):
            raise ValueError(f"the rule {self.rule} needs {', '.join(missing)}")
        if either and not either & given:
            raise ValueError(f"the rule {self.rule} needs min or max")
        if extra := sorted(given - required - either):
            raise ValueError(f"the rule {self.rule} does not take {', '.join(extra)}")
        if self.on_violation == "quarantine" and self.rule in ("unique", "row_count", "completeness", "null_rate"):
            raise ValueError(f"the rule {self.rule} is judged over the whole run, so it can fail or warn")
        if self.rule in ("row_count", "null_rate") and any(isinstance(v, str) for v in (self.min, self.max)):
            raise ValueError(f"the rule {self.rule} takes numbers")
        if self.values is not None and not self.values:
            raise ValueError("values names at least one value")
        return self


class OnError(Model):
    """How many rows may fail to convert; with both, both hold."""

    max_rows: Count | None = None
    max_share: Share | None = None


class Destination(Model):
    """Where rows go."""

    connection: Name | None = None
    table: str
    mode: Literal["append", "replace"] = "append"
    publish: Literal["batch", "run"] | None = None
    metadata_columns: bool = True

    _table = field_validator("table")(_table)


class RunOptions(Model):
    """Bounds of a run."""

    batch_rows: Annotated[int, Field(ge=1, le=10_000_000, strict=True)] | None = None
    batch_bytes: str | None = None
    engine: Literal["local"] = "local"
    parallelism: Annotated[int, Field(ge=1, le=64, strict=True)] | None = None
    timeout: str | None = None

    _timeout = field_validator("timeout")(_duration)

    @field_validator("batch_bytes")
    @classmethod
    def _size(cls, value: str | None) -> str | None:
        if value is not None and not 2**16 <= parse_size(value) <= 2**30:
            raise ValueError("batch_bytes is between 64KiB and 1GiB")
        return value


class RetryOptions(Model):
    """Further attempts after a retryable failure, and the pause before the first of them, which then doubles."""

    attempts: Annotated[int, Field(ge=0, le=100, strict=True)] | None = None
    backoff: str | None = None

    _backoff = field_validator("backoff")(_duration)


class Schedule(Model):
    """What starts runs: here, each commit of other pipelines."""

    after: Annotated[list[Name], Field(min_length=1, max_length=50)]

    @field_validator("after")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("after names each pipeline once")
        return value


class PipelineDocument(Model):
    """`pipeline: NAME`."""

    version: Literal[1]
    pipeline: Name
    description: Text | None = None
    owner: Text | None = None
    tags: dict[Name, Text] | None = None
    source: Source
    transform: list[SqlStep] | None = None
    quality: list[Rule] | None = None
    on_error: OnError | None = None
    destination: Destination
    run: RunOptions | None = None
    retry: RetryOptions | None = None
    schedule: Schedule | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "PipelineDocument":
        source, destination = self.source, self.destination
        same_connection = (source.connection or "default") == (destination.connection or "default")
        if same_connection and source.table is not None and source.table == destination.table:
            raise ValueError("source and destination are the same table")
        if destination.mode == "replace" and source.cursor is not None:
            raise ValueError("mode: replace reads everything each time, so it takes no cursor")
        return self


class PostgresOptions(Model):
    """A Postgres database."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535, strict=True)] = 5432
    database: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    user: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    ssl_ca_cert: str | None = None
    connect_timeout_seconds: Annotated[int, Field(ge=1, le=300, strict=True)] = 10
    batch_size: Annotated[int, Field(ge=1, le=10_000, strict=True)] | None = None

    _identifiers = field_validator("database", "user")(_identifier)

    @field_validator("host")
    @classmethod
    def _host(cls, value: str) -> str:
        if not _HOST.fullmatch(value):
            raise ValueError("a host is a name or an address, without port or path")
        return value

    @model_validator(mode="after")
    def _dependent(self) -> "PostgresOptions":
        if self.sslmode in ("verify-ca", "verify-full") and not self.ssl_ca_cert:
            raise ValueError(f"sslmode {self.sslmode} needs ssl_ca_cert")
        if self.ssl_ca_cert and self.sslmode not in ("verify-ca", "verify-full"):
            raise ValueError("ssl_ca_cert is used with sslmode verify-ca or verify-full only")
        return self


class DuckDBOptions(Model):
    """A DuckDB file, relative to the project."""

    path: Annotated[str, StringConstraints(min_length=1, max_length=1000)]

    _inside = field_validator("path")(lambda value: _relative(value))


class FilesOptions(Model):
    """A folder of files, relative to the project."""

    root: Annotated[str, StringConstraints(min_length=1, max_length=1000)]

    _inside = field_validator("root")(lambda value: _relative(value))


class MemoryOptions(Model):
    """Nothing to choose."""


def _relative(value: str) -> str:
    if value.startswith(("/", "~")) or ".." in value.split("/") or "\x00" in value:
        raise ValueError("a path is relative to the project and stays inside it")
    return value


OPTIONS: dict[str, type[Model]] = {
    "postgres": PostgresOptions,
    "duckdb": DuckDBOptions,
    "files": FilesOptions,
    "memory": MemoryOptions,
}


class ConnectionDocument(Model):
    """`connection: NAME`. `options` depend on `kind`."""

    version: Literal[1]
    connection: Name
    kind: Literal["postgres", "duckdb", "files", "memory"]
    options: dict[str, Any] | None = None
    secrets: dict[Literal["password"], str] | None = None

    @field_validator("connection")
    @classmethod
    def _not_default(cls, value: str) -> str:
        if value == "default":
            raise ValueError("default is the store of the settings; choose another name")
        return value

    @field_validator("secrets")
    @classmethod
    def _references(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        for reference in (value or {}).values():
            if not _SECRET_REFERENCE.fullmatch(reference):
                raise ValueError("a secret is a reference: env:NAME or file:NAME, never the secret itself")
        return value

    @model_validator(mode="after")
    def _secrets_of_kind(self) -> "ConnectionDocument":
        if self.secrets and self.kind != "postgres":
            raise ValueError(f"a {self.kind} connection takes no secrets")
        return self
