"""Whatever answers in the place of `headrace up`: the command line says so, and sends its key nowhere else."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, NoReturn

import pytest

from domain.errors import ConflictError, PlatformError, UnavailableError, WorkFailedError
from entrypoints.client.remote import RemoteClient
from entrypoints.client.server import RemoteServer

ANSWERS: dict[str, tuple[int, bytes, type[PlatformError] | None]] = {
    "what is meant": (200, b'{"ok": true}', None),
    "nothing": (204, b"", None),
    "a problem": (409, b'{"code": "run.terminal", "detail": "It ended."}', ConflictError),
    "a page": (200, b"<html>", UnavailableError),
    "no UTF-8": (200, b"\xff\xfe{", UnavailableError),
    "levels": (200, b"[" * 100_000, UnavailableError),
    "a redirect": (302, b"", WorkFailedError),
    "a redirect that says something": (307, b'{"detail": "there"}', WorkFailedError),
    "a problem that is none": (500, b'["x"]', UnavailableError),
    "problems that are none": (422, b'{"errors": [1]}', UnavailableError),
    "problems that are nothing": (422, b'{"errors": null}', UnavailableError),
}


@contextmanager
def _answering(status: int, content: bytes, asked: list[str]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            if status in (302, 307):
                self.send_header("Location", f"http://localhost:{self.server.server_port}/elsewhere")  # type: ignore[attr-defined]
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.line("38")
@pytest.mark.parametrize("name", ANSWERS)
def test_whatever_the_server_answers_is_an_answer_or_a_sentence(name: str) -> None:
    status, content, error = ANSWERS[name]
    asked: list[str] = []
    with _answering(status, content, asked) as url:
        remote = RemoteServer(url, 1, "hr_key")
        if error is None:
            assert remote.request("GET", "/v1/runs") == ({"ok": True} if content else None)
        else:
            with pytest.raises(error) as told:
                remote.request("GET", "/v1/runs")
            assert "hr_key" not in str(told.value)
    assert asked == ["/v1/runs"]


def _nothing_of_its_own() -> NoReturn:
    raise AssertionError("This is asked of the server.")


def test_a_server_that_is_not_ready_says_what_is_wrong() -> None:
    asked: list[str] = []
    for content, parts in (
        (b'{"ready": false, "parts": {"store": "failed at network"}}', {"store": "failed at network"}),
        (b'{"code": "worker.busy", "detail": "So many ask."}', None),
    ):
        with _answering(503, content, asked) as url, RemoteClient(RemoteServer(url, 1, "k"), _nothing_of_its_own) as up:
            if parts is not None:
                assert up.readiness() == {"ready": False, "parts": parts}
            else:
                with pytest.raises(UnavailableError, match="So many ask") as told:
                    up.readiness()
                assert told.value.code == "worker.busy"
    assert asked == ["/ready", "/ready"]


def test_names_of_others_are_one_part_of_a_path() -> None:
    asked: list[str] = []
    with _answering(200, b"{}", asked) as url, RemoteClient(RemoteServer(url, 1, "k"), _nothing_of_its_own) as up:
        up.document("pipeline", "../runs?limit=1#x")
        up.table("a/b", "more/people.csv&x=1")
    assert asked == [
        "/v1/pipelines/..%2Fruns%3Flimit%3D1%23x",
        "/v1/connections/a%2Fb/tables?table=more%2Fpeople.csv%26x%3D1",
    ]
