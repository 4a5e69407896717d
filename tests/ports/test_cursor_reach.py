"""Values of a cursor that no read ever gets to are refused before the read, on every store and for every type."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from domain.errors import InvalidInputError, SchemaMismatchError
from domain.loads.horizon import ReadEnd
from domain.pipelines.spec import CursorSpec, SourceSpec
from domain.ports.data_store import IDataStore
from domain.stores.table import TableName
from infrastructure.stores.cursor_axis import ENDLESS, Axis, micros
from infrastructure.stores.memory.store import InMemoryDataStore
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.ports.backends import Backend, cursor_of
from tests.ports.cursor_reading import Reading
from tests.ports.loading import held_by
from tests.somebody import Somebody

NATIVES = {"timestamptz": "timestamptz", "timestamp": "timestamp", "date": "date"}
ARROW = {"timestamptz": pa.timestamp("us", "UTC"), "timestamp": pa.timestamp("us"), "date": pa.date32()}


def _number(kind: str, text: str) -> int:
    """A time as Arrow keeps it, in the test double, which takes no text."""
    bits = 31 if kind == "date" else 63
    if text.endswith("infinity"):
        return -(2**bits) + 1 if text.startswith("-") else 2**bits - 1
    if text == "30000-06-01":
        return 10_237_996 if kind == "date" else 10_237_996 * 86_400_000_000
    moment = micros(datetime.fromisoformat(text))
    return moment // 86_400_000_000 if kind == "date" else moment


def put(store: IDataStore, backend: Backend, request: pytest.FixtureRequest, kind: str, *values: str) -> None:
    """Make a table whose cursor holds such values."""
    if isinstance(store, InMemoryDataStore):
        raw = pa.array([_number(kind, value) for value in values], pa.int32() if kind == "date" else pa.int64())
        rows = pa.table({"id": list(range(len(values))), "at": raw.view(ARROW[kind])})
        store._content.tables["s"] = (*store._content.tables["s"][:1], rows)
        return
    rows_text = ", ".join(f"({n}, '{value}')" for n, value in enumerate(values))
    script = f"TRUNCATE s; INSERT INTO s VALUES {rows_text}"
    if backend.needs_postgres:
        request.getfixturevalue("somebody").does(script)
        return
    cursor_of(store).execute(script)


@pytest.mark.only("memory", "duckdb", "postgres")
@pytest.mark.clause("IDataStore", 13)
@pytest.mark.parametrize("kind", list(NATIVES))
async def test_a_row_that_no_read_ever_gets_to_is_refused_by_name(
    kind: str, store: IDataStore, backend: Backend, request: pytest.FixtureRequest
) -> None:
    """Also while another row is the greatest or the least: infinity stands beside what comes with every run."""
    empty = pa.table({"id": pa.array([], pa.int64()), "at": pa.array([], ARROW[kind])})
    await store.write(TableName("s"), [empty])
    source = SourceSpec(table=TableName("s"), cursor=CursorSpec("at"), key=("id",))
    last = "9999-12-31" if kind == "date" else "9999-12-31 23:59:59.999999"

    for value, code, advice in [
        ("infinity", "cursor.at_maximum", "nullif(at, 'infinity')"),
        ("30000-06-01", "cursor.at_maximum", "WHERE at < '9999-12-31'"),
        (last, "cursor.at_maximum", "WHERE at < '9999-12-31'"),
        ("-infinity", "cursor.at_minimum", "nullif(at, '-infinity')"),
    ]:
        put(store, backend, request, kind, "2020-01-01", value)
        for lo, waits in [(None, True), ("2020-01-02", False)]:
            with pytest.raises(InvalidInputError, match="at") as refused:
                await store.plan(source, lo=lo, limit=None, waits=waits)
            assert refused.value.code == code, value
            assert advice in refused.value.message

    put(store, backend, request, kind, "2020-01-01", "2021-01-01")
    assert await Reading(store, "s", CursorSpec("at")).goes_on() == [0, 1]


@pytest.mark.clause("IDataStore", 13)
async def test_a_cursor_that_can_be_no_number_is_refused(store: IDataStore) -> None:
    """So NaN never stands in one, nor another value without an order."""
    kinds = {"real": pa.float32(), "double": pa.float64(), "exact": pa.decimal128(12, 2), "text": pa.string()}
    data = await held_by(store, pa.table({name: pa.array([], kind) for name, kind in kinds.items()}))
    await store.write(TableName("s"), [data])

    for name in data.column_names:
        with pytest.raises(InvalidInputError) as refused:
            await store.plan(SourceSpec(table=TableName("s"), cursor=CursorSpec(name)), lo=None, limit=None)
        assert refused.value.code == "cursor.type"


@pytest.mark.parametrize("kind", list(NATIVES))
@pytest.mark.parametrize("value", ["infinity", "-infinity"])
async def test_infinity_outside_of_a_cursor_is_told_with_its_sign(
    kind: str, value: str, postgres: PostgresDataStore, somebody: Somebody
) -> None:
    somebody.does(f"CREATE TABLE s (id int, at {kind}); INSERT INTO s VALUES (1, '{value}'), (2, '2020-01-01')")
    source = SourceSpec(table=TableName("s"))
    plan = await postgres.plan(source, lo=None, limit=None)

    with pytest.raises(SchemaMismatchError) as refused:
        async with postgres.reader(source, plan, plan.streams[0], batch_rows=10) as reader:
            _ = [batch async for batch in reader.batches(None)]

    assert f"nullif(at, '{value}')" in refused.value.message


@pytest.mark.only("memory", "duckdb", "postgres")
@pytest.mark.clause("IDataStore", 30)
async def test_a_date_is_complete_as_of_the_day_that_was_read(
    store: IDataStore, backend: Backend, request: pytest.FixtureRequest
) -> None:
    """What was put today is read once today is over, so nothing is complete as of a moment of today."""
    await store.write(TableName("s"), [pa.table({"id": pa.array([], pa.int64()), "at": pa.array([], pa.date32())})])
    today = datetime.now(UTC).date()
    days = [(today - timedelta(days=n)).isoformat() for n in (40, 0)]
    for zone in (None, "Pacific/Kiritimati", "Etc/GMT+12"):
        put(store, backend, request, "date", *days[:1])
        reading = Reading(store, "s", CursorSpec("at", timezone=zone))
        assert await reading.goes_on() == [0]
        assert reading.end.sentences == ()
        assert _complete(reading.end) > datetime.now(UTC) - timedelta(minutes=1)  # All that there is was read.

        put(store, backend, request, "date", *days, (today + timedelta(days=3)).isoformat())
        reading = Reading(store, "s", CursorSpec("at", timezone=zone))
        assert 2 not in await reading.goes_on()
        first_unread = datetime.fromisoformat(str(reading.watermark))
        begins = (
            first_unread.replace(tzinfo=ZoneInfo(zone))
            if zone
            else first_unread.replace(tzinfo=UTC) - timedelta(hours=14)
        )
        assert _complete(reading.end) == begins.astimezone(UTC)
        (told,) = reading.end.held_back
        assert str(reading.watermark) in told


@pytest.mark.only("memory", "duckdb", "postgres")
@pytest.mark.clause("IDataStore", 30)
async def test_rows_ahead_of_the_clock_are_told(
    store: IDataStore, backend: Backend, request: pytest.FixtureRequest
) -> None:
    empty = pa.table({"id": pa.array([], pa.int64()), "at": pa.array([], ARROW["timestamptz"])})
    await store.write(TableName("s"), [empty])
    put(store, backend, request, "timestamptz", "2020-01-01", "2999-12-31")
    reading = Reading(store, "s", CursorSpec("at"))

    assert await reading.goes_on() == [0]

    (told,) = reading.end.held_back
    assert "2999-12-31" in told
    assert "ahead of the source's clock" in told


def test_a_wall_is_complete_as_of_the_first_time_that_it_showed_what_is_not_read() -> None:
    axis = Axis.of(CursorSpec("at", timezone="Europe/Zurich"), "timestamp")
    twice, missing = micros(datetime(2026, 10, 25, 2, 30, tzinfo=UTC)), micros(datetime(2026, 3, 29, 2, 30, tzinfo=UTC))

    assert axis.begins(twice) == micros(datetime(2026, 10, 25, 0, 30, tzinfo=UTC))
    assert axis.begins(missing) <= micros(datetime(2026, 3, 29, 1, 0, tzinfo=UTC))
    assert axis.reachable(None, None) is None
    with pytest.raises(InvalidInputError):
        axis.reachable(-ENDLESS, 0)


def _complete(end: ReadEnd) -> datetime:
    return datetime.fromisoformat(str(end.complete_as_of))
