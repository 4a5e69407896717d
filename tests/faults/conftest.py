"""Brokers, servers and disks of the fault suite, which its tests may break."""

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import PostgresServer, RedisServer


@pytest.fixture
def queue_settings(request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings of the broker named by the test's parameter `queue`."""
    kind = request.getfixturevalue("queue")
    if kind == "redis":
        server = request.getfixturevalue("own_redis")
        return {
            "HEADRACE_QUEUE__KIND": "redis",
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(server.port),
            "HEADRACE_QUEUE__REDELIVERY_SECONDS": "2",
        }
    return {
        "HEADRACE_QUEUE__KIND": "kafka",
        "KAFKA_BOOTSTRAP_SERVERS": request.getfixturevalue("kafka_servers"),
        "HEADRACE_KAFKA__TOPIC_PREFIX": f"h{uuid.uuid4().hex[:12]}.",
        "HEADRACE_QUEUE__REDELIVERY_SECONDS": "6",
        "HEADRACE_QUEUE__PARTITIONS": "4",
    }


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A Postgres that the test may kill, or whose disk it may fill."""
    server = PostgresServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis that the test may kill."""
    server = RedisServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """24 MB that can be filled."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip("a tmpfs of its own cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=False)
