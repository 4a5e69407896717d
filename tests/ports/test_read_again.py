"""A refused row that a later run reads again is superseded when that run is published, whatever becomes of the row
there.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from domain.loads.checkpoint import CheckpointUpdate
from domain.loads.quarantine import Refusals, RefusedRow, RefusedState
from domain.loads.read_set import ReadSet
from domain.pipelines.spec import Mode
from domain.ports.data_store import IDataStore, JudgedBatch, Target
from domain.quality.measures import Counts, Measures
from domain.quality.rules import StagedChecks
from domain.runs.lane import Lane
from infrastructure.stores.replayed import ReadAgain
from infrastructure.tabular.json_rows import encoded
from infrastructure.transforms.refused import REFUSED
from tests.ports.loading import ACCEPTED, LANE, TABLE, read_set, refusal, target, token_of

MINE = Refusals("default", "orders", TABLE)


def judged(refused: list[int], accepted: list[int]) -> JudgedBatch:
    """A batch as a runner hands it on: beside what may land, the rows as they were read."""

    def rows(ids: list[int]) -> pa.Table:
        return pa.table({"id": pa.array(ids, pa.int64()), "note": pa.array(["x"] * len(ids), pa.string())})

    records = [refusal(n, json.dumps({"id": number, "note": "x"})) for n, number in enumerate(refused)]
    counts = Counts(len(refused) + len(accepted), len(accepted), 0, len(accepted), 0, len(refused))
    table = pa.Table.from_pylist(records, REFUSED)
    return JudgedBatch(rows(accepted), table, counts, Measures(), source=rows([*refused, *accepted]))


class Load:
    """One run that merges what it reads."""

    def __init__(
        self,
        store: IDataStore,
        name: str,
        lane: Lane = LANE,
        *,
        shadow: bool = False,
        is_whole: bool = False,
        **changes: Any,
    ) -> None:
        planned = read_set(name=name, shadow=shadow)
        self.read_set: ReadSet = replace(planned, plan=replace(planned.plan, lo=None if is_whole else "0"))
        merging = {
            "key": ("id",),
            "source_key": ("id",),
            "run_id": f"01890000-0000-7000-8000-0000000000{name[1:2]:0>2}",
        }
        self.target: Target = replace(target(self.read_set, mode=Mode.MERGE), **(merging | changes))
        self._store, self._lane = store, lane

    async def commits(self, *batches: JudgedBatch) -> "Load":
        state = await self._store.lane_state(self._lane, TABLE)
        self.fence = state.fence + 1
        async with self._store.owner(self._lane, TABLE, self.fence, token=state.token) as owner:
            await owner.take_over()
            await owner.open_read_set(self.read_set, self.target)
            token = (await owner.take_over()).token or ""
        writing = (self._lane, self.target, self.read_set.id, "0", self.fence, token)
        async with self._store.writer(*writing) as writer:
            counts = Counts()
            for seq, batch in enumerate(batches, start=1):
                counts, is_last = counts + batch.counts, seq == len(batches)
                await writer.commit(batch, CheckpointUpdate(seq, (str(seq),), counts, Measures(), is_last))
        return self

    async def is_published(self) -> None:
        token = await token_of(self._store, self._lane)
        async with self._store.owner(self._lane, TABLE, self.fence, token=token) as owner:
            await owner.publish(self.read_set, self.target, StagedChecks(), lambda _: ACCEPTED)

    async def is_abandoned(self) -> None:
        async with self._store.owner(self._lane, TABLE, self.fence + 1) as owner:
            await owner.take_over()
            await owner.reset("0")


async def found(store: IDataStore) -> list[tuple[int, str, str | None]]:
    rows = await store.refused_rows(MINE, after=None, limit=100)
    settled = [row.settled_by[-2:] if row.settled_by else None for row in rows]
    return [(json.loads(row.record)["id"], str(row.state), by) for row, by in zip(rows, settled, strict=True)]


@pytest.mark.needs("merges")
@pytest.mark.clause("IDataStore", 27)
@pytest.mark.parametrize("shadow", [False, True], ids=["by batch", "as a whole"])
async def test_what_was_refused_is_superseded_by_a_run_that_reads_it_again(store: IDataStore, shadow: bool) -> None:
    """Refused once more, accepted or not read at all: only the last stays open, and nothing changes before
    publication.
    """
    await (await Load(store, "r1").commits(judged([1, 2], [9]), judged([3], []))).is_published()
    before = [(1, "open", None), (2, "open", None), (3, "open", None)]
    assert await found(store) == before

    again = await Load(store, "r2", shadow=shadow).commits(judged([2], []), judged([], [1, 8]))
    assert await found(store) == [*before, (2, "waiting", None)]
    await again.is_published()
    assert await found(store) == [
        (1, "superseded", "02"),
        (2, "superseded", "02"),
        (3, "open", None),
        (2, "open", None),
    ]

    await (await Load(store, "r3", shadow=shadow).commits(judged([], [2, 3]))).is_published()
    states = [(row, state) for row, state, _ in await found(store)]
    assert states == [(1, "superseded"), (2, "superseded"), (3, "superseded"), (2, "superseded")]


@pytest.mark.needs("merges")
@pytest.mark.clause("IDataStore", 27)
async def test_what_a_run_that_is_given_up_has_read_again_stays_open(store: IDataStore) -> None:
    await (await Load(store, "r1").commits(judged([1], []))).is_published()
    given_up = await Load(store, "r2").commits(judged([1], []))
    await given_up.is_abandoned()
    await (await Load(store, "r3").commits(judged([], [5]))).is_published()

    assert await found(store) == [(1, "open", None), (1, "abandoned", None)]


@pytest.mark.needs("merges")
@pytest.mark.clause("IDataStore", 27)
async def test_only_refusals_of_the_same_lane_and_key_are_superseded(store: IDataStore) -> None:
    """Another lane reads other rows; without a key, and where every version lands, nothing tells that a row is the
    same.
    """
    other = Lane("default", "orders", "p_other")
    await (await Load(store, "r1", other).commits(judged([1], []))).is_published()
    await (await Load(store, "r2").commits(judged([2], []))).is_published()

    await (await Load(store, "r3").commits(judged([1], []))).is_published()
    await (await Load(store, "r4", source_key=()).commits(judged([], [2]))).is_published()
    await (await Load(store, "r5", source_key=("gone",)).commits(judged([], [2]))).is_published()

    assert [state for _, state, _ in await found(store)] == ["open"] * 3


@pytest.mark.needs("merges")
@pytest.mark.clause("IDataStore", 27)
@pytest.mark.parametrize("shadow", [False, True], ids=["by batch", "as a whole"])
async def test_a_whole_read_supersedes_what_others_with_the_same_parameters_refused(
    store: IDataStore, shadow: bool
) -> None:
    """What a run that chose its parameters refused is superseded where it is read again, or the table is replaced."""
    await (await Load(store, "r1", shadow=shadow, is_whole=True).commits(judged([1, 2], []))).is_published()
    await (await Load(store, "r2-p", shadow=shadow, is_whole=True).commits(judged([2, 7, 8], []))).is_published()
    assert await found(store) == [
        (1, "open", None),
        (2, "superseded", "02"),
        *((number, "open", None) for number in (2, 7, 8)),
    ]

    await (await Load(store, "r3", shadow=shadow, is_whole=True).commits(judged([], [8]))).is_published()
    assert [(row, state) for row, state, _ in await found(store)] == [
        *((1, "superseded"), (2, "superseded"), (2, "open"), (7, "open"), (8, "superseded"))
    ]

    await (await Load(store, "r4-p", shadow=True, replaces=True).commits(judged([], [9]))).is_published()
    assert {state for _, state, _ in await found(store)} == {"superseded"}


KEYS: dict[str, list[Any]] = {
    "int64": [1, 2**60, -1],
    "uint8": [1, 255, 0],
    "string": ["a", 'é"\\', ""],
    "timestamp": [datetime(2026, 1, 1, 1, 2, 3, 4), datetime(1, 1, 1), datetime(9999, 12, 31)],  # noqa: DTZ001
    "decimal": [Decimal("1.50"), Decimal("-0.01"), Decimal("99.99")],
    "double": [0.1, 1e300, -2.5],
    "bytes": [b"\x00", b"", b"ab"],
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("is_second", [False, True], ids=["first", "second"])
def test_keys_of_every_type_are_found(kind: str, is_second: bool) -> None:
    values = pa.array(KEYS[kind])
    rows = pa.table({"b": pa.array([7, 7, 7]), "a": values} if is_second else {"a": values, "b": pa.array([7, 7, 7])})
    key = rows.column_names
    refused = [_refused(n, record) for n, record in enumerate(encoded(rows.append_column("c", pa.array([1, 2, 3]))))]
    again = ReadAgain(key, refused[:2])

    assert again.places(rows.slice(1)) == [refused[1].place]
    assert again.places(rows.append_column("c", pa.nulls(3))) == [refused[0].place, refused[1].place]
    assert again.places(rows.set_column(key.index("b"), "b", pa.array([8, 8, 8]))) == []
    assert ReadAgain(key, []).places(rows) == []


def test_null_is_no_key_and_a_key_of_another_type_is_no_failure() -> None:
    refused = [_refused(0, '{"a": null}'), _refused(1, '{"a": 300}'), _refused(2, '{"a": "x"}'), _refused(3, "{}")]

    assert ReadAgain(["a"], refused).places(pa.table({"a": pa.array([None, 3], pa.int8())})) == []
    assert ReadAgain(["a"], refused[:2]).places(pa.table({"a": pa.array([None, 3], pa.int8())})) == []
    assert ReadAgain(["a"], refused).places(pa.table({"a": ["x", "300", None]})) == [refused[2].place]


def _refused(number: int, record: str) -> RefusedRow:
    place = ("r", "0", "1", str(number))
    return RefusedRow(place, "run", "rule", None, "", record, "{}", RefusedState.OPEN, None, datetime.now(UTC))
