"""What a pipeline document asks for, once it has been checked: frozen, picklable, comparable."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any

from domain.loads.quarantine import Refusals
from domain.pipelines.spec_test import SpecTest
from domain.pipelines.steps import Step, step_of
from domain.quality.rules import OnViolation, Reference, Rule
from domain.runs.lane import MAIN_LANE
from domain.stores.table import TableName

NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
DEFAULT_CONNECTION = "default"
DEFAULT_PATIENCE = timedelta(minutes=10)
FOREVER = "forever"


class Mode(StrEnum):
    """How rows land: added, instead of what was there, or by their key."""

    APPEND = "append"
    REPLACE = "replace"
    MERGE = "merge"


class SchemaPolicy(StrEnum):
    """What happens to columns that the destination does not have: added, refused, or left out."""

    EVOLVE = "evolve"
    FREEZE = "freeze"
    DISCARD_COLUMNS = "discard_columns"


class DeleteMissing(StrEnum):
    """What happens to rows whose key a full read does not have any more: marked, or deleted."""

    SOFT = "soft"
    HARD = "hard"


class Publish(StrEnum):
    """When rows become visible: batch by batch, or once with the run."""

    BATCH = "batch"
    RUN = "run"


@dataclass(frozen=True)
class CursorSpec:
    """The column that grows with time; `hold_back` and `lookback` are durations for times and numbers for integers.

    `hold_back` is not read yet, `lookback` is read again. `timezone` is what a time without a zone is in. A transaction
    that has been open for longer than `patience` and holds no lock for writing is not waited for; None waits forever.
    `is_strict` refuses sources that cannot tell what may still commit.
    """

    column: str
    hold_back: timedelta | int | None = None
    lookback: timedelta | int | None = None
    timezone: str | None = None
    patience: timedelta | None = DEFAULT_PATIENCE
    is_strict: bool = False


@dataclass(frozen=True)
class Partitions:
    """Split the read by ranges of a column into up to `count` streams."""

    column: str
    count: int


@dataclass(frozen=True)
class SourceSpec:
    """Where rows come from: exactly one of `table`, `query` and `path`; in a replay, `refused`."""

    connection: str = DEFAULT_CONNECTION
    table: TableName | None = None
    query: str | None = None
    path: str | None = None
    format: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    cursor: CursorSpec | None = None
    key: tuple[str, ...] = ()
    partitions: Partitions | None = None
    refused: Refusals | None = None

    @property
    def order(self) -> tuple[str, ...]:
        """The columns that give the read a total order: cursor first, then key; empty if there is none."""
        if not self.key:
            return ()
        cursor = (self.cursor.column,) if self.cursor else ()
        return cursor + tuple(column for column in self.key if column not in cursor)

    @property
    def parameters_text(self) -> str:
        """The parameters, written in one way; as a query may, it tells 1 from true and from 1.0."""
        return json.dumps(dict(self.parameters), sort_keys=True, default=str)


@dataclass(frozen=True)
class OnError:
    """How many rows may fail to convert before the run fails; None is no bound, and both bounds hold."""

    max_rows: int | None = None
    max_share: float | None = None

    def allows(self, failed: int, read: int) -> bool:
        """Say whether so many failed rows out of so many read are within the bounds."""
        if failed == 0:
            return True
        within_rows = self.max_rows is None or failed <= self.max_rows
        return within_rows and (self.max_share is None or failed <= self.max_share * read)


NO_ERRORS = OnError(max_rows=0)


@dataclass(frozen=True)
class DestinationSpec:
    """Where rows go. `publish` None leaves the choice to the planner.

    `key` is what `merge` goes by; `deleted_when` is a predicate over a row; `max_deleted_share` bounds what
    `delete_missing` may do in one run. `normalizes` puts names of columns into the destination's case.
    """

    table: TableName
    connection: str = DEFAULT_CONNECTION
    mode: Mode = Mode.APPEND
    publish: Publish | None = None
    metadata_columns: bool = True
    key: tuple[str, ...] = ()
    schema: SchemaPolicy = SchemaPolicy.EVOLVE
    normalizes: bool = True
    deleted_when: str | None = None
    delete_missing: DeleteMissing | None = None
    max_deleted_share: float = 0.2


@dataclass(frozen=True)
class RunOptions:
    """Bounds of a run. None means the setting: BATCH_SIZE, the bytes of a batch, the streams at a time,
    TIMEOUT_SECONDS.
    """

    batch_rows: int | None = None
    batch_bytes: int | None = None
    engine: str = "local"
    parallelism: int | None = None
    timeout: timedelta | None = None

    def timeout_or(self, default: timedelta) -> timedelta:
        """Return how long an attempt may take; a duration of nothing, of before it was refused, is not the default."""
        return default if self.timeout is None else self.timeout


@dataclass(frozen=True)
class RetryOptions:
    """What happens after a retryable failure: `attempts` further tries (None means MAX_RETRIES), each after a pause
    that begins at `backoff` and doubles.
    """

    attempts: int | None = None
    backoff: timedelta = timedelta(seconds=2)


@dataclass(frozen=True)
class PipelineSpec:
    """A whole pipeline. `has_own_parameters`: those of its query are the document's, none was chosen for a run."""

    name: str
    source: SourceSpec
    destination: DestinationSpec
    transform: tuple[Step, ...] = ()
    quality: tuple[Rule, ...] = ()
    on_error: OnError = NO_ERRORS
    run: RunOptions = RunOptions()
    retry: RetryOptions = RetryOptions()
    after: tuple[str, ...] = ()
    tests: tuple[SpecTest, ...] = ()
    description: str | None = None
    owner: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    has_own_parameters: bool = True

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "PipelineSpec":
        """Build the spec from a document that `entrypoints/documents` has checked and normalized."""
        return cls(
            name=document["pipeline"],
            description=document.get("description"),
            owner=document.get("owner"),
            tags=dict(document.get("tags") or {}),
            source=_source(document["source"]),
            transform=tuple(step_of(step) for step in document.get("transform") or ()),
            quality=tuple(_rule(rule) for rule in document.get("quality") or ()),
            on_error=OnError(**document["on_error"]) if document.get("on_error") else NO_ERRORS,
            destination=_destination(document["destination"]),
            run=_run(document.get("run") or {}),
            retry=_retry(document.get("retry") or {}),
            tests=tuple(SpecTest.of(test) for test in document.get("tests") or ()),
            after=tuple((document.get("schedule") or {}).get("after") or ()),
        )

    @property
    def connections(self) -> frozenset[str]:
        """The connections that it names, `default` among them where it does."""
        return frozenset({self.source.connection, self.destination.connection})

    @property
    def fingerprint(self) -> str:
        """Hash of what a position depends on: source, cursor, key and destination.

        A revision with the same fingerprint may finish another one's read set and keeps the watermark.
        """
        source = self.source
        identity: dict[str, Any] = {
            "source": [
                source.connection,
                str(source.table) if source.table else None,
                source.query,
                source.path,
                source.format,
                dict(source.options),
                dict(source.parameters),
            ],
            "cursor": source.cursor.column if source.cursor else None,
            "key": list(source.key),
            "destination": [self.destination.connection, str(self.destination.table)],
        }
        if source.refused is not None:
            identity["replay"] = source.refused.run_id
        if self.destination.mode is Mode.MERGE:
            identity["merge"] = list(self.destination.key)
        return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def with_parameters(self, parameters: Mapping[str, Any]) -> "PipelineSpec":
        """Return the spec with some parameters replaced; itself where that changes none."""
        source = replace(self.source, parameters={**self.source.parameters, **parameters})
        if source.parameters_text == self.source.parameters_text:
            return self
        return replace(self, source=source, has_own_parameters=False)

    def lane_for(self, parameters: Mapping[str, Any]) -> str:
        """Name the lane of a run: parameters that change a pipeline with a cursor get one of their own."""
        chosen = self.with_parameters(parameters)
        if self.source.cursor is None or chosen.has_own_parameters:
            return MAIN_LANE
        return f"params:{hashlib.sha256(chosen.source.parameters_text.encode()).hexdigest()[:12]}"


