"""A lane that the first version left in the middle of a load: its tables are brought up to date, and its rows land
once.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pytest

from application.runs.launch import TriggerRun
from entrypoints.composition.container import build_container
from entrypoints.composition.lifecycle import running
from infrastructure.settings.sources import load_settings
from tests.e2e.projects import postgres_connection
from tests.e2e.tables import duckdb_rows, postgres
from tests.faults.test_keys import ME, document, put

# As the first version wrote them when it was killed after its first batch; only the key and the fingerprint are put in.
TABLES = """
CREATE TABLE _headrace_checkpoint (org TEXT NOT NULL, pipeline TEXT NOT NULL, lane TEXT NOT NULL, stream TEXT NOT NULL,
 read_set TEXT, fence BIGINT NOT NULL, seq BIGINT NOT NULL, position TEXT, state TEXT NOT NULL, read BIGINT NOT NULL,
 used BIGINT NOT NULL, filtered BIGINT NOT NULL, produced BIGINT NOT NULL, deduplicated BIGINT NOT NULL,
 quarantined BIGINT NOT NULL, failed BIGINT NOT NULL, stats TEXT NOT NULL);
CREATE TABLE _headrace_owner ("table" TEXT NOT NULL, org TEXT NOT NULL, pipeline TEXT NOT NULL, mode TEXT NOT NULL);
INSERT INTO _headrace_owner VALUES ('copied', 'default', 'sold', 'append');
CREATE TABLE copied (id BIGINT, "at" TIMESTAMPTZ, t TIME, note TEXT, _headrace_loaded_at TIMESTAMPTZ, _headrace_run_id UUID);
INSERT INTO copied (id, "at", t, note) VALUES (1, '2024-01-01 00:00:00+00', '01:00', 'n1'),
 (2, '2024-01-01 01:00:00+00', '02:00', 'n2'), (3, '2024-01-01 01:00:00+00', '03:00', 'n3')
"""
HEAD = {
    "read_set": {
        "id": "01a21cf3-a7dd-737f-9e3f-bbaec9c0e0db", "fingerprint": "",
        "plan": {
            "columns": [["id", "int64"], ["at", "timestamptz"], ["t", "time"], ["note", "string"]],
            "streams": [{"name": "0", "lower": None, "upper": None}], "ordered": True, "order": [],
            "lo": None, "hi": "2026-11-27 12:21:00.275345+00:00", "files": [], "limit": None, "is_text": False,
            "note": None, "partition": None,
        },
        "batch_rows": 3, "shadow": None, "expected": None, "baseline": None, "generation": 0, "batch_bytes": 67108864,
        "is_adopted": False,
    },
    "fingerprint": "",
}  # fmt: skip
GIVEN = "id bigint NOT NULL, at timestamptz NOT NULL, t time NOT NULL, note text"
CURSOR = "table: sold, cursor: {column: at}"
# The source's constraint, its declaration, the key and the place that were stored, and what its rows have become since.
LANES = {
    "proved": ("PRIMARY KEY (id)", CURSOR, ["at", "id"], ["2024-01-01T01:00:00+00:00", "3"], None),
    "alone": ("CHECK (true)", f"{CURSOR}, key: [id]", ["at", "id"], ["2024-01-01T01:00:00+00:00", "3"], None),
    "shared": ("CHECK (true)", f"{CURSOR}, key: [note]", ["at", "note"], ["2024-01-01T01:00:00+00:00", "n3"], "UPDATE sold SET note = 'n3' WHERE id = 2"),
    "midnight": ("PRIMARY KEY (t, id)", "table: sold", ["t", "id"], ["00:00:00", "3"], None),
}  # fmt: skip
FINGERPRINTS = {("proved", "shop"): "ad1afff6ef3e7fa9", ("proved", ""): "40dfd61a756a9c60"}


def left_behind(execute: Any, order: list[str], place: list[str], fingerprint: str) -> None:
    head = json.loads(json.dumps(HEAD))
    head["fingerprint"] = head["read_set"]["fingerprint"] = fingerprint
    head["read_set"]["plan"]["order"] = order
    for statement in TABLES.split(";"):
        execute(statement)
    read_set = head["read_set"]["id"]
    for stream, position, read, stats in (("head", "NULL", 0, head), ("0", f"'{json.dumps(place)}'", 3, {})):
        execute(
            f"INSERT INTO _headrace_checkpoint VALUES ('default', 'sold', 'main', '{stream}', '{read_set}', 1, 1, "
            f"{position}, 'loading', {read}, {read}, 0, {read}, 0, 0, 0, '{json.dumps(stats)}')"
        )


@pytest.mark.invariant("D1")
@pytest.mark.parametrize("connection", ["shop", ""], ids=["postgres", "duckdb"])
@pytest.mark.parametrize("lane", LANES)
async def test_lane_that_the_first_version_left_goes_on_or_says_why_not(
    lane: str, connection: str, project: Path, postgres_database: str
) -> None:
    constraint, source, order, place, change = LANES[lane]
    postgres(postgres_database, f"CREATE TABLE sold ({GIVEN}, {constraint})")
    postgres(
        postgres_database,
        "INSERT INTO sold SELECT g, timestamptz '2024-01-01 00:00+00' + (g / 2) * interval '1 hour', "
        "time '00:00' + g * interval '1 hour', 'n' || g FROM generate_series(1, 10) g",
    )
    if change:
        postgres(postgres_database, change)
    to = f"connection: {connection}, table: copied" if connection else "table: copied"
    text = document("sold", source, to, rows=3, work="transform: [{sql: select * from batch}]\n")
    settings = load_settings(root=project, environment={}).settings
    path = project / ".headrace/data.duckdb"

    async with running(build_container(settings, project), with_store=False) as use_cases:
        await put(use_cases, postgres_connection(postgres_database, "shop"), text)
        spec = await use_cases.states.spec_of(ME, "sold")
        source = await use_cases.probe.stores.named("default", spec.source.connection)
        keyed = await use_cases.planner.reads.with_key(source, spec)
        assert FINGERPRINTS.get((lane, connection), keyed.fingerprint) == keyed.fingerprint
        if connection:
            left_behind(lambda sql: postgres(postgres_database, sql), order, place, keyed.fingerprint)
        else:
            with duckdb.connect(str(path)) as opened:
                left_behind(opened.execute, order, place, keyed.fingerprint)
        before = await use_cases.states.state(ME, "sold")
        run = await use_cases.executor.execute_to_end(await use_cases.launcher.launch_claimed(ME, TriggerRun("sold")))

    assert (before.fence, before.streams[0].position) == (1, tuple(place))
    sql = "SELECT id FROM copied"
    found = Counter(row[0] for row in (postgres(postgres_database, sql) if connection else duckdb_rows(path, sql)))
    if lane in ("proved", "alone"):
        assert (run.state.value, run.error) == ("succeeded", None)
        assert found == Counter(range(1, 11))
    else:
        assert (run.state.value, (run.error and run.error.code)) == ("failed", "run.place_unclear")
        assert found == Counter([1, 2, 3])
