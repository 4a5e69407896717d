"""Documents that are put at the same time, or among thousands: none makes a circle, none has the others wait for it."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from domain.errors import InvalidInputError
from domain.events import Origin, RunFinished
from domain.identity.scope import PLATFORM
from domain.lineage.graph import Dataset, find_circle
from domain.runs.run import RunState
from domain.runs.work import WorkKind
from infrastructure.security.query_guard import SqlQueryGuard
from tests.databases import postgres
from tests.e2e.inside import ME, Inside, inside
from tests.e2e.projects import new_project, postgres_environment

BOTH = pytest.mark.parametrize("kind", ["sqlite", "postgres"])
RAW = "connection: default, table: raw"


def settings_of(kind: str, request: pytest.FixtureRequest) -> dict[str, str]:
    """Records of a kind."""
    if kind == "sqlite":
        return {}
    url: str = request.getfixturevalue("postgres_database")
    return postgres_environment(url) | {"HEADRACE_METADATA__KIND": "postgres"}


@dataclass(frozen=True)
class Moved:
    """A pipeline between two tables of one store."""

    name: str
    source: str
    destination: str
    after: str | None = None

    @property
    def stored(self) -> dict[str, Any]:
        return {
            "pipeline": self.name,
            "source": {"table": self.source},
            "destination": {"table": self.destination},
            "schedule": {"after": [self.after]} if self.after else None,
        }

    async def put(self, there: Inside) -> None:
        more = f"schedule: {{after: [{self.after}]}}" if self.after else ""
        await there.pipeline(self.name, f"table: {self.source}", f"table: {self.destination}", more)


async def put_behind(there: Inside, first: Moved, second: Moved) -> str | None:
    """Put a pipeline while another's put is not yet committed; the code with which it is refused."""
    async with there.use_cases.catalog.records.unit(PLATFORM) as unit:
        await unit.pipelines.hold(ME.organization)
        await unit.pipelines.put(ME.organization, first.name, first.stored, "me")
        putting = asyncio.create_task(second.put(there))
        await asyncio.wait({putting}, timeout=0.3)
        await unit.commit()
    try:
        await putting
    except InvalidInputError as error:
        return error.code
    return None