def parse_duration(text: str) -> timedelta:
    """Read `90s`, `5m`, `1h`, `2d`.

    Raises:
        ValueError: another shape.
    """
    match = re.fullmatch(r"([0-9]{1,9})(ms|s|m|h|d)", text)
    if match is None:
        raise ValueError("a duration is a whole number with ms, s, m, h or d, such as 5m")
    unit = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2]]
    return timedelta(**{unit: int(match[1])})


def parse_size(text: str) -> int:
    """Read `500KiB`, `64MiB`, `1GiB` as bytes.

    Raises:
        ValueError: another shape.
    """
    match = re.fullmatch(r"([0-9]{1,9})(KiB|MiB|GiB)", text)
    if match is None:
        raise ValueError("a size is a whole number with KiB, MiB or GiB, such as 64MiB")
    return int(match[1]) * {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}[match[2]]


def _source(value: Mapping[str, Any]) -> SourceSpec:
    cursor = value.get("cursor")
    table = value.get("table")
    return SourceSpec(
        connection=value.get("connection") or DEFAULT_CONNECTION,
        table=TableName.parse(table) if table else None,
        query=value.get("query"),
        path=value.get("path"),
        format=value.get("format"),
        options=dict(value.get("options") or {}),
        parameters=dict(value.get("parameters") or {}),
        cursor=_cursor(cursor) if cursor else None,
        key=tuple(value.get("key") or ()),
        partitions=Partitions(**value["partitions"]) if value.get("partitions") else None,
    )


