"""Servers once per session, a database per worker, and fresh containers per test."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import PostgresServer

_SERVER = pytest.StashKey[PostgresServer]()


def pytest_configure(config: pytest.Config) -> None:
    """The controller (or a lone process) starts the servers; workers get the addresses."""
    if hasattr(config, "workerinput") or config.option.collectonly or os.environ.get("HEADRACE_TEST_POSTGRES_URL"):
        return
    server = PostgresServer()
    server.start()
    config.stash[_SERVER] = server


def pytest_configure_node(node: Any) -> None:
    if _SERVER in node.config.stash:
        node.workerinput["postgres_port"] = node.config.stash[_SERVER].port


def pytest_unconfigure(config: pytest.Config) -> None:
    if _SERVER in config.stash:
        config.stash[_SERVER].stop()


@pytest.fixture(scope="session")
def postgres_server_url(request: pytest.FixtureRequest) -> str:
    """The server's URL without a database."""
    given = os.environ.get("HEADRACE_TEST_POSTGRES_URL")
    if given:
        return given.rsplit("/", 1)[0] if given.count("/") > 2 else given
    if hasattr(request.config, "workerinput"):
        return f"postgresql://postgres@127.0.0.1:{request.config.workerinput['postgres_port']}"
    return request.config.stash[_SERVER].url


@pytest.fixture
def postgres_database(postgres_server_url: str) -> Iterator[str]:
    """A database of the test's own; its URL."""
    from adbc_driver_postgresql import dbapi

    name = f"t{uuid.uuid4().hex[:16]}"
    with dbapi.connect(f"{postgres_server_url}/postgres", autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    yield f"{postgres_server_url}/{name}"
    with dbapi.connect(f"{postgres_server_url}/postgres", autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty project folder."""
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "headrace.toml").write_text("[settings]\n")
    return folder
