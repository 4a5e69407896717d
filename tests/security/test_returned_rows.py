"""What a Python step gives is looked at before any of it is copied: a step that makes millions of one row fails by
name.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from domain.errors import WorkFailedError
from domain.pipelines.steps import PythonStep, SqlStep
from domain.ports.transformer import ITransformer, TransformPlan
from infrastructure.bench.bench import Bench
from infrastructure.tabular.arrow import columns_of, conform
from infrastructure.transforms.returned import Returnable, travelling_bytes
from tests.e2e.api import headrace, serving
from tests.e2e.projects import new_project, write
from tests.ports.transformers import one_bench, transformer_on
from tests.security.test_huge_cells import grown

pytestmark = pytest.mark.line("29")
MIB = 1024 * 1024
LIMITS = Returnable(rows=1_000, size_bytes=MIB, columns=40)
HOOKS = """
import pyarrow as pa, pyarrow.compute as pc

def _many(rows, count):
    return pa.table({'_headrace_ordinal': [0] * count}) if rows.num_rows else rows.select(['_headrace_ordinal'])

def _with(rows, count, values):
    return _many(rows, count).append_column('v', values if rows.num_rows else values.slice(0, 0))

def _of_one(text, count):
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([text]))

def rows(rows): return _many(rows, 13_000)
def texts(rows): return _with(rows, 300, pa.array(['x' * 10_000] * 300))
def words(rows): return _with(rows, 900, _of_one('x' * 1_000_000, 900))
def runs(rows): return _with(rows, 900, pa.RunEndEncodedArray.from_arrays([900], ['x' * 1_000_000]))
def views(rows):
    _, views, texts = pa.array(['x' * 1_000_000], pa.string_view()).buffers()
    return _with(rows, 900, pa.Array.from_buffers(pa.string_view(), 900, [None, pa.py_buffer(bytes(views)[:16] * 900), texts]))
def members(rows): return _with(rows, 900, pa.StructArray.from_arrays([_of_one('x' * 1_000_000, 900)], ['a']))
def items(rows):
    return _with(rows, 900, pa.ListArray.from_arrays(pa.array(range(901), pa.int32()), _of_one('x' * 1_000_000, 900)))
def shown(rows):
    begins = pa.array([0] * 900, pa.int32())
    return _with(rows, 900, pa.ListViewArray.from_arrays(begins, pa.array([9_000] * 900, pa.int32()), range(9_000)))
def nothing(rows):
    for number in range(38):
        rows = rows.append_column(f'n{number}', pa.nulls(rows.num_rows))
    return rows.take(pa.array([0] * 12_000 * bool(rows.num_rows), pa.int64()))
def wide(rows):
    for number in range(39):
        rows = rows.append_column(f'n{number}', rows['id'])
    return rows

def twice(rows): return pa.concat_tables([rows, rows])
def packed(rows):
    for name, values in (('a', _of_one('x' * 10, rows.num_rows)), ('b', pa.nulls(rows.num_rows))):
        rows = rows.append_column(name, values)
    return rows
