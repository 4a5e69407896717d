"""A read set that landed nothing leaves no table: its own goes, empty and unshared; whatever else is there stays."""

import pytest

from domain.loads.read_set import ReadSet
from domain.pipelines.spec import Mode
from domain.ports.data_store import IDataStore
from domain.runs.lane import Lane
from tests.ports.loading import LANE, TABLE, batch, commit, content, ids, opened, read_set, rows, target, token_of


async def sealed(store: IDataStore, *, lane: Lane = LANE, fence: int = 1) -> None:
    async with store.owner(lane, TABLE, fence, token=await token_of(store, lane)) as owner:
        await owner.seal()


async def is_there(store: IDataStore, planned: ReadSet) -> tuple[bool, bool]:
    """Whether the table is there, and whether the stage is."""
    stage = TABLE.beside(planned.shadow) if planned.shadow else None
    return await store.describe(TABLE) is not None, stage is not None and await store.describe(stage) is not None


@pytest.mark.clause("IDataStore", 9)
@pytest.mark.parametrize(("shadow", "mode"), [(False, Mode.APPEND), (True, Mode.APPEND), (True, Mode.REPLACE)])
async def test_table_and_stage_of_a_load_without_a_batch_go(store: IDataStore, shadow: bool, mode: Mode) -> None:
    planned = read_set(shadow=shadow)
    await opened(store, 1, planned, mode=mode)

    await sealed(store)

    assert await is_there(store, planned) == (False, False)
    await opened(store, 2, planned, mode=mode)  # Who claims it again begins where nothing is.
    await commit(store, 2, planned, 1, batch(rows(1)), mode=mode)


@pytest.mark.clause("IDataStore", 9)
async def test_table_in_which_rows_have_landed_stays(store: IDataStore) -> None:
    planned = read_set()
    await opened(store, 1, planned)
    await commit(store, 1, planned, 1, batch(rows(1)))

    await sealed(store)

    assert await ids(store) == [1]


@pytest.mark.clause("IDataStore", 9)
async def test_staged_rows_stay_for_whoever_goes_on(store: IDataStore) -> None:
    planned = read_set(shadow=True)
    await opened(store, 1, planned)
    await commit(store, 1, planned, 1, batch(rows(1)))

    await sealed(store)

    assert await is_there(store, planned) == (False, True)
    async with store.owner(LANE, TABLE, 2) as owner:
        await owner.take_over()
        await owner.fit(target(planned))
    assert await is_there(store, planned) == (False, True)


@pytest.mark.clause("IDataStore", 9)
@pytest.mark.parametrize("held", [0, 2])
async def test_table_that_was_there_before_stays(store: IDataStore, held: int) -> None:
    await store.write(TABLE, [rows(*range(held))])
    planned = read_set()
    await opened(store, 1, planned)

    await sealed(store)

    assert (await store.describe(TABLE) is not None, len(await content(store))) == (True, held)


@pytest.mark.clause("IDataStore", 9)
async def test_table_that_somebody_else_writes_or_has_filled_stays(store: IDataStore) -> None:
    planned, other = read_set(), Lane("default", "another")
    await opened(store, 1, planned)
    await opened(store, 1, read_set(name="r2"), lane=other)

    await sealed(store)
    assert await store.describe(TABLE) is not None  # Another pipeline has registered for it.

    async with store.owner(other, TABLE, 1, token=await token_of(store, other)) as owner:
        await owner.release()
    await store.write(TABLE, [rows(7)])
    await sealed(store)
    assert [row["id"] for row in await content(store)] == [7]


@pytest.mark.clause("IDataStore", 9)
async def test_table_that_an_earlier_attempt_made_goes_too(store: IDataStore) -> None:
    await opened(store, 1, read_set())
    await opened(store, 2, read_set(name="r2"))

    await sealed(store, fence=2)

    assert await store.describe(TABLE) is None
