"""What a connection may cost before there is a request, whom the server answers under which name, and what is no
request at all.
"""

import json
import resource
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import urllib3

from domain.errors import InvalidInputError
from entrypoints.answers.cursors import cursor_of, place_of
from tests.e2e.api import Server, headrace, openapi, serving

QUICK = {
    "HEADRACE_STORE__KIND": "memory",
    "HEADRACE_HTTP__HEADER_TIMEOUT_SECONDS": "1",
    "HEADRACE_HTTP__BODY_TIMEOUT_SECONDS": "1",
    "HEADRACE_HTTP__ANSWER_TIMEOUT_SECONDS": "1",
    "HEADRACE_HTTP__KEEP_ALIVE_SECONDS": "1",
    "HEADRACE_HTTP__MAX_CONNECTIONS": "40",
    "HEADRACE_HTTP__ALLOWED_HOSTS": "headrace.example.com,*.inside.example,10.1.2.3",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("transport")
    (folder / "headrace.toml").write_text("[settings]\n")
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))  # As most systems have it.
    with ExitStack() as stack:
        try:
            running = stack.enter_context(serving(folder, **QUICK))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))
        yield running


def dialed(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10)


def everything(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    found = b""
    with suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            found += chunk
    return found


def answered(server: Server, request: bytes) -> tuple[int, bytes]:
    """Send bytes and read until the server closes; a request that it would keep the connection for has to say close."""
    with dialed(server) as connection:
        with suppress(ConnectionError):
            connection.sendall(request)
        found = everything(connection)
    return (int(found.split()[1]) if found else 0), found


def lines_of(server: Server, expected: int = 0) -> list[str]:
    """The lines of the log, once there are so many and no more are coming."""
    deadline = time.monotonic() + 5
    while True:
        time.sleep(0.05)
        found = (server.folder / "up.log").read_text().splitlines()
        if len(found) >= expected or time.monotonic() > deadline:
            return found


def get(path: bytes = b"/health", *headers: bytes) -> bytes:
    return (
        b"\r\n".join([b"GET " + path + b" HTTP/1.1", b"Host: localhost", b"Connection: close", *headers]) + b"\r\n\r\n"
    )


BEGINNINGS = [
    b"",
    b"G",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ",
    b"\r\n" * 10,
    get().replace(b"Connection: close\r\n", b"") + b"GET /hea",
    b"PUT /v1/pipelines/p HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer "
    b"KEY\r\n"
    b"Content-Length: 1000\r\n\r\n{",
    b"PUT /v1/pipelines/p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
]
"""Nothing, a letter, half a header, empty lines, half of a second request, a body that may be sent and one that may
not.
"""


@pytest.mark.line("36")
def test_who_sends_a_byte_now_and_then_is_hung_up_on(server: Server) -> None:
    def lasted(beginning: bytes) -> float:
        started = time.monotonic()
        with dialed(server) as connection, suppress(ConnectionError):
            connection.sendall(beginning.replace(b"KEY", server.key.encode()))
            while time.monotonic() - started < 5:
                time.sleep(0.2)
                connection.sendall(b"\r\n" if beginning.endswith(b"\r\n\r\n") else b"x")
        return time.monotonic() - started

    with ThreadPoolExecutor(len(BEGINNINGS)) as threads:
        found = list(threads.map(lasted, BEGINNINGS))

    assert max(found) < 4, found


@pytest.mark.line("36")
def test_others_are_served_while_many_sockets_do_nothing(server: Server) -> None:
    with ExitStack() as stack:
        many = [stack.enter_context(dialed(server)) for _ in range(400)]
        for connection in many[::2]:
            with suppress(ConnectionError):
                connection.sendall(b"GET / HTTP/1.1\r\nX-Slow: 1\r\n")
        started = time.monotonic()
        for _ in range(20):
            assert server.call("GET", "/v1/runs").status == 200
        assert time.monotonic() - started < 2
        for connection in many:
            everything(connection)  # Ends: each is closed.
        assert time.monotonic() - started < 6


@pytest.mark.line("36")
def test_as_many_files_may_be_open_as_connections_and_all_else_need(server: Server) -> None:
    assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[0] > 40 + 1024


@pytest.mark.line("36")
def test_connections_that_all_wait_for_an_answer_are_not_broken_off_for_another(server: Server) -> None:
    """Bodies that come are requests in work, which keep their place; a further connection is told."""
    head = (
        f"PUT /v1/pipelines/p HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {server.key}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{"
    ).encode()
    with ExitStack() as stack:
        working = [stack.enter_context(dialed(server)) for _ in range(40)]
        for connection in working:
            connection.sendall(head)
        time.sleep(0.3)
        with dialed(server) as further:
            told = everything(further)
        assert told.split()[1] == b"503"
        assert b"server.connections" in told
        for connection in working:
            connection.sendall(b"}")
        assert {everything(connection).split()[1] for connection in working} == {b"422"}


@pytest.mark.line("36")
def test_who_takes_no_answer_is_hung_up_on(server: Server) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        connection.sendall(get(b"/openapi.json").replace(b"Connection: close\r\n", b"") * 15)
        started = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - started < 5:
                time.sleep(0.2)
                connection.sendall(b"\r\n")
    assert server.call("GET", "/health").status == 200


@pytest.mark.line("36")
def test_a_connection_in_use_is_kept(server: Server) -> None:
    pool = urllib3.HTTPConnectionPool("127.0.0.1", int(server.url.rpartition(":")[2]), maxsize=1)
    for _ in range(3):
        assert pool.request("GET", "/health").status == 200
        time.sleep(0.4)
    assert pool.request("GET", "/health").status == 200
    assert pool.num_connections == 1


REFUSED = {
    "both lengths": (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "both the other way": (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        400,
    ),
    "two lengths": (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "same length twice": (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        400,
    ),
    "length with a sign": (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: +3\r\n\r\nabc", 400),
    "negative length": (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
    "huge length behind zeros": (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"0" * 5000 + b"9" * 21 + b"\r\n\r\n",
        400,
    ),
    "huge length": (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
    "encoding unknown": (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "chunked not last": (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        400,
    ),
    "space before the colon": (b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
    "folded header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n", 400),
    "line feed alone": (b"GET / HTTP/1.1\nHost: localhost\n\n", 400),
    "NUL in a header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n", 400),
    "NUL in the path": (b"GET /v1/runs\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "another protocol": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100, 400),
    "no method": (b"FETCH / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "CONNECT": (b"CONNECT evil:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "long token": (get(b"/v1/runs", b"Authorization: Bearer " + b"x" * 65536), 431),
    "long token in pieces": (get(b"/v1/runs", *[b"Cookie: " + b"x" * 1000] * 60), 431),
    "long path": (get(b"/" + b"x" * 40_000), 431),
    "many headers": (get(b"/v1/runs", *[b"X: y"] * 101), 431),
    "endless header": (b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000, 431),
}


@pytest.mark.line("4", "19", "36")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_request_is_refused_with_a_problem(server: Server, name: str) -> None:
    request, status = REFUSED[name]
    found, content = answered(server, request)
    assert found == status, content
    body = json.loads(content.partition(b"\r\n\r\n")[2])
    assert body["code"] == ("request.malformed" if status == 400 else "request.headers_too_large")
    assert content.count(b"HTTP/1.1 ") == 1  # And nothing that came behind it was taken for a request.


@pytest.mark.line("4", "36")
@pytest.mark.parametrize("version", [b"2.0", b"0.9"])
def test_a_request_of_another_version_is_refused_and_nothing_behind_it_is_read(version: bytes, server: Server) -> None:
    content = answered(server, get().replace(b"HTTP/1.1", b"HTTP/" + version) + get())[1]
    assert content.startswith(b"HTTP/1.1 505 ")
    assert (b'"request.version"' in content, content.count(b"HTTP/1.1 ")) == (True, 1)


@pytest.mark.line("25")
@pytest.mark.parametrize("name", ["x" * 49, "x" * 20_000, "%E2%80%AE", "a.b", "A"])
def test_what_is_no_name_is_not_repeated_where_there_is_none_of_it(name: str, server: Server) -> None:
    for kind in ("pipeline", "connection"):
        calls = [("GET", ""), ("DELETE", ""), ("GET", "/revisions"), ("POST", "/test")]
        calls += [("GET", "/state"), ("POST", "/trigger"), ("POST", "/preview"), ("POST", "/reset")]
        for method, rest in calls:
            told = server.call(method, f"/v1/{kind}s/{name}{rest}")
            if told.status not in (404, 405) or told.body["code"] != f"{kind}.not_found":
                continue
            assert (name in told.body["detail"], "\u202e" in told.body["detail"]) == (False, False)
            assert len(told.body["detail"]) < 200
    assert server.call("GET", "/v1/pipelines/absent").body["detail"] == "There is no pipeline named absent."


BESIDE_A_BODY = {
    "name of a field": (b"2\r\n{}\r\n0\r\n", b"x" * 1000),
    "value of a field": (b"0\r\nX: ", b"x" * 1000),
    "fields": (b"2\r\n{}\r\n0\r\n", b"X: y\r\n" * 150),
    "extension of a chunk": (b"2;", b"x" * 1000),
    "extension of the last chunk": (b"2\r\n{}\r\n0;x=", b"x" * 1000),
    "size of a chunk": (b"", b"0" * 1000),
}


@pytest.mark.line("4", "36")
@pytest.mark.parametrize("path", ["/v1/plans", "/nothing"])
@pytest.mark.parametrize("name", BESIDE_A_BODY)
def test_what_stands_beside_a_body_is_bounded_as_a_head_is(server: Server, name: str, path: str) -> None:
    beginning, piece = BESIDE_A_BODY[name]
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.key}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with dialed(server) as connection:
        connection.sendall(head.encode() + beginning)
        for _ in range(2):
            time.sleep(0.05)
            connection.sendall(piece * 20)
        found = everything(connection)
    assert b"HTTP/1.1 431 " in found
    assert b"request.headers_too_large" in found
    assert server.call("GET", "/health").status == 200


@pytest.mark.line("4")
def test_a_body_of_small_chunks_may_have_more_lines_than_a_head_has_bytes(server: Server) -> None:
    content = json.dumps({"documents": [], "prune": False}).encode() + b" " * 20_000
    chunks = b"".join(b"1;n=v\r\n" + content[at : at + 1] + b"\r\n" for at in range(len(content)))
    head = (
        f"POST /v1/plans HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.key}\r\nConnection: close\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    assert answered(server, head.encode() + chunks + b"0\r\nX: " + b"y" * 9000 + b"\r\n\r\n")[0] == 200


@pytest.mark.line("4", "19", "36")
def test_what_is_a_request_is_answered(server: Server) -> None:
    for request, status in (
        (get(), 200),
        (get(b"/health", *[b"X: y"] * 90), 200),
        (get(b"/health", b"X: " + b"x" * 30_000), 200),
        (get(b"/health", b"Upgrade: websocket", b"Connection: upgrade"), 200),
        (get(b"http://localhost/health"), 200),
        (b"GET /health HTTP/1.0\r\n\r\n", 200),
        (get(b"/v1/runs", b"Authorization: Bearer " + b"x" * 20_000), 401),
        # More digits than Python makes a number of.
        (get(b"/health", b"Content-Length: " + b"0" * 20_000), 200),
        (get(b"/health", b"Content-Length: " + b"0" * 20_000 + b"2") + b"{}", 200),
        (get(b"/v1/runs", b"Content-Length: " + b"0" * 5_000), 401),
    ):
        assert answered(server, request)[0] == status, request[:80]
    chunked = (
        f"POST /v1/plans HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.key}\r\nConnection: close\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        '5\r\n{"doc\r\nc\r\numents": []}\r\n0\r\nAuthorization: x\r\n\r\n'
    )
    assert answered(server, chunked.encode())[0] == 200
    assert answered(server, get().replace(b"Connection: close\r\n", b"") * 8 + get())[1].count(b"HTTP/1.1 200") == 9


@pytest.mark.line("36")
@pytest.mark.parametrize("wish", [b"", b"Upgrade: h2c", b"Upgrade: websocket"])
def test_whoever_wishes_for_another_protocol_is_told_that_the_connection_ends(server: Server, wish: bytes) -> None:
    """What comes behind such a request is not parsed; a client that kept the connection would wait for
    answers in vain.
    """
    first = get(b"/version", *([b"Connection: Upgrade, HTTP2-Settings", wish] if wish else []))
    content = answered(server, first.replace(b"Connection: close\r\n", b"", 1) + get(b"/version"))[1].lower()
    assert content.count(b"http/1.1 200 ") == (1 if wish else 2)
    assert content.count(b"connection: close") == 1


@pytest.mark.line("4")
def test_many_requests_in_a_row_are_too_many(server: Server) -> None:
    found = answered(server, get(b"/version").replace(b"Connection: close\r\n", b"") * 300)[1]
    assert found.count(b"HTTP/1.1") < 30
    assert server.call("GET", "/health").status == 200


@pytest.mark.line("4")
@pytest.mark.parametrize(
    "path",
    ["/v1/pipelines/a%00b", "/v1/runs?pipeline=%00", "/v1/runs/%0d%0aX", "/v1/connections/%1b%5b2J", "/v1/runs?x=a%00"],
)
def test_control_characters_of_a_path_are_no_part_of_a_name(server: Server, path: str) -> None:
    before = len(lines_of(server))

    answer = server.call("GET", path)

    assert (answer.status, answer.body["code"]) == (400, "request.malformed")
    told = lines_of(server, before + 1)[before:]
    assert len(told) == 1
    assert "\x1b[2J" not in told[0]
    assert server.call("GET", "/v1/pipelines/a%20b").status == 404


@pytest.mark.line("4", "36")
@pytest.mark.parametrize("path", ["/" + "x" * 30_000, "/v1/runs/" + "%C2%9B" * 5_000, "/v1/pipelines/" + "a/" * 15_000])
def test_a_path_fills_no_log(server: Server, path: str) -> None:
    before = len(lines_of(server))
    for key in ("", server.key):
        assert server.call("GET", path, key=key).status in (401, 404)
    told = lines_of(server, before + 2)[before:]
    assert len(told) == 2
    assert max(map(len, told)) < 3_000

    assert server.call("GET", "/v1/pipelines/" + "x" * 250).status == 404
    assert "x" * 250 in lines_of(server, before + 3)[-1]  # Permitted: all of what may be a name's.


@pytest.mark.line("4")
def test_a_body_that_ends_early_is_one_line_and_no_fault_of_ours(server: Server) -> None:
    before = len(lines_of(server))
    with dialed(server) as connection:
        connection.sendall(
            f"PUT /v1/pipelines/p HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.key}\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{".encode()
        )
        time.sleep(0.1)
    told = lines_of(server, before + 1)[before:]
    assert len(told) == 1
    assert "http.request" in told[0]
    assert "status=400" in told[0]


@pytest.mark.line("4")
def test_a_header_that_counts_comes_once(server: Server) -> None:
    head = (
        f"PUT /v1/pipelines/p HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.key}\r\nConnection: "
        "close\r\n"
    )
    rest = "Content-Length: 2\r\n\r\n{}"
    json_type = "Content-Type: application/json\r\n"
    for headers, status in (
        (json_type + "Content-Encoding: identity\r\nContent-Encoding: gzip\r\n", 400),
        (json_type + "Content-Encoding: identity\r\nContent-Encoding: identity\r\n", 400),
        (json_type + "Content-Encoding: identity, gzip\r\n", 415),
        (json_type + json_type, 400),
        (json_type + "Host: other\r\n", 400),
        (json_type + "Authorization: Bearer x\r\n", 401),
        (json_type + "Content-Encoding: identity\r\n", 422),  # Permitted: the document itself is none.
    ):
        assert answered(server, (head + headers + rest).encode())[0] == status, headers


@pytest.mark.line("23")
@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("localhost", True),
        ("LOCALHOST:1234", True),
        ("127.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("headrace.example.com", True),
        ("Headrace.Example.Com.:443", True),
        ("a.inside.example", True),
        ("10.1.2.3:80", True),
        ("evil", False),
        ("evil.example.com", False),
        ("inside.example", False),
        ("xinside.example", False),
        ("10.1.2.4", False),
        ("localhost.evil.com", False),
        ("127.0.0.1.evil.com", False),
        ("localhost:80@evil", False),
        ("localhost/evil", False),
        ("", False),
        ("headrace.example.com, evil", False),
    ],
)
def test_only_under_its_names_the_server_answers_more_than_the_probes(server: Server, host: str, is_ours: bool) -> None:
    for path, needs_a_name in (
        ("/v1/runs", True),
        ("/openapi.json", True),
        ("/version", True),
        ("/health", False),
        ("/ready", False),
    ):
        answer = server.call("GET", path, headers={"Host": host})
        assert answer.status == (200 if is_ours or not needs_a_name else 400), path
        if answer.status == 400:
            assert answer.body["code"] == "request.host"
            assert host not in answer.body["detail"] or not host


@pytest.mark.line("23")
def test_a_target_that_names_a_host_is_judged_by_it_and_not_by_the_header(server: Server) -> None:
    for target, header, status, code in (
        (b"http://localhost/version", b"localhost", 200, b""),
        (b"HTTPS://Headrace.Example.Com:443/version?a=b", b"localhost", 200, b""),
        (b"http://localhost/version", b"evil", 200, b""),
        (b"http://evil/health", b"localhost", 200, b""),
        (b"http://evil/version", b"localhost", 400, b"request.host"),
        (b"hTTp://evil:80?/version", b"localhost", 400, b"request."),
        (b"http://localhost@evil/version", b"localhost", 400, b"request.host"),
        (b"http://localhost:x@evil:80/version", b"localhost", 400, b"request.host"),
        (b"http://evil/version", b"localhost\r\nHost: localhost", 400, b"request.host"),
        (b"ftp://localhost/version", b"localhost", 400, b"request.malformed"),
        (b"http:///version", b"localhost", 400, b"request.malformed"),
        (b"localhost/version", b"localhost", 400, b"request.malformed"),
    ):
        request = b"GET " + target + b" HTTP/1.1\r\nHost: " + header + b"\r\nConnection: close\r\n\r\n"
        found, content = answered(server, request)
        assert (found, code in content) == (status, True), (target, content)


@pytest.mark.line("23")
def test_what_a_proxy_would_say_is_not_believed(server: Server) -> None:
    spoofed = {
        "X-Forwarded-Host": "evil",
        "X-Forwarded-For": "1.2.3.4",
        "X-Forwarded-Proto": "https",
        "Forwarded": "host=evil",
    }
    answer = server.call("GET", "/v1/runs", headers=spoofed)
    assert answer.status == 200
    assert "evil" not in json.dumps(dict(answer.headers))
    for given in ("a\tb", "\x1b[2J", "x" * 5000, "é".encode().decode("latin-1"), ""):
        with suppress(ValueError):
            answer = server.call("GET", "/v1/runs", headers={"X-Request-ID": given})
            assert answer.headers.get("x-request-id", "") != given
    assert server.call("GET", "/v1/runs", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"


@pytest.mark.line("36")
def test_a_method_that_a_path_does_not_know_is_told_all_it_knows(server: Server) -> None:
    described = openapi()["paths"]
    for path, operations in described.items():
        known = {method.upper() for method in operations}
        for method in {"TRACE", "PUT" if len(path) % 2 else "OPTIONS"} - known:
            answer = server.call(method, path.replace("{", "").replace("}", ""))
            assert (answer.status, answer.body["code"]) == (405, "method_not_allowed"), (method, path)
            assert {name.strip() for name in answer.headers["allow"].split(",")} >= known, (method, path)


@pytest.mark.line("23")
def test_nothing_but_loopback_is_bound_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("[settings]\n")
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.com", "::ffff:0.0.0.0"):
        done = headrace(tmp_path, "up", "--port", "0", HEADRACE_HTTP__HOST=host)
        assert (done.returncode, "HEADRACE_HTTP__ALLOW_REMOTE" in done.stderr) == (2, True), done.stderr
    done = headrace(tmp_path, "config", "show", HEADRACE_WORKER__HOST="0.0.0.0", HEADRACE_WORKER__PORT="0")
    assert (done.returncode, "HEADRACE_WORKER__HOST" in done.stderr) == (2, True)
    for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1"):
        assert headrace(tmp_path, "config", "show", HEADRACE_HTTP__HOST=host).returncode == 0

    remote = {"HEADRACE_HTTP__HOST": "0.0.0.0", "HEADRACE_HTTP__ALLOW_REMOTE": "true", "HEADRACE_STORE__KIND": "memory"}
    with serving(tmp_path, **remote) as running:
        assert "HEADRACE_HTTP__HOST (0.0.0.0)" in (tmp_path / "up.log").read_text()
        assert running.url.startswith("http://127.0.0.1:")
        assert running.call("GET", "/v1/runs").status == 200
        assert running.call("GET", "/v1/runs", headers={"Host": "evil"}).status == 400


def test_slow_clients_do_not_slow_a_request_down_that_takes_its_time(server: Server) -> None:
    """The deadlines are the client's: a request that is worked on is not cut off by bytes of the next."""
    found: list[Any] = []
    with dialed(server) as connection:
        connection.sendall(get(b"/ready").replace(b"Connection: close\r\n", b"") + b"\r\n")
        reader = threading.Thread(target=lambda: found.append(connection.recv(65536)))
        reader.start()
        reader.join(5)
    assert found[0].startswith(b"HTTP/1.1 200")


@pytest.mark.line("25")
def test_a_cursor_is_one_that_a_page_of_this_list_gave(server: Server) -> None:
    for number in range(3):
        memory = {"version": 1, "connection": f"c{number}", "kind": "memory"}
        assert server.call("PUT", f"/v1/connections/c{number}", memory).status in (200, 201)
        pipeline = {
            "version": 1,
            "pipeline": f"p{number}",
            "source": {"table": f"t{number}", "key": ["id"]},
            "destination": {"table": f"u{number}"},
        }
        assert server.call("PUT", f"/v1/pipelines/p{number}", pipeline).status in (200, 201)
        run = server.call("POST", f"/v1/pipelines/p{number}/trigger", {}).body["id"]
        server.wait_for(run)
    cursors: dict[str, str] = {}
    for path in ("/v1/connections", "/v1/pipelines", "/v1/runs"):
        first = server.call("GET", f"{path}?limit=2").body
        cursors[path] = first["next_cursor"]
        second = server.call("GET", f"{path}?limit=2&cursor={first['next_cursor']}").body
        assert len(second["items"]) == 1
        assert second["next_cursor"] is None
        names = [item.get("name", item.get("id")) for item in first["items"] + second["items"]]
        assert len({*names}) == 3
    refused = "/v1/quarantine?pipeline=p0&limit=1"
    for path in (*cursors, refused):
        mine = cursors.get(path, "")
        tampered = [
            mine[:-1] + ("A" if mine[-1:] != "A" else "B"),
            "B" + mine[1:],
            mine[:-1],
            mine + "A",
            mine + "=",
            mine + "%00",
        ]
        made_up = ["x", "", "p1", "a" * 500, "..%2F..", "%F0%9F%98%80", "'%20or%201=1", "AAAAAAAAAAAAAAAAAAAAAGFiYw"]
        others = [cursor for name, cursor in cursors.items() if name != path]
        for cursor in (*tampered, *made_up, *others):
            answer = server.call("GET", f"{path}{'&' if '?' in path else '?'}cursor={cursor}")
            assert answer.status == 400, (path, cursor, answer.body)
            assert answer.body["code"] in ("request.cursor", "request.malformed")


@pytest.mark.line("25")
@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=1000000000",
        "limit=1_0",
        "limit=1.0",
        "limit=%D9%A5",
        "sort=name",
        "state=x",
        "limit=1&limit=2",
    ],
)
def test_a_filter_that_is_none_is_not_passed_over(server: Server, query: str) -> None:
    for path in ("/v1/pipelines", "/v1/connections"):
        assert server.call("GET", f"{path}?{query}").status == 422
        assert server.call("GET", f"{path}?{query}", key="").status == 401
        assert server.call("GET", f"{path}?limit=10").status == 200


@pytest.mark.line("25")
def test_a_cursor_belongs_to_an_organization() -> None:
    mine = cursor_of("one", "run", ("a",))
    assert place_of("one", "run", mine) == ("a",)
    for organization, kind, parts in (("two", "run", 1), ("one", "pipeline", 1), ("one", "run", 2)):
        with pytest.raises(InvalidInputError, match="none that a page of this list has given"):
            place_of(organization, kind, mine, parts)
