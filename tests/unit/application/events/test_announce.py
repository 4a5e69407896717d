"""Each subscriber is told on its own: in order, at least once, and what follows from events is written exactly once."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from application.events import announce
from application.events.announce import Announcer
from application.events.follow import FollowerStarter
from application.events.outbox import Delivery, ReactionDelivery, SubscriberDelivery, Told
from application.runs.launch import TriggerRun
from domain.errors import UnavailableError
from domain.events import Origin, RunQueued
from domain.identity.scope import PLATFORM, Scope
from domain.ports.records.events import StoredEvent
from domain.ports.records.unit_of_work import IRecords, IUnitOfWork
from domain.runs.run import Ring
from domain.runs.work import WorkKind
from domain.stores.table import TableName
from entrypoints.composition.lifecycle import running
from infrastructure.metadata.records import SqlRecords, sqlite_url
from infrastructure.runtime import RandomIdentifiers
from tests.fakes.clock import FakeClock
from tests.faults.test_queues import ME, container_of, put


class DiesError(BaseException):
    """As if the process was killed at this place."""


@dataclass
class Heard:
    """A subscriber that fails as often as it is told to."""

    failures: int = 0
    error: BaseException = field(default_factory=lambda: RuntimeError("deaf"))
    told: list[str] = field(default_factory=list)

    def __call__(self, event_type: str, payload: Mapping[str, Any]) -> None:
        if self.failures and payload["run_id"] == "r2":
            self.failures -= 1
            raise self.error
        self.told.append(payload["run_id"])


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[IRecords]:
    built = SqlRecords(sqlite_url(tmp_path / "records.db"))
    await built.open()
    async with built.unit(PLATFORM) as unit:
        await unit.identity.ensure_organization("one")
        await unit.events.add(
            *(RunQueued(Origin("one", WorkKind.PIPELINE.named("orders"), f"r{number}")) for number in (1, 2, 3))
        )
        await unit.commit()
    yield built
    await built.close()


def delivery(records: IRecords, tell: Heard, holder: str = "me", name: str = "telemetry") -> SubscriberDelivery:
    return SubscriberDelivery(records, name, tell, FakeClock(), holder)


async def test_subscriber_that_fails_is_told_again_and_holds_up_itself_only(
    records: IRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "_FIRST_PAUSE_SECONDS", 0.01)
    failing, well = Heard(failures=3), Heard()
    announcer = Announcer([delivery(records, failing, name="a"), delivery(records, well, name="b")])
    with capture_logs() as lines:
        telling = asyncio.create_task(announcer.keep_telling())
        announcer.nudge()
        async with asyncio.timeout(10):
            while len(well.told) < 3 or len(failing.told) < 3:
                await asyncio.sleep(0.01)
        telling.cancel()

    assert (failing.told, failing.failures, well.told) == (["r1", "r2", "r3"], 0, ["r1", "r2", "r3"])
    assert [(line["event"], line["subscriber"]) for line in lines] == [("tell.failed", "a")]


async def test_whoever_waits_for_another_process_looks_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Told(soon=True)] * 7 + [Told(2, soon=True)] + [Told(soon=True)] * 2

    class Waiting(Delivery):
        name = "waiting"

        async def tell_some(self) -> Told:
            return found.pop(0) if found else Told()

    waited, sleep = list[float](), asyncio.sleep

    async def noted(seconds: float) -> None:
        waited.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)
    announcer = Announcer([Waiting()])
    telling = asyncio.create_task(announcer.keep_telling())
    announcer.nudge()
    async with asyncio.timeout(10):
        while len(waited) < 11:
            await sleep(0)
    telling.cancel()

    assert waited == [0.04, 0.08, 0.16, 0.32, 0.5, 0.5, 0.5, 0.02, 0.04, 0.08, 0.02]


async def test_of_one_that_fails_others_hear_nothing_at_the_end_either(records: IRecords) -> None:
    failing, away, well = Heard(failures=9), Heard(failures=9, error=UnavailableError("Gone.", code="x")), Heard()
    announcer = Announcer(
        [delivery(records, told, name=name) for name, told in (("a", failing), ("b", away), ("c", well))]
    )
    with capture_logs() as lines, pytest.raises(UnavailableError):
        await announcer.flush()

    assert [failing.told, away.told, well.told] == [["r1"], ["r1"], ["r1", "r2", "r3"]]
    assert [line["subscriber"] for line in lines] == ["a"]


async def test_listener_that_fails_does_not_end_what_is_told_of() -> None:
    failing, well = Heard(failures=2), Heard()
    announcer = Announcer([], [failing, well])
    with capture_logs() as lines:
        for _ in range(3):
            announcer.tell(RunQueued(Origin("one", WorkKind.PIPELINE.named("orders"), "r2")))

    assert (failing.told, well.told, len(lines)) == (["r2"], ["r2"] * 3, 1)


async def test_whoever_dies_while_it_tells_leaves_the_rest_to_whoever_is_next(records: IRecords) -> None:
    dies, other = Heard(failures=1, error=DiesError()), Heard()
    first, second = delivery(records, dies), delivery(records, other, holder="other")
    with pytest.raises(DiesError):
        await first.tell_some()
    assert await second.tell_some() == Told(2)
    assert await first.tell_some() == Told()

    assert (dies.told, other.told) == (["r1"], ["r2", "r3"])


async def test_one_process_at_a_time_tells_a_subscriber(records: IRecords) -> None:
    mine, others = Heard(), Heard()
    other = Announcer([delivery(records, others, holder="other")])
    async with records.unit(PLATFORM) as unit:
        last = (await unit.events.untold("telemetry", limit=2)).events[-1].id
        await unit.events.hold("telemetry", "me", lease=timedelta(seconds=30))
        await unit.commit()
    assert await delivery(records, others, holder="other").tell_some() == Told(soon=True)
    flushing = asyncio.create_task(other.flush())
    await asyncio.sleep(0.05)
    async with records.unit(PLATFORM) as unit:
        await unit.events.note_told("telemetry", last, holder="me")
        await unit.commit()

    assert await flushing == 1
    assert await delivery(records, mine).tell_some() == Told()
    assert others.told == ["r3"]


async def test_what_was_told_and_could_not_be_noted_is_not_told_again(records: IRecords) -> None:
    @dataclass
    class Restarting:
        """Records that are away for a moment after something was told."""

        away_at: int = 2

        def unit(self, scope: Scope) -> IUnitOfWork:
            self.away_at -= 1
            if not self.away_at:
                raise UnavailableError("They restart.", code="records.unavailable")
            return records.unit(scope)

    heard = Heard()
    telling = delivery(cast(IRecords, Restarting()), heard)
    with pytest.raises(UnavailableError):
        await telling.tell_some()

    assert await telling.tell_some() == Told()
    assert heard.told == ["r1", "r2", "r3"]
    assert await delivery(records, heard, holder="other").tell_some() == Told()


async def test_slow_subscriber_says_how_far_it_came_before_another_may_begin(records: IRecords) -> None:
    clock, told = FakeClock(), list[str]()

    def slow(event_type: str, payload: Mapping[str, Any]) -> None:
        told.append(payload["run_id"])
        clock.advance(4)

    assert await SubscriberDelivery(records, "telemetry", slow, clock, "me").tell_some() == Told(2, at_once=True)
    assert await delivery(records, Heard(), holder="other").tell_some() == Told(1)
    assert told == ["r1", "r2"]


@pytest.mark.invariant("S3")
async def test_teller_that_dies_tells_again_and_starts_each_follower_once(tmp_path: Path) -> None:
    container = container_of(tmp_path)
    async with running(container, with_store=True) as use_cases:
        await container.gateways.data_store().write(TableName("source"), [pa.table({"id": [1]})])
        first = "{version: 1, pipeline: first, source: {table: source, key: [id]}, destination: {table: a}}"
        second = (
            "{version: 1, pipeline: second, source: {table: source, key: [id]}, destination: {table: b}, "
            "schedule: {after: [first]}}"
        )
        await put(use_cases, first)
        await put(use_cases, second)
        claimed = await use_cases.launcher.launch_claimed(ME, TriggerRun("first"))
        await use_cases.executor.perform(claimed)
        told: list[str] = []
        rung: list[Ring] = []
        dies = True
        starter = FollowerStarter(RandomIdentifiers())

        async def react(unit: IUnitOfWork, events: Sequence[StoredEvent]) -> Sequence[Ring]:
            rings = await starter(unit, events)
            if dies:
                raise DiesError
            return rings

        async def ring(rings: Sequence[Ring]) -> None:
            rung.extend(rings)

        def tell(kind: str, _: Mapping[str, Any]) -> None:
            told.append(kind)
            if dies:
                raise DiesError

        records = use_cases.launcher.records
        deliveries: list[Delivery] = [
            SubscriberDelivery(records, "telemetry", tell, FakeClock(), "me"),
            ReactionDelivery(records, "followers", react, starter.first, ring),
        ]
        for delivery in deliveries:
            with pytest.raises(DiesError):
                await delivery.tell_some()
        before = list(told)
        dies = False
        announcer = Announcer(deliveries)
        await announcer.flush()
        await announcer.flush()

        assert before == ["pipeline.queued"]
        # Told again, and then the follower's own event.
        assert told == [*before, "pipeline.queued", "pipeline.started", "pipeline.completed", "pipeline.queued"]
        async with use_cases.launcher.records.unit(PLATFORM) as unit:
            runs = (
                await unit.runs.page("default", work=WorkKind.PIPELINE.named("second"), state=None, after=None, limit=9)
            ).items
        assert [(run.cause, run.requested_by) for run in runs] == [(claimed.id, "after:first")]
        assert [found.run_id for found in rung] == [runs[0].id]
