"""What the process knows of its parts: by looks that it takes itself, so that who asks whether it lives touches nothing."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import pytest

from application.operations.health import HealthMonitor, Life, LifeState, PartCheck, PartHealth, PartStatus
from tests.fakes.clock import FakeClock


def part(*looks: PartHealth) -> PartCheck:
    """A part that is as these say, one look after the other, and then as the last."""
    left = list(looks)

    async def check() -> PartHealth:
        return left.pop(0) if len(left) > 1 else left[0]

    return check


WELL, WEAK, GONE = PartHealth(), PartHealth(PartStatus.DEGRADED, "3% are free"), PartHealth.of("gone")


def monitor(parts: Mapping[str, PartCheck], *, every: float = 0.01, clock: FakeClock | None = None) -> HealthMonitor:
    life = Life()
    life.started()
    return HealthMonitor(life, clock or FakeClock(), timedelta(seconds=0.2), timedelta(seconds=every), parts)


@pytest.mark.invariant("X4")
async def test_whoever_asks_whether_it_lives_touches_no_part() -> None:
    async def never() -> PartHealth:
        raise AssertionError("asked")

    found = monitor({"store": never}).liveness()

    assert (found.status, found.checked_at, dict(found.parts)) == ("healthy", None, {})


@pytest.mark.invariant("X4")
@pytest.mark.parametrize(
    ("health", "status", "is_ready"), [(WELL, "healthy", True), (WEAK, "degraded", True), (GONE, "degraded", False)]
)
async def test_part_that_is_weak_takes_no_work_away_and_one_that_is_gone_does(
    health: PartHealth, status: str, is_ready: bool
) -> None:
    looking = monitor({"store": part(health), "queue": part(WELL)})
    looking.time_limit = timedelta(seconds=20)
    watching = asyncio.create_task(looking.watch())
    while not (found := looking.liveness()).parts:
        await asyncio.sleep(0.001)
    looking.life.begin_shutdown()
    await asyncio.wait_for(watching, 20)  # It ends by itself.
    looking.life.state = LifeState.RUNNING

    assert found.status == status
    assert found.parts["store"] == health
    assert (await looking.readiness()).is_ready is is_ready


async def test_looks_of_the_last_minute_are_kept_and_older_ones_are_not() -> None:
    clock = FakeClock()
    looking = monitor({"store": part(GONE, WELL, WEAK)}, every=0.001, clock=clock)
    watching = asyncio.create_task(looking.watch())
    while len(looking.liveness().recent.get("store", [])) < 3:
        await asyncio.sleep(0.001)
    assert list(looking.liveness().recent["store"][:3]) == [GONE.status, WELL.status, WEAK.status]
    clock.advance(61)
    await asyncio.sleep(0.05)
    looking.life.begin_shutdown()
    await watching

    assert GONE.status not in looking.liveness().recent["store"]
    assert looking.liveness().uptime_seconds == 61


@pytest.mark.invariant("X4")
async def test_part_that_does_not_answer_is_in_trouble_after_its_time() -> None:
    async def silent() -> PartHealth:
        await asyncio.sleep(60)
        return WELL

    found = await monitor({"store": silent, "queue": part(WELL)}).readiness()

    assert (found.is_ready, found.parts["store"].detail) == (False, "did not answer within 0.2 s")
    assert found.parts["queue"] == WELL


async def test_part_whose_look_is_wrong_is_in_trouble_and_the_others_are_told() -> None:
    async def wrong() -> PartHealth:
        raise KeyError("x")

    found = await monitor({"store": wrong, "queue": part(WELL)}).readiness()

    assert (found.is_ready, found.parts["queue"]) == (False, WELL)
    assert "the log has the details" in str(found.parts["store"].detail)


@pytest.mark.invariant("X1")
async def test_process_that_shuts_down_takes_no_work_and_says_so() -> None:
    looking = monitor({"store": part(WELL)})
    looking.life.begin_shutdown()

    found = await looking.readiness()
    assert (found.is_ready, found.state) == (False, "shutting_down")
    assert looking.liveness().status == "shutting_down"
    await asyncio.wait_for(looking.watch(), 5)
