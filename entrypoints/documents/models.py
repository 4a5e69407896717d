"""Strict models of pipeline documents; they also write the JSON Schemas editors use."""

from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from domain.pipelines.local_path import PathAstrayError, leads_astray
from domain.pipelines.spec import FOREVER, parse_duration, parse_size
from domain.quality.rules import RUN_RULES, Reference
from domain.stores.table import TableName, check_identifier
from entrypoints.documents.file_options import FileOptions, known_type
from entrypoints.documents.numbers import with_digits
from entrypoints.documents.strict import Model, Version

_HOOK = r"^([a-z][a-z0-9_]{0,47}|local\.[a-z][a-z0-9_]{0,47}:[A-Za-z_][A-Za-z0-9_]{0,63})$"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
Text = Annotated[str, StringConstraints(max_length=2000)]
Sql = Annotated[str, StringConstraints(min_length=1, max_length=100_000)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Count = Annotated[int, Field(ge=0, le=2**62, strict=True)]
Number = Annotated[int, Field(ge=-(2**63), le=2**63 - 1, strict=True)] | Annotated[float, Field(strict=True)]
Bound = Number | Annotated[str, StringConstraints(max_length=100, strict=True)]
Scalar = bool | Number | Annotated[str, StringConstraints(max_length=10_000, strict=True)] | None


def identifier(value: str) -> str:
    """Check a name of a column, database or user."""
    check_identifier(value)
    return value


def _table(value: str) -> str:
    TableName.parse(value)
    return value


class Cursor(Model):
    """The column that grows with time."""

    column: str
    hold_back: str | Count | None = None
    lookback: str | Count | None = None
    timezone: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    patience: str | None = None
    strict_cursor: bool | None = None

    _column = field_validator("column")(identifier)

    @field_validator("hold_back", "lookback")
    @classmethod
    def _span(cls, value: str | int | None) -> str | int | None:
        if isinstance(value, str):
            parse_duration(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str | None) -> str | None:
        try:
            return value if value is None else ZoneInfo(value).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("timezone is a name such as Europe/Zurich, known to this machine") from None

    @field_validator("patience")
    @classmethod
    def _patience(cls, value: str | None) -> str | None:
        return value if value == FOREVER else _duration(value)

    @model_validator(mode="after")
    def _waits(self) -> "Cursor":
        if self.strict_cursor and self.patience not in (None, FOREVER):
            raise ValueError("strict_cursor waits forever for what may still commit, so it takes no other patience")
        return self


def _duration(value: str | None) -> str | None:
    if value is not None:
        parse_duration(value)
    return value


def _some_time(value: str | None) -> str | None:
    """Check a duration that nothing could keep to if it were none."""
    if value is not None and not parse_duration(value):
        raise ValueError("a duration here is more than nothing: at least 1ms")
    return value


def _key_columns(value: list[str] | None) -> list[str] | None:
    for column in value or []:
        check_identifier(column)
    if value is not None and (not value or len(set(value)) != len(value)):
        raise ValueError("a key names at least one column, each once")
    return value


class Partitions(Model):
    """Ranges of a column, read as parallel streams."""

    column: str
    count: Annotated[int, Field(ge=1, le=256, strict=True)]

    _column = field_validator("column")(identifier)


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
        if value is not None and leads_astray(value):
            raise PathAstrayError(
                "a path is relative, stays inside the folder of its connection, and has no name that begins with a dot"
            )
        return value

    _key = field_validator("key")(lambda value: _key_columns(value))

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


ColumnName = Annotated[str, AfterValidator(identifier)]
TypeName = Annotated[str, AfterValidator(known_type)]


class Step(Model):
    """One step of a transform: exactly one of its keys."""

    sql: Sql | None = None
    rename: Annotated[dict[ColumnName, ColumnName], Field(min_length=1)] | None = None
    cast: Annotated[dict[ColumnName, TypeName], Field(min_length=1)] | None = None
    drop: Annotated[list[ColumnName], Field(min_length=1)] | None = None
    python: Annotated[str, StringConstraints(pattern=_HOOK)] | None = None

    @model_validator(mode="after")
    def _one(self) -> "Step":
        if len([name for name in type(self).model_fields if getattr(self, name) is not None]) != 1:
            raise ValueError("a step is exactly one of sql, rename, cast, drop and python")
        return self


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
        "duplicate_rate",
        "references",
        "freshness",
        "distribution",
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
    to: str | None = None
    max_age: str | None = None

    _max_age = field_validator("max_age")(_some_time)
    _digits = model_validator(mode="before")(with_digits)

    @field_validator("to")
    @classmethod
    def _reference(cls, value: str | None) -> str | None:
        if value is not None:
            Reference.parse("column", value)
        return value

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
            "duplicate_rate": ({"columns", "max"}, set()),
            "references": ({"column", "to"}, set()),
            "freshness": ({"column", "max_age"}, set()),
            "distribution": ({"column", "max"}, set()),
        }
        required, either = needed[self.rule]
        given = {name for name in Rule.model_fields if getattr(self, name) is not None} - {"rule", "on_violation"}
        if missing := sorted(required - given):
            raise ValueError(f"the rule {self.rule} needs {', '.join(missing)}")
        if either and not either & given:
            raise ValueError(f"the rule {self.rule} needs min or max")
        if extra := sorted(given - required - either):
            raise ValueError(f"the rule {self.rule} does not take {', '.join(extra)}")
        if self.on_violation == "quarantine" and self.rule in RUN_RULES:
            raise ValueError(f"the rule {self.rule} is judged over the whole run, so it can fail or warn")
        if self.rule in ("row_count", "null_rate", "duplicate_rate", "distribution") and any(
            isinstance(v, str) for v in (self.min, self.max)
        ):
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
    mode: Literal["append", "replace", "merge"] = "append"
    key: list[str] | None = None
    publish: Literal["batch", "run"] | None = None
    schema_: Literal["evolve", "freeze", "discard_columns"] | None = Field(None, alias="schema")
    columns: Literal["normalize", "source"] | None = None
    metadata_columns: bool = True
    deleted_when: Sql | None = None
    delete_missing: Literal["soft", "hard"] | None = None
    max_deleted_share: Share | None = None

    _table = field_validator("table")(_table)
    _key = field_validator("key")(lambda value: _key_columns(value))

    @model_validator(mode="after")
    def _of_mode(self) -> "Destination":
        if self.mode == "merge" and not self.key:
            raise ValueError("mode: merge needs a key: the columns by which a row is found again")
        for name in ("key", "deleted_when", "delete_missing", "max_deleted_share"):
            if self.mode != "merge" and getattr(self, name) is not None:
                raise ValueError(f"{name} belongs to mode: merge")
        if self.deleted_when is not None and self.delete_missing is not None:
            raise ValueError("deleted_when and delete_missing are two ways to say what is gone; choose one")
        if self.max_deleted_share is not None and self.delete_missing is None:
            raise ValueError("max_deleted_share belongs to delete_missing")
        return self


