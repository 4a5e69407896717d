"""Who may make the program open, dial, read and start: a viewer nothing, an engineer what is stored, each with its
twin.
"""

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from domain.identity.principal import Role
from infrastructure.metadata.lease_holders import boot_id
from tests.e2e.api import Answer, Server, headrace, openapi, serving
from tests.security.keys import Canary, canary, key_of

SECRET = "hr-canary-9f3c77"


@dataclass
class House:
    """A running server with a key of each role."""

    server: Server
    keys: dict[Role, str]

    def call(self, role: Role, method: str, path: str, body: Any = None) -> Answer:
        return self.server.call(method, path, body, key=self.keys[role])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    (folder / "headrace.toml").write_text("[settings]\n")
    (folder / "data").mkdir()
    (folder / "data/people.csv").write_text("id,name\n1,Ada\n2,Alan\n")
    (folder / "data/key.csv").write_text(f"{SECRET}\nx\n")
    with serving(folder) as running:
        keys = {role: key_of(folder, role) for role in Role}
        yield House(running, keys)


@pytest.fixture
def bird() -> Iterator[Canary]:
    with canary() as listening:
        yield listening


def postgres_at(port: int, name: str = "outside") -> dict[str, Any]:
    options = {"host": "127.0.0.1", "port": port, "database": "d", "user": "u", "connect_timeout_seconds": 2}
    return {"version": 1, "connection": name, "kind": "postgres", "options": options}


def pipeline(name: str = "p", **changes: Any) -> dict[str, Any]:
    source = {"connection": "landing", "path": "people.csv", "key": ["id"]}
    return {"version": 1, "pipeline": name, "source": source, "destination": {"table": f"t_{name}"}, **changes}


LANDING = {"version": 1, "connection": "landing", "kind": "files", "options": {"root": "data"}}
READS_OUTSIDE = pipeline("outside", source={"connection": "outside", "table": "orders"})


def planned(answer: Answer, name: str) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    found: dict[str, Any] = next(
        change for change in answer.body["changes"] if (change["kind"], change["name"]) == ("pipeline", name)
    )
    return found


@pytest.fixture
def stored(house: House) -> None:
    assert house.server.call("PUT", "/v1/connections/landing", LANDING).status in (200, 201)
    assert house.server.call("PUT", "/v1/pipelines/p", pipeline()).status in (200, 201)


@pytest.mark.line("20")
@pytest.mark.parametrize("role", [Role.VIEWER, Role.RUNNER])
def test_who_only_reads_makes_the_server_dial_and_open_nothing(
    house: House, bird: Canary, stored: None, role: Role
) -> None:
    assert house.server.call("PUT", "/v1/connections/outside", postgres_at(bird.port)).status in (200, 201)
    assert house.server.call("PUT", "/v1/pipelines/outside", READS_OUTSIDE).status in (200, 201)
    away = pipeline("away", source=pipeline()["source"], destination={"connection": "outside", "table": "t"})
    assert house.server.call("PUT", "/v1/pipelines/away", away).status in (200, 201)

    for method, path, body in (
        ("POST", "/v1/plans", {"documents": [READS_OUTSIDE]}),
        ("POST", "/v1/plans", {"documents": [postgres_at(bird.port), READS_OUTSIDE]}),
        ("POST", "/v1/plans", {"documents": [], "prune": True}),
        ("POST", "/v1/pipelines/outside/preview", {"limit": 1}),
        ("GET", "/v1/pipelines/away/state", None),
        ("POST", "/v1/pipelines/away/reset", {}),
        ("POST", "/v1/connections/outside/test", None),
        ("GET", "/v1/connections/outside/tables", None),
        ("GET", "/v1/connections/outside/tables?table=orders", None),
        ("GET", "/v1/quarantine?pipeline=away", None),
        ("PUT", "/v1/connections/outside", postgres_at(bird.port)),
        ("PUT", "/v1/pipelines/outside", READS_OUTSIDE),
    ):
        answer = house.call(role, method, path, body)
        assert (answer.status, answer.body["code"]) == (403, "auth.denied"), (path, answer.body)
    for path in ("pipelines", "pipelines/outside", "pipelines/outside/status", "pipelines/outside/revisions", "runs",
                 "connections", "connections/outside", "workers"):  # fmt: skip
        assert house.call(role, "GET", f"/v1/{path}").status == 200, path
    assert bird.dialled == 0

    engineers = house.call(Role.DATA_ENGINEER, "POST", "/v1/plans", {"documents": [READS_OUTSIDE]})
    assert any(note.startswith("way: not known by now") for note in planned(engineers, "outside")["notes"])
    assert bird.dialled > 0
    for path in ("/v1/pipelines/away/state", "/v1/quarantine?pipeline=away"):
        before = bird.dialled
        assert house.call(Role.DATA_ENGINEER, "GET", path).status == 503
        assert bird.dialled > before


