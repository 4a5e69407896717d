"""A line of the log stays one line that machines read, whatever is in it, and tells no secret, however it came there."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
import structlog
from sqlalchemy.engine import URL

from infrastructure.known_secrets import remember
from infrastructure.log import log
from infrastructure.observability.logs import configure_logs

CANARY = "c4n4ry \"q\\r' é/\n@:\t\x1b!"
PIECE = "c4n4ry"
HOSTILE = [
    '/v1/password="',
    "/v1/password='",
    '/v1/token="x',
    '/v1/pwd="\\',
    '/v1/api_key=\\"',
    '"secret":"',
    'password="" token=""',
    '"}\n{"forged": "',
    "Bearer ",
    "://a:",
    "\ud800",
    "\u2028",
]


class Lines:
    """What was written."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def text(self) -> str:
        found = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        return found

    def one(self) -> dict[str, Any]:
        (line,) = self.text().splitlines()
        found: dict[str, Any] = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        return found


@pytest.fixture
def writing() -> Iterator[Callable[[bool], Lines]]:
    """Let lines be written as JSON or for people, to where they can be read; as before once that is over."""
    root = logging.getLogger()
    handlers, level, configured = root.handlers[:], root.level, structlog.get_config()

    def write(as_json: bool) -> Lines:
        lines = Lines()
        configure_logs(level="info", as_json=as_json, service="s", version="1", environment="e")
        (handler,) = root.handlers
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(lines.stream)
        return lines

    yield write
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**configured)


def _raise(text: str) -> None:
    raise ValueError(text)


def _failing(text: str, tell: Callable[[], None]) -> None:
    try:
        _raise(text)
    except ValueError:
        tell()


@pytest.mark.line("31")
@pytest.mark.parametrize("text", HOSTILE)
def test_whoever_has_no_key_cannot_spoil_a_line(text: str, writing: Callable[[bool], Lines]) -> None:
    lines = writing(True)

    log.info("http.request", path=text, status=401, by={text: [text]})
    told = lines.one()
    assert (told["status"], told["event"], told["environment"]) == (401, "http.request", "e")
    assert told["path"][:4] == text[:4] or "\\" in told["path"]

    _failing(text, lambda: log.error("failed", exc_info=True, status=500))
    told = lines.one()
    assert told["status"] == 500
    assert "ValueError" in told["exception"]

    _failing(text, lambda: logging.getLogger("other").exception("foreign %s", text))
    assert "ValueError" in lines.one()["exception"]


@pytest.mark.line("31")
@pytest.mark.parametrize("as_json", [True, False])
def test_fields_behind_an_open_quote_are_shown(as_json: bool, writing: Callable[[bool], Lines]) -> None:
    lines = writing(as_json)
    log.info("http.request", path="/password='", status=401, said="it's so")
    told = lines.text()
    assert "401" in told
    assert "s so" in told


_WRITTEN: dict[str, Callable[[str], str]] = {
    "plain": str,
    "Python": repr,
    "ASCII": ascii,
    "bytes": lambda text: repr(text.encode()),
    "JSON": json.dumps,
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "path": quote,
    "lower case": lambda text: quote(text, safe="").replace("%5C", "%5c").replace("%C3%A9", "%c3%a9").lower(),
    "address": lambda text: URL.create("postgresql", "me", text, "db").render_as_string(hide_password=False),
    "SQL": lambda text: text.replace("'", "''"),
}


@pytest.mark.line("31")
@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("how", _WRITTEN)
def test_known_secret_is_in_no_line(how: str, as_json: bool, writing: Callable[[bool], Lines]) -> None:
    remember(CANARY)
    text = f"It was {_WRITTEN[how](CANARY)}."
    lines = writing(as_json)

    log.info("told", message=text, by={text: text}, error=ValueError(text))
    _failing(text, lambda: log.error("failed", exc_info=True))
    _failing(text, lambda: logging.getLogger("other").exception(text))

    told = lines.text()
    assert "***" in told
    assert PIECE not in told


@pytest.mark.line("31")
def test_what_is_called_a_secret_is_in_no_line_of_an_error(writing: Callable[[bool], Lines]) -> None:
    lines = writing(True)
    for text in ('host=db password="hunter2" x', "password='hunter 2'", '{"password": "hunter2"}', 'pwd="hunter2'):
        for shown in (text, repr(text), json.dumps(text)):
            _failing(shown, lambda: log.error("failed", exc_info=True))
            assert "hunter" not in lines.one()["exception"].rpartition("ValueError")[2], shown


class _Silent:
    def __repr__(self) -> str:
        raise RuntimeError(CANARY)


@pytest.mark.line("31")
def test_every_kind_of_value_is_json(writing: Callable[[bool], Lines]) -> None:
    remember("271828182")
    lines = writing(True)
    log.info(
        "told", text="x" * 200_000, many=["y" * 40_000] * 3, rows=271828182, seconds=0.271828182, none=None, yes=True,
        share=float("nan"), long=10**5000, silent=_Silent(), raw=b'token="x"', items=list(range(5_000)),
    )  # fmt: skip
    told = lines.one()
    assert (told["rows"], told["seconds"], told["none"], told["yes"]) == ("***", 0.271828182, None, True)
    assert (told["share"], told["silent"], told["raw"]) == ("nan", "<_Silent>", "b'token=***'")
    assert told["text"].endswith("more characters)")
    assert len(told["items"]) == 1_000
