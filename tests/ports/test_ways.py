"""Rows that pass undecoded or within the database land as decoded ones would, under the same fence."""

from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace

import pyarrow as pa
import pytest
from adbc_driver_postgresql import dbapi

from domain.errors import FencedError, QueryRefusedError, SchemaMismatchError, WorkFailedError
from domain.loads.checkpoint import CheckpointUpdate
from domain.loads.read_set import ReadSet, SourcePlan
from domain.loads.way import TEXT_WIRE, Facts, Way, Wire, choose_way
from domain.pipelines.spec import CursorSpec, Mode, Partitions, SourceSpec
from domain.ports.data_store import IDataStore, StreamSelection, Target, passage_of
from domain.quality.measures import Counts, Measures
from domain.stores.table import Column, TableName
from tests.ports.backends import Backend, cursor_of
from tests.ports.loading import LANE, content, rows, token_of

SOURCE = SourceSpec(table=TableName("s"), key=("id",))
COPIED = TableName("copied")
RUN = "01890000-0000-7000-8000-000000000000"


async def opened(
    store: IDataStore, plan: SourcePlan, *, fence: int = 1, metadata: bool = False
) -> tuple[ReadSet, Target]:
    planned = ReadSet("r1", "fingerprint", plan, 2)
    columns = tuple(Column(name, kind) for name, kind in plan.columns)
    target = Target(COPIED, Mode.APPEND, None, columns, RUN, metadata)
    async with store.owner(LANE, COPIED, fence, token=await token_of(store, LANE, COPIED)) as owner:
        await owner.take_over()
        await owner.open_read_set(planned, target)
    return planned, target


def moved(seq: int, count: int, position: tuple[str, ...] | None, *, is_last: bool = False) -> CheckpointUpdate:
    return CheckpointUpdate(seq, position, Counts(count, count, 0, count), Measures(), is_last)


@pytest.fixture
def other(postgres_database: str) -> Iterator[dbapi.Cursor]:
    with dbapi.connect(postgres_database, autocommit=True) as connection, connection.cursor() as cursor:
        yield cursor


@pytest.mark.clause("IDataStore", 25)
@pytest.mark.invariant("D3", "R3")
async def test_rows_pass_undecoded_range_by_range_and_resume(store: IDataStore, backend: Backend) -> None:
    await store.write(TableName("s"), [rows(*range(1, 8))])
    wire = await store.wire(SOURCE)
    if not store.capabilities.wires:
        assert wire is None
        assert await store.landing_wire(COPIED, ()) == (TEXT_WIRE if store.capabilities.landing_wires else None)
        return
    plan = await store.plan(SOURCE, lo=None, limit=None)
    planned, target = await opened(store, plan, metadata=True)
    passage = passage_of(target)
    async with store.reader(SOURCE, plan, plan.streams[0], batch_rows=3) as reader:
        async with aclosing(reader.encoded(None, passage)) as ranges:
            first = await anext(ranges)
        rest = [part async for part in reader.encoded(first.position, passage)]
    assert (first.num_rows, first.position) == (3, ("3",))
    assert [(part.after, part.position, part.num_rows) for part in rest] == [(("3",), ("6",), 3), (("6",), ("7",), 1)]

    async with store.writer(LANE, target, planned.id, "0", 1, await token_of(store, LANE, COPIED)) as writer:
        await writer.commit_encoded(first, moved(1, 3, first.position))
        with pytest.raises(FencedError):
            await writer.commit_encoded(first, moved(1, 3, first.position))
        await writer.commit_encoded(rest[0], moved(2, 3, rest[0].position))
        await writer.commit_encoded(rest[1], moved(3, 1, rest[1].position, is_last=True))
    async with store.writer(LANE, target, planned.id, "0", 0, await token_of(store, LANE, COPIED)) as stale:
        with pytest.raises(FencedError):
            await stale.commit_encoded(first, moved(4, 3, first.position))

    found = await content(store, COPIED)
    assert sorted((row["id"], row["note"]) for row in found) == [(n, f"note {n}") for n in range(1, 8)]
    assert {row["_headrace_run_id"] for row in found} == {RUN}
    assert all(row["_headrace_loaded_at"] is not None for row in found)


