"""Every payload of the corpus is refused, each with a permitted twin; with a viewer's key none of them does
anything.
"""

import hashlib
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from urllib.parse import quote

import pytest

from domain.identity.principal import Role
from tests.databases import postgres
from tests.e2e.api import openapi
from tests.security.guards import refusal
from tests.security.payloads import Payload, of, payloads
from tests.security.yard import Said, Yard, all_at_once, yard

# The whole of it takes a minute: `make fuzz` sends all, the suite a part that changes with the corpus and not from run
# to run.
_IS_WHOLE = bool(os.environ.get("HEADRACE_TEST_ALL_PAYLOADS"))
_QUERIES = ("query", "transform", "predicate", "deleted_when")


def families(*places: str) -> list[list[Payload]]:
    return [list(found) for _, found in groupby(of(*places), key=lambda payload: payload.name.rpartition(" ")[0])]


def sample(found: tuple[Payload, ...], count: int) -> list[Payload]:
    """Some of them, seeded; all where all are wanted."""
    return list(found) if _IS_WHOLE else random.Random(4711).sample(found, min(count, len(found)))


def told(wrong: Sequence[object]) -> str:
    return "\n".join(str(one) for one in wrong)


@pytest.mark.line("8", "9", "10", "11", "12", "14", "15")
@pytest.mark.parametrize("family", families(*_QUERIES), ids=lambda family: family[0].name.rpartition(" ")[0])
def test_no_payload_is_let_through_at_the_door(family: list[Payload]) -> None:
    wrong = []
    for payload in family:
        started = time.monotonic()
        code = refusal(payload)
        is_let_through = code is None and (payload.is_bounded or payload.at == "store")
        if not (is_let_through or (code is not None and payload.is_due(code))) or time.monotonic() - started > 1:
            wrong.append((payload.name, payload.text[:200], code, time.monotonic() - started))
    assert not wrong, told(wrong)
    assert family[0].twin is not None
    assert refusal(family[0], family[0].twin) is None


def test_the_corpus_is_large_and_each_of_its_texts_is_there_once() -> None:
    assert len({(payload.where, payload.engine, payload.text) for payload in payloads()}) == len(payloads())
    assert len(payloads()) > 2000
    assert {payload.where for payload in payloads()} == {*_QUERIES, "pipeline", "connection"}


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory, postgres_server_url: str) -> Iterator[Yard]:
    with yard(tmp_path_factory.mktemp("yard"), postgres_server_url) as found:
        yield found


def _routes() -> list[tuple[str, str]]:
    return [
        (method.upper(), path)
        for path, operations in openapi()["paths"].items()
        for method in operations
        if path.startswith("/v1/")
    ]


def _everywhere(place: Yard, number: int, payload: Payload, routes: list[tuple[str, str]]) -> list[tuple[str, Said]]:
    """Send a payload as a document, in a plan, and to two routes more: in path, query, header and body."""
    said = []
    document = payload.as_document()
    said.append(("PUT", place.put(Role.VIEWER, payload, "p")))
    planned = json.dumps({"documents": [json.loads(document)] if document[:1] == "{" and _is_json(document) else []})
    said.append(
        ("POST", place.ask(Role.VIEWER, "POST", "/v1/plans", place.armed(planned), Content_Type="application/json"))
    )
    short = place.armed(payload.text[:300]).decode("utf-8", "surrogatepass")
    for method, path in (routes[number % len(routes)], routes[(number * 7 + 3) % len(routes)]):
        where = number % 3
        text = quote(short[:150], safe="", errors="surrogatepass")
        filled = "/".join((text if where == 0 else "p") if part.startswith("{") else part for part in path.split("/"))
        asked = f"?cursor={text[:90]}&state={text}&table={text}&pipeline={text}" if where == 1 else ""
        headers = {"Content_Type": "application/json"}
        if where == 2:
            headers["Idempotency_Key"] = "".join(c for c in short if c.isprintable())[:200] or "x"
        body = json.dumps({"to": short, "limit": short, "run": short}).encode() if method in ("POST", "PUT") else None
        said.append((method, place.ask(Role.VIEWER, method, filled + asked, body, **headers)))
    return said


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


@pytest.mark.line("20", "26", "30", "36a")
def test_a_viewer_does_nothing_with_any_of_them(grounds: Yard) -> None:
    routes, before = _routes(), grounds.records()
    tried = list(enumerate(sample(payloads(), 150)))

    answers = all_at_once(lambda one: _everywhere(grounds, *one, routes), tried)

    for (_, payload), said in zip(tried, answers, strict=True):
        for method, answer in said:
            allowed = range(200, 500) if method == "GET" else range(300, 500)
            assert answer.status in allowed, (payload.name, method, answer)
            assert "Traceback" not in answer.text
    grounds.untouched()
    assert grounds.records() == before
    assert grounds.peak_mb() <= 300
    _it_would_have_been_seen(grounds)


