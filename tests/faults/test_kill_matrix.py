"""A sample of the long fault run: random kills on both stores, judged both ways with types, and audited."""

import random
import shutil
from pathlib import Path

import pytest

from domain.failpoints import FAILPOINTS
from tests.faults import oracle
from tests.faults.killing import AT_A_CALL, AT_A_TIME, POINTS, WAYS, Tally, kill_until, table_of, victim

TESTS = Path(__file__).parents[1]


@pytest.mark.invariant("D1", "D3", "D6", "R2", "R5", "R6")
@pytest.mark.parametrize("store", ["duckdb", "postgres"])
def test_random_kills_neither_lose_nor_double(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres_database") if store == "postgres" else ""
    made = victim(tmp_path / "victim", store, url, rows=30_000)

    for _ in kill_until(made, 28, seed=20261125, with_strace=False, kills_at_most=4):
        pass

    table = "\n".join(table_of(made))
    assert made.problems == [], table
    assert sum(tally.missing + tally.doubled for tally in made.tallies.values()) == 0, table
    assert made.killed >= 28, table
    assert made.ways == set(WAYS), table


@pytest.mark.invariant("D1", "D3")
@pytest.mark.parametrize("store", ["duckdb", "postgres"])
def test_kills_at_system_calls_without_the_programs_help(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: make system brings it")
    url = request.getfixturevalue("postgres_database") if store == "postgres" else ""
    made = victim(tmp_path / "victim", store, url, rows=20_000)
    chance = random.Random(20261125)

    for _ in range(5):
        if made.kill_once(AT_A_CALL, chance):
            break
    made.finish([AT_A_CALL])

    assert made.problems == []
    assert made.tallies[AT_A_CALL].killed >= 1
    assert (made.tallies[AT_A_CALL].missing, made.tallies[AT_A_CALL].doubled) == (0, 0)


def test_oracle_sees_what_is_missing_doubled_changed_and_left(tmp_path: Path) -> None:
    made = victim(tmp_path / "victim", "duckdb", "", rows=2000)
    made.tallies[AT_A_TIME] = Tally()
    made.finish([AT_A_TIME])
    assert made.problems == []

    def found() -> tuple[int, int, int]:
        verdict = oracle.judge(made.query, made.expected, made.table)
        return verdict.missing, verdict.doubled, len(verdict.problems)

    assert found() == (0, 0, 0)
    made.query("DELETE FROM landed WHERE id = 7")
    assert found() == (1, 0, 0)
    made.query("INSERT INTO landed SELECT * FROM landed WHERE id IN (8, 9)")
    assert found() == (1, 2, 0)
    made.query("UPDATE landed SET weight = 1 WHERE id = 11")
    assert found() == (2, 3, 0)
    made.query("ALTER TABLE landed ALTER grp TYPE BIGINT")
    assert found()[2] == 1
    made.query("UPDATE _headrace_checkpoint SET read = read + 1 WHERE stream = '0'")
    made.query("DELETE FROM _headrace_quarantine")
    made.query("CREATE TABLE _headrace_stage_0123456789abcdef (x int)")
    assert found()[2] == 4
    records = oracle.sqlite_query(made.records)
    assert oracle.audit(records) == []
    records("UPDATE runs SET report = NULL")
    assert oracle.audit(records) == ["R5"]


def test_every_failpoint_is_passed_by_a_test() -> None:
    texts = "".join(path.read_text() for path in TESTS.rglob("test_*.py"))
    untested = {name for name in FAILPOINTS - set(POINTS) if f"{name}:" not in texts}

    assert untested == set()
    assert set(POINTS) <= FAILPOINTS
