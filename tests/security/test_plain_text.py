"""Text of others does nothing to a terminal and begins no line in a log, whichever command or line shows it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from domain.errors import InvalidInputError
from domain.plain_text import escaped, in_one_line
from entrypoints.cli.errors import show_error
from entrypoints.cli.render import print_json, print_report, print_table
from tests.e2e.api import headrace

ROOT = Path(__file__).parents[2]
HOSTILE = {
    "ESC": "\x1b[2J",
    "CR": "\r",
    "BEL": "\x07",
    "DEL": "\x7f",
    "CSI": "\x9b2J",
    "NEL": "\x85",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "override": "\u202e",
    "embedding": "\u202b",
    "isolate": "\u2066",
    "end of isolate": "\u2069",
    "mark": "\u200f",
    "Arabic mark": "\u061c",
    "no width": "\u200b",
    "byte order": "\ufeff",
    "tag": "\U000e0041",
}
EVIL = "".join(HOSTILE.values())


def raw(text: str) -> list[str]:
    """Which of them stand in a text as they are."""
    return [name for name, each in HOSTILE.items() if each[0] in text]


@pytest.mark.line("38")
@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_printable_is_escaped_as_json_has_it(name: str) -> None:
    shown = escaped(f"a{HOSTILE[name]}b")
    assert raw(shown) == []
    assert json.loads(f'"{shown}"') == f"a{HOSTILE[name]}b"
    assert raw(in_one_line(f"a{HOSTILE[name]}\nb")) == []
    assert "\n" not in in_one_line("a\nb")


@pytest.mark.line("38")
def test_letters_and_spaces_are_shown_as_they_are() -> None:
    for text in ("Zürich, 東京　東", "a\nb", "שלום", "e\u0301", "a\u00a0b", "😀", "→ ✓ ─"):
        assert escaped(text) == text


@pytest.mark.line("38")
def test_a_name_with_a_line_feed_begins_no_line_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\nerror: all is well [ok]"
    print_table([name], [[name]])
    print_report({"id": "1", "state": "failed", "report": {"note": name, "warnings": [name]}})
    show_error(InvalidInputError(f"{name} is malformed.", code="file.malformed"))
    shown = capsys.readouterr()
    assert not any(line.startswith("error: all is well") for line in (shown.out + shown.err).splitlines())
    print_json({name: 1})
    assert json.loads(capsys.readouterr().out) == {name: 1}


@pytest.mark.line("38")
def test_one_place_writes_to_the_terminal() -> None:
    for path in (ROOT / "entrypoints").rglob("*.py"):
        if path.name == "output.py":
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        for call in calls:
            name = ast.unparse(call.func)
            assert name != "print", f"{path}:{call.lineno}"
            assert not name.endswith(("stdout.write", "stderr.write", "typer.echo", "secho")), f"{path}:{call.lineno}"


@pytest.mark.line("38")
def test_commands_show_no_hostile_text_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("[settings]\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/p.csv").write_text(f"id,name\n1,{EVIL.replace(chr(13), '')}\n2,Zürich\n", newline="")
    (tmp_path / "connections").mkdir()
    (tmp_path / "connections/landing.json").write_text(
        json.dumps({"version": 1, "connection": "landing", "kind": "files", "options": {"root": "data"}})
    )
    document = {
        "version": 1,
        "pipeline": "p",
        "description": EVIL,
        "tags": {"a": f"Zürich {EVIL}"},
        "source": {"connection": "landing", "path": "p.csv", "key": ["id"]},
        "quality": [
            {"rule": "accepted_values", "column": "name", "values": ["Zürich"], "on_violation": "quarantine"},
            {"rule": "accepted_values", "column": "name", "values": [EVIL + "x"], "on_violation": "warn"},
        ],
        "destination": {"table": "t"},
    }
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/p.json").write_text(json.dumps(document, ensure_ascii=False))
    (tmp_path / "bad.json").write_text(json.dumps({**document, EVIL: 1, "source": {"table": EVIL}}, ensure_ascii=False))
    ran: dict[str, str] = {}
    for arguments in (
        ("run", "pipelines/p.json"),
        ("pipelines", "list", "--json"),
        ("preview", "p"),
        ("quarantine", "list", "p"),
        ("validate", "-f", "bad.json"),
        ("pipelines", "show", EVIL),
    ):
        done = headrace(tmp_path, *arguments)
        assert raw(done.stdout + done.stderr) == [], arguments
        assert "Traceback" not in done.stderr, arguments
        ran[" ".join(arguments)] = done.stdout
    listed = json.loads(ran["pipelines list --json"])["items"]
    assert listed[0]["document"]["description"] == EVIL  # Escaped, and not lost.
    assert "Zürich" in ran["pipelines list --json"]
    assert "Zürich" in ran["preview p"]


_LOGGING = """
import logging, sys
from infrastructure.observability.logs import configure_logs
import structlog
evil = {evil!r}
configure_logs(level="debug", as_json={as_json}, service="s", version="1", environment="e")
log = structlog.get_logger("headrace")
log.info("told", text=evil + "\\nforged", nested={{"a": [evil]}}, number=1)
log.info("event " + evil)
logging.getLogger("other").warning("foreign %s", evil + "\\nforged")
try:
    raise ValueError(evil)
except ValueError as error:
    log.error("failed", exc_info=error)
    logging.getLogger("other").exception("foreign")
"""


@pytest.mark.line("38", "4")
@pytest.mark.parametrize("as_json", [True, False])
def test_no_line_of_a_log_holds_hostile_text_as_it_is(as_json: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOGGING.format(evil=EVIL, as_json=as_json)],
        cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8",
    )  # fmt: skip
    assert raw(done.stderr) == []
    assert "a value of the records" not in done.stderr
    lines = done.stderr.splitlines()
    assert not any(line.startswith("forged") for line in lines)
    if as_json:
        assert len(lines) == 5
        assert json.loads(lines[0])["nested"] in ({"a": [EVIL]}, {"a": [in_one_line(EVIL)]})
