"""Suites of the small ports: engine, secrets, keys, clock, identifiers."""

import asyncio
import os
import pickle
from datetime import UTC
from pathlib import Path

import pytest

from domain.errors import InvalidInputError, NotFoundError, WorkFailedError
from domain.loads.checkpoint import StreamState
from domain.loads.read_set import Stream
from domain.loads.report import StreamReport
from domain.pipelines.spec import DestinationSpec, PipelineSpec, SourceSpec
from domain.pipelines.steps import SqlStep
from domain.ports.engine import OnNews, Stop, StreamTask
from domain.ports.secrets import ISecretProvider, Secret
from domain.ports.transformer import TransformPlan
from domain.quality.measures import Counts
from domain.stores.connection import ConnectionSpec
from domain.stores.table import Column
from infrastructure.clock import SystemClock
from infrastructure.engines.local import LocalEngine
from infrastructure.runtime import RandomIdentifiers
from infrastructure.secrets.environment import EnvironmentSecretProvider
from infrastructure.secrets.files import FileSecretProvider
from infrastructure.security.api_keys import ApiKeys
from tests.ports.loading import LANE, TABLE, read_set, target


def task(name: str) -> StreamTask:
    planned = read_set()
    return StreamTask(
        spec=PipelineSpec(
            "orders", SourceSpec(table=TABLE, parameters={"a": 1}), DestinationSpec(TABLE), (SqlStep("select 1"),)
        ),
        lane=LANE,
        source=ConnectionSpec("shop", "postgres", {"host": "h"}, {"password": "env:SHOP"}),
        destination=ConnectionSpec("default", "default"),
        target=target(planned),
        transform=TransformPlan((Column("id", "int64"),)),
        read_set=planned,
        stream=Stream(name),
        state=StreamState(name),
        fence=1,
        token="t",
    )


@pytest.fixture(params=["local"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.clause("IEngine", 1)
async def test_every_task_runs_once_and_reports_in_order(kind: str) -> None:
    ran: list[str] = []

    async def run(given: StreamTask, stop: Stop, on_news: OnNews) -> StreamReport:
        await asyncio.sleep(0.01 if given.stream.name == "0" else 0)
        ran.append(given.stream.name)
        return StreamReport(given.stream.name, Counts(), 1)

    reports = await LocalEngine(run).run(
        [task("0"), task("1"), task("2")], parallelism=2, stop=lambda: None, on_news=lambda _: None
    )

    assert [report.stream for report in reports] == ["0", "1", "2"]
    assert sorted(ran) == ["0", "1", "2"]


@pytest.mark.clause("IEngine", 2)
async def test_failing_stream_stops_the_others_and_is_raised(kind: str) -> None:
    stopped: list[str | None] = []
    has_begun = asyncio.Event()

    async def run(given: StreamTask, stop: Stop, on_news: OnNews) -> StreamReport:
        if given.stream.name == "0":
            await has_begun.wait()
            raise WorkFailedError("first")
        has_begun.set()
        while stop() is None:
            await asyncio.sleep(0)
        stopped.append(stop())
        return StreamReport(given.stream.name, Counts(), 1, interrupted=True)

    with pytest.raises(WorkFailedError, match="first"):
        await LocalEngine(run).run([task("0"), task("1")], parallelism=2, stop=lambda: None, on_news=lambda _: None)

    assert stopped == ["sibling_failed"]


@pytest.mark.clause("IEngine", 4)
async def test_streams_at_a_time_are_bounded(kind: str) -> None:
    running, most = 0, 0

    async def run(given: StreamTask, stop: Stop, on_news: OnNews) -> StreamReport:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1
        return StreamReport(given.stream.name, Counts(), 1)

    tasks = [task(str(number)) for number in range(7)]
    reports = await LocalEngine(run).run(tasks, parallelism=3, stop=lambda: None, on_news=lambda _: None)

    assert len(reports) == 7
    assert most == 3


@pytest.mark.clause("IEngine", 3)
async def test_task_survives_pickling_without_secrets(kind: str) -> None:
    given = task("0")

    copied = pickle.loads(pickle.dumps(given))

    assert copied == given
    assert copied.source.secrets == {"password": "env:SHOP"}
    with pytest.raises(TypeError):
        pickle.dumps(Secret("x"))


OF_THE_PROCESS = (
    "PATH", "HOME", "PYTHONPATH", "LD_PRELOAD", "AWS_SECRET_ACCESS_KEY", "aws_session_token", "AZURE_CLIENT_SECRET",
    "GOOGLE_APPLICATION_CREDENTIALS", "PGPASSWORD", "DB_PASSWORD", "REDIS_PASSWORD", "SNOWFLAKE_PASSWORD",
    "HEADRACE_KEY", "HEADRACE_METADATA__URL", "https_proxy", "SSLKEYLOGFILE", "JWT_SECRET",
)  # fmt: skip


def providers(tmp_path: Path) -> dict[str, ISecretProvider]:
    root = tmp_path / "secrets"
    root.mkdir()
    (root / "SECRET_SHOP").write_text("hunter2\n")
    (tmp_path / "outside").write_text("no")
    (root / "link").symlink_to(tmp_path / "outside")
    os.mkfifo(root / "pipe")
    (root / "nul").write_text("hunter2\0")
    environment = {"SECRET_SHOP": "hunter2", "SHOP_PASSWORD": "hunter2", "OTHER": "no", "BATCH_SIZE": "no"}
    environment |= dict.fromkeys(OF_THE_PROCESS, "no")
    return {
        "env": EnvironmentSecretProvider(
            prefix="SECRET_",
            names={"SHOP_PASSWORD", "BATCH_SIZE", *OF_THE_PROCESS},
            is_setting=lambda name: name == "BATCH_SIZE",
            environment=environment,
        ),
        "file": FileSecretProvider(root),
    }


@pytest.mark.parametrize("scheme", ["env", "file"])
@pytest.mark.clause("ISecretProvider", 1)
async def test_known_reference_is_resolved(scheme: str, tmp_path: Path) -> None:
    provider = providers(tmp_path)[scheme]

    secret = await provider.resolve("default", "SECRET_SHOP")

    assert provider.scheme == scheme
    assert secret.reveal() == "hunter2"
    assert (repr(secret), str(secret), f"{secret:>5}") == ("***", "***", "***")


@pytest.mark.parametrize("scheme", ["env", "file"])
@pytest.mark.clause("ISecretProvider", 2)
async def test_unknown_reference_is_named(scheme: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="ABSENT"):
        await providers(tmp_path)[scheme].resolve("default", "SECRET_ABSENT")


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        ("env", "OTHER"),
        ("env", "secret_shop"),
        ("env", "BATCH_SIZE"),
        ("env", "A B"),
        ("env", "SECRET_A\n"),
        *(("env", name) for name in OF_THE_PROCESS),
        ("file", "../outside"),
        ("file", "link"),
        ("file", "pipe"),
        ("file", "nul"),
        ("file", "/etc/passwd"),
        ("file", "a/../../outside"),
        ("file", ""),
    ],
)
@pytest.mark.clause("ISecretProvider", 3)
async def test_reference_out_of_bounds_is_refused(scheme: str, name: str, tmp_path: Path) -> None:
    provider = providers(tmp_path)[scheme]
    with pytest.raises(InvalidInputError) as caught:
        await provider.resolve("default", name)

    assert caught.value.code == "secret.forbidden"
    assert (await provider.resolve("default", "SECRET_SHOP")).reveal() == "hunter2"


