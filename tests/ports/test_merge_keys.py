"""What keeps a merge key unique on Postgres, merges that others get ahead of, and statements over whole tables."""

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from domain.loads.checkpoint import CheckpointUpdate
from domain.pipelines.spec import CursorSpec, DeleteMissing, Mode, Partitions, SourceSpec
from domain.quality.measures import Measures
from domain.quality.rules import Reference, StagedChecks
from domain.stores.table import TableName
from infrastructure.stores.postgres.session import PostgresSession
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.ports.backends import address_of
from tests.ports.loading import ACCEPTED, LANE, TABLE, content, read_set, token_of
from tests.ports.test_merging import held, load, merging, noted
from tests.somebody import Somebody, somebody_in

KEYS = {
    "UNIQUE (id)": True,
    "PRIMARY KEY (id)": True,
    "UNIQUE NULLS NOT DISTINCT (id)": True,
    "UNIQUE (id) INCLUDE (note)": True,
    "UNIQUE (id) DEFERRABLE": False,
    "UNIQUE (id) DEFERRABLE INITIALLY DEFERRED": False,
    "EXCLUDE (id WITH =)": False,
    "UNIQUE (id, note)": False,
    "UNIQUE (note)": False,
    "CREATE UNIQUE INDEX ON k (id)": True,
    "CREATE UNIQUE INDEX ON k (id DESC)": True,
    "CREATE UNIQUE INDEX ON k (id) WHERE note IS NOT NULL": False,
    "CREATE UNIQUE INDEX ON k (id, lower(note))": False,
    "CREATE UNIQUE INDEX ON k (abs(id))": False,
    "CREATE INDEX ON k (id)": False,
    "CREATE UNIQUE INDEX ON k (id); UPDATE pg_index SET indisvalid = false WHERE indrelid = 'k'::regclass": False,
    "CREATE UNIQUE INDEX ON k (id); UPDATE pg_index SET indisready = false WHERE indrelid = 'k'::regclass": False,
    "CREATE UNIQUE INDEX ON k (id); CREATE TABLE child () INHERITS (k)": False,
}
TEXT_KEYS = {
    "UNIQUE (note)": True,
    'CREATE UNIQUE INDEX ON k (note COLLATE "C")': False,
    "CREATE UNIQUE INDEX ON k (note text_pattern_ops)": False,
    "CREATE UNIQUE INDEX ON k (lower(note))": False,
}
PAIRS = {"UNIQUE (note, id)": True, "UNIQUE (id)": False, "UNIQUE (id, note, far)": False}


@pytest.mark.clause("IDataStore", 21)
def test_only_a_plain_unique_index_on_the_key_spares_a_merge_the_lock_of_the_table(
    postgres_database: str, somebody: Somebody
) -> None:
    session = PostgresSession(address_of(postgres_database), "headrace")
    found, wanted = {}, {}
    for key, kinds in ((("id",), KEYS), (("note",), TEXT_KEYS), (("id", "note"), PAIRS)):
        for kind, spares in kinds.items():
            inline = "" if kind.startswith("CREATE") else f", {kind}"
            somebody.does(f"DROP TABLE IF EXISTS k CASCADE; CREATE TABLE k (id bigint, note text, far int{inline})")
            somebody.does(kind if kind.startswith("CREATE") else "")
            session.begin()
            session.hold(TableName("k"), key)
            found[key, kind] = somebody.does(
                "SELECT mode FROM pg_locks WHERE relation = 'k'::regclass AND mode LIKE '%Row%'"
            )
            session.rollback()
            wanted[key, kind] = [("RowExclusiveLock" if spares else "ShareRowExclusiveLock",)]
    session.close()

    assert found == wanted


@pytest.mark.clause("IDataStore", 21)
@pytest.mark.parametrize(("shadow", "layout"), [(False, ""), (True, " PARTITION BY RANGE (id)")], ids=["batch", "run"])
async def test_key_that_another_inserts_first_is_updated(
    shadow: bool, layout: str, postgres: PostgresDataStore, somebody: Somebody, postgres_database: str
) -> None:
    somebody.does(f"CREATE TABLE orders (id bigint PRIMARY KEY, note text){layout}")
    if layout:
        somebody.does("CREATE TABLE part PARTITION OF orders FOR VALUES FROM (0) TO (1000)")
    planned = read_set(shadow=shadow)
    with somebody_in(postgres_database) as first:
        first.does("BEGIN")
        first.does("INSERT INTO orders VALUES (2, 'theirs'), (9, 'theirs')")
        loading = asyncio.create_task(load(postgres, 1, planned, merging(planned), noted({1: "a", 2: "b", 3: "c"})))
        await somebody.sees_it_wait()
        first.does("COMMIT")
    await loading

    assert await held(postgres) == {1: "a", 2: "b", 3: "c", 9: "theirs"}


