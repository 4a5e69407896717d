"""What a document may cost: who may not send one is told before it is read, and what is too much is named before it is
parsed.
"""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import urllib3

from domain.errors import SpecError
from domain.identity.principal import Role
from entrypoints.documents.limits import DocumentLimits
from entrypoints.documents.reading import read_text
from entrypoints.documents.yaml_text import parse_json, parse_text
from tests.e2e.api import Server, headrace, openapi, serving
from tests.e2e.inside import ME, inside
from tests.security.keys import key_of

LIMITS = DocumentLimits()
BASE: dict[str, Any] = {
    "version": 1,
    "pipeline": "p",
    "source": {"connection": "default", "table": "orders", "key": ["id"]},
    "destination": {"table": "copied"},
}
WITH_A_BODY = [
    (method.upper(), re.sub(r"\{.*?\}", "x", path))
    for path, operations in openapi()["paths"].items()
    for method, operation in operations.items()
    if "requestBody" in operation
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("cost")
    (folder / "headrace.toml").write_text("[settings]\n")
    with serving(folder, HEADRACE_STORE__KIND="memory") as running:
        yield running


@pytest.fixture(scope="module")
def viewer(server: Server) -> str:
    return key_of(server.folder, Role.VIEWER)


@pytest.mark.line("4", "20")
@pytest.mark.parametrize(("method", "path"), WITH_A_BODY)
def test_who_may_not_send_a_body_is_told_before_it_is_parsed(
    server: Server, viewer: str, method: str, path: str
) -> None:
    malformed = b'{"a": [1, 2'
    assert server.call(method, path, content=malformed, key="hr_nobody").status == 401
    assert server.call(method, path, content=malformed, key=viewer).status == 403
    assert server.call(method, path, content=malformed, key=viewer, kind="text/plain").status == 403
    assert server.call(method, path, content=malformed).status == 422  # Its twin, who may.


@pytest.mark.line("4", "20")
def test_who_may_not_send_a_body_is_told_before_it_is_read(server: Server, viewer: str) -> None:
    """Of a body of five megabytes nothing is sent; the answer comes all the same."""
    for key, status in (("hr_nobody", b"401"), (viewer, b"403")):
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=5) as connection:
            connection.sendall(
                f"PUT /v1/pipelines/p HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
                "Content-Type: application/json\r\nContent-Length: 5000000\r\n\r\n".encode()
            )
            assert connection.recv(1000).split()[1] == status


def test_a_key_written_twice_is_found_in_linear_time() -> None:
    wide = replace(LIMITS, document_bytes=2**24, document_nodes=10**6)
    many = [f'"k{number}": 0' for number in range(60_000)]
    started = time.thread_time()

    assert len(parse_json("{" + ", ".join(many) + "}", "x", wide).value) == 60_000
    twice = parse_json("{" + ", ".join([*many, *many]) + "}", "x", wide)

    assert time.thread_time() - started < 3
    assert len(twice.problems) == 60_000
    assert {problem.code for problem in twice.problems} == {"spec.duplicate_key"}


def with_part(name: str, value: Any) -> dict[str, Any]:
    return {**BASE, name: value}


def wide(columns: int) -> dict[str, Any]:
    return {f"c{number}": "string" for number in range(columns)}


AT_THE_LIMIT = {
    "spec.too_many_steps": (lambda more: with_part("transform", [{"drop": ["a"]}] * (LIMITS.steps + more))),
    "spec.too_many_rules": (
        lambda more: with_part("quality", [{"rule": "not_null", "column": "a"}] * (LIMITS.rules + more))
    ),
    "spec.too_many_columns": (lambda more: with_part("transform", [{"cast": wide(LIMITS.columns + more)}])),
}


@pytest.mark.line("1")
@pytest.mark.parametrize("code", AT_THE_LIMIT)
@pytest.mark.parametrize("is_json", [True, False])
def test_parts_of_a_document_have_a_number(code: str, is_json: bool) -> None:
    make: Callable[[int], dict[str, Any]] = AT_THE_LIMIT[code]
    read_text(json.dumps(make(0)), "x", {}, is_json=is_json)
    with pytest.raises(SpecError) as caught:
        read_text(json.dumps(make(1)), "x", {}, is_json=is_json)
    assert caught.value.code == code
    assert "HEADRACE_LIMITS__" in caught.value.message


