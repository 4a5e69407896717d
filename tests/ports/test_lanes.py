"""Who owns a lane: fences strictly above, tokens that tell attempts under one fence apart, tables of
earlier versions.
"""

from collections.abc import Awaitable, Callable

import pytest

from domain.errors import FencedError
from domain.loads.checkpoint import CheckpointUpdate
from domain.pipelines.spec import SourceSpec
from domain.ports.data_store import IDataStore, IOwner, StreamSelection, passage_of
from domain.quality.measures import Measures
from domain.quality.rules import StagedChecks
from domain.runs.lane import Lane
from domain.stores.table import TableName
from infrastructure.stores.sql.session import Session
from infrastructure.stores.sql.writer import SqlWriter
from tests.ports.loading import ACCEPTED, LANE, TABLE, batch, commit, ids, opened, read_set, rows, target

PLANNED = read_set()
ACTS: dict[str, Callable[[IOwner], Awaitable[object]]] = {
    "open": lambda owner: owner.open_read_set(PLANNED, target(PLANNED)),
    "fit": lambda owner: owner.fit(target(PLANNED)),
    "publish": lambda owner: owner.publish(PLANNED, target(PLANNED), StagedChecks(), lambda _: ACCEPTED),
    "seal": lambda owner: owner.seal(),
    "reset": lambda owner: owner.reset("7"),
    "release": lambda owner: owner.release(),
    "discard": lambda owner: owner.discard(),
}
# The tables of the first version, and a lane that it left after the batch with the rows 1 and 2.
EARLIER = """
CREATE TABLE "_headrace_checkpoint" ("org" TEXT NOT NULL, "pipeline" TEXT NOT NULL, "lane" TEXT NOT NULL, "stream" TEXT NOT NULL,
 "read_set" TEXT, "fence" BIGINT NOT NULL, "seq" BIGINT NOT NULL, "position" TEXT, "state" TEXT NOT NULL, "read" BIGINT NOT NULL,
 "used" BIGINT NOT NULL, "filtered" BIGINT NOT NULL, "produced" BIGINT NOT NULL, "deduplicated" BIGINT NOT NULL,
 "quarantined" BIGINT NOT NULL, "failed" BIGINT NOT NULL, "stats" TEXT NOT NULL);
INSERT INTO "_headrace_checkpoint" VALUES
 ('default', 'orders', 'main', 'head', 'r1', 4, 1, NULL, 'loading', 0, 0, 0, 0, 0, 0, 0, '{"fingerprint": "fingerprint"}'),
 ('default', 'orders', 'main', '0', 'r1', 4, 1, '["2"]', 'loading', 2, 2, 0, 2, 0, 0, 0, '{}')
"""


@pytest.mark.clause("IDataStore", 6)
@pytest.mark.invariant("L1")
async def test_fence_that_another_claim_has_put_there_is_not_enough(store: IDataStore) -> None:
    async with store.owner(LANE, TABLE, 1) as owner:
        first = await owner.take_over()
        again = await owner.take_over()
    assert len({None, first.token, again.token}) == 3

    for token in (None, "", first.token, "another"):
        async with store.owner(LANE, TABLE, 1, token=token) as other:
            with pytest.raises(FencedError) as caught:
                await other.take_over()
        assert caught.value.fence == 1

    async with store.owner(LANE, TABLE, 1, token=again.token) as owner:
        mine = await owner.take_over()
    assert (mine.fence, (await store.lane_state(LANE, TABLE)).token) == (1, mine.token)
    async with store.owner(LANE, TABLE, 2) as other:
        assert (await other.take_over()).fence == 2


