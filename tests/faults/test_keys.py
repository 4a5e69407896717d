"""Sources whose keys are no keys, or are of types that Python cannot hold, read through a failure after every batch."""

from collections import Counter
from pathlib import Path

import pytest

from application.catalog.documents import PutDocument
from application.runs.launch import TriggerRun
from domain.errors import StoreUnavailableError
from domain.failpoints import arm
from domain.identity.principal import Principal, Role
from domain.runs.run import Run
from entrypoints.composition.container import build_container
from entrypoints.composition.lifecycle import running
from entrypoints.documents.reading import read_text
from entrypoints.use_cases import UseCases
from infrastructure.settings.sources import load_settings
from tests.e2e.projects import postgres_connection
from tests.e2e.tables import duckdb_rows, postgres

ME = Principal("me", "default", frozenset({Role.PLATFORM_ADMIN}))
NOTHING = "transform: [{sql: select * from batch}]\n"
# Name, connection of the destination (None: DuckDB), and work: through Arrow twice, and undecoded where an index allows
# it.
WAYS = (("embedded", "", ""), ("decoded", "shop", NOTHING), ("passed", "warehouse", ""))

# Each: what the table is made of, its rows, and the source of the document.
SOURCES = {
    "null_part": ("doc int, line int, a text", "SELECT g % 4, CASE WHEN g % 5 > 0 THEN g END, 'r' || g", "key: [doc, line]"),
    "ties": ("k int, a text", "SELECT g / 4, 'r' || g", "key: [k]"),
    "all_one": ("k int NOT NULL, a text", "SELECT 1, 'r' || g", "key: [k]"),
    "ties_of_a_cursor": ("k int NOT NULL, c int NOT NULL, a text", "SELECT g % 2, g / 6, 'r' || g", "key: [k], cursor: {column: c}"),
    "spelled": ("k numeric(6,3), a text", "SELECT g / 3 + 0.500, 'r' || g", "key: [k]"),
    "half_past_midnight": ("k time, a int, PRIMARY KEY (k, a)", "SELECT CASE WHEN g > 5 THEN '24:00' ELSE '00:00' END::time, g", ""),
    "days": ("k date PRIMARY KEY, a text", "SELECT date '0044-03-15 BC' + g * 300000, 'r' || g", ""),
    "lengths": ("k interval, a text", "SELECT make_interval(months => g % 2, days => (g % 3) * 15), 'r' || g", "key: [k]"),
    "instants": (
        "k timestamptz PRIMARY KEY, a text", "SELECT timestamptz '0100-01-01 00:00+00 BC' + g * interval '1200 years', 'r' || g", "",
    ),
    "bytes": ("k bytea PRIMARY KEY, a text", "SELECT decode(md5(g::text), 'hex'), 'r' || g", ""),
    "weights": ("k double precision, a text", "SELECT CASE g % 4 WHEN 0 THEN '-0' WHEN 1 THEN '0' WHEN 2 THEN 'NaN' ELSE '5e-324' END::float8, 'r' || g", "key: [k]"),
    "query": ("k int, a text", "SELECT g / 3, 'r' || g", "query: select * from query where k >= 0, key: [k]"),
}  # fmt: skip


async def put(use_cases: UseCases, *texts: str) -> None:
    for text in texts:
        document = read_text(text, "doc", {})
        await use_cases.catalog.put(ME, PutDocument(document.kind, document.name, document.body))


async def run_through(use_cases: UseCases, pipeline: str, *, failures: int) -> Run:
    """Run a pipeline that breaks off after each of its first batches and goes on."""
    left = failures

    def strike(name: str) -> None:
        nonlocal left
        if name == "batch.after_commit" and left:
            left -= 1
            raise StoreUnavailableError("The store was gone after the batch.")

    claimed = await use_cases.launcher.launch_claimed(ME, TriggerRun(pipeline))
    arm(strike)
    try:
        return await use_cases.executor.execute_to_end(claimed)
    finally:
        arm(None)


def document(name: str, source: str, destination: str, *, rows: int, work: str = "") -> str:
    return (
        f"version: 1\npipeline: {name}\nsource: {{connection: shop, {source}}}\n{work}"
        f"destination: {{{destination}}}\nrun: {{batch_rows: {rows}}}\nretry: {{attempts: 40, backoff: 1ms}}\n"
    )


@pytest.mark.invariant("D1", "D3")
async def test_sources_of_such_keys_land_exactly_through_failures_after_their_batches(
    project: Path, postgres_database: str
) -> None:
    settings = load_settings(root=project, environment={}).settings
    wanted: dict[tuple[str, str], Counter[str]] = {}
    async with running(build_container(settings, project), with_store=True) as use_cases:
        for name in ("shop", "warehouse"):
            await put(use_cases, postgres_connection(postgres_database, name))
        for number, (name, (columns, rows, source)) in enumerate(SOURCES.items()):
            postgres(postgres_database, f"CREATE TABLE {name} ({columns})")
            postgres(postgres_database, f"INSERT INTO {name} {rows} FROM generate_series(0, 11) g")
            postgres(postgres_database, f"CREATE INDEX ON {name} ({'k' if 'k ' in columns else 'doc, line'})")
            read = source if source.startswith("query") else f"table: {name}, {source}".removesuffix(", ")
            expected = Counter(row[0] for row in postgres(postgres_database, f"SELECT CAST(a AS text) FROM {name}"))
            for way in WAYS if name in ("ties", "null_part") else WAYS[number % 3 :][:1]:
                pipeline, (connection, work) = f"{name}_{way[0]}", way[1:]
                to = f"connection: {connection}, table: {pipeline}" if connection else f"table: {pipeline}"
                await put(use_cases, document(pipeline, read, to, rows=1 + number % 3, work=work))

                # What holds NULL starts again in the same place, and workers that die in one place are given up.
                run = await run_through(use_cases, pipeline, failures=2)

                assert (run.state.value, run.error) == ("succeeded", None), pipeline
                wanted[pipeline, connection] = expected

    for (pipeline, connection), expected in wanted.items():
        sql = f"SELECT CAST(a AS text) FROM {pipeline}"
        rows = postgres(postgres_database, sql) if connection else duckdb_rows(project / ".headrace/data.duckdb", sql)
        found = Counter(row[0] for row in rows)
        assert (found - expected, expected - found) == (Counter(), Counter()), pipeline