@pytest.mark.line("7")
@BOTH
async def test_two_that_are_put_at_once_do_not_make_a_circle(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    async with inside(new_project(tmp_path / "project"), **settings_of(kind, request)) as there:
        for name in ("a", "b"):
            await there.pipeline(name, RAW, f"table: {name}")

        waiting = await put_behind(there, Moved("a", "raw", "a", "b"), Moved("b", "raw", "b", "a"))
        moving = await put_behind(there, Moved("c", "t1", "t2"), Moved("d", "t2", "t1"))
        beside = await put_behind(there, Moved("e", "u1", "u2"), Moved("f", "u2", "u3", "e"))

    assert (waiting, moving, beside) == ("spec.circle", "spec.circle", None)


async def test_whoever_deletes_waits_for_whoever_puts_so_that_nothing_that_is_gone_is_started(
    tmp_path: Path, postgres_database: str
) -> None:
    settings = postgres_environment(postgres_database) | {"HEADRACE_METADATA__KIND": "postgres"}
    async with inside(new_project(tmp_path / "project"), **settings) as there:
        for name in ("a", "b"):
            await there.pipeline(name, RAW, f"table: {name}")
        async with there.use_cases.catalog.records.unit(PLATFORM) as unit:
            await unit.pipelines.hold(ME.organization)
            deleting = asyncio.create_task(there.use_cases.catalog.delete(ME, "pipeline", "b"))
            await asyncio.wait({deleting}, timeout=0.3)
            await unit.followers.put(ME.organization, "b", ("a",))
            await unit.commit()
        await deleting
    assert postgres(postgres_database, "SELECT count(*) FROM headrace.followers") == [(0,)]


class SlowGuard(SqlQueryGuard):
    """One for which the queries of others are long."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked, self.may_answer = asyncio.Event(), asyncio.Event()

    async def relations(self, query: str) -> frozenset[str]:
        if "others" in query:
            self.is_asked.set()
            await self.may_answer.wait()
        return await super().relations(query)


@pytest.mark.line("36")
@BOTH
async def test_nobody_waits_while_the_queries_of_all_others_are_looked_at(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with inside(new_project(tmp_path / "project"), **settings_of(kind, request)) as there:
        await there.pipeline("long", "query: select id from others, key: [id]", "table: copied")
        catalog, guard = there.use_cases.catalog, SlowGuard()
        object.__setattr__(catalog, "guard", guard)

        putting = asyncio.create_task(there.pipeline("short", RAW, "table: other"))
        await asyncio.wait_for(guard.is_asked.wait(), 5)
        async with (
            asyncio.timeout(2),
            catalog.records.unit(PLATFORM) as unit,
        ):  # As whoever triggers a run, or renews a lease.
            await unit.pipelines.hold(ME.organization)
            await unit.audit.add(ME, "look", "x")
            await unit.commit()
        assert not putting.done()
        guard.may_answer.set()
        await putting

        with pytest.raises(InvalidInputError) as caught:
            await there.pipeline("back", "table: copied", "table: others")
        assert caught.value.code == "spec.circle"


@pytest.mark.line("7")
def test_chains_of_thousands_are_followed_to_their_end() -> None:
    names = [f"t{number:05}" for number in range(20_000)]

    def chain() -> Iterator[tuple[Dataset, Dataset]]:
        return ((("c", a), ("c", b)) for a, b in pairwise(names))

    started = time.monotonic()
    assert find_circle(chain()) is None
    circle = find_circle([*chain(), (("c", names[-1]), ("c", names[0]))])
    assert time.monotonic() - started < 5
    assert circle == [("c", name) for name in [*names, names[0]]]


@pytest.mark.line("7")
async def test_a_pipeline_at_the_end_of_a_long_chain_is_put_and_a_circle_is_told_in_a_sentence(tmp_path: Path) -> None:
    async with inside(new_project(tmp_path / "project")) as there:
        with sqlite3.connect(tmp_path / "project/.headrace/records.db") as records:
            rows = [
                Moved(f"p{number:04}", "raw", "x", f"p{number - 1:04}" if number else None) for number in range(1_500)
            ]
            records.executemany(
                "INSERT INTO pipelines (org_id, name, revision, is_deleted) VALUES ('default', ?, 1, 0)",
                [(row.name,) for row in rows],
            )
            records.executemany(
                "INSERT INTO pipeline_revisions VALUES ('default', ?, 1, ?, 'me', '2026-01-01 00:00:00.000000')",
                [(row.name, json.dumps(row.stored)) for row in rows],
            )
        await there.pipeline("last", RAW, "table: last", "schedule: {after: [p1499]}")
        with pytest.raises(InvalidInputError) as caught:
            await there.pipeline("p0000", RAW, "table: x", "schedule: {after: [last]}")

    assert caught.value.code == "spec.circle"
    assert "p0000 → p0001" in caught.value.message
    assert len(caught.value.message) < 500


@pytest.mark.line("36")
async def test_hundreds_of_followers_of_a_pipeline_that_finished_often_are_started_a_few_at_a_time(
    tmp_path: Path,
) -> None:
    """In one transaction, in which each of them was read, others waited for the records until they gave up."""
    async with inside(new_project(tmp_path / "project")) as there:
        await there.pipeline("first", RAW, "table: first")
        for number in range(45):
            await there.pipeline(f"f{number}", RAW, "table: x", "schedule: {after: [first]}")
        await there.use_cases.catalog.delete(ME, "pipeline", "f44")
        await there.pipeline("f0", RAW, "table: y", "schedule: {after: [first]}")
        async with there.use_cases.catalog.records.unit(PLATFORM) as unit:
            ends = [
                RunFinished(
                    Origin("default", WorkKind.PIPELINE.named("first"), f"r{n}"),
                    RunState.SUCCEEDED.value,
                    "published",
                    0,
                    0,
                    0.0,
                )
                for n in range(40)
            ]
            failed = [replace(end, origin=replace(end.origin, run_id="no"), status="failed") for end in ends[:3]]
            await unit.events.add(*ends, *failed)
            await unit.commit()
        await there.use_cases.announcer.flush()

    with sqlite3.connect(tmp_path / "project/.headrace/records.db") as records:
        pairs = records.execute("SELECT work_name, cause FROM runs").fetchall()
        together = records.execute("SELECT count(*) FROM runs GROUP BY created_at").fetchall()
        revisions = records.execute("SELECT DISTINCT work_name, revision FROM runs WHERE revision > 1").fetchall()
        left = records.execute("SELECT count(*) FROM events, event_cursors WHERE id > last").fetchone()
    assert sorted(pairs) == sorted((f"f{number}", f"r{n}") for number in range(44) for n in range(40))
    assert max(count for (count,) in together) <= 500
    assert revisions == [("f0", 2)]
    assert left == (0,)