DENSE, GAPS = list(range(1, 41)), [*range(1, 9), *range(1000, 1004), 5000, *range(9000, 9040), 20_000]


@pytest.mark.clause("IDataStore", 25)
@pytest.mark.parametrize("keys", [DENSE, GAPS, GAPS[::-1], [-5, 0, 7], [2**63 - 2, 2**63 - 1]])
async def test_ranges_have_every_row_once_however_the_keys_lie(
    keys: list[int], store: IDataStore, backend: Backend
) -> None:
    await store.write(TableName("s"), [rows(*keys)])
    if not store.capabilities.wires:
        assert await store.wire(SOURCE) is None
        return
    plan = await store.plan(SOURCE, lo=None, limit=None)
    _, target = await opened(store, plan)
    passage = passage_of(target)
    async with store.reader(SOURCE, plan, plan.streams[0], batch_rows=4) as reader:
        parts = [part async for part in reader.encoded(None, passage)]
        decoded = [pa.table(await reader.decoded(part)).column("id").to_pylist() for part in parts]
        resumed = [sum([p.num_rows async for p in reader.encoded(part.position, passage)]) for part in parts]

    assert sorted(key for part in decoded for key in part) == sorted(keys)
    assert [max(part) for part in decoded] == sorted(max(part) for part in decoded)
    assert [len(part) for part in decoded] == [part.num_rows for part in parts]
    assert max(part.num_rows for part in parts) <= 4
    assert parts[-1].position == (str(max(keys)),)
    left = [len(keys) - sum(part.num_rows for part in parts[: n + 1]) for n in range(len(parts))]
    assert resumed == left
    if keys == DENSE:
        assert [part.num_rows for part in parts] == [4] * 10


@pytest.mark.clause("IDataStore", 25)
async def test_rows_that_share_a_key_pass_together(store: IDataStore, backend: Backend) -> None:
    """A key that is not one after all costs the size of a batch, never a row."""
    await store.write(TableName("s"), [rows(1, 1, 1, 2, 3, 3, 3, 3, 3, 4, 5)])
    if not store.capabilities.wires:
        assert await store.wire(SOURCE) is None
        return
    plan = await store.plan(SOURCE, lo=None, limit=None)
    _, target = await opened(store, plan)
    async with store.reader(SOURCE, plan, plan.streams[0], batch_rows=2) as reader:
        parts = [part async for part in reader.encoded(None, passage_of(target))]

    assert sum(part.num_rows for part in parts) == 11


@pytest.mark.needs("selects_inside")
@pytest.mark.clause("IDataStore", 25)
@pytest.mark.invariant("D3", "R3")
async def test_selection_of_one_store_lands_with_its_checkpoint(store: IDataStore) -> None:
    await store.write(TableName("s"), [rows(*range(1, 8))])
    assert await store.may_run_inside(SOURCE)
    source = SourceSpec(table=TableName("s"), key=("id",), cursor=CursorSpec("id"))
    plan = await store.plan(source, lo="2", limit=None)
    planned, target = await opened(store, plan, metadata=True)
    selection = StreamSelection(source, plan, plan.streams[0], ("3",), passage_of(target))

    async with store.writer(LANE, target, planned.id, "0", 0, await token_of(store, LANE, COPIED)) as stale:
        with pytest.raises(FencedError):
            await stale.commit_selection(selection, lambda count: moved(1, count, None, is_last=True))
    assert await content(store, COPIED) == []
    async with store.writer(LANE, target, planned.id, "0", 1, await token_of(store, LANE, COPIED)) as writer:
        await writer.commit_selection(selection, lambda count: moved(1, count, None, is_last=True))
        with pytest.raises(FencedError):
            await writer.commit_selection(selection, lambda count: moved(1, count, None, is_last=True))

    assert sorted(row["id"] for row in await content(store, COPIED)) == [4, 5, 6, 7]
    state = await store.lane_state(LANE, COPIED)
    assert (state.streams[0].counts.read, state.streams[0].is_done) == (4, True)


