"""Servers once per session, a database per worker, and fresh containers per test."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, settings

from tests.databases import new_database
from tests.e2e.projects import new_project
from tests.forked import fork_children_of_benches
from tests.places import in_memory
from tests.program import is_quick, started_fork_server
from tests.servers import KafkaServer, PostgresServer, RedisServer
from tests.somebody import Somebody, somebody_in

# A time is no promise of a test: how long an example takes depends on what else the machine does.
settings.register_profile("headrace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headrace")

_SERVERS = pytest.StashKey[dict[str, Any]]()
_KINDS = {
    "postgres": (PostgresServer, "HEADRACE_TEST_POSTGRES_URL"),
    "redis": (RedisServer, "HEADRACE_TEST_REDIS_URL"),
    "kafka": (KafkaServer, "HEADRACE_TEST_KAFKA"),
}


def pytest_configure(config: pytest.Config) -> None:
    """The controller (or a lone process) starts the servers; workers get the addresses."""
    if is_quick():
        fork_children_of_benches(started_fork_server)
    config.stash[_SERVERS] = {}
    if (place := in_memory()) is not None:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(place))
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    for name, (kind, variable) in _KINDS.items():
        if not os.environ.get(variable):
            server = kind()
            config.stash[_SERVERS][name] = server
            server.start()


def pytest_configure_node(node: Any) -> None:
    for name, server in node.config.stash[_SERVERS].items():
        node.workerinput[f"{name}_port"] = server.port


def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are cores: what waits for a lease, a retry or a server leaves its core to another."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + (cores + 1) // 2


def pytest_unconfigure(config: pytest.Config) -> None:
    for server in config.stash.get(_SERVERS, {}).values():
        server.stop()


def _port(request: pytest.FixtureRequest, name: str) -> int:
    found: dict[str, Any] = getattr(request.config, "workerinput", {})
    return int(found[f"{name}_port"] if found else request.config.stash[_SERVERS][name].port)


@pytest.fixture(scope="session")
def postgres_server_url(request: pytest.FixtureRequest) -> str:
    """The server's URL without a database."""
    given = os.environ.get("HEADRACE_TEST_POSTGRES_URL")
    if given:
        return given.rsplit("/", 1)[0] if given.count("/") > 2 else given
    return f"postgresql://postgres@127.0.0.1:{_port(request, 'postgres')}"


@pytest.fixture(scope="session")
def redis_address(request: pytest.FixtureRequest) -> tuple[str, int]:
    """Host and port of the suite's Redis."""
    given = os.environ.get("HEADRACE_TEST_REDIS_URL")
    if given:
        parts = urlsplit(given)
        return parts.hostname or "127.0.0.1", parts.port or 6379
    return "127.0.0.1", _port(request, "redis")


@pytest.fixture(scope="session")
def kafka_servers(request: pytest.FixtureRequest) -> str:
    """The bootstrap servers of the suite's Kafka-protocol broker."""
    return os.environ.get("HEADRACE_TEST_KAFKA") or f"127.0.0.1:{_port(request, 'kafka')}"


@pytest.fixture
def postgres_database(postgres_server_url: str) -> Iterator[str]:
    """A database of the test's own; its URL."""
    with new_database(postgres_server_url) as url:
        yield url


@pytest.fixture
def somebody(postgres_database: str) -> Iterator[Somebody]:
    """A session of somebody else in the same database."""
    with somebody_in(postgres_database) as found:
        yield found


@pytest.fixture
def postgres_copy(postgres_server_url: str) -> Iterator[Callable[[str], str]]:
    """Copy a filled database of the same server; nobody may be connected to it."""
    with ExitStack() as copies:
        yield lambda url: copies.enter_context(new_database(postgres_server_url, like=url.rpartition("/")[2]))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty project folder."""
    return new_project(tmp_path / "project")
