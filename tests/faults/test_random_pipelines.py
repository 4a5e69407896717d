"""Random pipelines over a source that changes at random, under random faults, beside a model in a dozen lines."""

import asyncio
import json
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from application.catalog.documents import PutDocument
from application.runs.launch import TriggerRun
from domain.errors import PlatformError, StoreUnavailableError
from domain.failpoints import arm
from domain.identity.principal import Principal, Role
from domain.runs.run import Run, RunState
from entrypoints.composition.container import build_container
from entrypoints.composition.lifecycle import running
from entrypoints.documents.reading import read_text
from entrypoints.use_cases import UseCases
from infrastructure.settings.sources import load_settings
from tests.e2e.projects import postgres_connection
from tests.e2e.tables import duckdb_rows, postgres

ME = Principal("me", "default", frozenset({Role.PLATFORM_ADMIN}))
ROUNDS = 5
LOOKBACK = 4
SEEDS = int(os.environ.get("HEADRACE_TEST_RANDOM_PIPELINES", "8"))
# The key that orders the read, of each type as it is made from `id`; unique, but for those that are not keys at all.
KEYS = {
    "id": "bigint",
    "text": "text GENERATED ALWAYS AS (substr('aZ_-B', grp::integer + 1, 1) || id) STORED",
    "numeric": "numeric(12,6) GENERATED ALWAYS AS (id / 7.0) STORED",
    "float": "double precision GENERATED ALWAYS AS (id / 3.0::double precision) STORED",
    "uuid": "uuid GENERATED ALWAYS AS (md5(id::text)::uuid) STORED",
    "day": "date GENERATED ALWAYS AS (date '0044-03-15 BC' + id::integer * 100000) STORED",
    "shared": "bigint GENERATED ALWAYS AS (grp) STORED",
    "null": "text GENERATED ALWAYS AS (CASE WHEN id % 3 > 0 THEN 'x' || id % 7 END) STORED",
    "clock": "time GENERATED ALWAYS AS (CASE grp WHEN 0 THEN time '24:00' WHEN 1 THEN time '00:00' ELSE time '22:00' END) "
    "STORED",
    "length": "interval GENERATED ALWAYS AS (make_interval(months => id::int % 2, days => id::int % 4 * 15)) STORED",
    "time": "timestamp GENERATED ALWAYS AS ('2024-01-01'::timestamp + id * interval '1 us') STORED",
}
NO_KEYS = frozenset({"shared", "null", "clock", "length"})
DELETIONS = {True: [None, "deleted_when"], False: [None, "deleted_when", "hard", "soft"]}


@dataclass(frozen=True)
class Shape:
    """What one random pipeline asks for."""

    mode: str
    cursor: str | None  # seq, a number with ties and gaps | at, the moment of the change
    has_lookback: bool
    deleted: str | None  # deleted_when | hard | soft
    key_type: str
    merge_key: str
    publish: str | None
    step: str | None
    has_rule: bool
    streams: int
    batch_rows: int
    connection: str  # of the destination: default (DuckDB) | shop (the database of the source) | warehouse
    grows_at: int  # the round from which the source has one more column
    has_child: bool  # the rows with an even id lie in a table that inherits from the source

    @staticmethod
    def drawn(chance: random.Random) -> "Shape":
        mode = chance.choice(["append", "append", "replace", "merge", "merge", "merge"])
        cursor = chance.choice([None, None, "seq", "at"]) if mode != "replace" else None
        key_type = chance.choice(["id", "id", *KEYS])
        deleted = chance.choice(DELETIONS[cursor is not None]) if mode == "merge" else None
        # What compares the whole table with what was read is published whole.
        may_be_batch = mode != "replace" and deleted not in ("hard", "soft") and key_type != "null"
        return Shape(
            mode=mode,
            cursor=cursor,
            has_lookback=mode == "merge" and cursor is not None and chance.random() < 0.5,
            deleted=deleted,
            key_type=key_type,
            # Among rows of one group the last one is by the source's key, whose order the model knows of numbers alone.
            merge_key=chance.choice(["id", "grp"]) if key_type == "id" else "id",
            publish=chance.choice([None, "batch" if may_be_batch else None, "run"]),
            step=chance.choice([None, None, "filter", "rename"]),
            has_rule=chance.random() < 0.3,
            streams=chance.choice([1, 1, 3]),
            batch_rows=chance.choice([1, 3, 7, 1000]),
            connection=chance.choice(["default", "shop", "shop", "warehouse"]),
            grows_at=chance.choice([2, ROUNDS]),
            has_child=chance.random() < 0.2,
        )

    @property
    def key(self) -> str:
        return "id" if self.key_type == "id" else "k"

    @property
    def document(self) -> str:
        source: dict[str, Any] = {"connection": "shop", "table": "source", "key": [self.key]}
        if self.cursor:
            lookback = LOOKBACK if self.cursor == "seq" else "1h"
            source["cursor"] = {"column": self.cursor} | ({"lookback": lookback} if self.has_lookback else {})
        if self.streams > 1:
            source["partitions"] = {"column": "id", "count": self.streams}
        destination: dict[str, Any] = {"connection": self.connection, "table": "copied", "mode": self.mode}
        if self.mode == "merge":
            destination["key"] = [self.merge_key]
        if self.deleted == "deleted_when":
            destination["deleted_when"] = "status = 'deleted'"
        elif self.deleted:
            destination |= {"delete_missing": self.deleted, "max_deleted_share": 1.0}
        if self.publish:
            destination["publish"] = self.publish
        asked: dict[str, Any] = {"version": 1, "pipeline": "copy", "source": source, "destination": destination}
        if self.step == "filter":
            asked["transform"] = [{"sql": "select * from batch where n is null or n % 5 <> 0"}]
        elif self.step == "rename":
            asked["transform"] = [{"rename": {"note": "remark"}}]
        if self.has_rule:
            asked["quality"] = [{"rule": "between", "column": "n", "min": 0, "max": 90, "on_violation": "quarantine"}]
        asked["run"] = {"batch_rows": self.batch_rows, "parallelism": self.streams}
        asked["retry"] = {"attempts": 2, "backoff": "1ms"}
        return json.dumps(asked)