@pytest.mark.needs("selects_inside")
@pytest.mark.only("duckdb", "postgres")
@pytest.mark.clause("IDataStore", 14)
@pytest.mark.invariant("D3")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("DROP TABLE copied", "destination.missing"),
        ("ALTER TABLE copied ALTER id TYPE integer", "destination.changed"),
        ("ALTER TABLE copied DROP COLUMN note", "destination.changed"),
    ],
)
async def test_selection_into_a_table_that_was_changed_under_it_writes_nothing(
    change: str, code: str, store: IDataStore, backend: Backend, request: pytest.FixtureRequest
) -> None:
    await store.write(TableName("s"), [rows(1, 2, 3)])
    assert await store.may_run_inside(SOURCE)
    plan = await store.plan(SOURCE, lo=None, limit=None)
    planned, target = await opened(store, plan)
    selection = StreamSelection(SOURCE, plan, plan.streams[0], None, passage_of(target))
    somebody = request.getfixturevalue("other") if backend.name == "postgres" else cursor_of(store)
    somebody.execute(change)

    async with store.writer(LANE, target, planned.id, "0", 1, await token_of(store, LANE, COPIED)) as writer:
        with pytest.raises(SchemaMismatchError) as refused:
            await writer.commit_selection(selection, lambda count: moved(1, count, None, is_last=True))

    assert refused.value.code == code
    state = await store.lane_state(LANE, COPIED)
    assert (state.streams[0].seq, state.streams[0].is_done) == (0, False)


@pytest.mark.needs("selects_inside")
@pytest.mark.only("duckdb", "postgres")
@pytest.mark.clause("IDataStore", 25)
@pytest.mark.line("10a")
async def test_what_may_call_a_users_code_does_not_run_inside(
    store: IDataStore, backend: Backend, request: pytest.FixtureRequest
) -> None:
    await store.write(TableName("s"), [rows(1)])
    if backend.name == "postgres":
        other = request.getfixturevalue("other")
        other.execute("CREATE FUNCTION shout(text) RETURNS text LANGUAGE sql AS 'select upper($1)'")
        other.execute("CREATE VIEW v AS SELECT shout(note) AS note FROM s")
    else:
        session = cursor_of(store)
        session.execute("CREATE MACRO shout(x) AS upper(x)")
        session.execute("CREATE VIEW v AS SELECT shout(note) AS note FROM s")

    # Whoever may create a function or macro could have it called by the one who writes.
    assert not await store.may_run_inside(SourceSpec(query="select id, upper(note) as note from s where id > 1"))
    assert await store.may_run_inside(SourceSpec(query="select id, note from s where note is not null"))
    for query in ("select shout(note) as note from s", "select * from v", "select s.id, main.shout(note) from s"):
        if "shout(" in query:
            with pytest.raises(QueryRefusedError, match=r"shout|trusted_schemas"):
                await store.may_run_inside(SourceSpec(query=query))
            continue
        assert not await store.may_run_inside(SourceSpec(query=query)), query
    assert not await store.may_run_inside(SourceSpec(table=TableName("v")))


