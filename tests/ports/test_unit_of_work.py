"""One suite for IUnitOfWork on SQLite and Postgres: claims, fences, leases, isolation."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text

from domain.errors import ConflictError, UnavailableError
from domain.events import Origin, RunQueued, RunStarted
from domain.identity.principal import Principal, Role
from domain.identity.scope import PLATFORM, Scope
from domain.ports.records.workers import WorkerRecord
from domain.runs.report import RunReport
from domain.runs.run import ALLOWED_MOVES, DamagedPlan, Finish, Run, RunRequest, RunState, may_move
from domain.runs.work import WorkKind, WorkName, WorkRef
from infrastructure.metadata.lease_holders import this_process
from infrastructure.metadata.records import SqlRecords, run_migrations, sqlite_url
from infrastructure.metadata.tables import lanes
from infrastructure.runtime import RandomIdentifiers
from tests.ports.loading import read_set

LEASE = timedelta(seconds=30)
OVER = timedelta(seconds=-1)
ME = this_process()
ORDERS = WorkKind.PIPELINE.named("orders")


def noted(text: str) -> RunReport:
    return RunReport(note=text).saying("note")


@pytest.fixture(params=["sqlite", "postgres"])
async def records(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlRecords]:
    if request.param == "sqlite":
        url = sqlite_url(tmp_path / "records.db")
    else:
        url = request.getfixturevalue("postgres_database").replace("postgresql://", "postgresql+asyncpg://")
    built = SqlRecords(url)
    await built.open()
    async with built.unit(PLATFORM) as unit:
        for organization in ("one", "two"):
            await unit.identity.ensure_organization(organization)
            await unit.pipelines.put(organization, "orders", {"pipeline": "orders"}, "me")
        await unit.commit()
    yield built
    await built.close()


def new_run(lane: str = "main", organization: str = "one") -> Run:
    return Run(
        RandomIdentifiers().new_id(),
        organization,
        WorkRef(WorkKind.PIPELINE, "orders", 1),
        lane,
        RunState.QUEUED,
        RunRequest(),
        requested_by="me",
    )


async def queued(records: SqlRecords, lane: str = "main", organization: str = "one") -> Run:
    run = new_run(lane, organization)
    async with records.unit(PLATFORM) as unit:
        await unit.runs.insert(run)
        await unit.commit()
    return run


async def claimed(records: SqlRecords, run: Run, *, lease: timedelta = LEASE, owner: str = ME) -> Run | None:
    async with records.unit(PLATFORM) as unit:
        found = await unit.runs.claim(run.id, owner=owner, lease=lease)
        await unit.commit()
    return found


async def stands(records: SqlRecords, run: Run) -> Run:
    async with records.unit(PLATFORM) as unit:
        found = await unit.runs.get(run.organization, run.id)
    assert found is not None
    return found


async def finished(records: SqlRecords, run: Run, fence: int, state: RunState = RunState.SUCCEEDED) -> bool:
    async with records.unit(PLATFORM) as unit:
        done = await unit.runs.finish(run.id, fence, state, reason="r", report=None, error=None)
        await unit.commit()
    return done


@pytest.mark.clause("IUnitOfWork", 1)
async def test_nothing_is_visible_without_commit(records: SqlRecords) -> None:
    run = new_run()
    async with records.unit(PLATFORM) as unit:
        await unit.runs.insert(run)
    async with records.unit(PLATFORM) as unit:
        assert await unit.runs.get("one", run.id) is None

    await queued(records)

    async with records.unit(PLATFORM) as unit:
        assert len((await unit.runs.page("one", work=None, state=None, after=None, limit=10)).items) == 1


@pytest.mark.clause("IUnitOfWork", 2)
@pytest.mark.invariant("R3")
async def test_write_under_an_older_fence_changes_nothing(records: SqlRecords) -> None:
    run = await queued(records)
    first = await claimed(records, run, lease=OVER)
    second = await claimed(records, run)
    assert first is not None
    assert second is not None
    assert second.fence > first.fence

    async with records.unit(PLATFORM) as unit:
        assert not await unit.runs.store_read_set(run.id, first.fence, read_set(name="x"))
        assert not await unit.runs.release(run.id, first.fence, reason="r")
        assert await unit.runs.renew(run.id, first.fence, lease=LEASE) == "fenced"
        assert await unit.runs.raise_fence(run.id, first.fence, above=9) is None
        await unit.commit()
    assert not await finished(records, run, first.fence)
    assert (await stands(records, run)).state is RunState.RUNNING

    async with records.unit(PLATFORM) as unit:
        assert await unit.runs.renew(run.id, second.fence, lease=LEASE) is None
        assert await unit.runs.raise_fence(run.id, second.fence, above=9) == 10
        await unit.commit()
    assert await finished(records, run, 10)


@pytest.mark.clause("IUnitOfWork", 3)
async def test_lane_has_one_claimed_run(records: SqlRecords) -> None:
    first, second, other = await queued(records), await queued(records), await queued(records, lane="params:x")

    assert await claimed(records, first) is not None
    assert await claimed(records, second) is None
    third = await claimed(records, other)
    assert third is not None

    stood = await stands(records, first)
    assert await finished(records, first, stood.fence)
    assert await claimed(records, second) is not None


@pytest.mark.clause("IUnitOfWork", 10)
@pytest.mark.parametrize("damage", ['{"counts": 1}', "[1]", '"text"'])
async def test_what_somebody_changed_in_one_run_leaves_the_others(records: SqlRecords, damage: str) -> None:
    first, second = await queued(records, lane="a"), await queued(records, lane="b")
    async with records._opened().begin() as connection:
        values = dict.fromkeys(("read_set", "report", "error"), damage)
        sets = ", ".join(f"{name} = :{name}" for name in values)
        await connection.execute(text(f"UPDATE runs SET {sets} WHERE id = :id"), {**values, "id": first.id})

    async with records.unit(PLATFORM) as unit:
        held = await unit.runs.claim_many([first.id, second.id], owner=ME, lease=LEASE)
        page = await unit.runs.page("one", work=None, state=None, after=None, limit=10)
        await unit.commit()

    by_id = {run.id: run for run in held}
    assert set(by_id) == {first.id, second.id}
    assert isinstance(by_id[first.id].read_set, DamagedPlan)
    assert by_id[second.id].read_set is None
    assert {run.id for run in page.items} == set(by_id)


@pytest.mark.clause("IUnitOfWork", 4)
@pytest.mark.invariant("R1", "R2")
async def test_terminal_state_absorbs(records: SqlRecords) -> None:
    run = await queued(records)
    held = await claimed(records, run)
    assert held is not None
    assert await finished(records, run, held.fence, RunState.FAILED)

    assert not await finished(records, run, held.fence)
    assert await claimed(records, run, lease=OVER) is None
    async with records.unit(PLATFORM) as unit:
        assert await unit.runs.request_cancel("one", run.id, "me") is RunState.FAILED
        assert not await unit.runs.release(run.id, held.fence, reason="r")
        await unit.commit()
    assert (await stands(records, run)).state is RunState.FAILED


@pytest.mark.invariant("R1", "R2")
def test_state_machine_knows_these_moves_only() -> None:
    moves = {(before.value, after.value) for before in RunState for after in RunState if may_move(before, after)}

    assert moves == {
        ("queued", "running"),
        ("queued", "cancelled"),
        ("queued", "skipped"),
        ("running", "succeeded"),
        ("running", "failed"),
        ("running", "cancelled"),
        ("running", "queued"),
    }
    assert all(not ALLOWED_MOVES[state] for state in RunState if state.is_terminal)


@pytest.mark.clause("IUnitOfWork", 5)
async def test_expired_lease_can_be_claimed_by_another(records: SqlRecords) -> None:
    run = await queued(records)
    assert await claimed(records, run) is not None
    assert await claimed(records, run) is None

    expired = await queued(records, lane="params:x")
    assert await claimed(records, expired, lease=OVER) is not None
    async with records.unit(PLATFORM) as unit:
        assert expired.id in [ring.run_id for ring in await unit.runs.claimable(unrung_since=LEASE, limit=10)]
        await unit.commit()
    again = await claimed(records, expired)

    assert again is not None
    assert again.attempt == 2


@pytest.mark.clause("IUnitOfWork", 5)
async def test_lease_of_a_process_that_is_gone_is_over_at_once_on_one_host(records: SqlRecords) -> None:
    code = "from infrastructure.metadata.lease_holders import this_process; print(this_process())"
    gone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    run = await queued(records)
    assert await claimed(records, run, owner=gone) is not None

    again = await claimed(records, run)

    # Postgres records may serve several hosts, so there the lease has to run out.
    assert (again is not None) == (records._url.get_backend_name() == "sqlite")


@pytest.mark.clause("IUnitOfWork", 6)
@pytest.mark.invariant("T2")
async def test_other_organization_finds_and_refers_to_nothing(records: SqlRecords) -> None:
    run = await queued(records)
    async with records.unit(PLATFORM) as unit:
        assert await unit.runs.get("two", run.id) is None
        assert await unit.runs.request_cancel("two", run.id, "me") is None
        assert list(await unit.runs.transitions("two", run.id)) == []
        assert await unit.runs.get("one", run.id) is not None
        await unit.pipelines.put("one", "mine", {"a": 1}, "me")
        await unit.commit()

    with pytest.raises(ConflictError):
        async with records.unit(PLATFORM) as unit:
            await unit.runs.insert(
                Run(
                    RandomIdentifiers().new_id(),
                    "two",
                    WorkRef(WorkKind.PIPELINE, "mine", 1),
                    "main",
                    RunState.QUEUED,
                    RunRequest(),
                )
            )
            await unit.commit()


@pytest.mark.line("29")
async def test_of_a_long_history_the_newest_is_read(records: SqlRecords) -> None:
    run = await queued(records)
    taken = await claimed(records, run)
    assert taken is not None
    async with records.unit(PLATFORM) as unit:
        for number in range(6):
            assert await unit.runs.note(run.id, taken.fence, reason=f"sealing: {number}")
        await unit.commit()
    for most, reasons in ((10_000, ["requested", "claimed", *range(6)]), (3, [*range(3, 6)])):
        async with records.read(PLATFORM) as unit:
            history = await unit.runs.transitions("one", run.id, newest=most)
            earlier = await unit.runs.transitions("one", run.id, newest=2, before=history[0].place)
        assert [line.reason for line in earlier] == ([] if most > 8 else ["sealing: 1", "sealing: 2"])
        assert [line.reason for line in history] == [
            reason if isinstance(reason, str) else f"sealing: {reason}" for reason in reasons
        ]


@pytest.mark.clause("IUnitOfWork", 7)
async def test_state_and_events_commit_together(records: SqlRecords) -> None:
    run = new_run()
    async with records.unit(PLATFORM) as unit:
        await unit.runs.insert(run)
        await unit.events.add(RunQueued(Origin("one", WorkKind.PIPELINE.named("orders"), run.id)))
    async with records.unit(PLATFORM) as unit:
        assert (await unit.events.untold("telemetry", limit=10)).events == []

    async with records.unit(PLATFORM) as unit:
        await unit.runs.insert(run)
        await unit.events.add(RunQueued(Origin("one", WorkKind.PIPELINE.named("orders"), run.id)))
        await unit.commit()
    async with records.unit(PLATFORM) as unit:
        events = (await unit.events.untold("telemetry", limit=10)).events
        assert [(event.event_type, event.payload["run_id"]) for event in events] == [("pipeline.queued", run.id)]


@pytest.mark.clause("IUnitOfWork", 8)
async def test_connection_is_returned_whatever_happens(records: SqlRecords) -> None:
    for _ in range(40):
        with pytest.raises(RuntimeError):
            async with records.unit(PLATFORM) as unit:
                await unit.runs.insert(new_run())
                raise RuntimeError
    async with records.unit(PLATFORM) as unit:
        assert (await unit.runs.page("one", work=None, state=None, after=None, limit=10)).items == []


@pytest.mark.clause("IUnitOfWork", 9)
@pytest.mark.invariant("S3")
async def test_run_exists_once_per_target_and_causing_run(records: SqlRecords) -> None:
    cause = RandomIdentifiers().new_id()
    caused = replace(new_run(), cause=cause)
    async with records.unit(PLATFORM) as unit:
        await unit.runs.insert(caused)
        await unit.commit()
    async with records.unit(PLATFORM) as unit:
        assert await unit.runs.caused_by([cause]) == {(ORDERS, cause)}
        assert await unit.runs.caused_by([caused.id]) == set()

    with pytest.raises(ConflictError):
        async with records.unit(PLATFORM) as unit:
            await unit.runs.insert(replace(new_run(), cause=cause))
            await unit.commit()
    async with records.unit(PLATFORM) as unit:
        await unit.runs.insert(replace(new_run(), cause=RandomIdentifiers().new_id()))
        await unit.commit()


@pytest.mark.clause("IUnitOfWork", 10)
@pytest.mark.invariant("R3")
async def test_sets_leave_out_what_is_fenced_or_held_and_do_the_rest(records: SqlRecords) -> None:
    lanes = [await queued(records, lane=f"params:{number}") for number in range(3)]
    second_of_a_lane = await queued(records, lane="params:0")
    asked = [run.id for run in (*lanes, second_of_a_lane)]
    async with records.unit(PLATFORM) as unit:
        claims = await unit.runs.claim_many([*asked, "unknown"], owner=ME, lease=LEASE)
        await unit.commit()
    assert sorted(run.id for run in claims) == sorted(run.id for run in lanes)
    assert all(run.state is RunState.RUNNING and run.attempt == 1 for run in claims)

    fences = {run.id: run.fence for run in claims}
    stale = lanes[0].id
    async with records.unit(PLATFORM) as unit:
        kept = await unit.runs.store_read_sets({(i, f - (i == stale)): read_set(name=i) for i, f in fences.items()})
        await unit.commit()
    assert sorted(kept) == sorted(i for i in fences if i != stale)

    ends = [Finish(i, f - (i == stale), RunState.SUCCEEDED, "published", noted(i)) for i, f in fences.items()]
    async with records.unit(PLATFORM) as unit:
        finished = await unit.runs.finish_many(ends)
        await unit.commit()
    assert sorted(run.id for run in finished) == sorted(i for i in fences if i != stale)
    for run in lanes:
        stood = await stands(records, run)
        assert stood.state is (RunState.RUNNING if run.id == stale else RunState.SUCCEEDED)
        assert stood.report == (None if run.id == stale else noted(run.id))


@pytest.mark.invariant("Q1")
async def test_end_of_a_lane_wakes_the_next_run_of_it(records: SqlRecords) -> None:
    first, second, third = await queued(records), await queued(records), await queued(records)
    held = await claimed(records, first)
    assert held is not None
    async with records.unit(PLATFORM) as unit:
        await unit.runs.stamp_rung([second.id, third.id])
        await unit.commit()
    for waiting in (second, third):  # Rung for, and refused as the lane is held: now they wait for its end.
        assert await claimed(records, waiting) is None
    async with records.unit(PLATFORM) as unit:
        assert await unit.runs.claimable(unrung_since=timedelta(seconds=-60), limit=10) == []

    async with records.unit(PLATFORM) as unit:
        await unit.runs.finish(first.id, held.fence, RunState.SUCCEEDED, reason="r", report=None, error=None)
        rings = await unit.runs.next_in_lanes([first.id])
        await unit.commit()

    assert [ring.run_id for ring in rings] == [second.id]
    async with records.unit(PLATFORM) as unit:  # The ring may be lost: the tender finds it too, and only it.
        assert [ring.run_id for ring in await unit.runs.claimable(unrung_since=LEASE, limit=10)] == [second.id]
        assert await unit.runs.request_cancel("one", second.id, "me") is RunState.CANCELLED
        await unit.commit()
    async with records.unit(PLATFORM) as unit:
        assert [ring.run_id for ring in await unit.runs.claimable(unrung_since=LEASE, limit=10)] == [third.id]


@pytest.mark.clause("IUnitOfWork", 2)
@pytest.mark.invariant("R3")
async def test_fence_belongs_to_the_pipeline_and_grows_over_its_runs(records: SqlRecords) -> None:
    fences = []
    for lane in ("main", "main", "params:x"):
        held = await claimed(records, await queued(records, lane=lane))
        assert held is not None
        fences.append(held.fence)
        assert await finished(records, held, held.fence)

    assert fences == sorted(set(fences))
    other = await claimed(records, await queued(records, organization="two"))
    assert other is not None
    assert other.fence == 1  # Another organization's pipeline of the same name counts by itself.


@pytest.mark.clause("IUnitOfWork", 2)
@pytest.mark.invariant("R3")
async def test_fence_is_counted_for_each_kind_of_work_and_never_goes_back(records: SqlRecords) -> None:
    async with records.unit(PLATFORM) as unit:
        lane = {"org_id": "one", "work_kind": "another", "work_name": "orders", "fence": 40}
        await unit.runs._connection.execute(insert(lanes), lane)  # type: ignore[attr-defined]
        assert await unit.runs.next_fence("one", ORDERS) == 1
        assert await unit.runs.next_fence("one", ORDERS, above=7) == 8
        assert await unit.runs.next_fence("one", ORDERS, above=3) == 9
        await unit.commit()
    held = await claimed(records, await queued(records))
    assert held is not None
    async with records.unit(PLATFORM) as unit:
        assert await unit.runs.raise_fence(held.id, held.fence, above=4) == held.fence + 1
        assert await unit.runs.release(held.id, held.fence + 1, reason="drained")
        query = select(lanes.c.work_kind, lanes.c.work_name, lanes.c.fence).where(lanes.c.org_id == "one")
        stand = (await unit.runs._connection.execute(query)).all()  # type: ignore[attr-defined]

    assert held.fence == 10
    assert sorted(map(tuple, stand)) == [("another", "orders", 40), ("pipeline", "orders", 12)]


@pytest.mark.clause("IUnitOfWork", 3)
@pytest.mark.invariant("R1", "D1")
async def test_run_that_was_given_back_is_not_overtaken_in_its_lane(records: SqlRecords) -> None:
    first, second = await queued(records), await queued(records)
    held = await claimed(records, first)
    assert held is not None
    async with records.unit(PLATFORM) as unit:
        assert await unit.runs.release(first.id, held.fence, reason="drained")
        await unit.commit()

    assert await claimed(records, second) is None
    again = await claimed(records, first)
    assert again is not None
    assert await finished(records, first, again.fence)
    assert await claimed(records, second) is not None


@pytest.mark.invariant("R1", "R4")
async def test_retry_is_due_after_its_pause_under_a_higher_fence(records: SqlRecords) -> None:
    run = await queued(records)
    held = await claimed(records, run)
    assert held is not None
    async with records.unit(PLATFORM) as unit:
        pause = timedelta(seconds=3600)
        assert await unit.runs.release(run.id, held.fence, reason="retry: x", pause=pause, is_retry=True)
        await unit.commit()
    waiting = await stands(records, run)
    assert (waiting.state, waiting.retries, waiting.reason) == (RunState.QUEUED, 1, "retry: x")
    assert 3500 < waiting.due_in <= 3600
    assert await claimed(records, run) is None
    async with records.unit(PLATFORM) as unit:
        assert await unit.runs.claimable(unrung_since=LEASE, limit=10) == []
        assert await unit.runs.request_cancel("one", run.id, "me") is RunState.QUEUED
        await unit.commit()

    again = await claimed(records, run)  # A cancelled run is due at once: an owner has to seal it.

    assert again is not None
    assert again.cancel_requested
    assert again.fence > held.fence + 1


async def test_lane_is_held_by_a_run_at_work_or_one_that_waits_to_try_again(records: SqlRecords) -> None:
    async def holder(lane: str = "main") -> str | None:
        async with records.unit(PLATFORM) as unit:
            found = await unit.runs.holder("one", ORDERS, lane)
            return found.id if found else None

    first, second = await queued(records), await queued(records)
    assert await holder() is None
    held = await claimed(records, first)
    assert held is not None
    assert (await holder(), await holder("backfill")) == (first.id, None)
    async with records.unit(PLATFORM) as unit:
        await unit.runs.release(first.id, held.fence, reason="retry: x", pause=LEASE, is_retry=True)
        await unit.commit()
    assert await holder() == first.id
    async with records.unit(PLATFORM) as unit:
        await unit.runs.request_cancel("one", first.id, "me")
        await unit.commit()
    assert await holder() is None
    over = await claimed(records, first, lease=OVER)
    assert over is not None
    assert await holder() is None
    async with records.unit(PLATFORM) as unit:
        assert await unit.runs.store_read_set(first.id, over.fence, read_set(name="planned"))
        await unit.runs.forget_plans("one", ORDERS, "main")
        await unit.commit()
    over = await claimed(records, first, lease=OVER)
    assert over is not None
    assert over.read_set is None
    assert await finished(records, first, over.fence)
    assert await claimed(records, second) is not None
    assert await holder() == second.id


async def test_workers_are_known_by_their_heartbeats(records: SqlRecords) -> None:
    own = WorkerRecord("w1", "worker", "host", ME, "1", 4, 2, "running")
    async with records.unit(PLATFORM) as unit:
        assert not await unit.workers.beat(own)
        assert not await unit.workers.request_drain("unknown")
        assert await unit.workers.request_drain("w1")
        await unit.commit()

    async with records.unit(PLATFORM) as unit:
        assert await unit.workers.beat(replace(own, running=1))
        alive = await unit.workers.seen_within(timedelta(seconds=30))
        assert [(w.id, w.running, w.drain_requested) for w in alive] == [("w1", 1, True)]
        assert await unit.workers.seen_within(timedelta(seconds=-30)) == []
        await unit.workers.remove("w1")
        assert await unit.workers.seen_within(timedelta(seconds=30)) == []


@pytest.mark.invariant("R6")
async def test_history_explains_a_run(records: SqlRecords) -> None:
    run = await queued(records)
    first = await claimed(records, run, lease=OVER)
    second = await claimed(records, run)
    assert first is not None
    assert second is not None
    await finished(records, run, second.fence)

    async with records.unit(PLATFORM) as unit:
        history = await unit.runs.transitions("one", run.id)

    assert [(t.before, t.after, t.reason) for t in history] == [
        (None, "queued", "requested"),
        ("queued", "running", "claimed"),
        ("running", "queued", "lease_expired"),
        ("queued", "running", "claimed"),
        ("running", "succeeded", "r"),
    ]
    assert all(later.fence >= earlier.fence for earlier, later in pairwise(history))


async def test_cancel_before_claim_is_final_and_after_it_is_a_flag(records: SqlRecords) -> None:
    never, running = await queued(records), await queued(records, lane="params:x")
    held = await claimed(records, running)
    assert held is not None
    async with records.unit(PLATFORM) as unit:
        assert await unit.runs.request_cancel("one", never.id, "me") is RunState.CANCELLED
        assert await unit.runs.request_cancel("one", running.id, "me") is RunState.RUNNING
        await unit.commit()

    async with records.unit(PLATFORM) as unit:
        assert await unit.runs.renew(running.id, held.fence, lease=LEASE) == "cancelled"
    assert (await stands(records, running)).cancel_requested


async def test_deleted_pipeline_keeps_its_fence_when_it_comes_back(records: SqlRecords) -> None:
    run = await queued(records)
    held = await claimed(records, run)
    assert held is not None
    async with records.unit(PLATFORM) as unit:
        assert await unit.pipelines.delete("one", "orders")
        assert await unit.pipelines.get("one", "orders") is None
        await unit.pipelines.put("one", "orders", {"pipeline": "orders"}, "me")
        assert await unit.runs.next_fence("one", ORDERS) > held.fence
        await unit.commit()


async def test_key_of_a_live_principal_is_found(records: SqlRecords) -> None:
    admin = Principal("admin", "one", frozenset({Role.PLATFORM_ADMIN}))
    async with records.unit(PLATFORM) as unit:
        await unit.identity.add_key(admin, prefix="abc", digest="d" * 64, expires_at=None)
        await unit.commit()

    async with records.unit(PLATFORM) as unit:
        assert await unit.identity.find_key("abc") == ("d" * 64, admin)
        assert await unit.identity.find_key("xyz") is None


async def test_keys_are_listed_by_organization_and_revoked_once(records: SqlRecords) -> None:
    admin = Principal("admin", "one", frozenset({Role.PLATFORM_ADMIN}))
    viewer = Principal("viewer", "one", frozenset({Role.VIEWER}))
    until = datetime.now(UTC) + timedelta(hours=1)
    async with records.unit(PLATFORM) as unit:
        assert await unit.identity.has_organization("one")
        assert not await unit.identity.has_organization("nobody")
        await unit.identity.add_key(admin, prefix="abc", digest="d" * 64, expires_at=None)
        await unit.identity.add_key(viewer, prefix="def", digest="e" * 64, expires_at=until)
        await unit.commit()

    async with records.unit(PLATFORM) as unit:
        assert not await unit.identity.revoke_key("two", "abc")
        assert await unit.identity.revoke_key("one", "abc")
        assert not await unit.identity.revoke_key("one", "abc")
        await unit.commit()

    async with records.unit(PLATFORM) as unit:
        first, second = await unit.identity.keys("one")
        assert await unit.identity.keys("two") == []
        assert await unit.identity.find_key("abc") is None
        assert await unit.identity.find_key("def") == ("e" * 64, viewer)
    assert (first.prefix, first.roles, first.expires_at) == ("abc", ("platform_admin",), None)
    assert first.revoked_at is not None
    assert (second.prefix, second.roles, second.expires_at, second.revoked_at) == ("def", ("viewer",), until, None)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_records_of_the_first_version_are_brought_up_to_date(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = (
        sqlite_url(tmp_path / "records.db")
        if kind == "sqlite"
        else request.getfixturevalue("postgres_database").replace("postgresql://", "postgresql+asyncpg://")
    )
    old = SqlRecords(url, upgrade_on_open=False)
    with pytest.raises(UnavailableError):
        await old.open()
    async with old._opened().begin() as connection:
        if kind == "postgres":
            await connection.exec_driver_sql("CREATE SCHEMA headrace")
        await connection.run_sync(lambda sync: run_migrations(sync, "0002"))
        for statement in FIRST_VERSION:
            await connection.exec_driver_sql(statement)
    await old.close()

    records = SqlRecords(url)
    await records.open()

    assert await records.current() == ("0007", "0007")
    async with records.unit(PLATFORM) as unit:
        rings = await unit.runs.claimable(unrung_since=LEASE, limit=10)
        assert [ring.run_id for ring in rings] == ["r1"]
        held = await unit.runs.claim("r1", owner=ME, lease=LEASE)
        assert held is not None
        assert (held.fence, held.retries, held.cause, held.request.abandon) == (8, 0, None, False)
        assert [t.reason for t in await unit.runs.transitions("one", "r1")] == ["requested", "claimed"]
        await unit.commit()
    await records.close()


FIRST_VERSION = (
    "INSERT INTO organizations (id, created_at) VALUES ('one', '2026-11-22')",
    "INSERT INTO pipelines (org_id, name, revision, is_deleted, fence) VALUES ('one', 'orders', 1, false, 7)",
    "INSERT INTO runs (org_id, id, pipeline, revision, lane, state, request, fence, attempt, requested_by, "
    "cancel_requested, not_before, created_at) VALUES ('one', 'r1', 'orders', 1, 'main', 'queued', "
    """'{"parameters": {}, "limit": null, "full_refresh": false}', 0, 0, 'me', false, 0, '2026-11-22')""",
    "INSERT INTO run_transitions (org_id, run_id, after, fence, actor, reason, at) "
    "VALUES ('one', 'r1', 'queued', 0, 'me', 'requested', '2026-11-22')",
    "INSERT INTO events (org_id, event_type, payload, created_at) VALUES ('one', 'pipeline.queued', '{}', "
    "'2026-11-22')",
)


async def test_migrated_schema_is_the_declared_one(records: SqlRecords) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from infrastructure.metadata.tables import metadata

    async with records._opened().connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), metadata)
        )

    assert differences == []
    assert await records.current() == ("0007", "0007")
    assert await records.upgrade() == "0007"


async def test_a_page_of_large_documents_ends_early_and_the_next_one_goes_on(records: SqlRecords) -> None:
    texts = {"orders": 0, "a": 500, "b": 500, "c": 3_000, "d": 10, "e": 10}
    async with records.unit(PLATFORM) as unit:
        for name, size in texts.items():
            await unit.pipelines.put("one", name, {"text": "x" * size}, "me")
        pages: list[list[str]] = []
        after: str | None = None
        while len(pages) < 2 or after is not None:
            page = await unit.pipelines.page("one", after=after, limit=3, most_characters=1_050)
            pages.append([stored.name for stored in page.items])
            after = page.next_cursor
        whole = await unit.pipelines.page("one", after=None, limit=10, most_characters=10**6)
        unbounded = await unit.pipelines.page("one", after=None, limit=10)
        nobody = await unit.pipelines.page("nobody", after=None, limit=10, most_characters=1)

    assert pages == [["a", "b"], ["c"], ["d", "e", "orders"]]
    assert [stored.name for stored in whole.items] == [stored.name for stored in unbounded.items] == sorted(texts)
    assert (nobody.items, nobody.next_cursor) == ([], None)


async def test_of_rows_that_do_not_fit_few_are_measured(records: SqlRecords) -> None:
    from infrastructure.metadata.sizes import fitting
    from infrastructure.metadata.tables import pipeline_revisions as stored

    async with records.unit(PLATFORM) as unit:
        for number in range(40):
            await unit.pipelines.put("two", "many", {"text": f"{number:04d}" * 125}, "me")
        await unit.commit()
    query = select(stored).where(stored.c.org_id == "two", stored.c.name == "many").order_by(stored.c.revision)

    async with records._opened().connect() as connection:
        measured = 0

        class Counting:
            async def execute(self, statement: Any) -> Any:
                nonlocal measured
                found = (await connection.execute(statement)).freeze()
                measured += len(found.data)
                return found()

        counting: Any = Counting()
        for most, limit, expected, looked_at in (
            (1, 500, 1, 8),
            (1_050, 500, 2, 8),
            (1_050, None, 2, 8),
            (10**6, 500, 40, 40),
            (10**6, None, 40, 40),
            (10**6, 3, 3, 3),
            (5_500, 12, 10, 12),
        ):
            measured = 0
            fits = await fitting(counting, query, [stored.c.document], most, limit)
            assert (fits, measured) == (expected, looked_at), (most, limit)


async def test_parts_of_documents_are_read_by_their_names_and_nothing_of_what_is_deleted(records: SqlRecords) -> None:
    documents: dict[str, dict[str, Any]] = {
        "b": {"source": {"table": "t", "options": {"x": "y" * 1000}}, "schedule": {"after": ["a", "c"]}},
        "a": {"source": {"query": "select \"é\" 'x'", "n": 1}, "schedule": None},
        "gone": {"source": {"table": "t"}},
    }
    paths = [("source", "table"), ("source", "query"), ("schedule", "after"), ("source", "n")]
    async with records.unit(PLATFORM) as unit:
        for name, document in documents.items():
            await unit.pipelines.put("two", name, {"source": {"table": "older"}}, "me")
            await unit.pipelines.put("two", name, document, "me")
        await unit.pipelines.delete("two", "gone")
        found = await unit.pipelines.parts("two", paths)
        names = await unit.pipelines.parts("two", [])

    assert list(found.items()) == [
        ("a", (None, "select \"é\" 'x'", None, 1)),
        ("b", ("t", None, ["a", "c"], None)),
        ("orders", (None, None, None, None)),
    ]
    assert list(names) == list(found)


async def test_whoever_holds_the_documents_of_an_organization_has_nobody_else_wait(
    records: SqlRecords, request: pytest.FixtureRequest
) -> None:
    if "sqlite" in request.node.name:
        return  # It has one writer at a time.
    async with records.unit(PLATFORM) as first:
        await first.pipelines.hold("one")
        async with asyncio.timeout(5):
            async with records.unit(PLATFORM) as other:
                await other.pipelines.hold("two")
            await queued(records)
        async with records.unit(PLATFORM) as second:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await second.connections.hold("one")


async def test_revisions_are_listed_from_one_backwards_and_no_more_than_fit(records: SqlRecords) -> None:
    async with records.unit(PLATFORM) as unit:
        for number in range(2, 7):
            await unit.pipelines.put("one", "orders", {"text": str(number) * 300}, "me")

        async def numbers(**bounds: int) -> list[int]:
            return [stored.revision for stored in await unit.pipelines.revisions("one", "orders", **bounds)]

        assert await numbers() == [6, 5, 4, 3, 2, 1]
        assert await numbers(limit=2) == [6, 5]
        assert await numbers(most_characters=700) == [6, 5]
        assert await numbers(before=5, most_characters=700) == [4, 3]
        assert await numbers(before=5, limit=1) == [4]
        assert await numbers(most_characters=1) == [6]
        assert await numbers(before=1, most_characters=1) == []


async def test_a_page_of_runs_with_large_reports_ends_early_and_the_next_one_goes_on(records: SqlRecords) -> None:
    run_ids = []
    for size in (10, 3_000, 500, 500):
        run = await queued(records, lane=f"lane{size}{len(run_ids)}")
        claim = await claimed(records, run)
        assert claim is not None
        async with records.unit(PLATFORM) as unit:
            finish = Finish(run.id, claim.fence, RunState.SUCCEEDED, "done", noted("x" * size), None)
            assert await unit.runs.finish_many([finish])
            await unit.commit()
        run_ids.append(run.id)
    pages: list[list[str]] = []
    after: str | None = None
    async with records.unit(PLATFORM) as unit:
        while not pages or after is not None:
            page = await unit.runs.page("one", work=None, state=None, after=after, limit=3, most_characters=1_600)
            pages.append([found.id for found in page.items])
            after = page.next_cursor
        whole = await unit.runs.page("one", work=None, state=None, after=None, limit=9, most_characters=10**6)
    assert pages == [run_ids[:1:-1], run_ids[1:2], run_ids[:1]]
    assert [found.id for found in whole.items] == run_ids[::-1]


async def test_how_large_a_run_is_is_known_before_it_is_read(records: SqlRecords) -> None:
    small, large = await queued(records, lane="a"), await queued(records, lane="b")
    claim = await claimed(records, large)
    assert claim is not None
    async with records.unit(PLATFORM) as unit:
        await unit.runs.store_read_set(large.id, claim.fence, read_set(name="x" * 9_000))
        await unit.runs.finish(
            large.id, claim.fence, RunState.FAILED, reason="r", report=noted("x" * 3_000), error=None
        )
        await unit.commit()
    async with records.read(PLATFORM) as unit:
        assert 0 < await unit.runs.characters_of("one", small.id) < 1_000
        assert 3_000 < await unit.runs.characters_of("one", large.id) < 4_000
        assert await unit.runs.characters_of("one", ORDERS) == await unit.runs.characters_of("one", large.id)
        last = await unit.runs.last_of("one", ORDERS)
        assert last is not None
        assert last.id == large.id
        for organization, run in (("two", large.id), ("two", ORDERS), ("one", "none")):
            assert await unit.runs.characters_of(organization, run) == 0


async def test_only_who_claims_a_run_is_given_its_plan(records: SqlRecords) -> None:
    run = await queued(records)
    claim = await claimed(records, run)
    assert claim is not None
    async with records.unit(PLATFORM) as unit:
        assert await unit.runs.store_read_set(run.id, claim.fence, read_set(name="x" * 3_000))
        await unit.commit()
    async with records.read(PLATFORM) as unit:
        page = await unit.runs.page("one", work=None, state=None, after=None, limit=9, most_characters=100)
        told = [
            *page.items,
            await unit.runs.get("one", run.id),
            await unit.runs.last_of("one", ORDERS),
            await unit.runs.unfinished("one", ORDERS, "main"),
            await unit.runs.holder("one", ORDERS, "main"),
        ]
    assert [found and (found.id, found.read_set) for found in told] == [(run.id, None)] * 5
    async with records.unit(PLATFORM) as unit:
        await unit.runs.release(run.id, claim.fence, reason="drained")
        await unit.commit()
    again = await claimed(records, run)
    assert again is not None
    assert again.read_set == read_set(name="x" * 3_000)
    async with records.unit(PLATFORM) as unit:
        (ended,) = await unit.runs.finish_many(
            [Finish(run.id, again.fence, RunState.SUCCEEDED, "done", noted("a"), None)]
        )
    assert (ended.read_set, ended.report) == (None, noted("a"))


async def test_pages_of_a_state_have_the_runs_of_it_and_end_with_the_last(records: SqlRecords) -> None:
    asked = [await queued(records, lane=f"lane{number}") for number in range(11)]
    async with records.unit(PLATFORM) as unit:
        for run in (asked[0], asked[1], asked[9]):
            await unit.runs.request_cancel("one", run.id, "me")
        await unit.commit()

    async def pages(work: WorkName | None, state: RunState | None, limit: int) -> list[list[int]]:
        found: list[list[int]] = []
        after: str | None = None
        places = {run.id: place for place, run in enumerate(asked)}
        async with records.read(PLATFORM) as unit:
            while not found or after is not None:
                page = await unit.runs.page("one", work=work, state=state, after=after, limit=limit)
                found.append([places[run.id] for run in page.items])
                after = page.next_cursor
        return found

    for work in (None, ORDERS):
        assert await pages(work, RunState.CANCELLED, 5) == [[9, 1, 0]]
        assert await pages(work, RunState.CANCELLED, 2) == [[9, 1], [0]]
        assert await pages(work, RunState.FAILED, 5) == [[]]
        assert await pages(work, RunState.QUEUED, 7) == [[10, 8, 7, 6, 5, 4, 3], [2]]
        assert await pages(work, None, 6) == [[10, 9, 8, 7, 6, 5], [4, 3, 2, 1, 0]]
    for state in (RunState.CANCELLED, RunState.QUEUED):
        assert await pages(replace(ORDERS, name="nothing"), state, 5) == [[]]


async def test_of_many_events_of_a_run_the_newest_are_told(records: SqlRecords) -> None:
    run = await queued(records)
    async with records.unit(PLATFORM) as unit:
        await unit.events.add(
            *(
                RunStarted(Origin("one", WorkKind.PIPELINE.named("orders"), run.id), attempt=attempt, fence=1)
                for attempt in range(5)
            )
        )
        told = await unit.events.of_run("one", run.id, newest=3)
        earlier = await unit.events.of_run("one", run.id, newest=1, before=told[0].id)
    assert [event.payload["attempt"] for event in told] == [2, 3, 4]
    assert [event.payload["attempt"] for event in earlier] == [1]


async def test_what_waits_is_counted_by_work_and_the_longest_waiting_comes_first(records: SqlRecords) -> None:
    first, _, claimed = [await queued(records, lane) for lane in ("a", "b", "c")]
    await queued(records, organization="two")
    async with records.unit(PLATFORM) as unit:
        assert await unit.runs.claim(claimed.id, owner=ME, lease=LEASE) is not None
        await unit.commit()
    async with records.read(PLATFORM) as unit:
        stored = await unit.runs.get("one", first.id)
        waiting = await unit.runs.waiting(limit=10)
        cut = await unit.runs.waiting(limit=1)
    async with records.read(Scope("two")) as unit:
        own = await unit.runs.waiting(limit=10)

    assert [(each.organization, each.work, each.runs) for each in waiting] == [("one", ORDERS, 2), ("two", ORDERS, 1)]
    assert stored is not None
    assert waiting[0].since == stored.created_at
    assert cut == waiting[:1]
    assert own == waiting[1:]


async def test_connections_in_use_are_told(records: SqlRecords) -> None:
    before = records.connections()
    async with records.read(PLATFORM):
        within = records.connections()

    assert (within[0] - before[0], within[1]) == (1, before[1])
    assert before[1] == 15
