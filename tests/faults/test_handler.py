"""The order of claim and acknowledgement, seen from the message."""

from pathlib import Path

import pytest

from application.runs.launch import TriggerRun
from domain.identity.scope import PLATFORM
from domain.ports.message_queue import IDelivery, Message
from domain.runs.run import RunState
from entrypoints.composition.lifecycle import running
from entrypoints.use_cases import UseCases
from entrypoints.worker.handlers import RunHandler
from tests.faults.test_queues import ME, container_of, put


class WatchfulDelivery(IDelivery):
    """Looks at the run, through a transaction of its own, when it is acknowledged or rejected."""

    def __init__(self, use_cases: UseCases, body: dict[str, object]) -> None:
        self._use_cases = use_cases
        self._body = body
        self.seen: list[RunState | str] = []

    @property
    def message(self) -> Message:
        return Message(self._body)

    async def acknowledge(self) -> None:
        async with self._use_cases.launcher.records.unit(PLATFORM) as unit:
            run = await unit.runs.get("default", str(self._body["run_id"]))
        self.seen.append(run.state if run else "unknown")

    async def reject(self, reason: str) -> None:
        self.seen.append(reason)


@pytest.mark.invariant("Q3")
async def test_message_is_acknowledged_once_its_claim_is_committed(tmp_path: Path) -> None:
    async with running(container_of(tmp_path), with_store=True) as use_cases:
        await put(
            use_cases,
            "{version: 1, pipeline: p, source: {table: source, key: [id]}, destination: {table: t}}",
        )
        run = await use_cases.launcher.launch(ME, TriggerRun("p"))
        delivery = WatchfulDelivery(use_cases, {"run_id": run.id})

        await RunHandler(use_cases).handle(delivery)

        assert delivery.seen == [RunState.RUNNING]
        again = WatchfulDelivery(use_cases, {"run_id": run.id})  # Refused is settled too.
        await RunHandler(use_cases).handle(again)
        assert again.seen == [RunState.FAILED]  # It had no source; a second delivery changes nothing.


@pytest.mark.invariant("Q4")
async def test_message_that_names_no_run_is_rejected_with_its_reason(tmp_path: Path) -> None:
    async with running(container_of(tmp_path), with_store=True) as use_cases:
        for body in ({}, {"run_id": 7}, {"run": "x"}):
            delivery = WatchfulDelivery(use_cases, dict(body))
            await RunHandler(use_cases).handle(delivery)
            assert delivery.seen == ["the message names no run"]