@pytest.mark.clause("IDataStore", 26)
@pytest.mark.line("29")
@pytest.mark.parametrize("encoded", [False, True], ids=["decoded", "encoded"])
async def test_row_larger_than_a_batch_is_refused_by_name(encoded: bool, store: IDataStore, backend: Backend) -> None:
    large = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "note": ["a", "x" * 300_000, "b"]})
    await store.write(TableName("s"), [large])
    plan = await store.plan(SOURCE, lo=None, limit=None)
    _, target = await opened(store, plan)
    if encoded and await store.wire(SOURCE) is None:
        return
    async with store.reader(SOURCE, plan, plan.streams[0], batch_rows=100, batch_bytes=100_000) as reader:
        batches = reader.encoded(None, passage_of(target)) if encoded else reader.batches(None)
        with pytest.raises(WorkFailedError) as refused:
            [batch async for batch in batches]
    assert refused.value.code == "source.row_too_large"

    async with store.reader(SOURCE, plan, plan.streams[0], batch_rows=100, batch_bytes=1_000_000) as reader:
        batches = reader.encoded(None, passage_of(target)) if encoded else reader.batches(None)
        assert len([batch async for batch in batches]) == 1


@pytest.mark.only("postgres")
async def test_ranges_shrink_until_they_fit(store: IDataStore, backend: Backend) -> None:
    wide = pa.table({"id": pa.array(range(40), pa.int64()), "note": ["x" * 10_000] * 40})
    await store.write(TableName("s"), [wide])
    plan = await store.plan(SOURCE, lo=None, limit=None)
    _, target = await opened(store, plan)

    async with store.reader(SOURCE, plan, plan.streams[0], batch_rows=40, batch_bytes=100_000) as reader:
        parts = [part async for part in reader.encoded(None, passage_of(target))]

    assert sum(part.num_rows for part in parts) == 40
    assert max(part.nbytes for part in parts) <= 100_000
    assert [part.after for part in parts][1:] == [part.position for part in parts][:-1]


@pytest.mark.only("postgres")
@pytest.mark.clause("IDataStore", 25)
@pytest.mark.parametrize("seen", [("note",), ("id",)], ids=["the wide column", "another"])
async def test_ranges_shrink_until_what_rules_look_at_fits_too(seen: tuple[str, ...], store: IDataStore) -> None:
    """Both sessions have given up what was too large for them, and both go on in the one snapshot."""
    notes = [f"{number} " + "x" * 1_000_000 for number in range(60)]
    await store.write(TableName("s"), [pa.table({"id": pa.array(range(60), pa.int64()), "note": notes})])
    plan = await store.plan(SOURCE, lo=None, limit=None)
    _, target = await opened(store, plan)

    async with store.reader(SOURCE, plan, plan.streams[0], batch_rows=60, batch_bytes=4_000_000) as reader:
        parts = [part async for part in reader.encoded(None, replace(passage_of(target), seen=seen))]
        decoded = [pa.table(await reader.decoded(part)) for part in parts]

    assert [note for part in decoded for note in part.column("note").to_pylist()] == notes
    assert [pa.table(part.seen).to_pydict() for part in parts] == [part.select(seen).to_pydict() for part in decoded]
    assert [part.num_rows for part in parts] == [part.num_rows for part in decoded]
    assert max(part.nbytes for part in parts) <= 4_000_000


@pytest.mark.only("postgres")
@pytest.mark.clause("IDataStore", 14)
async def test_destination_that_changes_type_takes_no_undecoded_row(
    store: IDataStore, backend: Backend, request: pytest.FixtureRequest
) -> None:
    other = request.getfixturevalue("other")
    await store.write(TableName("s"), [rows(1, 2, 3)])
    plan = await store.plan(SOURCE, lo=None, limit=None)
    planned, target = await opened(store, plan)
    async with store.reader(SOURCE, plan, plan.streams[0], batch_rows=10) as reader:
        [part] = [part async for part in reader.encoded(None, passage_of(target))]
    other.execute(
        "ALTER TABLE copied ALTER id TYPE double precision"
    )  # As wide as a bigint: COPY would take the bytes.

    async with store.writer(LANE, target, planned.id, "0", 1, await token_of(store, LANE, COPIED)) as writer:
        with pytest.raises(SchemaMismatchError) as refused:
            await writer.commit_encoded(part, moved(1, 3, part.position, is_last=True))

    assert refused.value.code == "destination.changed"
    assert await content(store, COPIED) == []