@pytest.mark.clause("IDataStore", 21)
async def test_two_runs_that_publish_at_once_leave_one_row_of_a_key_that_no_index_keeps(
    postgres: PostgresDataStore, somebody: Somebody, postgres_database: str
) -> None:
    somebody.does("CREATE TABLE orders (id bigint, note text); CREATE UNIQUE INDEX ON orders (id, lower(note))")
    planned = read_set(shadow=True)
    with somebody_in(postgres_database) as first:
        first.does("BEGIN")
        first.does("INSERT INTO orders VALUES (2, 'theirs')")
        loading = asyncio.create_task(load(postgres, 1, planned, merging(planned), noted({1: "a", 2: "b"})))
        await somebody.sees_it_wait()
        first.does("COMMIT")
    await loading

    assert sorted((row["id"], row["note"]) for row in await content(postgres)) == [(1, "a"), (2, "b")]


SEEN = re.compile(r'"(orders|other|_headrace_stage_[0-9a-f]+|_headrace_quarantine)"')


class Planned:
    """Asks for the plan of each statement before it runs, in its own transaction."""

    def __init__(self) -> None:
        self.costs: dict[str, float] = {}
        self.per_row: list[str] = []

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        run = PostgresSession.execute

        def execute(session: PostgresSession, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
            if sql.startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH")) and SEEN.search(sql):
                session._cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
                plan = json.loads(str(run(session, f"EXPLAIN (FORMAT JSON) {sql}", parameters)[0][0]))[0]["Plan"]
                session._cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "true"})
                self.costs[sql] = self.costs.get(sql, 0.0) + plan["Total Cost"]
                self.per_row += [sql for node in nodes(plan) if node.get("Parent Relationship") == "SubPlan"]
            return run(session, sql, parameters)

        monkeypatch.setattr(PostgresSession, "execute", execute)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


CHECKS = StagedChecks(duplicates=(("note",),), references=(Reference("id", TableName("other"), "id"),))


async def whole(store: PostgresDataStore, rows: int, fence: int, **changes: Any) -> None:
    planned = read_set(shadow=True, name=f"r{fence}")
    target = merging(planned, **changes)
    async with store.owner(LANE, TABLE, fence) as owner:
        await owner.take_over()
        await owner.open_read_set(planned, target)
        await owner.take_over()
        batch = noted(dict.fromkeys(range(rows), "n"))
        async with store.writer(LANE, target, planned.id, "0", fence, await token_of(store)) as writer:
            await writer.commit(batch, CheckpointUpdate(1, ("1",), batch.counts, Measures(), is_last=True))
        await owner.publish(planned, target, CHECKS, lambda _: ACCEPTED)


@pytest.mark.clause("IDataStore", 22)
async def test_no_statement_over_whole_tables_grows_with_their_square(
    postgres: PostgresDataStore, somebody: Somebody, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = []
    for rows in (500, 5_000):
        somebody.does("DROP TABLE IF EXISTS orders, other; CREATE TABLE orders (id bigint, note text)")
        somebody.does("CREATE TABLE other (id bigint)")
        for table in ("orders", "other"):
            somebody.does(f"INSERT INTO {table} (id) SELECT generate_series(1, {rows})")
        seen = Planned()
        with monkeypatch.context() as patched:
            seen.watch(patched)
            plain = SourceSpec(table=TABLE, key=("id",))
            await postgres.plan(
                replace(plain, cursor=CursorSpec("id"), partitions=Partitions("id", 3)), lo="5", limit=7
            )
            loads: list[dict[str, Any]] = [{"delete_missing": kind} for kind in (*DeleteMissing, None)]
            loads += [{"replaces": True}, {"mode": Mode.APPEND}, {"mode": Mode.REPLACE, "replaces": True}]
            for fence, changes in enumerate(loads, start=rows):
                await whole(postgres, rows, fence, **changes)
        plans.append(seen)

    assert [sql for seen in plans for sql in seen.per_row] == []
    small, large = ({whole_name(sql): cost for sql, cost in seen.costs.items()} for seen in plans)
    assert len(large) > 12
    assert large.keys() == small.keys()
    assert {sql: cost for sql, cost in large.items() if cost > 1_000 + 25 * small[sql]} == {}


def whole_name(sql: str) -> str:
    """A statement without the moment that stands in it."""
    return sql.partition("CAST('")[0]
