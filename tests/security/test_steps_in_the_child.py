"""Steps and rules that take too much memory or time are refused or end their run by name; the server
answers meanwhile.
"""

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from application.catalog.checks import Checks, problems_of
from application.runs.launch import TriggerRun
from domain.errors import InvalidInputError, Problem, UnavailableError
from domain.pipelines.dialing import DialRules
from domain.pipelines.spec import PipelineSpec
from domain.pipelines.steps import SqlStep
from domain.ports.security import Cost
from domain.ports.transformer import TransformPlan
from domain.runs.run import Run, RunRequest, RunState
from domain.stores.table import Column
from entrypoints.composition.container import Container, build_container
from entrypoints.composition.lifecycle import running
from infrastructure.security.query_guard import SqlQueryGuard
from infrastructure.settings.sources import load_settings
from infrastructure.transforms import in_child
from infrastructure.transforms.arrow_bytes import as_bytes, of_bytes
from infrastructure.transforms.engine import locked_down
from infrastructure.transforms.sizes import keeps_size
from tests.e2e.api import Server, headrace, serving
from tests.e2e.inside import ME, Inside
from tests.e2e.projects import new_project, write
from tests.security import bench_work

_DOUBLED = [f"select id, v || v as v from batch where {n} = {n}" for n in range(26)]
_SLOW = ["select id, repeat(v, 300) as v from batch", "select id, levenshtein(v, reverse(v)) as v from batch"]
_BOMBS = {
    "a list": (["select id, range(id + 300000000) as v from batch"], ""),
    "nested doubling": (_DOUBLED, ""),
    "repeat": (["select id, repeat(v, 4000000) as v from batch"], ""),
    "a rule": ([], "length(repeat(v, 4000000)) > 0"),
    "deleted_when": ([], ""),
}
_TWINS = (
    ["select id, range(id + 3) as v from batch"],
    _DOUBLED[:3],
    ["select id, repeat(v, 4) as v from batch"],
)


def _document(name: str, steps: list[str], rule: str = "", deleted_when: str | None = None) -> dict[str, Any]:
    to = {"table": name} | ({"mode": "merge", "key": ["id"], "deleted_when": deleted_when} if deleted_when else {})
    return {
        "version": 1,
        "pipeline": name,
        "source": {"connection": "landing", "path": "words.csv", "key": ["id"]},
        "transform": [{"sql": step} for step in steps],
        "quality": [{"rule": "sql", "sql": rule}] if rule else [],
        "destination": to,
    }


def _bomb(name: str) -> dict[str, Any]:
    steps, rule = _BOMBS[name]
    deleted = "length(repeat(v, 4000000)) > 0" if name == "deleted_when" else None
    return _document(name.replace(" ", "_"), steps, rule, deleted)


def _with_words(folder: Path, count: int = 20) -> Path:
    lines = "".join(f"{n},{'w' * 200}\n" for n in range(count))
    write(folder, "data/words.csv", f"id,v\n{lines}")
    write(folder, "connections/landing.yaml", "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = _with_words(new_project(tmp_path_factory.mktemp("steps") / "project"))
    with serving(folder, HEADRACE_STORE__KIND="memory", HEADRACE_CHECKS__SECONDS="3") as server:
        assert server.call("PUT", "/v1/connections/landing", _landing()).status == 201
        yield server


def _landing() -> dict[str, Any]:
    return {"version": 1, "connection": "landing", "kind": "files", "options": {"root": "data"}}


@contextlib.contextmanager
def _answering(server: Server) -> Iterator[list[int]]:
    """Ask for /health all the while, and see that it is answered at least once before the block ends."""
    statuses: list[int] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            statuses.append(server.call("GET", "/health").status)
            is_over.wait(0.02)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield statuses
    finally:
        is_over.set()
        asking.join()


def _status_kb(pid: int, name: str) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition(f"{name}:")[2].split()[0])


@pytest.mark.line("29")
@pytest.mark.parametrize("name", _BOMBS)
def test_bombs_are_refused_by_previews_while_the_server_answers(server: Server, name: str) -> None:
    document = _bomb(name)
    assert server.call("PUT", f"/v1/pipelines/{document['pipeline']}", document).status == 201

    with _answering(server) as statuses:
        answer = server.call("POST", f"/v1/pipelines/{document['pipeline']}/preview", {"limit": 20})

    assert answer.status == 422
    assert answer.body["code"] == "query.too_large"
    assert set(statuses) == {200}
    assert _status_kb(server.process.pid, "VmHWM") < 300_000