def _run(value: Mapping[str, Any]) -> RunOptions:
    timeout = value.get("timeout")
    return RunOptions(
        batch_rows=value.get("batch_rows"),
        batch_bytes=parse_size(value["batch_bytes"]) if value.get("batch_bytes") else None,
        engine=value.get("engine") or "local",
        parallelism=value.get("parallelism"),
        timeout=parse_duration(timeout) if timeout is not None else None,
    )


def _retry(value: Mapping[str, Any]) -> RetryOptions:
    backoff = value.get("backoff")
    pause = {"backoff": parse_duration(backoff)} if backoff is not None else {}
    return RetryOptions(attempts=value.get("attempts"), **pause)


def _cursor(value: Mapping[str, Any]) -> CursorSpec:
    def span(name: str) -> timedelta | int | None:
        given = value.get(name)
        return parse_duration(given) if isinstance(given, str) else given

    is_strict = bool(value.get("strict_cursor"))
    patience = value.get("patience") or (FOREVER if is_strict else None)
    return CursorSpec(
        column=value["column"],
        hold_back=span("hold_back"),
        lookback=span("lookback"),
        timezone=value.get("timezone"),
        patience=DEFAULT_PATIENCE if patience is None else None if patience == FOREVER else parse_duration(patience),
        is_strict=is_strict,
    )


def _destination(value: Mapping[str, Any]) -> DestinationSpec:
    publish = value.get("publish")
    metadata_columns = value.get("metadata_columns")
    return DestinationSpec(
        table=TableName.parse(value["table"]),
        connection=value.get("connection") or DEFAULT_CONNECTION,
        mode=Mode(value.get("mode") or "append"),
        publish=Publish(publish) if publish else None,
        metadata_columns=True if metadata_columns is None else metadata_columns,
        key=tuple(value.get("key") or ()),
        schema=SchemaPolicy(value.get("schema") or "evolve"),
        normalizes=(value.get("columns") or "normalize") == "normalize",
        deleted_when=value.get("deleted_when"),
        delete_missing=DeleteMissing(value["delete_missing"]) if value.get("delete_missing") else None,
        max_deleted_share=value.get("max_deleted_share", 0.2) if value.get("max_deleted_share") is not None else 0.2,
    )


def _rule(value: Mapping[str, Any]) -> Rule:
    return Rule(
        kind=value["rule"],
        on_violation=OnViolation(value.get("on_violation") or "fail"),
        column=value.get("column"),
        columns=tuple(value.get("columns") or ()),
        minimum=value.get("min"),
        maximum=value.get("max"),
        values=tuple(value.get("values") or ()),
        pattern=value.get("pattern"),
        expression=value.get("sql"),
        expected=value.get("expected"),
        threshold=value.get("threshold"),
        reference=Reference.parse(value["column"], value["to"]) if value.get("to") else None,
        max_age=parse_duration(value["max_age"]) if value.get("max_age") else None,
    )