@pytest.mark.only("postgres")
@pytest.mark.clause("IDataStore", 17)
async def test_undecoded_streams_cover_every_row_once(store: IDataStore, backend: Backend) -> None:
    await store.write(TableName("s"), [rows(*range(1, 101))])
    source = SourceSpec(table=TableName("s"), key=("id",), partitions=Partitions("id", 3))
    plan = await store.plan(source, lo=None, limit=None)
    _, target = await opened(store, plan)

    counts = []
    for stream in plan.streams:
        async with store.reader(source, plan, stream, batch_rows=10) as reader:
            counts.append(sum([part.num_rows async for part in reader.encoded(None, passage_of(target))]))

    assert (len(counts), sum(counts)) == (3, 100)


WIRE = Wire("w", {"id": "bigint", "note": "text"}, is_seekable=True)
TEXT: dict[str, object] = {"keeps_values": False, "only_converts": True, "reading": TEXT_WIRE, "landing": TEXT_WIRE}
PASSING = Facts(keeps_values=True, width=4, reading=WIRE, landing=WIRE)


@pytest.mark.parametrize(
    ("changes", "way", "because"),
    [
        ({}, Way.PASS_THROUGH, "one wire format"),
        ({"seen": ("id",)}, Way.PASS_THROUGH, "only the columns that rules look at"),
        ({"is_one_store": True, "may_run_inside": True}, Way.IN_DATABASE, "one database"),
        ({"is_one_store": True, "may_run_inside": True, "is_split": True}, Way.PASS_THROUGH, "one wire format"),
        ({"is_one_store": True, "may_run_inside": True, "seen": ("id",)}, Way.PASS_THROUGH, "decoded, beside"),
        ({"is_one_store": True, "may_run_inside": False}, Way.PASS_THROUGH, "one wire format"),
        ({"seen": ("id", "note", "x")}, Way.ARROW, "most columns"),
        ({"keeps_values": False}, Way.ARROW, "a transform or conversion"),
        ({"merges": True}, Way.ARROW, "merge"),
        ({"is_limited": True}, Way.ARROW, "limited"),
        ({"ordered": False}, Way.ARROW, "no key"),
        ({"landing": None}, Way.ARROW, "no wire format"),
        ({"landing": Wire("other", WIRE.types)}, Way.ARROW, "no wire format"),
        ({"reading": Wire("w", WIRE.types)}, Way.ARROW, "no index"),
        ({"landing": Wire("w", {"id": "bigint", "note": "character varying(3)"})}, Way.ARROW, "note has another type"),
        ({"landing": Wire("w", {"id": "double precision", "note": "text"})}, Way.ARROW, "id has another type"),
        ({"reading": Wire("w", {"id": None, "note": "text"}, is_seekable=True)}, Way.ARROW, "id has another type"),
        (TEXT, Way.TEXT, "converts the text"),
        ({**TEXT, "landing": Wire("text", {"id": "UUID"})}, Way.ARROW, "a transform or conversion"),
        ({**TEXT, "landing": WIRE}, Way.ARROW, "a transform or conversion"),
        ({**TEXT, "landing": None}, Way.ARROW, "a transform or conversion"),
        ({**TEXT, "only_converts": False}, Way.ARROW, "a transform or conversion"),
        ({**TEXT, "seen": ("id",)}, Way.ARROW, "a transform or conversion"),
        ({**TEXT, "merges": True}, Way.ARROW, "merge"),
        ({**TEXT, "is_limited": True}, Way.ARROW, "limited"),
    ],
)  # fmt: skip
def test_way_is_the_fastest_that_keeps_every_promise(changes: dict[str, object], way: Way, because: str) -> None:
    from dataclasses import replace

    route = choose_way(replace(PASSING, **changes))  # type: ignore[arg-type]

    assert route.way is way
    assert because in route.reason
