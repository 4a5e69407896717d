"""A merge writes what it reads, also over a value that the database holds equal: 30 days over 1 month, -0.0 over 0.0."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from domain.pipelines.spec import DeleteMissing, Mode
from domain.ports.data_store import IDataStore, Target
from domain.quality.measures import RowChanges
from domain.stores.table import DELETED
from tests.ports.backends import Backend
from tests.ports.loading import read_set
from tests.ports.test_merge_equality import RUN, TABLE, Database, batches_of, land

# Of each type an old value and a new one that is equal to it, or that comes over none.
ON_POSTGRES = {
    "interval": [("'1 month'", "'30 days'"), ("'1 day'", "'24 hours'"), ("NULL", "'720 hours'")],
    "double precision": [("0", "'-0'"), ("'-0'", "0"), ("NULL", "'-0'")],
    "real": [("0", "'-0'")],
    "numeric": [("1", "1.00"), ("2.50", "2.5")],
    "citext": [("'ann'", "'Ann'")],
    "timetz": [("'10:00+00'", "'12:00+02'")],
    "pair": [("(1, '1 day', 0)", "(1, '24 hours', '-0')")],
}
ON_DUCKDB = {
    "interval": [("'1 month'", "'30 days'"), ("'1 day'", "'24 hours'"), ("NULL", "'720 hours'")],
    "double": [("0", "'-0'"), ("'-0'", "0"), ("NULL", "'-0'")],
    "float": [("0", "'-0'")],
    "timetz": [("'10:00:00+00'", "'12:00:00+02'")],
    "varchar COLLATE nocase": [("'ann'", "'Ann'")],
    "interval[]": [("['1 day']", "['24 hours']")],
    "map(varchar, double)": [("MAP {'a': 0}", "MAP {'a': '-0'}")],
    """struct(t varchar, "it's" interval, s struct(z float))""": [
        ("row('a', '1 day', row(0))", "row('a', '24 hours', row('-0'))"),
        ("row('a', '1 day', row(0))", "row('b', '24 hours', row(0))"),
        ("row('a', '1 day', NULL)", "row('a', '1 day', row('-0'))"),
        ("NULL", "row('a', '1 month', row(0))"),
    ],
    "struct(i interval, t timetz)": [("row('1 day', '10:00:00+00')", "row('24 hours', '10:00:00+00')")],
}
KEYS = ("interval", "double", "double precision", "float", "real", "numeric", "citext", "varchar COLLATE nocase")
pytestmark = [pytest.mark.clause("IDataStore", 21), pytest.mark.invariant("D1")]
ways = pytest.mark.parametrize("shadow", [False, True], ids=["batch", "run"])


class Merging:
    """A table `merged` of what only it knows, a number, `k` and `z`; and what is merged into it from a table `s`."""

    def __init__(self, store: IDataStore, database: Database, *, shadow: bool) -> None:
        self.database = database
        self._store, self._shadow, self._fence = store, shadow, 0

    def make(self, kind: str, constraint: str = "") -> None:
        self.database.does("DROP TABLE IF EXISTS merged; DROP TABLE IF EXISTS s")
        self.database.does(f"CREATE TABLE s (n bigint, id bigint, k {kind}, z double precision)")
        self.database.does(
            f"CREATE TABLE merged (kept text DEFAULT 'new', id bigint, k {kind}, z double precision{constraint})"
        )

    def has(self, rows: Sequence[tuple[int, str]]) -> None:
        values = ", ".join(f"('there', {number}, {value}, 0)" for number, value in rows)
        self.database.does(f"INSERT INTO merged VALUES {values}")

    async def merge(
        self, rows: Sequence[tuple[int, str]], key: str = "id", gone: Sequence[bool] = (), **changes: Any
    ) -> RowChanges | None:
        """Merge rows with `z` changed from zero to minus zero, and tell what it is said to have done."""
        values = ", ".join(f"({n}, {number}, {value}, '-0')" for n, (number, value) in enumerate(rows))
        self.database.does(f"DELETE FROM s; INSERT INTO s VALUES {values}")
        columns, batches = await batches_of(self._store, "s", 100)
        landed = [batch.drop(["n"]) for batch in batches]
        if gone:
            landed = [batch.append_column(DELETED, pa.array(gone)) for batch in landed]
        self._fence += 1
        stage = read_set(shadow=self._shadow).shadow
        target = Target(TABLE, Mode.MERGE, stage, columns[1:], RUN, False, key=(key,), deletes=bool(gone), **changes)
        told = await land(self._store, self._fence, target, f"r{self._fence}", landed, len(rows))
        return told.measures.merged

    def content(self, table: str = "merged") -> list[tuple[Any, ...]]:
        spelled = "id, CAST(k AS varchar), CAST(z AS varchar)"
        return self.database.does(f"SELECT {spelled} FROM {table} ORDER BY id, k")

    def kept(self) -> list[tuple[Any, ...]]:
        return self.database.does("SELECT id, kept FROM merged ORDER BY id")


def merging_of(store: IDataStore, backend: Backend, request: pytest.FixtureRequest, *, shadow: bool) -> Merging:
    somebody = request.getfixturevalue("somebody") if backend.needs_postgres else None
    if somebody is not None:
        somebody.does("CREATE EXTENSION citext; CREATE TYPE pair AS (n int, i interval, z double precision)")
    return Merging(store, Database(store, somebody), shadow=shadow)


@pytest.mark.needs("merges")
@pytest.mark.only("duckdb", "postgres")
@ways
@pytest.mark.parametrize("constraint", ["", ", UNIQUE (z, id)"], ids=["plain", "unique"])
async def test_value_that_is_equal_to_the_one_there_is_written(
    constraint: str, shadow: bool, store: IDataStore, backend: Backend, request: pytest.FixtureRequest
) -> None:
    merging = merging_of(store, backend, request, shadow=shadow)
    for kind, pairs in (ON_POSTGRES if backend.needs_postgres else ON_DUCKDB).items():
        merging.make(kind, constraint)
        merging.has([(number, old) for number, (old, _) in enumerate(pairs)])

        rows = [(number, new) for number, (_, new) in enumerate(pairs)]
        told = await merging.merge([*rows, (99, "NULL")], **{"delete_missing": DeleteMissing.SOFT} if shadow else {})

        assert merging.content() == merging.content("s"), kind
        assert merging.kept() == [*((number, "there") for number, _ in rows), (99, "new")]
        assert told == RowChanges(inserted=1, updated=len(rows), deleted=0)


@pytest.mark.needs("merges")
@pytest.mark.only("duckdb", "postgres")
@ways
@pytest.mark.parametrize("constraint", ["", ", PRIMARY KEY (k)"], ids=["plain", "key"])
async def test_key_that_is_equal_to_the_one_there_is_written(
    constraint: str, shadow: bool, store: IDataStore, backend: Backend, request: pytest.FixtureRequest
) -> None:
    merging = merging_of(store, backend, request, shadow=shadow)
    for kind, pairs in (ON_POSTGRES if backend.needs_postgres else ON_DUCKDB).items():
        if constraint and kind == "interval" and not backend.needs_postgres:
            continue  # No index of DuckDB's takes one.
        for old, new in pairs:
            if old == "NULL" or kind not in KEYS:
                continue
            merging.make(kind, constraint)
            merging.has([(1, old)])

            told = await merging.merge([(2, new)], key="k")

            assert merging.content() == merging.content("s"), kind
            assert merging.kept() == [(2, "there")]
            assert told == RowChanges(inserted=0, updated=1, deleted=0)


@pytest.mark.needs("merges")
@pytest.mark.only("duckdb", "postgres")
@ways
async def test_newer_row_keeps_what_is_equal_to_the_value_that_comes(
    shadow: bool, store: IDataStore, backend: Backend, request: pytest.FixtureRequest
) -> None:
    merging = merging_of(store, backend, request, shadow=shadow)
    merging.make("interval")
    merging.has([(1, "'1 day'")])
    before = merging.content()

    told = await merging.merge([(1, "'24 hours'")], newest_by="z")  # Zero is not newer than zero.

    assert merging.content() == before
    assert told == RowChanges(inserted=0, updated=0, deleted=0)


@pytest.mark.needs("merges")
@pytest.mark.only("duckdb", "postgres")
@ways
async def test_row_that_goes_goes_once_though_its_value_is_equal_to_the_one_there(
    shadow: bool, store: IDataStore, backend: Backend, request: pytest.FixtureRequest
) -> None:
    merging = merging_of(store, backend, request, shadow=shadow)
    merging.make("interval")
    merging.has([(1, "'1 day'"), (2, "'1 day'")])

    told = await merging.merge([(1, "'24 hours'"), (2, "'24 hours'"), (3, "'24 hours'")], gone=[True, False, True])

    assert merging.content() == merging.content("s")[1:2]
    assert told == RowChanges(inserted=0, updated=1, deleted=1)