def _operations() -> list[tuple[str, str]]:
    """Every call of the API with names that are stored."""
    named = {"pipelines": "p", "connections": "landing"}
    return [
        (
            method.upper(),
            re.sub(r"\{\w+\}", named.get(path.split("/")[2], "00000000-0000-0000-0000-000000000000"), path),
        )
        for path, operations in openapi()["paths"].items()
        for method in operations
        if path.startswith("/v1/")
    ]


WRONG = ("nope=1", "limit=x", "table=a..b;", "cursor=!&pipeline=p", "")


@pytest.mark.line("20", "25")
@pytest.mark.parametrize("role", [Role.VIEWER, Role.RUNNER])
def test_who_may_not_act_hears_nothing_but_that(house: House, stored: None, role: Role) -> None:
    """Whatever else is wrong with the request; and of what they may do, they hear what is wrong."""
    allowed = 0
    for method, path in _operations():
        given = {"pipeline": "p"} if path == "/v1/quarantine" else {}
        right = house.server.call(method, f"{path}?{urlencode(given)}", content=b"", key=house.keys[role])
        statuses = [
            house.server.call(method, f"{path}?{wrong}", content=b"{{", key=house.keys[role]).status for wrong in WRONG
        ]
        if right.status == 403:
            assert set(statuses) == {403}, (method, path, statuses)
        else:
            allowed += 1
            assert statuses[0] == 422, (method, path)
    assert allowed == {Role.VIEWER: 11, Role.RUNNER: 14}[role]