@pytest.mark.line("1", "2", "3", "7", "15", "26", "28", "30", "36a")
def test_no_document_of_the_corpus_is_stored(grounds: Yard) -> None:
    tried = of("pipeline", "connection")

    answers = all_at_once(lambda payload: _documented(grounds, payload), tried)

    wrong = [
        (payload.name, payload.text[-200:], said)
        for payload, said in zip(tried, answers, strict=True)
        if not (said.status in (400, 413, 422) and any(payload.is_due(code) for code in said.codes))
        and not (payload.at == "store" and said.status == 200 and json.loads(said.text)["ok"] is False)
    ]
    assert not wrong, told(wrong)
    grounds.untouched()
    for family in families("pipeline", "connection"):
        kind, name = ("connections", "shop") if family[0].where == "connection" else ("pipelines", "p")
        twin = grounds.put(Role.PIPELINE_ADMIN, family[0], name, is_twin=True)
        assert twin.status in (200, 201), (family[0].name, twin)
        assert grounds.ask(Role.PIPELINE_ADMIN, "DELETE", f"/v1/{kind}/{name}").status == 204


def _documented(place: Yard, payload: Payload) -> Said:
    """The refusal of a document: where it is put, or where the connection is tried whose text alone does not tell."""
    if payload.at == "door":
        name = "shop" if payload.where == "connection" else "p"
        said = place.put(Role.PIPELINE_ADMIN, payload, name)
        assert said.status in (400, 413, 422), (payload.name, said)
        return said
    name = "s" + hashlib.sha256(payload.name.encode()).hexdigest()[:12]
    document = {**json.loads(payload.as_document()), "connection": name}
    path, sent = f"/v1/connections/{name}", {"Content_Type": "application/json"}
    stored = place.ask(Role.PIPELINE_ADMIN, "PUT", path, place.armed(json.dumps(document)), **sent)
    said = stored if stored.status >= 400 else place.ask(Role.PIPELINE_ADMIN, "POST", f"{path}/test")
    place.ask(Role.PIPELINE_ADMIN, "DELETE", path)
    return said


@pytest.mark.line("8", "9", "10", "12", "14")
@pytest.mark.parametrize("engine", ["postgres", "duckdb"])
def test_an_engineer_stores_plans_and_previews_none_of_them(grounds: Yard, engine: str) -> None:
    found = of(*_QUERIES, engine=engine)
    tried = sample(tuple(p for p in found if p.at == "door" and not p.is_bounded and len(p.text) < 100_000), 50)
    tried += sample(tuple(p for p in found if p.at == "store"), 20)

    wrong = [found for found in all_at_once(lambda payload: _engineered(grounds, payload), tried) if found]

    assert not wrong, told(wrong)
    grounds.untouched()
    assert grounds.peak_mb() <= 300


def _engineered(place: Yard, payload: Payload) -> tuple[object, ...] | None:
    """What is wrong with the answers to an engineer; nothing, if a payload is refused with a due code at the end."""
    name = "p" + hashlib.sha256(payload.name.encode()).hexdigest()[:12]
    document = {**json.loads(payload.as_document()), "pipeline": name}
    body = place.armed(json.dumps(document))
    plan = place.armed(json.dumps({"documents": [document]}))
    sent = {"Content_Type": "application/json"}
    answers = [place.ask(Role.DATA_ENGINEER, "PUT", f"/v1/pipelines/{name}", body, **sent)]
    answers.append(place.ask(Role.DATA_ENGINEER, "POST", "/v1/plans", plan, **sent))
    if answers[0].status in (200, 201):
        answers.append(place.ask(Role.DATA_ENGINEER, "POST", f"/v1/pipelines/{name}/preview", b'{"limit": 1}', **sent))
        assert place.ask(Role.DATA_ENGINEER, "DELETE", f"/v1/pipelines/{name}").status == 204
    last = answers[-1] if len(answers) == 3 else answers[0]
    # A document is looked at before its query: for its size, for NUL, for a text that is not there.
    is_due = any(payload.is_due(code) or code.startswith("spec.") for code in last.codes) or last.status == 413
    is_refused = last.status in (404, 413, 422) and is_due
    is_late = payload.where != "query" and len(answers) == 3  # A query of one engine may be another's at the door.
    if not is_refused or is_late or any(answer.status >= 500 for answer in answers):
        return payload.name, payload.text[:200], [(a.status, a.codes, a.text[:300]) for a in answers[-2:]]
    return None


def _it_would_have_been_seen(grounds: Yard) -> None:
    for done, forgotten in (
        (lambda: postgres(grounds.database, "select canary(1)"), (grounds.outside / "told").unlink),
        (lambda: (grounds.outside / "canary.csv").read_text(), grounds.files.opened),
        (lambda: (grounds.outside / "written").write_text("x"), (grounds.outside / "written").unlink),
    ):
        grounds.untouched()
        done()
        with pytest.raises(AssertionError):
            grounds.untouched()
        with suppress(FileNotFoundError):
            forgotten()
    before = grounds.records()
    assert grounds.put(Role.PIPELINE_ADMIN, of("pipeline")[0], "p", is_twin=True).status == 201
    assert grounds.records() != before
