"""The lines of the security table owed so far, at both doors: clear refusal, nothing stored, the twin accepted."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from entrypoints.documents.numbers import number_of
from tests.e2e.api import Server, headrace, serving

BASE = {
    "version": 1,
    "pipeline": "p",
    "source": {"connection": "default", "table": "orders", "key": ["id"]},
    "destination": {"table": "copied"},
}
TEXT = """version: 1
pipeline: p
source: {table: orders, key: [id]}
destination: {table: copied}
"""
SHOP = {
    "version": 1,
    "connection": "shop",
    "kind": "postgres",
    "options": {"host": "db", "port": 5432, "database": "shop", "user": "reader"},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("security")
    (folder / "headrace.toml").write_text("[variables]\ncountry = 'CH'\n")
    (folder / "data").mkdir()
    (folder / "data/people.csv").write_text("id\n1\n")
    with serving(folder, HEADRACE_STORE__KIND="memory") as running:
        yield running


def with_change(path: str, value: Any, base: dict[str, Any] = BASE) -> dict[str, Any]:
    document = json.loads(json.dumps(base))
    node = document
    *parents, leaf = path.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
    node[leaf] = value
    return document


def refused_at_both_doors(
    server: Server, document: dict[str, Any] | str, code: str, *, kind: str = "pipeline", name: str = "p"
) -> str:
    """Send it to PUT and to `validate`; return what was said."""
    text = document if isinstance(document, str) else json.dumps(document)
    media = "application/yaml" if isinstance(document, str) else "application/json"
    started = time.monotonic()
    answer = server.call("PUT", f"/v1/{kind}s/{name}", text, kind=media)
    assert time.monotonic() - started < 1
    said = json.dumps(answer.body)
    assert answer.status == 422, said
    assert code in [answer.body["code"], *(item["code"] for item in answer.body["errors"])], said
    assert server.call("GET", f"/v1/{kind}s/{name}").status == 404

    file = server.folder / f"bad.{'yaml' if isinstance(document, str) else 'json'}"
    file.write_text(text)
    done = headrace(server.folder, "validate", "-f", file.name)
    assert done.returncode == 2, done.stderr
    assert code in done.stderr
    assert "Traceback" not in done.stderr
    return said + done.stderr


_ACCEPTED: set[tuple[str, str]] = set()


def accepted_at_both_doors(
    server: Server, document: dict[str, Any] | str, *, kind: str = "pipeline", name: str = "p"
) -> None:
    """Send it to PUT and to `validate`; once, where it is the twin of many."""
    text = document if isinstance(document, str) else json.dumps(document)
    if (server.url, text) in _ACCEPTED:
        return
    media = "application/yaml" if isinstance(document, str) else "application/json"
    answer = server.call("PUT", f"/v1/{kind}s/{name}", text, kind=media)
    assert answer.status in (200, 201), answer.body
    assert server.call("DELETE", f"/v1/{kind}s/{name}").status == 204
    file = server.folder / f"good.{'yaml' if isinstance(document, str) else 'json'}"
    file.write_text(text)
    done = headrace(server.folder, "validate", "-f", file.name)
    assert done.returncode == 0, done.stderr
    _ACCEPTED.add((server.url, text))


def test_permitted_twins_are_accepted(server: Server) -> None:
    accepted_at_both_doors(server, BASE)
    accepted_at_both_doors(server, TEXT)
    accepted_at_both_doors(server, SHOP, kind="connection", name="shop")


@pytest.mark.line("1")
@pytest.mark.parametrize(
    "text",
    [
        TEXT + "description: !!python/object/apply:os.system ['touch /tmp/headrace-owned']\n",
        TEXT + "tags: {a: &a x, b: *a}\n",
        "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n",
        "[" * 10_000 + "]" * 10_000,
        '{"a":' * 10_000 + "1" + "}" * 10_000,
        "- " * 5_000 + "x",
        "",
        "just text",
        "a: [1, 2",
    ],
    ids=["python-tag", "alias", "alias-bomb", "deep-list", "deep-json", "deep-dashes", "empty", "text", "open"],
)
def test_yaml_that_does_more_than_say_values(server: Server, text: str) -> None:
    started = time.monotonic()
    refused_at_both_doors(server, text, "spec.yaml")

    assert not Path("/tmp/headrace-owned").exists()
    assert time.monotonic() - started < 10


@pytest.mark.line("2")
@pytest.mark.parametrize("name", ["org_id", "state", "role", "unknown"])
def test_unknown_fields(server: Server, name: str) -> None:
    said = refused_at_both_doors(server, with_change(name, "canary-value"), "spec.unknown_field")
    assert "canary-value" not in said
    refused_at_both_doors(server, with_change(f"source.{name}", "x"), "spec.unknown_field")


@pytest.mark.line("2")
@pytest.mark.parametrize(
    "text",
    [
        TEXT + "pipeline: q\n",
        '{"version": 1, "pipeline": "p", "pipeline": "q", "source": {"table": "a"}, "destination": {"table": "b"}}',
    ],
)
def test_duplicate_keys(server: Server, text: str) -> None:
    refused_at_both_doors(server, text, "spec.duplicate_key")


@pytest.mark.line("3")
@pytest.mark.parametrize("text", ["NO", "on", "012", "12:30:00", "1_000", "0x1F"])
def test_yaml_that_versions_read_differently(server: Server, text: str) -> None:
    refused_at_both_doors(server, TEXT + f"description: {text}\n", "spec.ambiguous")
    accepted_at_both_doors(server, TEXT + f"description: '{text}'\n")


@pytest.mark.line("3")
@pytest.mark.parametrize("value", ["10", True, "１０", 2**63, "NaN", 0, -1, 1.5])
def test_wrong_value_for_a_number(server: Server, value: Any) -> None:
    refused_at_both_doors(server, with_change("run.batch_rows", value), "spec.value")
    accepted_at_both_doors(server, with_change("run.batch_rows", 10))


@pytest.mark.line("3")
@pytest.mark.parametrize("value", [True, 1.0, "1", 2, None])
def test_wrong_version(server: Server, value: Any) -> None:
    """`true` and `1.0` are equal to 1 in Python."""
    refused_at_both_doors(server, with_change("version", value), "spec.value")
    accepted_at_both_doors(server, with_change("version", 1))


@pytest.mark.line("2")
@pytest.mark.parametrize("name", ["transform", "quality", "tests"])
def test_item_without_a_key_is_not_passed_over(server: Server, name: str) -> None:
    refused_at_both_doors(server, with_change(name, [{}]), "spec.value" if name == "transform" else "spec.missing")


@pytest.mark.line("3")
def test_nan_and_huge_numbers_are_no_bounds(server: Server) -> None:
    longest = "1e99999999999999999999"  # Its exponent is more than any that decimals have.
    for text in ("NaN", "1e999", "-Infinity", longest, f"-{longest}"):
        document = json.dumps(with_change("quality", [{"rule": "between", "column": "a", "max": "BOUND"}])).replace(
            '"BOUND"', text
        )
        answer = server.call("PUT", "/v1/pipelines/p", document)
        assert answer.status == 422, answer.body
        if longest in text:
            in_yaml = document.replace("1e", "1.0e+")
            assert server.call("PUT", "/v1/pipelines/p", in_yaml, kind="application/yaml").status == 422
    assert number_of(longest.replace("e", "e-")) == 0
    assert number_of("1e-30") == 1e-30


@pytest.mark.line("4")
def test_bodies_of_wrong_size_type_and_encoding(server: Server) -> None:
    put = ("PUT", "/v1/pipelines/p")
    assert server.call(*put, "#" * (10 * 1024 * 1024 + 1), kind="application/yaml").status == 413
    assert server.call(*put, TEXT, kind="application/yaml", headers={"Content-Encoding": "gzip"}).status == 415
    assert server.call(*put, TEXT, kind="text/plain").status == 415
    assert server.call(*put, content=TEXT.encode() + b"description: \xff\xfe\n", kind="application/yaml").status == 400
    for escape in ("\\u0000", "\\ud800"):
        body = json.dumps(with_change("description", "X")).replace('"X"', f'"{escape}"')
        assert server.call(*put, body).status == 422, escape
        assert server.call(*put, TEXT + f'description: "{escape}"\n', kind="application/yaml").status == 422, escape
    assert server.call("GET", "/v1/pipelines/p").status == 404
    assert server.call("GET", "/v1/pipelines/").status == 404  # Nowhere else is where the caller is sent.
    assert server.call(*put, TEXT, kind="application/yaml; charset=utf-8").status == 201
    assert server.call("DELETE", "/v1/pipelines/p").status == 204


@pytest.mark.line("4")
def test_every_refusal_is_a_problem(server: Server) -> None:
    for answer in (
        server.call("PUT", "/v1/pipelines/p", "#" * (10 * 1024 * 1024 + 1), kind="application/yaml"),
        server.call("GET", "/v1/nothing"),
        server.call("TRACE", "/v1/runs"),
        server.call("GET", "/v1/runs?limit=0"),
        server.call("GET", "/v1/runs", key="wrong"),
        server.call("POST", "/v1/pipelines/p/trigger"),
    ):
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "code", "detail", "request_id", "errors"} == set(answer.body)
        assert answer.headers["x-request-id"] == answer.body["request_id"]


@pytest.mark.line("6")
def test_templates_are_text_and_undeclared_variables_are_refused(server: Server) -> None:
    for text in ("{{7*7}}", "${JWT_SECRET}", "$(id)"):
        assert server.call("PUT", "/v1/pipelines/p", with_change("description", text)).status == 201
        assert server.call("GET", "/v1/pipelines/p").body["document"]["description"] == text
        assert server.call("DELETE", "/v1/pipelines/p").status == 204
    refused_at_both_doors(server, with_change("destination.table", "${var.undeclared}"), "spec.variable")
    file = server.folder / "variable.json"
    file.write_text(json.dumps(with_change("destination.table", "t_${var.country}")))
    assert headrace(server.folder, "validate", "-f", file.name).returncode == 0
    file.write_text(json.dumps(with_change("description", "${var.country}")))
    assert headrace(server.folder, "validate", "-f", file.name).returncode == 2


@pytest.mark.line("7")
def test_source_that_is_the_destination(server: Server) -> None:
    refused_at_both_doors(server, with_change("destination.table", "orders"), "spec.value")


@pytest.mark.line("7")
def test_data_that_would_flow_in_a_circle(server: Server) -> None:
    def flow(name: str, source: str, target: str) -> dict[str, Any]:
        return {
            "version": 1,
            "pipeline": name,
            "source": {"query": f"select * from {source}", "key": ["id"]},
            "destination": {"table": target},
        }

    assert server.call("PUT", "/v1/pipelines/one", flow("one", "a", "b")).status == 201
    assert server.call("PUT", "/v1/pipelines/two", flow("two", "public.b", "c")).status == 201
    closing = server.call("PUT", "/v1/pipelines/three", flow("three", "c", "a"))
    assert (closing.status, closing.body["code"]) == (422, "spec.circle")
    assert server.call("GET", "/v1/pipelines/three").status == 404
    itself = server.call("POST", "/v1/plans", {"documents": [flow("four", "x", "x")]})
    assert (itself.status, itself.body["code"]) == (422, "spec.circle")
    assert server.call("PUT", "/v1/pipelines/three", flow("three", "c", "d")).status == 201
    file = server.folder / "circle.json"
    file.write_text(json.dumps(flow("five", "d", "a")))
    done = headrace(server.folder, "plan", "-f", "circle.json")
    assert done.returncode == 2
    assert "spec.circle" in done.stderr
    for name in ("one", "two", "three"):
        server.call("DELETE", f"/v1/pipelines/{name}")


@pytest.mark.line("7")
def test_two_connections_to_one_database_are_one(server: Server) -> None:
    def connected(name: str, kind: str, **options: Any) -> None:
        document = {"version": 1, "connection": name, "kind": kind, "options": options}
        assert server.call("PUT", f"/v1/connections/{name}", document).status == 201

    def moving(source: str, target: str, **parts: Any) -> Any:
        reads = (
            {"connection": source, "table": "orders", "key": ["id"]} if not parts else {"connection": source, **parts}
        )
        document = {"version": 1, "pipeline": "moves", "source": reads}
        return {**document, "destination": {"connection": target, "table": "public.orders"}}

    same = {"database": "d", "port": 5432}
    for name, host in (
        ("one", "localhost"), ("two", "127.0.0.1"), ("three", "0x7f.1"), ("four", "::ffff:127.0.0.1"), ("five", "Db.Example"),
        ("six", "db.example"), ("seven", "10.1.2.3"), ("eight", "167838211"),
    ):  # fmt: skip
        connected(name, "postgres", host=host, user=f"{name}_user", **same)
    connected("other", "postgres", host="localhost", user="u", database="d2", port=5432)
    connected("port", "postgres", host="localhost", user="u", database="d", port=5433)
    connected("shelf", "duckdb", path="data/shelf.duckdb")
    connected("again", "duckdb", path="./data/shelf.duckdb")
    connected("linked", "duckdb", path="data/linked.duckdb")
    connected("memory", "memory")
    try:
        for source, target in (("one", "two"), ("two", "three"), ("four", "one"), ("five", "six"), ("seven", "eight"),
                               ("shelf", "again"), ("again", "shelf")):  # fmt: skip
            for document in (moving(source, target), moving(source, target, query="select * from orders", key=["id"])):
                answer = server.call("PUT", "/v1/pipelines/moves", document)
                assert (answer.status, answer.body["code"]) == (422, "spec.circle"), (source, target, answer.body)
                planned = server.call("POST", "/v1/plans", {"documents": [document]})
                assert (planned.status, planned.body["code"]) == (422, "spec.circle")
        for source, target in (("one", "other"), ("one", "port"), ("one", "five"), ("shelf", "linked"), ("memory", "default"),
                               ("five", "seven")):  # fmt: skip
            assert server.call("PUT", "/v1/pipelines/moves", moving(source, target)).status in (200, 201), (
                source,
                target,
            )
        assert server.call("PUT", "/v1/pipelines/moves", moving("one", "port")).status == 200
        moved = {"host": "127.0.0.1", "user": "u", **same}
        changed = {"version": 1, "connection": "port", "kind": "postgres", "options": moved}
        closing = server.call("PUT", "/v1/connections/port", changed)
        assert (closing.status, closing.body["code"]) == (422, "spec.circle")
    finally:
        server.call("DELETE", "/v1/pipelines/moves")


QUERY = with_change("source", {"query": "SELECT 1", "key": ["id"]})


@pytest.mark.line("8", "9", "14")
@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("SELECT 1; DROP TABLE x", "query.multiple_statements"),
        ("COMMIT; SELECT 1", "query.multiple_statements"),
        ("/**/INSERT INTO x VALUES (1)", "query.not_readonly"),
        ("WITH gone AS (DELETE FROM x RETURNING *) SELECT * FROM gone", "query.not_readonly"),
        ("SELECT * INTO y FROM x", "query.not_readonly"),
        ("SELECT * FROM x FOR UPDATE", "query.not_readonly"),
        ("SELEC 1", "query.unparsable"),
        ("SELECT 1) AS x; DROP TABLE y; --", "query.unparsable"),
        ("SELECT * FROM _headrace_checkpoint", "query.forbidden_relation"),
    ],
)
def test_query_that_is_not_one_read(server: Server, query: str, code: str) -> None:
    refused_at_both_doors(server, with_change("source.query", query, QUERY), code)
    accepted_at_both_doors(server, QUERY)


@pytest.mark.line("15")
@pytest.mark.parametrize(
    "name",
    [
        "users\n",
        'a"b;--',
        "",
        "x" * 64,
        "pg_catalog.pg_class",
        "_headrace_checkpoint",
        "a.b.c",
        "a\x00b",
        "information_schema.tables",
    ],
)
def test_identifiers(server: Server, name: str) -> None:
    is_reserved = name.startswith(("pg_catalog.", "information_schema.", "_headrace"))
    code = "spec.yaml" if "\x00" in name else "identifier.reserved" if is_reserved else "spec.value"
    refused_at_both_doors(server, with_change("destination.table", name), code)
    if "." not in name and not name.startswith("_headrace"):
        refused_at_both_doors(server, with_change("source.key", [name]), code)
    accepted_at_both_doors(server, with_change("destination.table", "x" * 63))


@pytest.mark.line("28")
@pytest.mark.parametrize("port", [0, 65536, "٥٤٣٢", "5_432", "5432", True])
def test_ports(server: Server, port: Any) -> None:
    refused_at_both_doors(server, with_change("options.port", port, SHOP), "spec.value", kind="connection", name="shop")


@pytest.mark.line("28")
def test_all_problems_of_a_connection_at_once(server: Server) -> None:
    wrong = {
        "version": 1,
        "connection": "shop",
        "kind": "postgres",
        "options": {
            "host": "a/b",
            "port": 0,
            "user": "",
            "sslmode": "verify-full",
            "passfile": "x",
            "batch_size": 20_000,
        },
        "secrets": {"password": "hunter2"},
    }
    said = refused_at_both_doors(server, wrong, "spec.value", kind="connection", name="shop")

    for part in (
        "options.host",
        "options.port",
        "options.database",
        "options.user",
        "options.passfile",
        "options.batch_size",
        "secrets",
    ):
        assert part in said, part
    assert "hunter2" not in said


@pytest.mark.line("36a")
@pytest.mark.parametrize("path", ["../../x", "/etc/passwd", "a/../../b", "~/x"])
def test_paths_that_lead_out(server: Server, path: str) -> None:
    source = {"connection": "landing", "path": path}
    refused_at_both_doors(server, with_change("source", source), "path.forbidden")
    files = {"version": 1, "connection": "landing", "kind": "files", "options": {"root": path}}
    refused_at_both_doors(server, files, "path.forbidden", kind="connection", name="landing")
    accepted_at_both_doors(server, with_change("options.root", "data", files), kind="connection", name="landing")


@pytest.mark.line("36a")
def test_link_out_of_the_folder_is_not_followed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("id\n1\n")
    (server.folder / "data/link.csv").symlink_to(tmp_path / "secret.csv")
    (server.folder / "away").symlink_to(tmp_path)
    for name, root in (("landing", "data"), ("away", "away")):
        files = {"version": 1, "connection": name, "kind": "files", "options": {"root": root}}
        assert server.call("PUT", f"/v1/connections/{name}", files).status == (422 if name == "away" else 201)
    (server.folder / "away").unlink()
    (server.folder / "data/away").mkdir()
    files = {"version": 1, "connection": "away", "kind": "files", "options": {"root": "data/away"}}
    assert server.call("PUT", "/v1/connections/away", files).status == 201
    (server.folder / "data/away").rmdir()
    (server.folder / "data/away").symlink_to(tmp_path)
    for number, source in enumerate(
        ({"connection": "landing", "path": "link.csv"}, {"connection": "away", "path": "secret.csv"})
    ):
        document = {**with_change("source", source), "pipeline": f"linked{number}"}
        assert server.call("PUT", f"/v1/pipelines/linked{number}", document).status == 201
        answer = server.call("POST", f"/v1/pipelines/linked{number}/preview", {})
        assert (answer.status, answer.body["code"]) == (422, "path.forbidden")
    good = {**with_change("source", {"connection": "landing", "path": "people.csv"}), "pipeline": "straight"}
    assert server.call("PUT", "/v1/pipelines/straight", good).status == 201
    assert server.call("POST", "/v1/pipelines/straight/preview", {}).body["rows"] == [{"id": 1}]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schedule", {"cron": "0 2 * * *"}),
        ("source", {"python": "os:system"}),
        ("run", {"engine": "spark"}),
        ("sla", {}),
    ],
)
@pytest.mark.line("36a")
def test_what_a_later_version_brings_is_refused_by_name(server: Server, path: str, value: Any) -> None:
    said = refused_at_both_doors(server, with_change(path, value), "spec.unsupported")
    assert "later version" in said


@pytest.mark.line("36a")
@pytest.mark.parametrize("name", ["os:system", "local.../x:y", "local.x", "a.b:c", "../x", "local.os:system\n"])
def test_python_step_names_nothing_but_hooks(server: Server, name: str) -> None:
    refused_at_both_doors(server, with_change("transform", [{"python": name}]), "spec.value")


def test_problems_of_a_file_come_with_line_and_column(server: Server) -> None:
    file = server.folder / "placed.yaml"
    file.write_text(
        "version: 1\npipeline: P\nsource:\n  table: orders\n  kee: [id]\ndestination: {table: copied, mode: upsert}\n"
    )

    done = headrace(server.folder, "validate", "-f", "placed.yaml")

    for place in ("placed.yaml:2:1", "placed.yaml:5:3", "placed.yaml:6:30"):
        assert place in done.stderr, done.stderr


def test_roles_are_held_to_the_permission_table() -> None:
    from domain.identity.policy import PERMISSIONS, Action
    from domain.identity.principal import Role

    assert PERMISSIONS[Role.VIEWER] == {Action.READ}
    assert PERMISSIONS[Role.RUNNER] == {Action.READ, Action.TRIGGER}
    assert PERMISSIONS[Role.DATA_ENGINEER] == {Action.READ, Action.PREVIEW, Action.WRITE_SPEC}
    assert PERMISSIONS[Role.PIPELINE_ADMIN] == set(Action) - {Action.OPERATE, Action.READ_METRICS}
    assert PERMISSIONS[Role.PLATFORM_ADMIN] == set(Action)


def test_keys_are_asked_for_everywhere_but_at_the_probes(server: Server) -> None:
    from tests.e2e.api import openapi

    for path, operations in openapi()["paths"].items():
        for method in operations:
            answer = server.call(method.upper(), path.replace("{name}", "x").replace("{run_id}", "x"), key="nope")
            assert (answer.status == 401) == path.startswith("/v1/"), (method, path, answer.status)
    two = server.call("GET", "/v1/runs", headers={"authorization": "Bearer other"})
    assert two.status == 401
    assert server.call("GET", "/v1/runs").status == 200
