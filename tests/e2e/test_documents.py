"""Every document in README and examples/ is planned and run, and the demo keeps its word."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.api import headrace
from tests.e2e.projects import postgres_connection, postgres_environment, write
from tests.e2e.tables import duckdb_rows, postgres

ROOT = Path(__file__).parents[2]


def test_readme_and_init_followed_in_one_folder_run_twice_and_double_nothing(tmp_path: Path) -> None:
    """Word by word: `init`, the documents, the commands, and then everything once more."""
    readme = (ROOT / "README.md").read_text()
    project = tmp_path / "followed"
    project.mkdir()
    assert headrace(project, "init").returncode == 0
    blocks = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    names = ["people"]
    for block in blocks:
        kind, name = re.search(r"^(connection|pipeline): (\w+)", block, re.MULTILINE).groups()  # type: ignore[union-attr]
        write(project, f"{kind}s/{name}.yaml", block)
        names += [name] if kind == "pipeline" else []
    [line] = re.findall(r"^\$ (printf .* > data/sales\.csv)$", readme, re.MULTILINE)
    subprocess.run(["sh", "-c", line], cwd=project, check=True)
    assert headrace(project, "plan").returncode == 0

    landed = []
    for _ in range(2):
        for name in names:
            done = headrace(project, "run", f"pipelines/{name}.yaml", "--json")
            assert done.returncode == 0, done.stderr
            counts = json.loads(done.stdout)["report"]["counts"]
            expected = (5, 4, 1) if name == "sales" else (3, 2, 1)
            assert (counts["read"], counts["used"], counts["quarantined"]) == expected
        file = project / ".headrace/data.duckdb"
        landed.append([sorted(row[0] for row in duckdb_rows(file, f"select id from {name}")) for name in names])
        listed = [json.loads(headrace(project, "quarantine", "list", name, "--json").stdout) for name in names]
        waiting = [[row for row in found["items"] if row["state"] == "open"] for found in listed]
        assert [len(rows) for rows in waiting] == [1, 1]

    assert names == ["people", "sales"]
    assert landed == [[[1, 2], [1, 2, 4, 5]]] * 2


def test_documents_of_the_guides_are_planned_and_run(project: Path, postgres_database: str) -> None:
    blocks = [
        block
        for path in sorted((ROOT / "docs/guides").glob("*.md"))
        for block in re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL)
    ]
    write(project, "connections/shop.yaml", postgres_connection(postgres_database, "shop"))
    postgres(
        postgres_database,
        "CREATE TABLE orders AS SELECT g::bigint AS id, 'paid' AS status, timestamptz '2026-01-01' + g * "
        "interval '1 minute' AS updated_at FROM generate_series(1, 99) g",
    )
    names = []
    for block in blocks:
        names += re.findall(r"^pipeline: (\w+)", block, re.MULTILINE)
        write(project, f"pipelines/{names[-1]}.yaml", block)

    planned = headrace(project, "apply", "--yes")
    assert planned.returncode == 0, planned.stderr
    assert names == ["orders_merged", "orders_checked", "orders_streamed", "orders_paid"]
    tested = headrace(project, "test")
    assert tested.returncode == 0, tested.stdout
    for name in names:
        done = headrace(project, "run", name, "--json")
        assert done.returncode == 0, (name, done.stderr)
        assert json.loads(done.stdout)["report"]["counts"]["used"] == 99
    runs = json.loads(headrace(project, "runs", "list", "--json").stdout)["items"]
    assert (runs[0]["pipeline"], runs[0]["requested_by"]) == ("orders_paid", "after:orders_streamed")
    assert runs[0]["state"] == "succeeded"


@pytest.mark.invariant("D1")
def test_crashtest_kills_the_users_pipeline_and_leaves_nothing_behind(project: Path, postgres_database: str) -> None:
    write(project, "connections/shop.yaml", postgres_connection(postgres_database, "shop"))
    postgres(
        postgres_database,
        "CREATE TABLE orders AS SELECT g::bigint AS id, md5(g::text) AS note FROM generate_series(1, 500) g",
    )
    write(
        project,
        "pipelines/orders.yaml",
        "version: 1\npipeline: orders\nsource: {connection: shop, table: orders, key: [id]}\n"
        "destination: {connection: shop, table: copied}\n",
    )
    chosen = ("batch.mid_rows", "batch.after_commit", "publish.after_commit", "dest.after_fence")
    points = [f"--point={name}" for name in chosen]

    done = headrace(project, "crashtest", "pipelines/orders.yaml", "--limit", "300", "--json", *points)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["rows"], found["batch_rows"]) == (300, 30)
    assert {o["point"]: (o["killed"], o["verdict"]) for o in found["points"]} == dict.fromkeys(chosen, (True, "exact"))
    tables = (
        "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
    )
    assert [name for (name,) in postgres(postgres_database, tables)] == [
        "_headrace_checkpoint", "_headrace_owner", "_headrace_quarantine", "orders",
    ]  # fmt: skip
    assert postgres(postgres_database, "SELECT count(*) FROM _headrace_checkpoint") == [(0,)]
    assert json.loads(headrace(project, "runs", "list", "--json").stdout)["items"] == []
    unknown = headrace(project, "crashtest", "pipelines/orders.yaml", "--point", "nowhere")
    assert (unknown.returncode, "crashtest.point" in unknown.stderr) == (2, True)
    memory = headrace(project, "crashtest", "pipelines/orders.yaml", HEADRACE_STORE__KIND="memory")
    assert (memory.returncode, "crashtest.memory" in memory.stderr) == (2, True)


def test_guide_lists_every_kill_point() -> None:
    from entrypoints.cli.crashtest import POINTS

    text = (ROOT / "docs/guides/crashtest.md").read_text()
    assert re.findall(r"^\| `([a-z_.]+)`", text, re.MULTILINE) == [name for name, _ in POINTS]


@pytest.mark.parametrize("store", ["duckdb", "postgres"])
def test_documents_of_the_examples_are_planned_and_run(store: str, tmp_path: Path, postgres_database: str) -> None:
    folder = tmp_path / "examples"
    shutil.copytree(ROOT / "examples", folder, ignore=shutil.ignore_patterns(".headrace"))
    write(folder, "connections/shop.yaml", postgres_connection(postgres_database, "shop"))
    postgres(
        postgres_database,
        "CREATE TABLE orders AS SELECT g::bigint AS id, 'CH' AS country, g * 60 AS distance, 'paid' AS status, "
        "timestamptz '2026-01-01' + g * interval '1 minute' AS updated_at FROM generate_series(1, 99) g",
    )
    settings = postgres_environment(postgres_database) if store == "postgres" else {}
    if store == "postgres":
        text = (folder / "pipelines/orders.yaml").read_text()
        write(folder, "pipelines/orders.yaml", text.replace("table: orders}", "table: copied}"))
    planned = headrace(folder, "plan", **settings)
    assert planned.returncode == 0, planned.stderr

    tested = headrace(folder, "test")
    assert (tested.returncode, tested.stdout.splitlines()[-1]) == (0, "2 of 2 tests passed"), tested.stdout
    from_above = headrace(tmp_path, "run", "examples/pipelines/sales.yaml", "--dry-run", **settings)
    assert from_above.returncode == 0, from_above.stderr
    for name, read in (("sales", 5), ("sales_daily", 2), ("orders", 99)):
        done = headrace(folder, "run", f"pipelines/{name}.yaml", "--json", **settings)
        assert done.returncode == 0, (name, done.stderr)
        assert json.loads(done.stdout)["report"]["counts"]["read"] == read
    assert {path.stem for path in (folder / "pipelines").iterdir()} == {"sales", "sales_daily", "orders"}
    sql = "SELECT count(*), sum(amount) FROM analytics.sales_daily"
    rows = (
        postgres(postgres_database, sql) if store == "postgres" else duckdb_rows(folder / ".headrace/data.duckdb", sql)
    )
    assert [(rows[0][0], str(rows[0][1]))] == [(2, "151.50")]


def test_demo_keeps_its_word(tmp_path: Path) -> None:
    done = headrace(tmp_path, "demo")

    assert done.returncode == 0, done.stderr
    for said in (
        "wait status -9",
        "336,776",
        "26,115",
        "26,114",
        "nothing lost, nothing doubled",
        "headrace runs list",
    ):
        assert said in done.stdout
    hashes = re.findall(r"(?:uninterrupted|resumed) +336,776 +([0-9a-f]{32})", done.stdout)
    assert len(hashes) == 2
    assert hashes[0] == hashes[1]
    folder = tmp_path / "headrace-demo"
    assert duckdb_rows(folder / ".headrace/data.duckdb", "SELECT count(*) FROM flights") == [(336_776,)]
    assert duckdb_rows(folder / ".headrace/data.duckdb", "SELECT count(*) FROM weather") == [(26_114,)]
    runs = json.loads(headrace(folder, "runs", "list", "--json").stdout)["items"]
    assert [(run["pipeline"], run["state"], run["attempt"]) for run in runs] == [
        ("weather", "succeeded", 1),
        ("flights", "succeeded", 2),
    ]
    (folder / ".headrace-demo").unlink()
    assert headrace(tmp_path, "demo").returncode == 2


def test_compose_file_names_the_settings() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert all(name in text for name in ("DB_NAME", "DB_USER", "DB_PASSWORD", "DB_PORT"))


def test_json_schemas_are_schemas_and_take_the_examples() -> None:
    import jsonschema
    import yaml

    for kind in ("pipeline", "connection", "settings"):
        done = subprocess.run(
            [shutil.which("headrace") or str(ROOT / ".venv/bin/headrace"), "config", "schema", kind],
            capture_output=True,
            text=True,
            check=True,
        )
        schema = json.loads(done.stdout)
        jsonschema.Draft202012Validator.check_schema(schema)
        for path in sorted((ROOT / f"examples/{kind}s").glob("*.yaml")):
            jsonschema.validate(yaml.safe_load(path.read_text()), schema)