@pytest.mark.line("1")
@pytest.mark.parametrize(
    "part",
    [
        lambda count: {"source": {**BASE["source"], "key": [f"k{n}" for n in range(count)]}},
        lambda count: {"destination": {"table": "t", "mode": "merge", "key": [f"k{n}" for n in range(count)]}},
        lambda count: {"source": {"path": "x.csv", "options": {"types": wide(count)}}},
        lambda count: {"transform": [{"rename": wide(count)}]},
        lambda count: {"quality": [{"rule": "unique", "columns": [f"k{n}" for n in range(count)]}]},
        lambda count: {"tests": [{"given": [wide(count)], "expect": []}]},
        lambda count: {"tests": [{"given": [{"a": 1}], "expect": [{"a": 1}, wide(count)]}]},
        lambda count: {"tests": [{"types": wide(count), "given": [{"a": 1}], "expect": []}]},
    ],
)
def test_every_part_that_names_columns_is_counted(part: Callable[[int], dict[str, Any]]) -> None:
    few = replace(LIMITS, columns=20)
    read_text(json.dumps({**BASE, **part(20)}), "x", {}, is_json=True, limits=few)
    with pytest.raises(SpecError) as caught:
        read_text(json.dumps({**BASE, **part(21)}), "x", {}, is_json=True, limits=few)
    assert caught.value.code == "spec.too_many_columns"


def nested(depth: int, brackets: str) -> str:
    return brackets[0] * depth + brackets[1] * depth


@pytest.mark.line("1")
@pytest.mark.parametrize(
    ("fits", "too_much", "code"),
    [
        (nested(40, "[]"), nested(41, "[]"), "spec.yaml"),
        ('{"a":' * 40 + "1" + "}" * 40, '{"a":' * 41 + "1" + "}" * 41, "spec.yaml"),
        ("[" + "0," * 29_000 + "0]", "[" + "0," * 31_000 + "0]", "spec.too_many_nodes"),
        ('{"a": "' + "[{" * 1000 + '"}', '{"a": "\\"", "b": ' + nested(41, "[]") + "}", "spec.yaml"),
        ('{"a": "' + "\\\\" * 500 + '"}', '{"a": "\\\\", "b": ' + nested(41, "[]") + "}", "spec.yaml"),
        ('"' + "x" * (256 * 1024 - 2) + '"', '"' + "x" * (256 * 1024 - 1) + '"', "spec.too_large"),
        ('"' + "é" * (128 * 1024 - 1) + '"', '"' + "é" * (128 * 1024) + '"', "spec.too_large"),
    ],
    ids=["lists", "mappings", "nodes", "brackets in text", "backslashes", "bytes", "bytes of letters"],
)
@pytest.mark.parametrize("parse", [parse_json, parse_text])
def test_what_is_too_much_is_refused_before_it_is_parsed(parse: Any, fits: str, too_much: str, code: str) -> None:
    parse(fits, "x")
    started = time.thread_time()
    with pytest.raises(SpecError) as caught:
        parse(too_much, "x")
    assert caught.value.code == code
    assert time.thread_time() - started < 1


@pytest.mark.line("1")
@pytest.mark.parametrize(
    "text",
    [
        "- " * 100 + "x",
        "? " * 100 + "x",
        "".join(f"{'  ' * depth}a:\n" for depth in range(100)),
        "a: " + "[" * 100,
        "[" * 100_000,
        "{a: " * 50_000,
        "a: &a [x]\nb: *a\n",
        "a: &a [x]\nb: &a [y]\n<<: *a\n",
        '"' * 200_000,
        '{"' + '\\"' * 120_000,
        "'" * 199_999,
        "a" * 100_000 + ": b",
        "a: |\n" + " \n" * 100_000 + "\tx",
        "%YAML 1.1\n" * 20_000,
        "--- a\n" * 40_000,
        "!" * 200_000,
        "a: 1" + "0" * 200_000,
        "# " * 100_000,
    ],
)
@pytest.mark.parametrize("parse", [parse_json, parse_text])
def test_no_text_takes_long(parse: Any, text: str) -> None:
    started = time.thread_time()
    with suppress(SpecError):
        parse(text, "x")
    assert time.thread_time() - started < 1.5