class RunOptions(Model):
    """Bounds of a run."""

    batch_rows: Annotated[int, Field(ge=1, le=10_000_000, strict=True)] | None = None
    batch_bytes: str | None = None
    engine: Literal["local"] = "local"
    parallelism: Annotated[int, Field(ge=1, le=64, strict=True)] | None = None
    timeout: str | None = None

    _timeout = field_validator("timeout")(_some_time)

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


class Test(Model):
    """Rows that are given and what is expected of them; named columns are compared."""

    __test__ = False

    name: Text | None = None
    types: dict[ColumnName, TypeName] | None = None
    given: Annotated[list[dict[ColumnName, Scalar]], Field(min_length=1, max_length=1000)]
    expect: list[dict[ColumnName, Scalar]] | None = None
    quarantined: list[dict[ColumnName, Scalar]] | None = None

    @model_validator(mode="after")
    def _expects(self) -> "Test":
        if self.expect is None and self.quarantined is None:
            raise ValueError("a test expects something: expect, quarantined, or both")
        return self


class PipelineDocument(Model):
    """`pipeline: NAME`."""

    version: Version
    pipeline: Name
    description: Text | None = None
    owner: Text | None = None
    tags: dict[Name, Text] | None = None
    source: Source
    transform: list[Step] | None = None
    quality: list[Rule] | None = None
    on_error: OnError | None = None
    destination: Destination
    run: RunOptions | None = None
    retry: RetryOptions | None = None
    schedule: Schedule | None = None
    tests: list[Test] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "PipelineDocument":
        source, destination = self.source, self.destination
        same_connection = (source.connection or "default") == (destination.connection or "default")
        if same_connection and source.table is not None and source.table == destination.table:
            raise ValueError("source and destination are the same table")
        if source.cursor is not None and source.cursor.lookback is not None and destination.mode != "merge":
            raise ValueError("lookback reads rows again, which only mode: merge can take")
        if destination.delete_missing is not None and source.cursor is not None:
            raise ValueError("delete_missing needs to read everything each time, so it takes no cursor")
        if destination.mode == "replace" and source.cursor is not None:
            raise ValueError("mode: replace reads everything each time, so it takes no cursor")
        return self
