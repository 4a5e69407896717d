"""What an answer may have: long values are cut in it and nowhere else, pages end early, and sources have so many
columns.
"""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from application.answers import AnswerLimits
from application.catalog import forecast
from application.catalog.documents import PutDocument
from application.pipelines.preview import Preview
from domain.quality.measures import Counts, Measures
from entrypoints.answers.pipelines import preview_body
from entrypoints.answers.sizes import fitted, listed, size_of, written
from entrypoints.documents.reading import read_text
from tests.e2e.api import Server, headrace, serving
from tests.e2e.inside import ME, inside
from tests.e2e.projects import new_project, write

pytestmark = pytest.mark.line("29")

ANSWER, CELL, COLUMNS = 65_536, 1_000, 20
SMALL = {
    "HEADRACE_LIMITS__ANSWER_BYTES": str(ANSWER),
    "HEADRACE_LIMITS__CELL_BYTES": str(CELL),
    "HEADRACE_LIMITS__COLUMNS": str(COLUMNS),
}
LONG = "é" * 5_000
ROWS = 150


def pipeline(name: str, path: str, more: str = "") -> str:
    return (
        f"version: 1\npipeline: {name}\nsource: {{connection: landing, path: {path}, key: [id]}}\n"
        f"destination: {{table: {name}, mode: append}}\n{more}"
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = new_project(tmp_path_factory.mktemp("answers") / "project")
    write(folder, "data/long.csv", "id,v\n" + "".join(f"{n},{LONG}\n" for n in range(ROWS)))
    write(folder, "data/short.csv", "id,v\n" + "".join(f"{n},short\n" for n in range(ROWS)))
    for count in (COLUMNS, COLUMNS + 1):
        names = ",".join(["id", *(f"c{number}" for number in range(1, count))])
        write(folder, f"data/of{count}.csv", f"{names}\n{','.join(['1'] * count)}\n")
    write(folder, "connections/landing.yaml", "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
    with serving(folder, **SMALL) as running:
        text = (folder / "connections/landing.yaml").read_text()
        assert running.call("PUT", "/v1/connections/landing", text, kind="application/yaml").status == 201
        yield running


def put(server: Server, text: str) -> None:
    name = text.split("pipeline: ")[1].split("\n")[0]
    write(server.folder, f"pipelines/{name}.yaml", text)
    answer = server.call("PUT", f"/v1/pipelines/{name}", text, kind="application/yaml")
    assert answer.status in (200, 201), answer.body


def of_command(server: Server, *arguments: str) -> Any:
    done = headrace(server.folder, *arguments, "--json", **SMALL)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def is_cut(value: str) -> bool:
    return re.fullmatch(r"é{490,500}… \(cut: 99[0-9] of 10,000 bytes are shown\)", value) is not None


def test_previews_show_long_values_in_part_and_as_many_rows_as_there_is_room_for(server: Server) -> None:
    put(server, pipeline("seen", "long.csv"))
    answer = server.call("POST", "/v1/pipelines/seen/preview", {"limit": ROWS})
    assert answer.status == 200, answer.body
    assert size_of(answer.body) < ANSWER + 1_000
    assert all(is_cut(row["v"]) for row in answer.body["rows"])
    assert 50 < len(answer.body["rows"]) < 70
    assert answer.body["counts"]["read"] == ROWS
    assert f"Only the first {len(answer.body['rows'])} of {ROWS} are shown" in answer.body["note"]
    here = of_command(server, "preview", "seen", "--limit", "3")
    assert [is_cut(row["v"]) for row in here["rows"]] == [True] * 3

    put(server, pipeline("seen", "short.csv"))  # Its twin.
    answer = server.call("POST", "/v1/pipelines/seen/preview", {"limit": ROWS})
    assert {row["v"] for row in answer.body["rows"]} == {"short"}
    assert len(answer.body["rows"]) == ROWS
    assert "note" not in answer.body


def test_quarantine_lists_long_rows_in_part_page_by_page_and_replays_them_whole(server: Server) -> None:
    wrong = (
        "quality:\n  - {rule: not_null, column: v}\n  - {rule: accepted_values, column: v, values: [x], "
        "on_violation: quarantine}\n"
    )
    put(server, pipeline("refused", "long.csv", wrong))
    run = server.wait_for(server.call("POST", "/v1/pipelines/refused/trigger", {}).body["id"])
    assert run["state"] == "succeeded", run

    found: list[int] = []
    cursor = ""
    while True:
        page = server.call("GET", f"/v1/quarantine?pipeline=refused&limit=500{cursor}").body
        assert size_of(page) < ANSWER + 1_000
        assert all(is_cut(item["record"]["v"]) for item in page["items"])
        found += [int(item["record"]["id"]) for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == list(range(ROWS))
    first = of_command(server, "quarantine", "list", "refused", "--limit", "500")
    assert is_cut(first["items"][0]["record"]["v"])
    assert first["next_cursor"]

    put(server, pipeline("refused", "long.csv"))
    run = server.wait_for(server.call("POST", "/v1/quarantine/replay", {"pipeline": "refused"}).body["id"])
    assert run["report"]["counts"]["used"] == ROWS
    put(server, "version: 1\npipeline: length\nsource: {connection: default, query: 'select min(length(v)) as n from " "refused'}\ndestination: {table: n}\n")  # fmt: skip
    assert server.call("POST", "/v1/pipelines/length/preview", {}).body["rows"] == [{"n": len(LONG)}]


def test_sources_have_so_many_columns(server: Server) -> None:
    for count, is_refused in ((COLUMNS, False), (COLUMNS + 1, True)):
        name = f"of{count}"
        put(server, pipeline(name, f"{name}.csv"))
        preview = server.call("POST", f"/v1/pipelines/{name}/preview", {})
        run = server.wait_for(server.call("POST", f"/v1/pipelines/{name}/trigger", {}).body["id"])
        document = server.call("GET", f"/v1/pipelines/{name}").body["document"]
        plan = server.call("POST", "/v1/plans", {"documents": [document]}).body["changes"][0]
        if is_refused:
            assert (preview.status, preview.body["code"]) == (422, "source.too_many_columns")
            assert (run["state"], run["error"]["code"]) == ("failed", "source.too_many_columns")
            assert "HEADRACE_LIMITS__COLUMNS" in run["error"]["message"]
            assert any("source.too_many_columns" in note for note in plan["notes"])
        else:
            assert (preview.status, run["state"]) == (200, "succeeded")
            assert len(plan["columns"]) >= count
    done = headrace(server.folder, "preview", f"of{COLUMNS + 1}", **SMALL)
    assert (done.returncode, "source.too_many_columns" in done.stderr) == (2, True)


def test_runs_with_much_to_tell_come_in_smaller_pages(server: Server) -> None:
    names = [f"t{n}" for n in range(10)]
    query = f"select {', '.join(f'${name} as {name}' for name in names)}"
    parameters = ", ".join(f"{name}: a" for name in names)
    put(server, f"version: 1\npipeline: asked\nsource: {{connection: default, query: '{query}', parameters: " f"{{{parameters}}}}}\ndestination: {{table: asked}}\n")  # fmt: skip
    asked = []
    for size in (1, 4_000, 4_000, 9_900):
        given = {"parameters": dict.fromkeys(names, "x" * size)}
        answer = server.call("POST", "/v1/pipelines/asked/trigger", given)
        assert answer.status == 202, answer.body
        asked.append(server.wait_for(answer.body["id"])["id"])
    found: list[str] = []
    pages = 0
    cursor = ""
    while True:
        page = server.call("GET", f"/v1/runs?limit=500&pipeline=asked{cursor}").body
        assert size_of(page) < ANSWER + 1_000
        pages += 1
        found += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == asked[::-1]
    assert pages == 3
    shown = server.call("GET", f"/v1/runs/{asked[-1]}").body
    assert "(cut: " in shown["request"]["parameters"]["t9"]
    assert server.call("GET", f"/v1/runs/{asked[0]}").body["request"]["parameters"]["t9"] == "x"
    listed = of_command(server, "runs", "list", "--pipeline", "asked")
    rest = of_command(server, "runs", "list", "--pipeline", "asked", "--cursor", listed["next_cursor"])
    assert [run["id"] for run in (*listed["items"], *rest["items"])] == found[:2]


def test_values_of_a_bit_each_are_no_gigabyte() -> None:
    """Arrow has eight of them in a byte; as JSON each has its column's name."""
    table = pa.table({f"column_{n}": pa.nulls(10_000, pa.bool_()) for n in range(500)})
    kinds = tuple((name, "bool") for name in table.column_names)
    body = preview_body(Preview(kinds, (table,), Counts(), Measures()), AnswerLimits(answer_bytes=1_000_000))
    assert len(written(body)) < 1_100_000
    assert 50 < len(body["rows"]) < 200


def drawn(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.randrange(6 if depth < 4 else 4)
    if kind < 2:
        return chance.choice('aé☃\x01"') * chance.randrange(3_000)
    if kind < 4:
        return chance.choice([None, True, 12.5, -(10**15)])
    size = chance.choice([0, 1, 5, 100])
    return [drawn(chance, depth + 3) for _ in range(size)] if kind == 4 else {
        f"k{n}": drawn(chance, depth + 2) for n in range(size)
    }  # fmt: skip


def test_whatever_is_drawn_fits_or_is_as_it_was() -> None:
    chance = random.Random(10)
    cut = 0
    for _ in range(80):
        value, most = drawn(chance), chance.choice([300, 2_000, 50_000])
        shown = fitted(value, most)
        assert type(shown) is type(value)
        if size_of(value) <= most:
            assert shown is value
        else:
            cut += 1
            assert size_of(shown) < 3 * most + 100  # With the marks of what was cut.
            assert "(cut: " in json.dumps(shown)
    assert cut > 20


def test_a_list_without_a_cursor_says_that_it_is_not_all() -> None:
    body = {"table": "t", "columns": [{"name": f"c{n}"} for n in range(100)]}
    assert listed(body, "columns", 10_000) is body
    short = listed(body, "columns", 200)
    assert "Only the first 14 of 100 are shown" in short["note"]
    assert (short["table"], short["columns"]) == ("t", body["columns"][:14])
    assert json.loads(written(body)) == body


async def test_a_plan_tells_of_so_many_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "_MOST_COLUMNS", 7)
    project = new_project(tmp_path / "project")
    write(project, "data/t.csv", "id,v\n1,a\n")
    async with inside(project) as house:
        await house.put("version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n")
        commands = []
        for number in range(6):
            document = read_text(pipeline(f"p{number}", "t.csv"), "doc", {})
            commands.append(PutDocument(document.kind, document.name, document.body))
        changes = await house.use_cases.planner.plan(ME, commands, prune=False)
    width = len(changes[0].columns)
    assert width >= 2
    for number, change in enumerate(changes, start=1):
        assert len(change.columns) == (width if number * width <= 7 else 0)
        assert any("plan fewer documents" in note for note in change.notes) is not bool(change.columns)
    assert not changes[-1].columns