@pytest.mark.clause("IDataStore", 29)
@pytest.mark.invariant("L1", "R3")
async def test_of_two_attempts_under_one_fence_the_earlier_one_writes_nothing(store: IDataStore) -> None:
    earlier = (await opened(store, 1, PLANNED)).token or ""
    async with store.owner(LANE, TABLE, 1, token=earlier) as owner:
        later = (await owner.take_over()).token or ""
    data = batch(rows(1))
    update = CheckpointUpdate(1, ("1",), data.counts, Measures(), is_last=True)

    async with (
        store.writer(LANE, target(PLANNED), PLANNED.id, "0", 1, earlier) as left,
        store.writer(LANE, target(PLANNED), PLANNED.id, "0", 1, later) as right,
    ):
        with pytest.raises(FencedError):
            await left.commit(data, update)
        await right.commit(data, update)
        # The same batch of another attempt is not its own, whose answer was lost.
        decoded = [getattr(writer, "_decoded", writer) for writer in (left, right)]
        if isinstance(decoded[0], SqlWriter) and isinstance(decoded[1], SqlWriter):
            assert [await writer.beside(writer.is_committed, update) for writer in decoded] == [False, True]

    assert await ids(store) == [1]


@pytest.mark.needs("selects_inside")
@pytest.mark.clause("IDataStore", 29)
async def test_selection_of_an_earlier_attempt_writes_nothing(store: IDataStore) -> None:
    await store.write(TableName("s"), [rows(1, 2)])
    source = SourceSpec(table=TableName("s"), key=("id",))
    assert await store.may_run_inside(source)
    earlier = (await opened(store, 1, PLANNED)).token or ""
    async with store.owner(LANE, TABLE, 1, token=earlier) as owner:
        await owner.take_over()
    plan = await store.plan(source, lo=None, limit=None)
    selection = StreamSelection(source, plan, plan.streams[0], None, passage_of(target(PLANNED)))

    async with store.writer(LANE, target(PLANNED), PLANNED.id, "0", 1, earlier) as writer:
        with pytest.raises(FencedError):
            await writer.commit_selection(
                selection, lambda _: CheckpointUpdate(1, None, batch(rows()).counts, Measures(), True)
            )

    assert await ids(store) == []


@pytest.mark.clause("IDataStore", 29)
async def test_owner_of_an_earlier_attempt_does_nothing(store: IDataStore) -> None:
    await opened(store, 1, PLANNED)
    await commit(store, 1, PLANNED, 1, batch(rows(1)), is_last=True)
    token = (await store.lane_state(LANE, TABLE)).token
    async with store.owner(LANE, TABLE, 1, token=token) as newer:
        before = await newer.take_over()

    for name, act in ACTS.items():
        async with store.owner(LANE, TABLE, 1, token=token) as owner:
            with pytest.raises(FencedError) as caught:
                await act(owner)
        assert caught.value.fence == 1, name

    assert await store.lane_state(LANE, TABLE) == before
    assert await ids(store) == [1]


@pytest.mark.only("duckdb", "postgres")
@pytest.mark.clause("IDataStore", 6)
async def test_lane_of_an_earlier_version_is_read_and_taken_over(store: IDataStore) -> None:
    await store.write(TABLE, [rows(1, 2)])
    await run_script(store, EARLIER)

    before = await store.lane_state(LANE, TABLE)
    async with store.owner(LANE, TABLE, 5) as owner:
        state = await owner.take_over()
    async with store.owner(Lane("default", "other"), TABLE, 1) as owner:
        await owner.take_over()  # The table is up to date by now.

    assert (before.fence, before.token, state.fence) == (4, None, 5)
    assert [(s.seq, s.position, s.counts.read) for s in state.streams] == [(1, ("2",), 2)]
    await commit(store, 5, PLANNED, 2, batch(rows(3)), is_last=True)
    assert await ids(store) == [1, 2, 3]


async def run_script(store: IDataStore, script: str) -> None:
    """Run statements as whoever made the tables of an earlier version did."""

    def run(session: Session) -> None:
        with session.transaction():
            for statement in script.split(";"):
                session.execute(statement)

    opening = store._session  # type: ignore[attr-defined]
    async with opening("test") if "Postgres" in type(store).__name__ else opening() as (session, thread):
        await thread.call(run, session)
