"""Runs that are cancelled, retried, watched, or that kill whoever touches them."""

import json
import time
from pathlib import Path

import pytest

from tests.e2e.api import SLOW_BATCHES, Server, headrace, serving
from tests.e2e.projects import people_pipeline, with_people, write
from tests.e2e.tables import duckdb_rows

COUNT = "SELECT count(*), count(DISTINCT id) FROM people"
ROWS = 20_000
# Renewals hear of a cancel, and a shorter lease is renewed more often.
LEASE = {"HEADRACE_RUN__LEASE_SECONDS": "3"}
EXACT = [(ROWS - ROWS // 100 - 1, ROWS - ROWS // 100 - 1)]


def put(server: Server, folder: Path) -> None:
    for name in ("connections/landing", "pipelines/people"):
        server.call("PUT", f"/v1/{name}", (folder / f"{name}.yaml").read_text(), kind="application/yaml")


def triggered(server: Server) -> str:
    run_id: str = server.call("POST", "/v1/pipelines/people/trigger").body["id"]
    return run_id


@pytest.mark.invariant("C1")
def test_cancel_stops_at_a_batch_and_the_next_run_completes_exactly(project: Path) -> None:
    with_people(project, rows=ROWS)
    write(project, "pipelines/people.yaml", people_pipeline())
    with serving(project, HEADRACE_FAILPOINT=SLOW_BATCHES, **LEASE) as server:
        put(server, project)
        first, second = triggered(server), triggered(server)
        while server.call("GET", f"/v1/runs/{first}").body["state"] == "queued":
            pass
        while not any(stream["seq"] for stream in server.call("GET", "/v1/pipelines/people/state").body["streams"]):
            pass
        reset = server.call("POST", "/v1/pipelines/people/reset", {})
        assert (reset.status, reset.body["code"], first in reset.body["detail"]) == (409, "run.lane_busy", True)
        waiting = server.call("POST", f"/v1/runs/{second}/cancel")
        assert (waiting.status, waiting.body["state"]) == (202, "cancelled")  # It was never claimed.
        started = time.monotonic()
        assert server.call("POST", f"/v1/runs/{first}/cancel").body["cancel_requested"]
        assert server.wait_for(first)["state"] == "cancelled"
        assert time.monotonic() - started < 10
        again = server.call("POST", f"/v1/runs/{first}/cancel")
        assert (again.status, again.body["code"]) == (409, "run.terminal")
        state = server.call("GET", "/v1/pipelines/people/state").body
        assert 0 < state["streams"][0]["seq"] < ROWS / 100

        retried = server.call("POST", f"/v1/runs/{first}/retry")
        assert retried.status == 202
        assert server.wait_for(retried.body["id"])["report"]["adopted"]
        refused = server.call("POST", f"/v1/runs/{retried.body['id']}/retry")
        assert (refused.status, refused.body["code"]) == (409, "run.not_failed")
        assert server.stop() == 0
    assert duckdb_rows(project / ".headrace/data.duckdb", COUNT) == EXACT


@pytest.mark.invariant("R4")
def test_run_that_kills_its_workers_in_one_place_is_poison_and_can_be_retried(project: Path) -> None:
    with_people(project, rows=1000)
    write(project, "pipelines/people.yaml", people_pipeline())
    ends = [
        headrace(project, "run", "pipelines/people.yaml", HEADRACE_FAILPOINT=f"batch.mid_rows:{nth}:kill").returncode
        for nth in (4, 1, 1)
    ]
    assert ends == [-9, -9, -9]
    moved = headrace(project, "run", "pipelines/people.yaml", HEADRACE_FAILPOINT="batch.mid_rows:2:kill")
    assert moved.returncode == -9  # It brought a batch, so the count starts again.
    for _ in range(3):
        assert headrace(project, "run", "people", HEADRACE_FAILPOINT="batch.mid_rows:1:kill").returncode == -9

    poisoned = headrace(project, "run", "people", "--json")
    assert poisoned.returncode == 1
    assert json.loads(poisoned.stdout)["reason"] == "poison"
    run_id = json.loads(poisoned.stdout)["id"]
    retried = headrace(project, "runs", "retry", run_id, "--json")

    assert retried.returncode == 0, retried.stderr
    assert headrace(project, "runs", "watch", json.loads(retried.stdout)["id"]).returncode == 0
    assert duckdb_rows(project / ".headrace/data.duckdb", COUNT) == [(989, 989)]


@pytest.mark.invariant("R4")
def test_graceful_releases_are_no_crashes(project: Path) -> None:
    with_people(project, rows=5000)
    write(project, "pipelines/people.yaml", people_pipeline().replace("batch_rows: 100", "batch_rows: 20"))
    with serving(project, HEADRACE_FAILPOINT=SLOW_BATCHES) as server:
        put(server, project)
        run_id = triggered(server)
    for _ in range(4):
        with serving(project, HEADRACE_FAILPOINT=SLOW_BATCHES) as server:
            assert server.stop() == 0
    assert json.loads(headrace(project, "runs", "show", run_id, "--json").stdout)["state"] in ("queued", "succeeded")

    assert headrace(project, "runs", "cancel", "unknown").returncode == 2
    headrace(project, "run", "people")
    assert duckdb_rows(project / ".headrace/data.duckdb", COUNT) == [(4949, 4949)]