def test_twins_of_bombs_are_previewed(server: Server) -> None:
    for number, steps in enumerate(_TWINS):
        document = _document(f"twin{number}", steps)
        assert server.call("PUT", f"/v1/pipelines/twin{number}", document).status in (200, 201)

        answer = server.call("POST", f"/v1/pipelines/twin{number}/preview", {"limit": 20})

        assert answer.status == 200
        assert answer.body["counts"]["used"] == 20


@pytest.mark.line("11")
def test_text_that_parsers_choke_on_is_refused_at_both_doors(server: Server) -> None:
    hard = "select " + "date(" * 4_000 + "'2020-01-01'" + ")" * 4_000 + " as d from batch"
    document = _document("hard", [hard] * 5)
    project = _with_words(server.folder.parent / "hard") if not (server.folder.parent / "hard").exists() else None
    assert project is not None
    write(project, "headrace.toml", "[settings]\n")
    write(project, "pipelines/hard.json", json.dumps(document))

    with _answering(server) as statuses:
        answer = server.call("PUT", "/v1/pipelines/hard", document)
    ended = headrace(project, "validate")

    assert answer.status == 422
    assert answer.body["code"] == "query.too_large"
    assert len(answer.body["errors"]) == 1
    assert set(statuses) == {200}
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert server.call("GET", "/v1/pipelines/hard").status == 404


def test_bombs_are_refused_on_the_command_line(tmp_path: Path) -> None:
    project = _with_words(new_project(tmp_path / "project"))
    tested = _document("doubled", _DOUBLED)
    tested["tests"] = [{"name": "small", "given": [{"id": 1, "v": "x" * 1000}], "expect": [{"id": 1}]}]
    write(project, "pipelines/doubled.json", json.dumps(tested))

    preview = headrace(project, "preview", "pipelines/doubled.json")
    test = headrace(project, "test")

    assert (preview.returncode, preview.stdout) == (2, "")
    assert "[query.too_large]" in preview.stderr
    assert test.returncode == 1
    assert "[query.too_large]" in test.stdout


@contextlib.asynccontextmanager
async def _installation(folder: Path, **environment: str) -> Any:
    settings = load_settings(root=folder, environment={"HEADRACE_STORE__KIND": "memory", **environment}).settings
    container = build_container(settings, folder)
    async with running(container, with_store=False) as use_cases:
        found = Inside(use_cases)
        await found.put(json.dumps(_landing()))
        yield found, container


@pytest.mark.line("29")
@pytest.mark.parametrize("name", _BOMBS)
async def test_runs_end_by_name_and_the_process_goes_on(name: str, project: Path) -> None:
    document = _bomb(name)
    async with _installation(_with_words(project), HEADRACE_TRANSFORMS__MEMORY_MB="300") as (inside, _):
        await inside.put(json.dumps(document))

        run = await inside.ran(document["pipeline"])

        assert run.state is RunState.FAILED
        assert run.error.code == "transform.too_large"
        await inside.put(json.dumps(_document("after", _TWINS[2])))
        assert (await inside.report("after"))["counts"]["used"] == 20
        rows = await inside.rows("after")
        assert {len(row["v"]) for row in rows} == {800}


async def test_only_steps_that_may_grow_leave_the_process(project: Path) -> None:
    async with _installation(_with_words(project)) as (inside, container):
        started = _watched(container)
        await inside.put(json.dumps(_document("same", ["select id, upper(v) as v from batch where id > 3"])))
        assert (await inside.report("same"))["counts"]["used"] == 16
        assert started == []

        await inside.put(json.dumps(_document("longer", ["select id, repeat(v, 20) as v from batch where id > 3"])))
        assert (await inside.report("longer"))["counts"]["used"] == 16
        assert len(started) > 0
        assert container.gateways.running_bench().pids == []  # Nobody needs them any more.


def _watched(container: Container) -> list[int]:
    """The pids of children that runs get from now on."""
    bench, started = container.gateways.running_bench(), list[int]()
    start = bench._started

    def noted() -> Any:
        child = start()
        started.append(child.pid)
        return child

    bench._started = noted
    return started


async def _until(is_so: Any) -> None:
    until = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < until
        await asyncio.sleep(0.01)


