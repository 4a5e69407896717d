"""A client in the process of the command: one session for what it asks, and signals as they should be."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from application.catalog.documents import PutDocument
from domain.errors import PlatformError, UnavailableError
from domain.ports.engine import Progress
from domain.runs.run import RunRequest
from entrypoints.client.in_process import InProcessClient
from entrypoints.client.protocol import Listener
from entrypoints.composition.container import build_container
from entrypoints.documents.reading import read_text
from entrypoints.use_cases import UseCases
from infrastructure.settings.sources import load_settings
from tests.e2e.inside import ME


def client_in(folder: Path) -> InProcessClient:
    settings = load_settings(root=folder, environment={"HEADRACE_STORE__KIND": "memory"}).settings
    return InProcessClient(lambda: build_container(settings, folder), ME)


def test_what_is_opened_is_opened_once_and_closed_with_the_block(project: Path) -> None:
    async def itself(cases: UseCases) -> UseCases:
        return cases

    with client_in(project) as client:
        assert not (project / ".headrace").exists()  # Nothing was asked yet.
        first, second = client.call(itself), client.call(itself)
        assert first is second
        assert not first.life.is_draining
        with pytest.raises(PlatformError, match="no pipeline named nothing"):
            client.document("pipeline", "nothing")
        assert client.documents("pipeline") == {"items": [], "next_cursor": None}

    assert first.life.is_draining
    client.close()


def test_signals_drain_while_something_is_done_and_are_the_users_own_between(project: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    async def told(cases: UseCases) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        async with asyncio.timeout(10):
            await cases.life.wait_for_shutdown()
        return cases.life.is_draining

    with client_in(project) as client:
        client.keys()
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        assert client.call(told)
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_time_of_a_run_counts_from_when_all_is_open(project: Path) -> None:
    (project / "data/orders.csv").write_text("id\n1\n2\n")
    texts = (
        "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n",
        "version: 1\npipeline: orders\nsource: {connection: landing, path: orders.csv}\ndestination: {table: orders}\n",
    )
    given = [read_text(text, "doc", {}) for text in texts]
    documents = [PutDocument(each.kind, each.name, each.body) for each in given]
    heard: list[str] = []

    def begin() -> Callable[[Progress], None]:
        heard.append("open" if client._use_cases is not None else "too early")
        return lambda progress: heard.append(f"{progress.rows_read} rows")

    with client_in(project) as client:
        client.apply(documents, prune=False)
    with client_in(project) as client:
        assert client.run_to_end("orders", [], RunRequest(), Listener(begin))["state"] == "succeeded"
    assert heard == ["open", "2 rows"]


def test_a_run_is_left_to_nobody_and_nothing_is_stored(project: Path) -> None:
    with client_in(project) as client:
        with pytest.raises(UnavailableError, match="needs a running headrace up"):
            client.trigger("people", [], RunRequest())
    assert not (project / ".headrace").exists()
