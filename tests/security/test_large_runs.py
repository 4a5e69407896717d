"""A run with a large report takes its turn to be shown, as pages do: dozens at a time kept all others waiting."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from domain.errors import NotFoundError
from entrypoints.http.pipelines import status
from entrypoints.http.runs import get_run
from tests.e2e.inside import ME, inside
from tests.e2e.projects import write

pytestmark = pytest.mark.line("36")


class Turns:
    """Counts those that are taken."""

    def __init__(self) -> None:
        self.taken = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        self.taken += 1
        yield


def _plain(answer: Any) -> Any:
    return answer if isinstance(answer, dict) else json.loads(answer.body)


async def test_a_large_run_takes_its_turn_and_shows_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "headrace.toml", "[settings]\n")
    write(tmp_path, "data/people.csv", "id\n1\n2\n")
    async with inside(tmp_path) as headrace:
        cases = headrace.use_cases
        await headrace.put("{version: 1, connection: landing, kind: files, options: {root: data}}")
        await headrace.pipeline("p", "connection: landing, path: people.csv, key: [id]", "table: t")
        first, last = await headrace.ran("p"), await headrace.ran("p")
        shown = []
        for most, turns in ((100_000, 0), (10, 2)):
            taken = Turns()
            for module in ("application.runs.history", "application.pipelines.state"):
                monkeypatch.setattr(f"{module}.LARGE_CHARACTERS", most)
            shown.append(_plain(await get_run(first.id, cases, ME, taken.one())))
            shown.append(_plain(await status("p", cases, ME, taken.one())))
            assert taken.taken == turns
            with pytest.raises(NotFoundError):
                await get_run("none", cases, ME, taken.one())
            with pytest.raises(NotFoundError):
                await status("none", cases, ME, taken.one())
            assert taken.taken == turns
    assert shown[:2] == shown[2:]
    assert (shown[0]["id"], shown[1]["last_run"]["id"]) == (first.id, last.id)
