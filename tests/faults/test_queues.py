"""Brokers that lose, repeat, shuffle and refuse; runs start all the same, once each."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pyarrow as pa
import pytest
from dependency_injector import providers

from application.catalog.documents import PutDocument
from application.runs.launch import TriggerRun
from domain.errors import UnavailableError
from domain.identity.principal import Principal, Role
from domain.identity.scope import PLATFORM
from domain.pipelines.spec import SourceSpec
from domain.ports.message_queue import IDelivery, IMessageQueue, Message
from domain.runs.run import RunState
from domain.stores.table import TableName
from entrypoints.composition.container import Container, build_container
from entrypoints.composition.lifecycle import running
from entrypoints.documents.reading import read_text
from entrypoints.use_cases import UseCases
from entrypoints.worker.background import BackgroundTasks
from entrypoints.worker.main import Worker
from entrypoints.worker.ticker import Ticker
from infrastructure.queues.memory import InMemoryMessageQueue
from infrastructure.settings.sources import load_settings
from tests.faults.installation import assert_exact, installed, trigger, with_copies
from tests.servers import RedisServer

ME = Principal("me", "default", frozenset({Role.PLATFORM_ADMIN}))


class FaultyQueue(InMemoryMessageQueue):
    """Doubles, drops and reorders what is published, or refuses it, as the dice fall."""

    def __init__(self, faults: str, seed: int = 7) -> None:
        super().__init__()
        self._faults = faults
        self._chance = random.Random(seed)
        self._held: list[tuple[str, Message]] = []

    async def publish(self, topic: str, message: Message) -> None:
        match self._faults:
            case "doubled":
                for _ in range(self._chance.randint(1, 4)):
                    await super().publish(topic, message)
            case "dropped":
                if self._chance.random() < 0.5:
                    await super().publish(topic, message)
            case "reordered":
                self._held.append((topic, message))
                if len(self._held) >= 5:
                    self._chance.shuffle(self._held)
                    while self._held:
                        await super().publish(*self._held.pop())
            case _:
                raise UnavailableError("The queue is gone.", code="queue.unavailable")

    async def subscribe(self, topic: str) -> AsyncGenerator[IDelivery, None]:
        if self._faults == "gone":
            raise UnavailableError("The queue is gone.", code="queue.unavailable")
        async for delivery in super().subscribe(topic):
            yield delivery


def container_of(folder: Path, **environment: str) -> Container:
    names = {"HEADRACE_STORE__KIND": "memory", "HEADRACE_RUN__LEASE_SECONDS": "1", "HEADRACE_RUN__TICK_SECONDS": "0.1"}
    return build_container(load_settings(root=folder, environment={**names, **environment}).settings, folder)


async def put(use_cases: UseCases, text: str, principal: Principal = ME) -> None:
    document = read_text(text, "doc", {})
    await use_cases.catalog.put(principal, PutDocument(document.kind, document.name, document.body))


async def until_done(use_cases: UseCases, count: int, organization: str = "default") -> list[RunState]:
    async with asyncio.timeout(40):
        while True:
            async with use_cases.launcher.records.unit(PLATFORM) as unit:
                page = await unit.runs.page(organization, work=None, state=None, after=None, limit=500)
            if len(page.items) >= count and all(run.state.is_terminal for run in page.items):
                return [run.state for run in page.items]
            await asyncio.sleep(0.02)


def started(use_cases: UseCases, folder: Path) -> tuple[Worker, BackgroundTasks]:
    worker, background = Worker(use_cases), BackgroundTasks()
    background.keep(worker.consume, name="consume")
    background.keep(use_cases.announcer.keep_telling, name="tell")
    background.keep(Ticker(use_cases, worker, "api worker", folder / "drain").run, name="tick")
    return worker, background


@pytest.mark.invariant("Q1", "Q2", "L5")
@pytest.mark.parametrize("faults", ["doubled", "dropped", "reordered", "gone"])
async def test_every_run_is_executed_once_whatever_the_queue_does(faults: str, tmp_path: Path) -> None:
    container = container_of(tmp_path)
    queue: IMessageQueue = FaultyQueue(faults)
    with container.gateways.queue.override(providers.Object(queue)):
        async with running(container, with_store=True) as use_cases:
            store = container.gateways.data_store()
            await store.write(TableName("source"), [pa.table({"id": [1, 2, 3]})])
            for number in range(3):
                await put(
                    use_cases,
                    f"{{version: 1, pipeline: p{number}, source: {{table: source, key: [id]}}, "
                    f"destination: {{table: t{number}}}}}",
                )
            worker, background = started(use_cases, tmp_path)
            for number in range(12):
                await use_cases.launcher.launch(ME, TriggerRun(f"p{number % 3}"))

            states = await until_done(use_cases, 12)

            assert states == [RunState.SUCCEEDED] * 12
            for number in range(3):
                rows = [r async for b in store.read(SourceSpec(table=TableName(f"t{number}")), batch_rows=99)
                        for r in pa.table(b).column("id").to_pylist()]  # fmt: skip
                assert sorted(rows) == sorted([1, 2, 3] * 4)  # Each run appends each row once.
            use_cases.life.begin_shutdown()
            assert await background.cancel(5)
            assert worker.running == 0


@pytest.mark.invariant("Q1")
async def test_organizations_take_turns(tmp_path: Path) -> None:
    container = container_of(tmp_path, HEADRACE_RUN__CONCURRENCY="1")
    other = Principal("you", "other", frozenset({Role.PLATFORM_ADMIN}))
    async with running(container, with_store=True) as use_cases:
        async with use_cases.launcher.records.unit(PLATFORM) as unit:
            await unit.identity.ensure_organization("other")
            await unit.commit()
        await container.gateways.data_store().write(TableName("source"), [pa.table({"id": [1]})])
        for principal in (ME, other):
            for number in range(20):
                await put(
                    use_cases,
                    f"{{version: 1, pipeline: p{number}, source: {{table: source, key: [id]}}, "
                    f"destination: {{table: {principal.organization}_{number}}}}}",
                    principal,
                )
        for number in range(20):
            await use_cases.launcher.launch(ME, TriggerRun(f"p{number}"))
        await use_cases.launcher.launch(other, TriggerRun("p0"))
        _, background = started(use_cases, tmp_path)
        await until_done(use_cases, 20)
        await until_done(use_cases, 1, "other")

        async with use_cases.launcher.records.unit(PLATFORM) as unit:
            mine = (await unit.runs.page("default", work=None, state=None, after=None, limit=100)).items
            theirs = (await unit.runs.page("other", work=None, state=None, after=None, limit=100)).items
        before = [run for run in mine if run.started_at < theirs[0].started_at]
        assert len(before) <= 3  # Twenty were asked for before it.
        await background.cancel(5)


@pytest.mark.invariant("Q1", "Q3")
@pytest.mark.parametrize("queue", ["redis"])
@pytest.mark.parametrize("trouble", ["flushed", "killed", "stopped", "full"])
def test_redis_that_fails_makes_runs_later_and_loses_none(
    queue: str,
    trouble: str,
    queue_settings: dict[str, str],
    own_redis: RedisServer,
    project: Path,
    postgres_database: str,
) -> None:
    with installed(project, postgres_database, queue_settings) as made:
        with_copies(made, 2)
        server, worker = made.api(), made.worker()
        asked = [trigger(server, f"copy{number % 2}") for number in range(4)]
        match trouble:
            case "flushed":
                own_redis.command("FLUSHALL")
            case "killed":
                own_redis.signal(signal.SIGKILL)
            case "stopped":
                own_redis.signal(signal.SIGSTOP)
            case _:
                own_redis.command("CONFIG", "SET", "maxmemory", "1")
        asked += [trigger(server, f"copy{number % 2}") for number in range(4)]
        assert None not in asked  # The answer never depends on the broker.

        while_away = made.wait_until_done(8, seconds=60)
        if trouble == "killed":
            own_redis.start()
        if trouble == "stopped":
            own_redis.signal(signal.SIGCONT)
        if trouble == "full":
            own_redis.command("CONFIG", "SET", "maxmemory", "256mb")
        asked += [trigger(server, "copy0") for _ in range(2)]
        after = made.wait_until_done(10, seconds=60)

        assert while_away == {"succeeded": 8}
        assert after == {"succeeded": 10}
        assert_exact(made, 2)
        time.sleep(1.2)  # It subscribes again once a second.
        assert worker.stop() == 0
        assert server.stop() == 0