@pytest.mark.line("36")
def test_who_only_reads_waits_for_nobody_who_writes_and_keeps_nobody_from_it(house: House, stored: None) -> None:
    """SQLite has one lock for all who write, which runs are written down with."""
    run = house.server.call("POST", "/v1/pipelines/p/trigger", {}).body["id"]
    house.server.wait_for(run)
    gets = [
        path.replace("00000000-0000-0000-0000-000000000000", run) for method, path in _operations() if method == "GET"
    ]
    read = [path for path in gets if house.call(Role.VIEWER, "GET", path).status == 200]
    assert len(read) == 11, gets
    with closing(sqlite3.connect(house.server.folder / ".headrace/records.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        assert {house.call(Role.VIEWER, "GET", path).status for path in read} == {200}
        assert house.server.call("GET", "/v1/runs", key="hr_" + "a" * 12 + "_" + "b" * 43).status == 401
        assert time.monotonic() - started < 2
        writer.execute("ROLLBACK")
    assert house.server.call("PUT", "/v1/pipelines/p", pipeline()).status == 200


@pytest.mark.line("20")
def test_a_connection_in_a_plan_is_never_opened_unless_it_is_stored_as_it_stands(house: House, bird: Canary) -> None:
    house.server.call("DELETE", "/v1/pipelines/outside")
    house.server.call("DELETE", "/v1/pipelines/away")
    house.server.call("DELETE", "/v1/connections/outside")
    new = {"documents": [postgres_at(bird.port), READS_OUTSIDE]}
    for role in (Role.VIEWER, Role.RUNNER, Role.DATA_ENGINEER):
        assert house.call(role, "POST", "/v1/plans", new).status == 403

    change = planned(house.call(Role.PIPELINE_ADMIN, "POST", "/v1/plans", new), "outside")
    assert "way, types and columns: after the connection outside is applied" in change["notes"]
    assert change["columns"] == []
    assert bird.dialled == 0

    with canary() as another:
        assert house.server.call("PUT", "/v1/connections/outside", postgres_at(another.port)).status == 201
        changed = planned(house.call(Role.PIPELINE_ADMIN, "POST", "/v1/plans", new), "outside")
        assert "way, types and columns: after the connection outside is applied" in changed["notes"]
        assert (bird.dialled, another.dialled) == (0, 0)

    assert house.server.call("PUT", "/v1/connections/outside", postgres_at(bird.port)).status == 200
    opened = planned(house.call(Role.PIPELINE_ADMIN, "POST", "/v1/plans", new), "outside")
    assert any(note.startswith("way: not known by now") for note in opened["notes"])
    assert bird.dialled > 0


@pytest.mark.line("20")
def test_documents_of_a_plan_name_no_file_of_the_server_that_is_not_stored(house: House) -> None:
    root = {"version": 1, "connection": "home", "kind": "files", "options": {"root": "data"}}
    reads = pipeline("peek", source={"connection": "home", "path": "key.csv"}, transform=[{"drop": ["nothing"]}])
    for role in Role:
        answer = house.call(role, "POST", "/v1/plans", {"documents": [root, reads]})
        assert SECRET not in json.dumps(answer.body)
        assert answer.status == (200 if role in (Role.PIPELINE_ADMIN, Role.PLATFORM_ADMIN) else 403)


def test_plan_beside_up_opens_connections_of_the_project_in_its_own_process(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("[settings]\n")
    for name, text in (
        ("data/people.csv", "id,name\n1,Ada\n"),
        ("connections/landing.yaml", "version: 1\nconnection: landing\nkind: files\noptions: {root: data}\n"),
        ("pipelines/p.yaml", "version: 1\npipeline: p\nsource: {connection: landing, path: people.csv, key: [id]}\n"
                             "destination: {table: people, mode: merge, key: [id]}\n"),
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert headrace(tmp_path, "run", "pipelines/p.yaml").returncode == 0
    (tmp_path / "connections/landing.yaml").rename(tmp_path / "connections/moved.yaml")
    (tmp_path / "connections/moved.yaml").write_text(
        "version: 1\nconnection: moved\nkind: files\noptions: {root: data}\n"
    )
    text = (tmp_path / "pipelines/p.yaml").read_text()
    (tmp_path / "pipelines/p.yaml").write_text(text.replace("landing", "moved"))
    (tmp_path / "data/people.csv").write_text("id,name\nA-1,Ada\n")  # The table has whole numbers there.

    alone = json.loads(headrace(tmp_path, "plan", "--json").stdout)
    with serving(tmp_path) as server:
        done = headrace(tmp_path, "plan", "--json")
        assert done.returncode == 0, done.stderr
        asked = {"documents": _documents()}
        served = planned(server.call("POST", "/v1/plans", asked), "p")

    assert json.loads(done.stdout) == alone
    change = next(change for change in alone if change["name"] == "p")
    assert [(c["name"], c["landing"], c["native"], c["verdict"]) for c in change["columns"]] == [
        ("id", "int64", "BIGINT", "checked"), ("name", "string", "VARCHAR", "lossless"),
    ]  # fmt: skip
    assert "way, types and columns: after the connection moved is applied" in served["notes"]


def _documents() -> list[dict[str, Any]]:
    source = {"connection": "moved", "path": "people.csv", "key": ["id"]}
    return [
        {"version": 1, "connection": "moved", "kind": "files", "options": {"root": "data"}},
        pipeline(source=source, destination={"table": "people", "mode": "merge", "key": ["id"]}),
    ]


@pytest.mark.line("20")
def test_after_needs_the_right_to_trigger(house: House, stored: None) -> None:
    assert house.server.call("PUT", "/v1/pipelines/first", pipeline("first")).status in (200, 201)
    following = pipeline("next", schedule={"after": ["p"]})
    for method, path, body in (
        ("PUT", "/v1/pipelines/next", following),
        ("POST", "/v1/plans", {"documents": [following]}),
    ):
        answer = house.call(Role.DATA_ENGINEER, method, path, body)
        assert answer.status == 403
        assert "schedule.after of next needs TRIGGER" in answer.body["detail"]
    assert house.server.call("GET", "/v1/pipelines/next").status == 404
    assert house.call(Role.DATA_ENGINEER, "PUT", "/v1/pipelines/next", pipeline("next")).status == 201
    assert house.call(Role.DATA_ENGINEER, "PUT", "/v1/pipelines/next", following).status == 403

    assert planned(house.call(Role.PIPELINE_ADMIN, "POST", "/v1/plans", {"documents": [following]}), "next")
    assert house.call(Role.PIPELINE_ADMIN, "PUT", "/v1/pipelines/next", following).status == 200
    as_it_stands = {**following, "description": "by an engineer"}
    assert house.call(Role.DATA_ENGINEER, "PUT", "/v1/pipelines/next", as_it_stands).status == 200
    changed = {**following, "schedule": {"after": ["p", "first"]}}
    assert house.call(Role.DATA_ENGINEER, "PUT", "/v1/pipelines/next", changed).status == 403
    assert house.call(Role.DATA_ENGINEER, "PUT", "/v1/pipelines/next", pipeline("next")).status == 200


def failed(house: House, name: str, document: dict[str, Any]) -> str:
    assert house.server.call("PUT", f"/v1/pipelines/{name}", document).status in (200, 201)
    run = house.server.call("POST", f"/v1/pipelines/{name}/trigger", {}).body
    assert house.server.wait_for(run["id"])["state"] == "failed"
    return str(run["id"])


@pytest.mark.line("20")
@pytest.mark.parametrize(
    "change",
    [
        {"transform": [{"drop": ["nothing"]}]},
        {"transform": [{"sql": "select *, nothing + 1 as more from batch"}]},
        {"transform": [{"cast": {SECRET: "int64"}}]},
        {"quality": [{"rule": "not_null", "column": "nothing"}]},
        {"destination": {"table": "t", "mode": "merge", "key": ["nothing"]}},
    ],
    ids=["drop", "sql", "conversion", "rule", "key"],
)
def test_a_run_tells_viewers_no_names_and_no_values(house: House, stored: None, change: dict[str, Any]) -> None:
    run = failed(house, "peek", pipeline("peek", **{"source": {"connection": "landing", "path": "key.csv"}, **change}))

    for role in (Role.VIEWER, Role.RUNNER):
        for path in (f"/v1/runs/{run}", f"/v1/runs/{run}/logs", f"/v1/runs/{run}/transitions", "/v1/runs",
                     "/v1/pipelines/peek/status"):  # fmt: skip
            answer = house.call(role, "GET", path)
            assert answer.status == 200
            assert SECRET not in json.dumps(answer.body), path
    seen = house.call(Role.VIEWER, "GET", f"/v1/runs/{run}").body
    told = house.call(Role.DATA_ENGINEER, "GET", f"/v1/runs/{run}").body
    assert seen["error"]["code"] == told["error"]["code"]
    assert "may preview" in seen["error"]["message"]
    assert "nothing" not in seen["error"]["message"]
    assert "nothing" in told["error"]["message"] or SECRET in told["error"]["message"]


@pytest.mark.line("20")
def test_a_report_has_numbers_for_viewers_and_names_for_engineers(house: House, stored: None) -> None:
    document = pipeline(
        "quiet",
        quality=[{"rule": "accepted_values", "column": "name", "values": ["Ada"], "on_violation": "quarantine"}],
    )
    assert house.server.call("PUT", "/v1/pipelines/quiet", document).status in (200, 201)
    run = house.server.wait_for(house.server.call("POST", "/v1/pipelines/quiet/trigger", {}).body["id"])
    assert run["state"] == "succeeded"

    seen = house.call(Role.VIEWER, "GET", f"/v1/runs/{run['id']}").body["report"]
    assert seen["counts"] == run["report"]["counts"]
    assert seen["rules"] == run["report"]["rules"]
    assert run["report"]["first_errors"]
    assert "first_errors" not in json.dumps(seen)
    assert house.call(Role.DATA_ENGINEER, "GET", f"/v1/runs/{run['id']}").body["report"] == run["report"]


@pytest.mark.line("20")
def test_a_history_tells_of_a_worker_only_which_it_was_to_who_operates_none(house: House, stored: None) -> None:
    run = failed(house, "moved", pipeline("moved", transform=[{"drop": ["nothing"]}]))
    pid, boot = str(house.server.process.pid), boot_id()

    names = set()
    for role in Role:
        for path in ("logs", "transitions"):
            items = house.call(role, "GET", f"/v1/runs/{run}/{path}").body["items"]
            actors = {line["reason"]: line["actor"] for line in items if "actor" in line}
            assert actors["requested"] == "admin"
            is_operator = role is Role.PLATFORM_ADMIN
            assert [part in actors["claimed"].split(":") for part in (pid, boot)] == [is_operator] * 2, (role, path)
            names.add(actors["claimed"])
    assert len(names) == 2
    assert any(re.fullmatch("worker-[0-9a-f]{8}", name) for name in names)


@pytest.mark.line("20")
@pytest.mark.parametrize("wish", ["full_refresh", "abandon"])
def test_who_may_only_start_runs_starts_none_that_forgets_what_was_loaded(
    house: House, stored: None, wish: str
) -> None:
    name = f"whole_{wish}"
    assert house.server.call("PUT", f"/v1/pipelines/{name}", pipeline(name)).status in (200, 201)
    path = f"/v1/pipelines/{name}/trigger"

    refused = house.call(Role.RUNNER, "POST", path, {wish: True})
    assert (refused.status, refused.body["code"]) == (403, "auth.denied")
    assert house.call(Role.RUNNER, "POST", path, {wish: False}).status == 202
    wished = house.call(Role.PIPELINE_ADMIN, "POST", path, {wish: True})
    assert wished.status == 202

    # Nor may they have such a run repeated.
    failing = pipeline(name, source={"connection": "landing", "path": "gone.csv", "key": ["id"]})
    house.server.wait_for(wished.body["id"])
    assert house.server.call("PUT", f"/v1/pipelines/{name}", failing).status == 200
    run = house.server.wait_for(house.call(Role.PIPELINE_ADMIN, "POST", path, {"full_refresh": True}).body["id"])
    again = f"/v1/runs/{run['id']}/retry"
    assert run["state"] == "failed"
    assert house.call(Role.RUNNER, "POST", again).status == 403
    assert house.call(Role.PIPELINE_ADMIN, "POST", again).status in (200, 202)


@pytest.mark.line("20")
def test_who_may_only_start_runs_puts_no_part_in_the_place_of_a_whole_table(house: House, stored: None) -> None:
    for mode in ("replace", "append"):
        document = pipeline(f"part_{mode}", destination={"table": f"part_{mode}", "mode": mode})
        assert house.server.call("PUT", f"/v1/pipelines/part_{mode}", document).status in (200, 201)
    path = "/v1/pipelines/part_replace/trigger"

    refused = house.call(Role.RUNNER, "POST", path, {"limit": 1})
    assert (refused.status, refused.body["code"]) == (403, "auth.denied")
    assert house.call(Role.RUNNER, "POST", path, {}).status == 202
    assert house.call(Role.RUNNER, "POST", "/v1/pipelines/part_append/trigger", {"limit": 1}).status == 202
    limited = house.call(Role.PIPELINE_ADMIN, "POST", path, {"limit": 1})
    assert limited.status == 202

    # Nor may they have such a run repeated.
    house.server.wait_for(limited.body["id"])
    failing = pipeline(
        "part_replace",
        source={"connection": "landing", "path": "gone.csv", "key": ["id"]},
        destination={"table": "part_replace", "mode": "replace"},
    )
    assert house.server.call("PUT", "/v1/pipelines/part_replace", failing).status == 200
    run = house.server.wait_for(house.call(Role.PIPELINE_ADMIN, "POST", path, {"limit": 1}).body["id"])
    assert house.call(Role.RUNNER, "POST", f"/v1/runs/{run['id']}/retry").status == 403
