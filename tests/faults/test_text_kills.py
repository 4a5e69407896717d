"""Kills while DuckDB converts text as it writes it: a resume goes on behind the last part, and nothing is lost or
doubled.
"""

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.api import environment
from tests.e2e.projects import new_project, write
from tests.faults import oracle
from tests.program import start_program

ROWS = 6000
POINTS = (
    "extract.mid_page", "batch.before_begin", "batch.mid_rows", "batch.after_checkpoint", "batch.before_commit",
    "batch.commit_sent", "batch.after_commit", "publish.before_swap",
)  # fmt: skip
PIPELINE = """version: 1
pipeline: notes
source: {{connection: landing, path: '*.csv', options: {{types: {{id: int64, note: string, amount: "decimal(12,2)"}}}}}}
destination: {{table: notes, mode: {mode}, publish: {publish}}}
run: {{batch_rows: 700}}
"""
EXPECTED = (
    "SELECT i AS id, CASE WHEN i % 7 <> 0 THEN concat('a \"', i, '\"', chr(10)) END AS note, "
    f"(i / 4)::DECIMAL(12, 2) AS amount FROM range({ROWS}) numbers(i)"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = new_project(tmp_path / "project")
    write(made, "connections/landing.yaml", "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
    for number, rows in enumerate((range(2500), range(2500, 2501), range(2501, ROWS))):
        lines = [f'{i},"a ""{i}""\n",{i / 4:.2f}' if i % 7 else f"{i},,{i / 4:.2f}" for i in rows]
        write(made, f"data/{number}.csv", "\n".join(["id,note,amount", *lines]) + "\n")
    return made


def killed(folder: Path, points: Iterator[str], chance: random.Random) -> tuple[int, str]:
    """Kill runs, one after the other, and let the last one come to its end; give the kills and what it said."""
    kills, said = 0, ""
    for point in points:
        nth = chance.randint(1, {"extract": 2, "batch": 2}.get(point.partition(".")[0], 1))
        process = start_program(
            "run", "pipelines/notes.yaml", "--json", folder=folder,
            environment=environment(HEADRACE_FAILPOINT=f"{point}:{nth}:kill"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        said = "".join(process.communicate(timeout=100))
        if process.returncode == 0:
            return kills, said
        assert process.returncode == -9 or "[poison]" in said, said
        kills += process.returncode == -9
    for _ in range(4):
        process = start_program(
            "run", "pipelines/notes.yaml", "--json",
            folder=folder, environment=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        said = "".join(process.communicate(timeout=100))
        if process.returncode == 0:
            break
    assert process.returncode == 0, said
    return kills, said


@pytest.mark.invariant("D1", "D2", "D3", "R5")
@pytest.mark.parametrize(("mode", "publish"), [("append", "batch"), ("append", "run"), ("replace", "run")])
def test_kills_leave_every_row_once(mode: str, publish: str, folder: Path) -> None:
    write(folder, "pipelines/notes.yaml", PIPELINE.format(mode=mode, publish=publish))
    chance = random.Random(f"{mode}{publish}")

    kills, said = killed(folder, iter(sorted(chance.sample(POINTS, 5), key=POINTS.index)), chance)

    query = oracle.duckdb_query(folder / ".headrace/data.duckdb")
    landed = "SELECT id, note, amount FROM notes"
    assert kills >= 3
    assert '"way": "text"' in said, said
    assert query(f"{EXPECTED} EXCEPT ALL {landed}") == []
    assert query(f"{landed} EXCEPT ALL {EXPECTED}") == []
    assert [kind for _, kind, *_ in query(f"DESCRIBE {landed}")] == ["BIGINT", "VARCHAR", "DECIMAL(12,2)"]
    counts = query("SELECT read, used, produced, state FROM _headrace_checkpoint WHERE stream = '0'")
    assert counts == [(ROWS, ROWS, ROWS, "done")]