@pytest.mark.line("1", "4")
def test_limits_hold_at_both_doors(server: Server) -> None:
    for code, make in AT_THE_LIMIT.items():
        answer = server.call("PUT", "/v1/pipelines/p", make(1))
        assert (answer.status, answer.body["code"]) == (422, code)
        answer = server.call("POST", "/v1/plans", {"documents": [make(1)]})
        assert (answer.status, answer.body["code"]) == (422, code)
    for key in ("description", "owner"):
        answer = server.call("PUT", "/v1/pipelines/p", with_part(key, "x" * 256 * 1024))
        assert (answer.status, answer.body["code"]) == (422, "spec.too_large")
    answer = server.call("POST", "/v1/pipelines/p/preview", {"limit": "x" * 256 * 1024})
    assert (answer.status, answer.body["code"]) == (413, "body.too_large")

    file = server.folder / "p.json"
    for document, expected in (
        (with_part("description", "x" * 256 * 1024), "spec.too_large"),
        (AT_THE_LIMIT["spec.too_many_steps"](1), "spec.too_many_steps"),
    ):
        file.write_text(json.dumps(document))
        done = headrace(server.folder, "validate", "-f", "p.json")
        assert (done.returncode, expected in done.stderr) == (2, True), done.stderr
    for steps, returncode in ((1, 0), (2, 2)):
        file.write_text(json.dumps(with_part("transform", [{"drop": ["a"]}] * steps)))
        done = headrace(server.folder, "validate", "-f", "p.json", HEADRACE_LIMITS__STEPS="1")
        assert done.returncode == returncode, done.stderr

    assert server.call("PUT", "/v1/pipelines/p", AT_THE_LIMIT["spec.too_many_steps"](0)).status == 201
    plenty = [{**with_part("description", "x" * 1900), "pipeline": f"p{number}"} for number in range(400)]
    assert server.call("POST", "/v1/plans", {"documents": plenty}).status == 200  # Of 800 KB, and none of them of 256.
    assert server.call("DELETE", "/v1/pipelines/p").status == 204


@pytest.mark.line("1")
def test_an_answer_lists_some_problems_of_a_document_and_not_all(server: Server) -> None:
    answer = server.call("PUT", "/v1/pipelines/p", {**BASE, **{f"x{number}": 1 for number in range(5000)}})
    assert answer.status == 422
    assert answer.body["detail"].startswith("5000 problems")
    assert len(answer.body["errors"]) == 100


@pytest.mark.line("1", "4")
def test_others_are_answered_while_a_large_body_is_parsed(server: Server) -> None:
    body = json.dumps({"documents": [with_part("descriptions", "é" * 1000)] * 900}).encode()
    heavy = [body, b'{"documents": [' + b"[0]," * 2_000_000 + b"0]}", b"[" + b'"a",' * 2_000_000 + b'"b"]']
    took: list[float] = []
    done = threading.Event()

    def ask() -> None:
        pool = urllib3.PoolManager()
        while not done.is_set():
            started = time.thread_time()
            assert pool.request("GET", server.url + "/health").status == 200
            took.append(time.thread_time() - started)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for content in heavy:
            assert server.call("POST", "/v1/plans", content=content).status == 422
    finally:
        done.set()
        asking.join()
    assert sorted(took)[len(took) // 2] < 0.05
    assert max(took) < 1


@pytest.mark.line("29")
def test_a_silent_host_keeps_no_other_connection_waiting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = f"host: 127.0.0.1, port: {silent.getsockname()[1]}, database: d, user: u, connect_timeout_seconds: 1"

        async def scenario() -> None:
            async with inside(tmp_path, HEADRACE_STORE__KIND="memory") as house:
                await house.put(f"version: 1\nconnection: silent\nkind: postgres\noptions: {{{options}}}\n")
                await house.put("version: 1\nconnection: other\nkind: memory\n")
                stores = house.use_cases.probe.stores
                waiting = asyncio.create_task(house.store("silent"))
                accepted, _ = await asyncio.to_thread(silent.accept)
                started = time.thread_time()

                first, second = await asyncio.gather(house.store("other"), house.store("other"))

                assert first is second
                assert not waiting.done()
                assert time.thread_time() - started < 0.8
                assert (await house.use_cases.probe.test(ME, "other")).is_healthy
                with pytest.raises(Exception, match="cannot be reached"):
                    await waiting
                accepted.close()
            assert not stores._guards

        (tmp_path / "headrace.toml").write_text("[settings]\n")
        asyncio.run(scenario())