async def _begun(inside: Inside, container: Container) -> tuple["asyncio.Task[Run]", int, str]:
    """A run in the middle of a step that never ends."""
    started = _watched(container)
    await inside.put(json.dumps(_document("slow", _SLOW)))
    claimed = await inside.use_cases.launcher.launch_claimed(ME, TriggerRun("slow", RunRequest()))
    assert claimed is not None
    executor = replace(inside.use_cases.executor, patience=timedelta(seconds=0.1))
    task = asyncio.create_task(executor.execute_to_end(claimed))
    await _until(lambda: len(container.gateways.running_bench()._working) == 1)
    return task, started[0], claimed.id


async def test_a_run_is_cancelled_in_the_middle_of_a_step(project: Path) -> None:
    async with _installation(_with_words(project)) as (inside, container):
        task, pid, run_id = await _begun(inside, container)

        await inside.use_cases.controller.cancel(ME, run_id)

        assert (await task).state is RunState.CANCELLED
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_run_whose_child_is_killed_goes_on_in_another_and_ends_by_name_with_that(project: Path) -> None:
    async with _installation(_with_words(project), MAX_RETRIES="0") as (inside, container):
        task, pid, _ = await _begun(inside, container)
        bench = container.gateways.running_bench()

        os.kill(pid, signal.SIGKILL)
        await _until(lambda: bench.pids not in ([], [pid]))
        assert not task.done()
        os.kill(bench.pids[0], signal.SIGKILL)

        run = await task
        assert run.state is RunState.FAILED
        assert run.error is not None
        assert run.error.code == "worker.killed"


async def test_time_bounds_previews(project: Path) -> None:
    async with _installation(_with_words(project), HEADRACE_CHECKS__SECONDS="1") as (inside, _):
        turns = 0
        spec = PipelineSpec.from_document(_document("slow", _SLOW))

        task = asyncio.create_task(inside.use_cases.previewer.preview(ME, spec, limit=20))
        while not task.done():
            await asyncio.sleep(0.01)
            turns += 1

        with pytest.raises(InvalidInputError, match="longer than the 1 s") as raised:
            await task
        assert raised.value.code == "query.too_large"
        assert turns > 10


class _SlowGuard(SqlQueryGuard):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    async def check_transform(self, sql: str) -> None:
        self.seen.append(sql)
        if sql == "slow":
            await self._bench.acall(bench_work.spin_for, 0.15)
        if sql == "starved":
            await asyncio.sleep(60)
        if sql == "large":
            raise InvalidInputError("large", code="query.too_large")


async def _problems(guard: _SlowGuard, texts: list[str]) -> list[Problem]:
    cost = Cost()
    places = build_container(load_settings(root=None, environment={}).settings, Path.cwd()).gateways.places()
    checks = Checks(guard.counting(cost), (), DialRules(), places).of_pipeline(_document("many", texts), {})
    return await problems_of("pipeline many", checks, 0.1, cost)


@pytest.mark.parametrize(("texts", "seen"), [(["a", "slow", "b"], 2), (["a", "large", "b"], 2), (["a"] * 50, 50)])
async def test_all_texts_of_a_document_have_one_time(texts: list[str], seen: int) -> None:
    guard = _SlowGuard()

    problems = await _problems(guard, texts)

    assert len(guard.seen) == seen
    assert [problem.code for problem in problems] == ["query.too_large"] * (seen < len(texts))


async def test_a_document_that_waits_for_the_machine_is_tried_again_and_is_not_too_large() -> None:
    begun = time.monotonic()

    with pytest.raises(UnavailableError, match="pipeline many") as raised:
        await _problems(_SlowGuard(), ["a", "starved", "b"])

    assert (raised.value.code, raised.value.retryable) == ("worker.busy", True)
    assert time.monotonic() - begun > 0.1 * 2


@pytest.mark.line("29")
async def test_previews_have_a_size_and_dry_runs_need_none(project: Path) -> None:
    async with _installation(_with_words(project), HEADRACE_CHECKS__ANSWER_MB="1") as (inside, _):
        previewer = inside.use_cases.previewer
        for name, steps in (("child", ["select id, repeat(v, 400) as v from batch"]), ("here", [])):
            spec = PipelineSpec.from_document(_document(name, steps))
            if name == "here":
                write(project, "data/words.csv", "id,v\n" + "".join(f"{n},{'w' * 100_000}\n" for n in range(20)))

            with pytest.raises(InvalidInputError, match="than 1 MB") as raised:
                await previewer.preview(ME, spec, limit=20)

            assert raised.value.code == "query.too_large"
            assert len((await previewer.preview(ME, spec, limit=2)).batches[0]) == 2
            assert (await previewer.preview(ME, spec, limit=None, keep_rows=False)).counts.used == 20