Row = tuple[int, int, int | None, str | None, str, int, int | None]  # id, grp, n, note, status, seq, more
COLUMNS = ("id", "grp", "n", "note", "status", "seq", "more")


@dataclass
class Model:
    """What the destination has to hold, by the words of the guide."""

    shape: Shape
    watermark: int = 0
    appended: "Counter[Row]" = field(default_factory=Counter)
    merged: dict[int, tuple[Row, bool]] = field(default_factory=dict)

    def run(self, rows: dict[int, Row], moments: dict[int, int]) -> None:
        shape = self.shape
        cursors = {key: row[5] if shape.cursor == "seq" else moments[key] for key, row in rows.items()}
        lo = self.watermark
        if shape.has_lookback:
            lo = lo - LOOKBACK if shape.cursor == "seq" else 0  # Nothing here is an hour old.
        read = [row for key, row in rows.items() if not shape.cursor or cursors[key] >= lo]
        read.sort(key=lambda row: (cursors[row[0]] if shape.cursor else 0, row[0]))
        self.watermark = max(self.watermark, *(cursor + 1 for cursor in cursors.values()), 0)
        kept = [row for row in read if shape.step != "filter" or row[2] is None or row[2] % 5 != 0]
        used = [row for row in kept if not shape.has_rule or row[2] is None or 0 <= row[2] <= 90]
        if shape.mode == "append":
            self.appended.update(used)
        elif shape.mode == "replace":
            self.appended = Counter(used)
        else:
            self._merge(used, is_whole=len(used) == len(kept))

    def _merge(self, used: list[Row], *, is_whole: bool) -> None:
        place = 0 if self.shape.merge_key == "id" else 1
        last = {row[place]: row for row in used}
        for key, row in last.items():
            if self.shape.deleted == "deleted_when" and row[4] == "deleted":
                self.merged.pop(key, None)
            else:
                self.merged[key] = (row, False)
        if self.shape.deleted in ("hard", "soft") and is_whole:
            for key in [key for key in self.merged if key not in last]:
                if self.shape.deleted == "hard":
                    del self.merged[key]
                else:
                    self.merged[key] = (self.merged[key][0], True)

    @property
    def rows(self) -> "Counter[tuple[Any, ...]]":
        if self.shape.mode == "merge":
            return Counter((*row, is_deleted) for row, is_deleted in self.merged.values())
        return Counter({(*row, False): count for row, count in self.appended.items()})


class Source:
    """A table that grows, changes and loses rows; a number that only grows stands in each row."""

    def __init__(self, url: str, chance: random.Random, shape: Shape) -> None:
        self._url = url
        self._chance = chance
        self._seq = 0
        self._has_grown = False
        self._moment = 0
        self.moments: dict[int, int] = {}
        self.rows: dict[int, Row] = {}
        postgres(
            url,
            "CREATE TABLE source (id bigint PRIMARY KEY, grp bigint NOT NULL, n integer, note text, status text NOT "
            "NULL, seq bigint NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp()"
            + (")" if shape.key == "id" else f", k {KEYS[shape.key_type]} {_unique(shape)})"),
        )
        postgres(url, f"CREATE INDEX ON source ({shape.cursor or 'seq'}, {shape.key})")
        if shape.has_child:
            postgres(url, "CREATE TABLE child (PRIMARY KEY (id)) INHERITS (source)")
        self._table = {False: "source", True: "child" if shape.has_child else "source"}

    def grow(self) -> None:
        postgres(self._url, "ALTER TABLE source ADD COLUMN more integer")
        self._has_grown = True

    def change(self) -> None:
        chance = self._chance
        for _ in range(chance.choice([0, 1, 5, 25])):
            key = chance.randrange(40)
            if key in self.rows and chance.random() < 0.25:
                del self.rows[key]
                postgres(self._url, f"DELETE FROM source WHERE id = {key}")
                continue
            self._seq += chance.choice([0, 0, 1, 3])  # Ties, and gaps.
            n, note = chance.choice([None, *range(-5, 100, 7)]), chance.choice([None, "", "a'\\x41\t\n", "ü" * 9])
            status = chance.choice(["new", "paid", "deleted"])
            row = (key, key % 5, n, note, status, self._seq, self._seq if self._has_grown else None)
            self._moment += 1
            self.rows[key], self.moments[key] = row, self._moment
            names = COLUMNS[: 7 if self._has_grown else 6]
            values = ", ".join(_literal(value) for value in row[: len(names)])
            columns = ", ".join(names)
            changed = ", ".join(f"{name} = excluded.{name}" for name in names[1:]) + ", at = clock_timestamp()"
            postgres(
                self._url,
                f"INSERT INTO {self._table[key % 2 == 0]} ({columns}) VALUES ({values}) ON CONFLICT (id) DO UPDATE "
                f"SET {changed}",
            )
        self._seq += 1  # What is committed after a run has begun lies above what it has read.


