"""`headrace test`: a document's own tests pass, fail by name, and open nothing."""

import json
from pathlib import Path

from tests.e2e.api import headrace
from tests.e2e.projects import write

ORDERS = """version: 1
pipeline: orders
source: {connection: nowhere, query: "select * from orders", key: [id], cursor: {column: updated_at}}
transform:
  - sql: select *, distance > 500 as far from batch
  - rename: {qty: quantity}
  - cast: {amount: "decimal(12,2)"}
quality:
  - {rule: not_null, column: id}
  - {rule: between, column: distance, min: 0, max: 6000, on_violation: quarantine}
  - {rule: unique, columns: [id]}
destination: {table: orders, mode: merge, key: [id], deleted_when: status = 'deleted'}
tests:
  - name: far ones are flagged
    given: [{id: 1, distance: 100, qty: 2, amount: "1.50", note: a, status: new},
            {id: 2, distance: 9999, qty: 1, amount: "2.00", note: b, status: new},
            {id: 3, distance: 501, qty: 1, amount: "2.00", status: deleted},
            {id: 4, distance: 501, qty: 1, amount: "x", status: new},
            {id: 1, distance: 900, qty: 3, amount: "1.5", note: null, status: new}]
    expect: [{id: 1, far: true, quantity: 3, amount: 1.50, note: null}]
    quarantined: [{id: 2}, {id: 4, amount: x}]
  - given: [{id: 1, distance: 1, qty: 1, amount: "1", status: new, at: "2025-01-01 00:00:00+00:00"}]
    types: {at: timestamptz, id: int16}
    expect: [{at: "2025-01-01 00:00:00+00:00"}]
"""


def test_tests_of_a_document_run_without_any_store(project: Path) -> None:
    write(project, "connections/nowhere.yaml", "version: 1\nconnection: nowhere\nkind: postgres\n"
          "options: {host: 127.0.0.1, port: 1, database: none, user: nobody}\n")  # fmt: skip
    write(project, "pipelines/orders.yaml", ORDERS)

    done = headrace(project, "test")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok orders far ones are flagged" in done.stdout
    assert "2 of 2 tests passed" in done.stdout
    assert not (project / ".headrace").exists()


def test_test_that_fails_says_what_is_missing_and_what_is_too_much(project: Path) -> None:
    write(
        project, "pipelines/orders.yaml", ORDERS.replace("connection: nowhere, ", "").replace("far: true", "far: false")
    )

    done = headrace(project, "test", "orders", "--json")

    assert done.returncode == 1
    first, second = json.loads(done.stdout)
    assert (first["passed"], second["passed"]) == (False, True)
    assert "there is no row {id: 1, far: False" in first["problems"][0]
    assert "was not expected" in first["problems"][1]
    assert headrace(project, "test", "gone").returncode == 2


def test_project_that_init_makes_passes_its_test(tmp_path: Path) -> None:
    assert headrace(tmp_path, "init").returncode == 0

    done = headrace(tmp_path, "test", "pipelines/people.yaml")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok people 1" in done.stdout