async def test_python_steps_run_here_between_steps_in_the_child(project: Path) -> None:
    write(
        project, "python/own.py",
        "import os\nimport pyarrow as pa\n"
        "def mark(rows):\n    return rows.append_column('pid', pa.array([os.getpid()] * rows.num_rows, pa.int64()))\n",
    )  # fmt: skip
    document = _document("marked", ["select id, repeat(v, 2) as v from batch"])
    document["transform"] += [{"python": "local.own:mark"}, {"sql": "select *, repeat(v, 2) as w from batch"}]
    async with _installation(_with_words(project)) as (inside, container):
        started = _watched(container)
        await inside.put(json.dumps(document))

        assert (await inside.report("marked"))["counts"]["used"] == 20

        rows = await inside.rows("marked")
        assert {row["pid"] for row in rows} == {os.getpid()}
        assert {len(row["w"]) for row in rows} == {800}
        assert started


_COLUMNS = (Column("id", "int64"), Column("v", "string"))


@pytest.mark.parametrize(
    ("steps", "is_kept"),
    [
        (["select *, upper(v) as u, id * 2 as n from batch where v like 'a%'"], True),
        (["select id, cast(v as integer) as v from batch", "select *, coalesce(v, 0) as w from batch"], True),
        (["select id, v || v as v from batch"], True),
        (["select id, v || v || v as v from batch"] * 2, False),
        (["select id, lpad(v, 1000000, ' ') as v from batch"], False),
        (["select id, v as a, v as b, v as c, v as d, v as e from batch"], False),
        (["select *, v as a from batch"] * 4, False),
        ([f"select id, '{'x' * 1000}' as v from batch"], False),
        (["select id, cast(null as integer[100000]) as v from batch"], False),
        (["select id, [v] as v from batch"], True),
        (["select id, replace(v, 'a', v) as v from batch"], False),
    ],
)
def test_what_keeps_the_size_of_rows_is_known(steps: list[str], is_kept: bool) -> None:
    assert keeps_size(TransformPlan(source=_COLUMNS, steps=tuple(map(SqlStep, steps)))) is is_kept


def test_a_child_starts_one_engine_for_the_plans_after_each_other_until_one_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started, limits = list[int](), in_child.EngineLimits(200, 1)

    def counted(memory_limit: str, threads: int) -> duckdb.DuckDBPyConnection:
        started.append(threads)
        return locked_down(memory_limit, threads)

    def plan(step: str) -> TransformPlan:
        return TransformPlan((Column("v", "string"),), (SqlStep(step),))

    def judged(step: str, value: str) -> list[dict[str, Any]]:
        batch = as_bytes(pa.table({"v": [value]}))
        return of_bytes(in_child.judge(plan(step), limits, batch, keeps_rows=True).accepted).to_pylist()

    monkeypatch.setattr(in_child, "locked_down", counted)
    in_child._forget()
    try:
        for number in range(20):
            described = in_child.describe(plan(f"select v, {number} as n{number} from batch"), limits)
            assert [column.name for column in described.columns] == ["v", f"n{number}"]
        assert judged("select v || '!' as v from batch", "a") == [{"v": "a!"}]
        assert judged("select upper(v) as v from batch", "b") == [{"v": "B"}]
        assert started == [1]
        for refused in ("select gone from batch", "select v from _headrace_source"):
            with pytest.raises(InvalidInputError):
                in_child.describe(plan(refused), limits)
        assert judged("select v from batch", "c") == [{"v": "c"}]
        assert 1 < len(started) <= 3
    finally:
        in_child._forget()


def test_rows_that_a_child_tells_are_checked() -> None:
    from infrastructure.transforms.arrow_bytes import as_bytes, of_bytes

    rows = pa.table({"v": pa.array(["abc", "de"] * 50)})
    content = bytearray(as_bytes(rows).to_pybytes())
    assert of_bytes(bytes(content)).equals(rows)
    place = content.index(b"\x03\x00\x00\x00\x05\x00\x00\x00")
    content[place : place + 4] = b"\xff\xff\xff\x7f"

    with pytest.raises(pa.ArrowInvalid):
        of_bytes(bytes(content))