def _unique(shape: Shape) -> str:
    return "" if shape.key_type in NO_KEYS else "NOT NULL UNIQUE"


def _literal(value: int | str | None) -> str:
    return "NULL" if value is None else str(value) if isinstance(value, int) else f"$q${value}$q$"


async def ended(use_cases: UseCases) -> Run:
    command = TriggerRun("copy")
    left = await use_cases.launcher.unfinished(ME, command)
    claimed = None if left else await use_cases.launcher.launch_claimed(ME, command)
    for _ in range(100):
        claimed = claimed or (await use_cases.claimer.claim(left.scope, left.id) if left else None)
        if claimed is not None:
            break
        await asyncio.sleep(0.05)  # What nobody could seal is left to its lease.
    assert claimed is not None
    return await use_cases.executor.execute_to_end(claimed)


async def run_until_done(folder: Path, chance: random.Random) -> list[Run]:
    """Run the pipeline, by processes of its own as far as memory goes, until a run succeeds; faults strike
    at random.
    """
    runs: list[Run] = []

    def strike(name: str) -> None:
        if chance.random() < 0.06:
            raise StoreUnavailableError(f"The failpoint {name} fired.")

    for attempt in range(30):
        settings = load_settings(root=folder, environment={"HEADRACE_RUN__LEASE_SECONDS": "1"}).settings
        async with running(build_container(settings, folder), with_store=False) as use_cases:
            arm(strike if attempt < 20 else None)
            try:
                runs.append(await ended(use_cases))
            except PlatformError as error:
                assert error.retryable, error  # noqa: PT017 - any other is no fault of ours
            finally:
                arm(None)
        if runs and runs[-1].state is RunState.SUCCEEDED:
            return runs
        assert not runs or runs[-1].state in (RunState.FAILED, RunState.RUNNING), runs[-1]
        assert not runs or not runs[-1].error or runs[-1].error.retryable, runs[-1].error
    raise AssertionError(runs[-1])


def landed(folder: Path, url: str, shape: Shape, number: int) -> "Counter[tuple[Any, ...]]":
    note = "remark" if shape.step == "rename" else "note"
    gone = "_headrace_deleted_at IS NOT NULL" if shape.deleted == "soft" else "false"
    more = "more" if number >= shape.grows_at else "NULL::integer"
    query = f"SELECT id, grp, n, {note}, status, seq, {more}, {gone} FROM copied"
    if shape.connection == "default":
        return Counter(duckdb_rows(folder / ".headrace/data.duckdb", query))
    return Counter(postgres(url, query))


@pytest.mark.invariant("D1", "D2", "D3", "D6", "D8")
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_random_pipeline_holds_what_the_model_holds(seed: int, project: Path, postgres_database: str) -> None:
    chance = random.Random(seed)
    shape = Shape.drawn(chance)
    source, model = Source(postgres_database, chance, shape), Model(shape)
    settings = load_settings(root=project, environment={}).settings
    async with running(build_container(settings, project), with_store=False) as use_cases:
        connections = [postgres_connection(postgres_database, name) for name in ("shop", "warehouse")]
        for text in (*connections, shape.document):
            document = read_text(text, "doc", {})
            await use_cases.catalog.put(ME, PutDocument(document.kind, document.name, document.body))

    for number in range(ROUNDS):
        if number == shape.grows_at:
            source.grow()
        source.change()
        done = await run_until_done(project, chance)
        model.run(source.rows, source.moments)

        assert done[-1].report is not None
        counts = done[-1].report.counts.to_json()
        assert counts["read"] == sum(counts[name] for name in ("used", "filtered", "quarantined", "failed")), counts
        found = landed(project, postgres_database, shape, number)
        told = [(run.id, run.state.value, run.reason, run.attempt, run.error) for run in done]
        assert found == model.rows, (number, shape, told, found - model.rows, model.rows - found)
