"""About a minute of `make churn`: writers that overlap at random, beside pipelines of every kind of cursor."""

from pathlib import Path

import pytest

from tests.e2e.tables import postgres
from tests.faults.churn import Plan, churned


@pytest.mark.timeout(600)
@pytest.mark.invariant("D1")
@pytest.mark.clause("IDataStore", 30)
async def test_what_writers_commit_in_any_order_is_read_once(project: Path, postgres_database: str) -> None:
    if postgres(postgres_database, "SELECT current_setting('max_prepared_transactions')") == [("0",)]:
        pytest.skip("this server prepares no transactions")

    found = await churned(project, postgres_database, 4, Plan(0, 0.2, laps=30, tables=("moments", "numbers")))

    assert found.problems == []
    assert found.rows > 0
    assert {"prepared", "reads_first", "short"} <= set(found.transactions)