"""
TOO_MUCH = ["rows", "texts", "words", "runs", "views", "members", "items", "shown", "nothing", "wide"]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with one_bench() as bench:
        yield bench


@pytest.fixture(params=["duckdb", "child"])
def transformer(request: pytest.FixtureRequest, bench: Bench, tmp_path: Path) -> ITransformer:
    (tmp_path / "own.py").write_text(HOOKS)
    return transformer_on(request.param, bench, tmp_path, returnable=LIMITS)


async def given(transformer: ITransformer, hook: str, rows: pa.Table) -> pa.Table:
    steps = (SqlStep("select * from batch"), PythonStep(f"local.own:{hook}"))
    async with transformer.prepare(TransformPlan(source=columns_of(rows.schema), steps=steps)) as prepared:
        return pa.table((await prepared.apply(rows)).accepted)


async def test_steps_that_give_far_more_than_they_are_given_fail_by_name(transformer: ITransformer) -> None:
    with grown("self", 200):
        for hook in TOO_MUCH:
            with pytest.raises(WorkFailedError, match=rf"^The Python step local.own:{hook} gave [0-9,]+ ") as failed:
                await given(transformer, hook, pa.table({"id": range(3_000 if hook == "nothing" else 3)}))
            assert failed.value.code == "transform.too_large", hook
    assert "HEADRACE_TRANSFORMS__MEMORY_MB" not in failed.value.message


async def test_steps_may_double_whatever_batch_they_are_given(transformer: ITransformer) -> None:
    for rows in (
        pa.table({"id": range(2_000)}),
        pa.table({"id": [1, 2], "v": ["x" * MIB, "y" * MIB]}),
    ):
        assert (await given(transformer, "twice", rows)).to_pylist() == pa.concat_tables([rows, rows]).to_pylist()
    found = await given(transformer, "packed", pa.table({"id": range(900)}))
    assert found.to_pylist() == [{"id": n, "a": "x" * 10, "b": None} for n in range(900)]


def drawn() -> dict[str, pa.Array]:
    words = pa.array(["a", "", None, "x" * 2_000, "é" * 40] * 40)
    numbers = pa.array([1, None, 3, 4, 5] * 40, pa.int16())
    coded = words.dictionary_encode()
    return {
        "words": words,
        "coded": coded,
        "coded numbers": numbers.dictionary_encode(),
        "runs": pc.run_end_encode(pa.array(["x" * 99] * 100 + [None] * 50 + ["y"] * 50)),
        "views": words.cast(pa.string_view()),
        "binary views": words.cast(pa.binary()).cast(pa.binary_view()),
        "nothing": pa.nulls(200),
        "struct": pa.StructArray.from_arrays([coded, numbers], ["a", "b"]),
        "list": pa.ListArray.from_arrays(pa.array(range(201), pa.int32()), coded),
        "uuid": pa.array([b"0123456789abcdef"] * 200, pa.uuid()),
        "list view": pa.array([[1, 2, 3], None, [], [4]] * 50, pa.list_view(pa.int64())),
    }


@pytest.mark.parametrize("kind", drawn())
def test_bytes_are_those_of_what_goes_on(kind: str) -> None:
    for values in (drawn()[kind], drawn()[kind].slice(30, 120), drawn()[kind].slice(3, 0)):
        table = pa.table({"v": values})
        goes_on = conform(table, columns_of(table.schema)).column("v")
        found = travelling_bytes(values)
        assert goes_on.nbytes - 16 <= found
        if kind != "list view":
            assert found <= 1.5 * goes_on.nbytes + 8 * len(values) + 16


def test_up_its_previews_and_tests_say_what_a_step_gave(tmp_path: Path) -> None:
    project = new_project(tmp_path / "project")
    hook = (
        "import pyarrow as pa\n\n\ndef step(rows):\n    count = {} * rows.num_rows\n"
        "    words = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array(['x' * 9_000]))\n"
        "    ordinals = rows['_headrace_ordinal'].take(pa.array([0] * count, pa.int64()))\n"
        "    return pa.table({{'_headrace_ordinal': ordinals, 'v': words}})\n"
    )
    write(project, "python/many.py", hook.format(300_000))
    write(project, "python/two.py", hook.format(2))
    write(project, "data/one.csv", "id\n1\n")
    landing = "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n"
    write(project, "connections/landing.yaml", landing)
    for name in ("many", "two"):
        text = (
            f"version: 1\npipeline: {name}\nsource: {{connection: landing, path: one.csv}}\ndestination: {{table: "
            f"{name}}}\ntransform: [{{sql: select * from batch}}, {{python: 'local.{name}:step'}}]\ntests: [{{given: "
            "[{id: 1}], expect: [{v: x}]}]\n"
        )
        write(project, f"pipelines/{name}.yaml", text)
    with serving(project) as server:
        assert server.call("PUT", "/v1/connections/landing", landing, kind="application/yaml").status == 201
        for name in ("two", "many"):
            text = (project / f"pipelines/{name}.yaml").read_text()
            assert server.call("PUT", f"/v1/pipelines/{name}", text, kind="application/yaml").status == 201
        with grown(server.process.pid, 200):
            for name in ("two", "many"):
                preview = server.call("POST", f"/v1/pipelines/{name}/preview", {})
                run = server.wait_for(server.call("POST", f"/v1/pipelines/{name}/trigger", {}).body["id"])
                if name == "two":
                    assert (len(preview.body["rows"]), run["state"]) == (2, "succeeded")
        assert (preview.status, preview.body["code"]) == (422, "transform.too_large")
        assert (run["state"], run["error"]["code"]) == ("failed", "transform.too_large")
        assert "HEADRACE_CHECKS__MEMORY_MB" in preview.body["detail"]
        assert "HEADRACE_TRANSFORMS__MEMORY_MB" in run["error"]["message"]
    tested = headrace(project, "test", "many")
    assert (tested.returncode, "[transform.too_large]" in tested.stdout + tested.stderr) == (1, True), tested
