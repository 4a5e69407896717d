"""`headrace plan` and `POST /v1/plans`: the way, the types of each column, the guarantee, and what to expect."""

import json
from pathlib import Path
from typing import Any

from tests.e2e.api import headrace, serving
from tests.e2e.projects import people_pipeline, postgres_connection, with_people, write
from tests.e2e.tables import postgres


def planned(project: Path, name: str) -> dict[str, Any]:
    done = headrace(project, "plan", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = next(change for change in json.loads(done.stdout) if change["name"] == name)
    return found


def copy(project: Path, url: str, *, source: str, destination: str, more: str = "") -> None:
    for name in ("shop", "warehouse"):
        write(project, f"connections/{name}.yaml", postgres_connection(url, name))
    write(
        project,
        "pipelines/copy.yaml",
        f"version: 1\npipeline: copy\nsource: {{connection: shop, {source}}}\n{more}destination: {{{destination}}}\n",
    )


def test_plan_tells_of_what_is_kept_too_and_who_is_hit_downstream(project: Path) -> None:
    with_people(project, rows=5)
    write(project, "pipelines/people.yaml", people_pipeline())
    headrace(project, "run", "pipelines/people.yaml")
    after = "version: 1\npipeline: {name}\nsource: {{{source}, key: [id]}}\ndestination: {{table: {name}}}\n"
    write(
        project,
        "pipelines/adults.yaml",
        after.format(name="adults", source="query: select * from people where age > 17"),
    )
    write(project, "pipelines/copies.yaml", after.format(name="copies", source="table: adults"))
    write(project, "pipelines/late.yaml", after.format(name="late", source="connection: landing, path: people.csv")
          + "schedule: {after: [copies]}\n")  # fmt: skip

    kept = planned(project, "people")
    assert kept["action"] == "keep"
    assert "downstream: adults, copies, late" in kept["notes"]
    assert any(note.startswith("publish: batch, because") for note in kept["notes"])
    assert any(note.startswith("estimate: 5 rows in") for note in kept["notes"])
    assert any(note.startswith("way: arrow, because ") for note in kept["notes"])
    assert len(kept["columns"]) == 5
    assert "downstream: late" in planned(project, "copies")["notes"]
    assert not [note for note in planned(project, "late")["notes"] if note.startswith("downstream")]

    assert headrace(project, "apply").returncode == 0
    (project / "pipelines/people.yaml").unlink()
    gone = next(c for c in json.loads(headrace(project, "plan", "--prune", "--json").stdout) if c["name"] == "people")
    assert (gone["action"], gone["notes"]) == ("delete", ["downstream: adults, copies, late"])
    assert "publish" not in headrace(project, "apply").stdout


def test_plan_beside_a_running_up_is_the_one_without_it(project: Path) -> None:
    with_people(project, rows=5)
    write(project, "pipelines/people.yaml", people_pipeline())
    without, words = planned(project, "people"), headrace(project, "plan").stdout
    with serving(project) as server:
        beside = planned(project, "people")
        said = headrace(project, "plan", "--exit-code")
        assert server.stop() == 0

    assert beside == without
    assert any(note.startswith("way: arrow, because ") for note in beside["notes"])
    assert len(beside["columns"]) == 5
    assert (said.stdout, said.returncode) == (words, 1)


def test_plan_shows_way_types_and_guarantee_before_anything_is_stored(project: Path, postgres_database: str) -> None:
    postgres(
        postgres_database,
        "CREATE TABLE orders (id bigint PRIMARY KEY, amount numeric(12,2), at timestamptz, mood int4range, note text)",
    )
    postgres(postgres_database, "CREATE TABLE there (id int, amount numeric(12,2))")

    copy(project, postgres_database, source="table: orders", destination="connection: warehouse, table: copied")
    change = planned(project, "copy")
    assert any(
        note.startswith("way: pass-through, because both stores speak one wire format") for note in change["notes"]
    )
    assert any("lands exactly once" in note for note in change["notes"])
    assert "estimate: none, as no run has been finished" in change["notes"]
    columns = {column["name"]: (column["native"], column["verdict"]) for column in change["columns"]}
    assert columns == {
        "id": ("bigint", "lossless"), "amount": ("numeric(12,2)", "lossless"), "note": ("text", "lossless"),
        "at": ("timestamp with time zone", "lossless"), "mood": ("int4range", "lossless"),
    }  # fmt: skip

    copy(project, postgres_database, source="table: orders", destination="table: copied")
    columns = {c["name"]: (c["native"], c["verdict"]) for c in planned(project, "copy")["columns"]}
    assert columns["mood"] == (None, "refused")
    assert columns["at"] == ("TIMESTAMP WITH TIME ZONE", "lossless")

    copy(project, postgres_database, source="table: orders", destination="connection: warehouse, table: there",
         more="transform: [{drop: [at, mood, note]}]\n")  # fmt: skip
    columns = {c["name"]: (c["source"], c["landing"], c["verdict"]) for c in planned(project, "copy")["columns"]}
    assert columns["id"] == ("int64", "int32", "checked")
    assert columns["amount"] == ("decimal(12,2)", "decimal(12,2)", "lossless")
    assert postgres(postgres_database, "SELECT count(*) FROM pg_tables WHERE tablename LIKE '%headrace%'") == [(0,)]


def test_plan_warns_where_no_index_is_in_the_order_of_the_read(project: Path, postgres_database: str) -> None:
    postgres(postgres_database, "CREATE TABLE events (id bigint NOT NULL, at timestamptz NOT NULL)")
    source = "table: events, key: [id], cursor: {column: at}"
    copy(project, postgres_database, source=source, destination="connection: warehouse, table: copied")
    notes = planned(project, "copy")["notes"]
    assert any(note.startswith("warning: no index of the source is in the order of (at, id)") for note in notes)
    assert any(note.startswith("way: arrow, because no index") for note in notes)

    postgres(postgres_database, "CREATE INDEX ON events (at, id)")
    notes = planned(project, "copy")["notes"]
    assert not any(note.startswith("warning") for note in notes)
    assert any(note.startswith("way: pass-through") for note in notes)


def test_plan_says_what_it_cannot_know_and_estimates_from_the_last_run(project: Path, postgres_database: str) -> None:
    postgres(postgres_database, "CREATE TABLE orders AS SELECT g::bigint AS id FROM generate_series(1, 1000) g")
    copy(project, postgres_database, source="table: gone", destination="connection: warehouse, table: copied")
    assert any(
        "way: not known by now" in note and "[table.not_found]" in note for note in planned(project, "copy")["notes"]
    )

    copy(project, postgres_database, source="table: orders, key: [id]", destination="connection: shop, table: copied")
    assert headrace(project, "run", "pipelines/copy.yaml").returncode == 0
    text = (project / "pipelines/copy.yaml").read_text()
    write(project, "pipelines/copy.yaml", text.replace("key: [id]", "key: [id], cursor: {column: id}"))
    notes = planned(project, "copy")["notes"]
    assert any(note.startswith("estimate: 1,000 rows in ") for note in notes)
    assert "starts again, because source, cursor, key or destination changed; the next run asks how" in notes
    with serving(project) as server:
        body = {"version": 1, "pipeline": "other", "source": {"connection": "shop", "table": "orders"},
                "destination": {"connection": "shop", "table": "t"}}  # fmt: skip
        answer = server.call("POST", "/v1/plans", {"documents": [body]})
        assert answer.status == 200, answer.body
        [change] = answer.body["changes"]
        assert change["columns"] == [
            {"name": "id", "source": "int64", "landing": "int64", "native": "bigint", "verdict": "lossless"}
        ]
        assert any(note.startswith("way: in-database") for note in change["notes"])
