"""What has ever been deleted from a table is noted beside it, and what a whole read lacks is no longer to be replayed."""

import pytest

from domain.pipelines.spec import DeleteMissing, Mode
from domain.ports.data_store import IDataStore
from tests.ports.loading import LANE, TABLE, token_of
from tests.ports.test_quarantine import replayed
from tests.ports.test_read_again import Load, found, judged

HARD = {"is_whole": True, "shadow": True, "delete_missing": DeleteMissing.HARD, "source_key": ()}


@pytest.mark.needs("merges")
@pytest.mark.clause("IDataStore", 28)
@pytest.mark.parametrize("deletes", [True, False], ids=["deletes", "does not"])
async def test_a_revision_that_deletes_in_the_middle_of_a_load_is_noted(store: IDataStore, deletes: bool) -> None:
    await (await Load(store, "r1", source_key=()).commits(judged([1], []))).is_published()
    going_on = await Load(store, "r2", source_key=()).commits(judged([], [2]))
    revised = Load(store, "r2", source_key=(), deletes=deletes).target
    async with store.owner(LANE, TABLE, going_on.fence, token=await token_of(store, LANE)) as owner:
        await owner.fit(revised)
    await going_on.is_published()

    await replayed(store, 1, mode=Mode.MERGE, key=("id",))

    assert [state for _, state, _ in await found(store)] == ["open" if deletes else "repaired"]


@pytest.mark.needs("merges")
@pytest.mark.clause("IDataStore", 27)
@pytest.mark.parametrize("refused", [[], [3]], ids=["whole", "with a refused row"])
@pytest.mark.parametrize("name", ["r1", "r1-p"], ids=["", "of chosen parameters"])
async def test_what_a_whole_read_lacks_and_deletes_supersedes_every_refusal(
    store: IDataStore, name: str, refused: list[int]
) -> None:
    """Had the rows landed, they would have been deleted. A read with refused rows deletes nothing."""
    await (await Load(store, name, source_key=()).commits(judged([1], [2]))).is_published()

    await (await Load(store, "r2", **HARD).commits(judged(refused, [2]))).is_published()

    is_superseded = not refused or name == "r1"
    assert (await found(store))[0][1] == ("superseded" if is_superseded else "open")


@pytest.mark.needs("merges")
@pytest.mark.clause("IDataStore", 28)
async def test_what_the_own_whole_reads_have_deleted_keeps_no_later_row_from_landing(store: IDataStore) -> None:
    await (await Load(store, "r1", **HARD).commits(judged([], [2]))).is_published()
    await (await Load(store, "r2", **HARD).commits(judged([1], [2]))).is_published()

    await replayed(store, 1, mode=Mode.MERGE, key=("id",))

    assert [state for _, state, _ in await found(store)] == ["repaired"]
