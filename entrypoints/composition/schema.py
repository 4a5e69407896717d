"""The schema of the records, looked at and brought to the newest revision before anything else uses them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from domain.ports.records.unit_of_work import IRecords
from entrypoints.composition.container import Container

T = TypeVar("T")


def upgrade_schema(container: Container) -> str:
    """Bring the schema to the newest revision, and name it."""
    return _with_records(container, lambda records: records.upgrade())


def schema_revisions(container: Container) -> tuple[str | None, str]:
    """The revision that the records have, and the newest known."""
    return _with_records(container, lambda records: records.current())


def _with_records(container: Container, action: Callable[[IRecords], Awaitable[T]]) -> T:
    container.paths().create_home()
    records: IRecords = container.gateways.records()

    async def done() -> T:
        try:
            await records.open()
            return await action(records)
        finally:
            await records.close()

    return asyncio.run(done())