@pytest.mark.parametrize("scheme", ["env", "file"])
@pytest.mark.clause("ISecretProvider", 4)
async def test_reference_is_checked_without_looking_at_the_value(scheme: str, tmp_path: Path) -> None:
    provider = providers(tmp_path)[scheme]
    provider.check("SECRET_ABSENT")
    for name in ("OTHER", "PATH") if scheme == "env" else ("../outside", "/etc/passwd", "a/../..", ""):
        with pytest.raises(InvalidInputError) as caught:
            provider.check(name)
        assert caught.value.code == "secret.forbidden"


async def test_variable_that_stands_on_the_list_may_be_used(tmp_path: Path) -> None:
    assert (await providers(tmp_path)["env"].resolve("default", "SHOP_PASSWORD")).reveal() == "hunter2"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("OTHER", 'secrets: {password: "env:SECRET_OTHER"}'),
        ("DB_PASSWORD", 'secrets: {password: "env:SECRET_DB_PASSWORD"}'),
        ("_X", 'secrets: {password: "env:SECRET_X"}'),
    ],
)
def test_refused_variable_is_told_with_the_line_to_write(name: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        providers(tmp_path)["env"].check(name)
    assert line in caught.value.message


@pytest.fixture(params=["sha256"])
def keys() -> ApiKeys:
    return ApiKeys()


@pytest.mark.clause("IApiKeys", 1)
def test_new_key_has_a_prefix_that_finds_it(keys: ApiKeys) -> None:
    key, prefix, digest = keys.new()

    assert keys.prefix_of(key) == prefix
    assert key not in digest
    assert keys.new()[0] != key


@pytest.mark.clause("IApiKeys", 2)
def test_only_the_key_matches_its_digest(keys: ApiKeys) -> None:
    key, _, digest = keys.new()

    assert keys.matches(key, digest)
    assert not keys.matches(key[:-1] + ("A" if key[-1] != "A" else "B"), digest)


@pytest.mark.clause("IApiKeys", 3)
@pytest.mark.parametrize(
    "text", ["", "hr_x_y", "hr_abcdefghijkl_" + "a" * 42, "hr_abcdefghijkl_" + "a" * 43 + "\n", "é" * 60]
)
def test_text_that_is_no_key_has_no_prefix(keys: ApiKeys, text: str) -> None:
    assert keys.prefix_of(text) is None


def test_identifiers_are_ordered_and_times_have_zones() -> None:
    identifiers = RandomIdentifiers()
    made = [identifiers.new_id() for _ in range(100)]

    assert made == sorted(made)
    assert len(set(made)) == 100
    assert len(identifiers.new_secret()) >= 43
    assert SystemClock().now().tzinfo is UTC
