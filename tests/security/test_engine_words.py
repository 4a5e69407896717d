"""No text of an engine reaches an answer: names are told in our words, and what a sentence of theirs quotes is left
out.
"""

import json
import time
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrastructure.engine_words import said_by_duckdb, said_by_postgres
from infrastructure.stores.duckdb.errors import translate
from infrastructure.stores.postgres.errors import not_connected
from infrastructure.stores.postgres.errors import translate as told_of_postgres
from tests.e2e.api import headrace, serving

SECRET = "s3kr1t-42"
THEIRS = ("Binder", "Candidate", "Catalog Error", "LINE 1", "Referenced", "not found in FROM", "with name", "Did you mean",
          "Conversion Error", "Could not convert", "given name and argument types")  # fmt: skip
PREPARED = 'create table t (id int primary key, name varchar, "at" timestamp, s struct(a int)); create table u (id int)'


@pytest.mark.line("32")
@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("select nothing from t", "no column nothing"),
        (f"select nothing, '{SECRET}' from t", "no column nothing"),
        ("select t.nothing from t", "no column nothing in t"),
        ("select x.id from t", "no table x"),
        ("select * from missing", "missing does not exist"),
        ("select * from sch.missing", "missing does not exist"),
        ("select nofn(1)", "no function nofn"),
        (f"select upper('{SECRET}', 2)", "upper(STRING_LITERAL, INTEGER_LITERAL)"),
        ("select sum(name) from t", "sum(VARCHAR)"),
        ("select id from t, u", "column id is in several tables"),
        ("select id, count(*) from t", "id is neither grouped by"),
        ('select name > "at" from t', "VARCHAR and TIMESTAMP"),
        ("select s.b from t", "no field b"),
        ("select * exclude (nope) from t", "no column nope"),
        (f"select '{SECRET}' 1", ""),
        (f"select '{SECRET}", "quote"),
        (f"select cast('{SECRET}' as int)", ""),
        (f"select date '{SECRET}'", ""),
        (f"select * from t limit '{SECRET}'", ""),
        (f"select regexp_matches('a', '{SECRET}(')", ""),
        (f"select error('{SECRET}')", ""),
        ("select id from t union select id, name from t", "number of columns"),
        ("select (select id, name from t)", "2 columns"),
        ("select $x", "parameter x"),
        ("create table t (id int)", "t exists already"),
        ("select name::nope from t", "nope does not exist"),
    ],
)
def test_duckdb_is_told_by_names_in_our_words(sql: str, named: str) -> None:
    with duckdb.connect() as connection:
        connection.execute(PREPARED)
        with pytest.raises(duckdb.Error) as caught:
            connection.execute(sql).fetchall()

    for said in (said_by_duckdb(caught.value), translate(caught.value).message):
        assert SECRET not in said
        assert not [theirs for theirs in THEIRS if theirs in said], said
    assert named in said_by_duckdb(caught.value), said_by_duckdb(caught.value)


@pytest.mark.line("32")
@given(
    state=st.from_regex(r"[0-9A-Z]{5}", fullmatch=True),
    before=st.text("abcdefghij klmno", max_size=30),
    after=st.sampled_from(["", " in block 7", ': "', " of relation", "\nDETAIL: x", " {a} {} {reason}"]),
)
def test_of_unknown_sentences_nothing_is_told_but_their_state(state: str, before: str, after: str) -> None:
    said = said_by_postgres(state, f"{before} {SECRET}{after}")

    assert SECRET not in said
    assert state in said


@pytest.mark.line("32")
@pytest.mark.parametrize(
    ("message", "named"),
    [
        ('relation "orders" does not exist', "the table or view orders does not exist"),
        ('column "qty" of relation "orders" does not exist', "no column qty in orders"),
        ("column o.qty does not exist", "no column o.qty"),
        ("function half(integer, text) does not exist", "no function half(integer, text)"),
        ("operator does not exist: integer = text", "no operator integer = text"),
        (f"syntax error at or near \"'{SECRET}'\"", "syntax is wrong"),
        ("permission denied for table orders", "may not use the table orders"),
        ("must be owner of table orders", "does not own the table orders"),
        ('cannot copy to view "orders"', "orders is a view"),
        (f'unexpected chunk {SECRET} of the index "orders_pkey"', "the index orders_pkey (SQLSTATE XX001)"),
        ("canceling statement due to statement timeout", "statement timeout"),
    ],
)
def test_postgres_is_told_by_names_in_our_words(message: str, named: str) -> None:
    said = said_by_postgres("XX001", message)

    assert named in said
    assert SECRET not in said
    assert message not in said


@pytest.mark.line("29")
@pytest.mark.parametrize(
    ("text", "context"),
    [
        ("[libpq] " + "A" * 60_000, ""),
        ("ОШИБКА:  " + "A" * 60_000, ""),
        ("ERROR:  " + "type " * 12_000, ""),
        ('database "' * 6_000, "PL/pgSQL function a(\n" * 15_000),
    ],
)
def test_whatever_a_server_says_is_told_at_once(text: str, context: str) -> None:
    error = Exception(text)
    error.sqlstate, error.context = ("P0001" if context else ""), context  # type: ignore[attr-defined]
    before = time.thread_time()
    told = (
        told_of_postgres(error),
        not_connected(Exception(text), place="h:1", user="u", database="d", sslmode=None),
    )
    assert time.thread_time() - before < 0.3
    assert all(len(one.message) < 500 for one in told)


@pytest.mark.line("32")
@pytest.mark.line("20")
def test_runs_plans_and_previews_show_no_text_of_the_engine(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("[settings]\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/people.csv").write_text("id,name\n1,Ada\n")
    landing = {"version": 1, "connection": "landing", "kind": "files", "options": {"root": "data"}}
    steps = (
        "select *, nothing as more from batch",
        f"select *, cast('{SECRET}' as int) as more from batch",
        f"select *, name + date '2020-01-01' || '{SECRET}' as more from batch",
        f"select *, regexp_matches(name, '{SECRET}(') as more from batch",
    )
    with serving(tmp_path) as server:
        assert server.call("PUT", "/v1/connections/landing", landing).status == 201
        for step in steps:
            document = {"version": 1, "pipeline": "p", "source": {"connection": "landing", "path": "people.csv"},
                        "transform": [{"sql": step}], "destination": {"table": "t"}}  # fmt: skip
            assert server.call("PUT", "/v1/pipelines/p", document).status in (200, 201)
            run = server.wait_for(server.call("POST", "/v1/pipelines/p/trigger", {}).body["id"])
            assert run["state"] == "failed"
            logs = server.call("GET", f"/v1/runs/{run['id']}/logs").body
            preview = server.call("POST", "/v1/pipelines/p/preview", {"limit": 1})
            assert preview.status == 422
            notes = server.call("POST", "/v1/plans", {"documents": [document]}).body["changes"][0]["notes"]
            done = headrace(tmp_path, "preview", "p")
            for said in (json.dumps([run["error"], run["report"]]), json.dumps(logs), json.dumps(preview.body),
                         json.dumps(notes), done.stderr):  # fmt: skip
                assert SECRET not in said
                assert not [theirs for theirs in THEIRS if theirs in said], said
        sound = {**document, "transform": [{"sql": "select *, upper(name) as more from batch"}]}
        assert server.call("PUT", "/v1/pipelines/p", sound).status == 200
        assert server.call("POST", "/v1/pipelines/p/preview", {"limit": 1}).body["rows"][0]["more"] == "ADA"
