"""Whether the process lives and is ready, told by all parts, with what to do about each."""

import json
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from application.loads.ends import Ends
from domain.errors import StoreUnavailableError
from domain.ports.store import StoreHealth
from domain.stores.connection import ConnectionSpec
from infrastructure.stores.memory.store import InMemoryDataStore
from tests.e2e.api import Server, headrace, serving
from tests.e2e.projects import postgres_connection, postgres_environment, with_people, write
from tests.servers import PostgresServer

PARTS = {"process", "records", "store", "queue", "cache", "authentication", "migrations", "disk"}


def health_when(server: Server, is_as_wanted: Any, seconds: float = 20) -> Mapping[str, Any]:
    deadline = time.monotonic() + seconds
    while True:
        found: Mapping[str, Any] = server.call("GET", "/health", key="").body
        if is_as_wanted(found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


@pytest.mark.invariant("X4")
def test_health_and_readiness_tell_of_every_part(project: Path) -> None:
    with serving(project) as server:
        found = health_when(server, lambda health: health["details"]["checks"])
        ready = server.call("GET", "/ready", key="")

    assert set(found) == {"status", "uptime_seconds", "details", "timestamp"}
    assert (found["status"] in ("healthy", "degraded"), found["uptime_seconds"] > 0) == (True, True)
    assert set(found["details"]["checks"]) == PARTS == set(ready.body["parts"])
    assert found["details"]["checks"]["records"] == {"status": "healthy", "detail": None, "recent": ["healthy"]}
    assert (ready.status, ready.body["ready"], ready.body["state"]) == (200, True, "running")


@pytest.mark.invariant("X4")
def test_store_that_is_away_degrades_the_health_until_it_is_back_and_no_request_waits(project: Path) -> None:
    database = PostgresServer()
    database.start()
    database.psql("CREATE DATABASE shop")
    settings = {**postgres_environment(f"{database.url}/shop"), "HEADRACE_HEALTH__INTERVAL_SECONDS": "0.2"}
    try:
        with serving(project, **settings) as server:
            health_when(server, lambda health: health["status"] != "shutting_down" and health["details"]["checks"])
            database.psql("ALTER DATABASE shop ALLOW_CONNECTIONS false")
            database.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'shop'")
            found = health_when(server, lambda health: health["details"]["checks"]["store"]["detail"])
            assert (found["status"], found["details"]["checks"]["store"]["status"]) == ("degraded", "unhealthy")
            assert server.call("GET", "/ready", key="").status == 503
            told = headrace(project, "health", **settings)
            assert told.returncode == 3
            assert "headrace connections test default" in told.stdout
            database.psql("ALTER DATABASE shop ALLOW_CONNECTIONS true")
            health_when(server, lambda health: health["details"]["checks"]["store"]["status"] == "healthy", 60)
            assert server.call("GET", "/ready", key="").status == 200
    finally:
        database.stop()


@pytest.mark.parametrize("is_away", [True, False])
def test_cache_that_is_away_is_told_and_work_goes_on(
    is_away: bool, project: Path, redis_address: tuple[str, int]
) -> None:
    host, port = ("127.0.0.1", 1) if is_away else redis_address
    settings = {"HEADRACE_CACHE__KIND": "redis", "REDIS_HOST": host, "REDIS_PORT": str(port)}
    with serving(project, **settings) as server:
        ready = server.call("GET", "/ready", key="")

    assert (ready.status, ready.body["ready"]) == (200, True)
    assert ready.body["parts"]["cache"] == ("degraded: The cache cannot be reached." if is_away else None)


@pytest.mark.parametrize("is_served", [True, False])
def test_disk_with_less_room_than_is_wanted_takes_no_work_and_says_what_to_do(project: Path, is_served: bool) -> None:
    headrace(project, "runs", "list")
    wanted = {"HEADRACE_HEALTH__LEAST_FREE_MB": str(10**9)}
    if is_served:
        with serving(project) as server:
            assert server.call("GET", "/ready", key="").status == 200
    found = json.loads(headrace(project, "health", "--json", **wanted).stdout)
    doctor = headrace(project, "doctor", **wanted)

    assert (found["ready"], "are wanted" in found["parts"]["disk"]) == (False, True)
    assert (doctor.returncode, "HEADRACE_HOME" in doctor.stdout) == (3, True)


def test_version_of_the_api_is_that_of_the_settings(project: Path) -> None:
    with serving(project, API_VERSION="2026-11") as server:
        described = server.call("GET", "/openapi.json").body
        told = server.call("GET", "/version", key="").body

    assert described["info"]["version"] == told["api_version"] == "2026-11"
    assert told["version"] == version("headrace")


def test_run_names_the_end_and_the_step_that_failed_before_it_has_touched_either(project: Path) -> None:
    with_people(project)
    write(project, "connections/gone.yaml", postgres_connection("postgresql://nobody@127.0.0.1:1/none", "gone"))
    for end, source, destination in (
        ("destination", "connection: landing, path: people.csv", "connection: gone, table: people"),
        ("source", "connection: gone, table: people", "table: people"),
    ):
        text = f"version: 1\npipeline: {end}\nsource: {{{source}}}\ndestination: {{{destination}}}\nretry: {{attempts: 0}}\n"
        write(project, f"pipelines/{end}.yaml", text)
        failed = json.loads(headrace(project, "run", f"pipelines/{end}.yaml", "--json").stdout)

        assert failed["error"]["code"] == "store.unavailable"
        assert failed["error"]["message"].startswith(f"The {end} gone failed at network: ")
        assert failed["report"] is None


@pytest.mark.parametrize("is_source", [True, False])
async def test_full_disk_stops_what_is_written_to_and_not_what_is_only_read(is_source: bool) -> None:
    full = StoreUnavailableError("The disk is full.", code="disk_full")
    weak, well = InMemoryDataStore(), InMemoryDataStore()
    weak.health_check = lambda: _answer(StoreHealth(False, "write", full.message, full))  # type: ignore[method-assign]
    for store in (weak, well):
        await store.open()
    one, other = ConnectionSpec("one", "memory"), ConnectionSpec("other", "memory")
    source, destination = (weak, well) if is_source else (well, weak)
    ends = Ends("default", one, source, other, destination)
    if is_source:
        await ends.check_health()
        return
    with pytest.raises(StoreUnavailableError, match="The destination other is not usable: The disk is full") as told:
        await ends.check_health()
    assert told.value.code == "disk_full"


async def _answer(health: StoreHealth) -> StoreHealth:
    return health
