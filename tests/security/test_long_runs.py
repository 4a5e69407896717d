"""The history and the logs of a run that has very many lines are read a page at a time, whoever asks."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from application.answers import AnswerLimits
from application.identity.access import IssueKey
from application.runs.launch import TriggerRun
from domain.events import Origin, RunReleased
from domain.identity.principal import Role
from domain.runs.run import Run, RunRequest
from entrypoints.answers.cursors import cursor_of
from entrypoints.answers.histories import log_place_of, logs_body
from entrypoints.client.protocol import newest_pages
from entrypoints.http.app import create_app
from tests.e2e.inside import ME, Inside, inside

_NOTES = 40


@asynccontextmanager
async def _long(folder: Path, events: int) -> AsyncIterator[tuple[Inside, Run]]:
    """An installation with a run of many lines."""
    async with inside(folder, HEADRACE_STORE__KIND="memory") as installation:
        await installation.pipeline("p", "query: select 1 as id", "table: t")
        run = await installation.use_cases.launcher.launch_claimed(ME, TriggerRun("p", RunRequest()))
        assert run is not None
        for part in range(_NOTES):
            async with installation.use_cases.launcher.records.unit(ME.scope) as unit:
                released = partial(RunReleased, Origin.of(run), f"e{part}", pause_seconds=0.0)
                await unit.events.add(*(released(retry=n) for n in range(events // _NOTES)))
                await unit.runs.note(run.id, run.fence, reason=f"note {part}")
                await unit.commit()
        yield installation, run


async def _lines(there: Inside, run: Run, limit: int, limits: AnswerLimits) -> tuple[list[Any], list[int]]:
    """All lines, page by page, and how many each page has."""
    pages: list[list[Any]] = []
    cursor: str | None = None
    while not pages or cursor is not None:
        before = log_place_of("default", run.id, cursor)
        found = await there.use_cases.history.logs(ME, run.id, before=before, newest=limit + 1)
        assert max(map(len, found)) <= limit + 1
        body = logs_body("default", run.id, found, limit, limits)
        pages, cursor = [body["items"], *pages], body["next_cursor"]
    return [line for page in pages for line in page], [len(page) for page in pages]


async def test_pages_of_any_size_have_the_same_lines_in_the_same_order(tmp_path: Path) -> None:
    async with _long(tmp_path, 80) as (there, run):
        whole, one = await _lines(there, run, 2000, AnswerLimits())

        assert one == [len(whole)]
        assert len([line for line in whole if line["event"] == "pipeline.released"]) == 80
        assert [line["at"] for line in whole] == sorted(line["at"] for line in whole)
        reasons = [line["reason"] for line in whole if "to" in line]
        assert reasons == ["requested", "claimed", *(f"note {part}" for part in range(_NOTES))]
        for limit in (1, 7, 30, len(whole)):
            lines, sizes = await _lines(there, run, limit, AnswerLimits())
            assert lines == whole
            assert set(sizes[1:]) <= {limit}
        lines, sizes = await _lines(there, run, 500, AnswerLimits(answer_bytes=2_000))
        assert lines == whole  # What has no room on a page is on the next one.
        assert max(sizes) < 20


async def test_a_page_that_nobody_asked_to_be_long_is_not(tmp_path: Path) -> None:
    async with _long(tmp_path, 640) as (there, run):
        issued = await there.use_cases.keys.issue(ME, IssueKey(Role.VIEWER.value))
        app = create_app(there.use_cases, title="headrace", max_body_bytes=1024)

        async def asked(what: str, **query: Any) -> tuple[int, Any]:
            return await _asked(app, f"/v1/runs/{run.id}/{what}", query, issued.key)

        status, logs = await asked("logs")
        assert (status, len(logs["items"])) == (200, 500)
        _, history = await asked("transitions", limit=30)
        assert [line["reason"] for line in history["items"]] == [f"note {part}" for part in range(10, 40)]
        _, rest = await asked("transitions", limit=30, cursor=history["next_cursor"])
        assert [line["reason"] for line in rest["items"]][:3] == ["requested", "claimed", "note 0"]
        assert (len(rest["items"]), rest["next_cursor"]) == (12, None)
        _, rest = await asked("logs", cursor=logs["next_cursor"])
        assert (len(rest["items"]), rest["next_cursor"]) == (
            640 + _NOTES + 4 - 500,
            None,
        )  # Of both kinds, two of the claim.

        forged = cursor_of("default", f"logs of {run.id}", ("9" * 90, "-1"))
        for what, cursor in (("transitions", logs["next_cursor"]), ("logs", history["next_cursor"]), ("logs", forged)):
            status, refused = await asked(what, cursor=cursor)
            assert (status, refused["code"]) == (400, "request.cursor")
        status, everything = await asked("logs", cursor=cursor_of("default", f"logs of {run.id}", ("9" * 90, "9" * 90)))
        assert (status, len(everything["items"])) == (200, 500)
        assert [(await asked("logs", limit=limit))[0] for limit in (0, 501)] == [422, 422]


def test_the_command_line_shows_the_lines_of_all_pages_and_of_very_many_the_newest() -> None:
    def page(cursor: str | None) -> dict[str, Any]:
        place = int(cursor or count)
        return {"items": [place - 1, place], "next_cursor": str(place - 2) if place > 2 else None}

    count = 10
    assert newest_pages(page) == {"items": list(range(1, 11))}
    count = 1000
    assert newest_pages(page) == {"items": list(range(921, 1001)), "note": "Only the newest 80 are shown."}


async def _asked(app: Any, path: str, query: dict[str, Any], key: str) -> tuple[int, Any]:
    messages: asyncio.Queue[Any] = asyncio.Queue()
    messages.put_nowait({"type": "http.request", "body": b""})
    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {key}".encode())]
    told: list[Any] = []

    async def send(message: Any) -> None:
        told.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": urlencode(query).encode(),
             "headers": headers, "root_path": ""}  # fmt: skip
    await app(scope, messages.get, send)
    return told[0]["status"], json.loads(b"".join(message.get("body", b"") for message in told[1:]))
