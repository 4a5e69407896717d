"""Functions of DuckDB that work on a vector for hours, in which nothing stops it; and the room that it spills into."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from domain.errors import PlatformError
from domain.pipelines.spec import SourceSpec
from infrastructure.queries.duckdb_costs import repetitions_within
from infrastructure.queries.duckdb_queries import IN_PROCESS
from infrastructure.stores.duckdb.errors import translate
from infrastructure.stores.duckdb.file import DuckDBFile, DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.threads import OneThread

pytestmark = pytest.mark.line("11")
NESTED = "(.{1,20}){1,40}x"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DuckDBDataStore]:
    with duckdb.connect(str(tmp_path / "f.duckdb")) as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT i AS id, 'n' || i AS name, repeat('ab' || i, 2000) AS story FROM range(20) r(i)"
        )
    store = DuckDBDataStore(DuckDBOptions(tmp_path / "f.duckdb"))
    await store.open()
    yield store
    await store.close()


async def code(store: DuckDBDataStore, query: str, **parameters: Any) -> str | None:
    try:
        await store.plan(SourceSpec(query=query, parameters=parameters), lo=None, limit=None)
    except PlatformError as error:
        return error.code
    return None


async def test_what_nothing_stops_holds_nobody_up_when_two_deadlines_pass() -> None:
    thread, begun, worst = OneThread("slow"), time.monotonic(), 0.0

    async def asked(seconds: float) -> None:
        try:
            async with asyncio.timeout(0.1), asyncio.timeout(0.05):
                await thread.call(time.sleep, seconds)
        finally:
            thread.close()

    waiting = asyncio.create_task(asked(0.6))
    while not waiting.done():
        before = time.monotonic()
        await asyncio.sleep(0.01)
        worst = max(worst, time.monotonic() - before)
    assert isinstance(waiting.exception(), TimeoutError)
    assert time.monotonic() - begun >= 0.6  # Somebody else could still use what the thread works with.
    assert worst < 0.3
    thread = OneThread("quick")
    await asked(0.0)
    assert "quick" not in {each.name for each in threading.enumerate()}


async def test_texts_that_are_compared_letter_by_letter_are_short(store: DuckDBDataStore) -> None:
    for name in ("levenshtein", "damerau_levenshtein", "jaro_similarity", "jaro_winkler_similarity", "editdist3"):
        assert await code(store, f"select id from t where {name}(story, name) > 1") == "query.too_large"
        assert await code(store, f"select id, {name}(name, 'n7') as far from t") is None
        assert await code(store, f"select {name}(left(story, 200), substr(lower(story), 3, 200)) as far from t") is None
    for query in (
        "select levenshtein(left(story, 2000), name) as far from t",
        "select levenshtein(name || repeat('x', 4000), name) as far from t",
        "select levenshtein(s, s) as far from (select string_agg(name, '') as s from t)",
        "select levenshtein(s, s) as far from (select story as s from t)",
        "select id from t group by all having levenshtein(max(story), min(story)) > 1",
    ):
        assert await code(store, query) == "query.too_large", query
    assert await code(store, "select levenshtein($a || id, name) as far from t", a="x" * 3000) == "query.too_large"
    assert await code(store, "select levenshtein($a || id, name) as far from t", a="x") is None


async def test_patterns_within_patterns_are_for_short_texts(store: DuckDBDataStore) -> None:
    for query in (
        f"select id from t where regexp_matches(story, '{NESTED}')",
        f"select id from t where story ~ '{NESTED}'",
        f"select regexp_replace(story, '{NESTED}', 'y') as r from t",
        "select id from t where regexp_matches(story, name)",
    ):
        assert await code(store, query) == "query.too_large", query
    for query in (
        f"select id from t where regexp_matches(left(story, 50), '{NESTED}')",
        "select id from t where regexp_matches(story, '^([0-9]{1,3}[.]){3}[a-f]{64}$')",
        "select regexp_extract(story, 'a(b+)', 1) as r, name ~ '.{1,500}' as n from t",
        "select name from t where name ~ name",
    ):
        assert await code(store, query) is None, query


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (NESTED, 800), ("(a{5}b{5}){10}", 100), ("(a+){7}", 7), ("((a{2}){3}){4}", 24), ("(?:x*y){50,}", 100),
        ("a{1000}", 0), ("[a-z{2}]{3}", 0), (r"(\(a{2}){3}", 9), ("(a|b)*", 0), (r"[\]a]{4}[]b]{4}", 0), ("x{,}y{z}{2", 0), ("(((", 0),
        ("a)){3}", 0),
    ],
)  # fmt: skip
def test_places_of_a_pattern(pattern: str, expected: float) -> None:
    assert repetitions_within(pattern) == expected


def test_steps_with_them_run_where_they_can_be_ended() -> None:
    assert IN_PROCESS.step("select *, length(name) as n from batch").is_size_preserving
    assert not IN_PROCESS.step("select *, levenshtein(name, other) as n from batch").is_size_preserving
    assert IN_PROCESS.step("select id, jaro_similarity(left(name, 99), 'x') as n from batch").is_size_preserving
    assert not IN_PROCESS.predicate(f"name ~ '{NESTED}'").is_size_preserving
    assert IN_PROCESS.predicate("name ~ '^[a-z]+$'").is_size_preserving


async def test_a_query_spills_no_more_than_it_may(tmp_path: Path) -> None:
    file = DuckDBFile(DuckDBOptions(tmp_path / "a.db", "16MB", 1, tmp_path / "scratch", "16MB"))
    sorting = (
        "SELECT max(t), max(n) FROM (SELECT t, row_number() OVER (ORDER BY hash(i)) AS n "
        "FROM (SELECT i, repeat('x', 100) || i AS t FROM range({}) r(i)))"
    )
    await file.open()
    async with file.lent() as connection:
        assert connection.cursor().execute(sorting.format(60_000)).fetchall()[0][1] == 60_000
        with pytest.raises(duckdb.OutOfMemoryException) as caught:
            connection.cursor().execute(sorting.format(400_000)).fetchall()
    await file.close()
    assert translate(caught.value).code == "store.memory"
    assert "SPILL_LIMIT" in translate(caught.value).message
