"""What is said of where a read by a cursor ended: in the report, in the state of the pipeline, in the plan, at both
doors.
"""

import json
from pathlib import Path

import pytest

from application.catalog.documents import PutDocument
from application.runs.launch import TriggerRun
from domain.identity.principal import Principal, Role
from domain.runs.run import Run
from entrypoints.answers.pipelines import state_body
from entrypoints.answers.runs import run_body
from entrypoints.cli.render import print_report
from entrypoints.composition.container import build_container
from entrypoints.composition.lifecycle import running
from entrypoints.documents.reading import read_text
from entrypoints.use_cases import UseCases
from infrastructure.settings.sources import load_settings
from infrastructure.stores import cursor_ends
from tests.e2e.projects import postgres_connection
from tests.somebody import somebody_in

ME = Principal("me", "default", frozenset({Role.PLATFORM_ADMIN}))
PIPELINE = {
    "version": 1,
    "pipeline": "events",
    "source": {"connection": "shop", "table": "events", "key": ["id"], "cursor": {"column": "at"}},
    "destination": {"table": "events"},
}


async def ran(use_cases: UseCases) -> Run:
    claimed = await use_cases.launcher.launch_claimed(ME, TriggerRun("events"))
    assert claimed is not None
    return await use_cases.executor.execute_to_end(claimed)


async def test_who_holds_a_read_back_is_told_until_it_is_over(
    project: Path, postgres_database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursor_ends, "WAIT_SECONDS", 0.2)
    settings = load_settings(root=project, environment={}).settings
    texts = [postgres_connection(postgres_database, "shop"), json.dumps(PIPELINE)]
    documents = [read_text(text, "doc", {}) for text in texts]
    commands = [PutDocument(document.kind, document.name, document.body) for document in documents]
    with somebody_in(postgres_database) as somebody, somebody_in(postgres_database) as late:
        somebody.does("CREATE TABLE events (id int PRIMARY KEY, at timestamptz DEFAULT now())")
        pid = late.does("SELECT pg_backend_pid()")[0][0]
        late.does("SET application_name = 'till'; BEGIN; INSERT INTO events (id) VALUES (1)")
        somebody.does("INSERT INTO events (id) VALUES (2)")
        async with running(build_container(settings, project), with_store=True) as use_cases:
            for command in commands:
                await use_cases.catalog.put(ME, command)
            [_, planned] = await use_cases.planner.plan(ME, commands, prune=False)
            held = await ran(use_cases)
            during = state_body("events", await use_cases.states.state(ME, "events"))
            late.does("COMMIT")
            after = await ran(use_cases)
            now = state_body("events", await use_cases.states.state(ME, "events"))

    session = f"session {pid} (user postgres, application till)"
    assert any(note.startswith("cursor: Held back since") and session in note for note in planned.notes)
    assert held.report is not None
    assert held.report.counts.read == 0
    assert session in held.report.cursor["held_back"][0]
    assert during["cursor"] == held.report.to_json()["cursor"]
    assert after.report is not None
    assert after.report.counts.read == 2
    assert "cursor" not in now
    assert now["complete_as_of"] == after.report.complete_as_of > during["complete_as_of"]
    print_report(run_body(held))
    assert session in capsys.readouterr().out
