"""Every command gives the same answer whether a running `headrace up` is asked or this process does the work."""

import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.main import get_command

from entrypoints.cli.context import Cli
from entrypoints.cli.main import app, main
from entrypoints.client.in_process import InProcessClient
from entrypoints.client.remote import RemoteClient
from entrypoints.process.server_file import write_server
from tests.e2e.api import serving
from tests.e2e.projects import new_project, with_people, write

# In their order; RUN is the id of the run before, CURSOR where the next page begins.
COMMANDS = """
validate
plan
apply
apply --prune --yes
pipelines list
pipelines show people
pipelines show nothing
pipelines state people
connections list
connections test landing
connections test default
connections test nothing
connections discover landing
connections discover landing people.csv
connections discover landing more/people.csv
connections discover landing gone.csv
preview people --limit 3
preview pipelines/people.yaml --limit 3
run people --dry-run
run people
connections discover default
connections discover default people
connections discover default no.such.table
runs show RUN
runs show nothing
runs logs RUN
runs watch RUN
runs cancel RUN
runs retry RUN
runs list --limit 1
runs list --cursor wrong
pipelines state people
quarantine list people --limit 2
quarantine list people --cursor CURSOR
quarantine replay people
run pipelines/people.yaml --limit 5
runs list --limit 1
runs list --cursor CURSOR
run nothing
run broken
runs retry RUN
workers drain nobody
keys issue --role viewer
keys list
keys revoke nothing
health
doctor
test
config check
db current
pipelines reset people --yes
pipelines delete broken --yes
plan --prune
""".strip().splitlines()
HERE_ONLY = {
    "up": "it is the server", "api": "it is the server", "worker": "it is the server",
    "demo": "runs in folders and processes of its own", "init": "writes a folder that is no project yet",
    "crashtest": "kills processes of its own, which need the stores to themselves",
    "config show": "tells the settings of this process", "config reference": "the same everywhere",
    "config schema": "the same everywhere", "db upgrade": "the server has done it",
    "workers list": "the server is one",
}  # fmt: skip
_PIPELINE = """version: 1
pipeline: {0}
source: {{connection: landing, path: people.csv, key: [id]}}
quality: [{{rule: between, column: age, min: 0, max: 130, on_violation: {1}}}]
destination: {{table: {0}}}
"""
# What differs from one run to the next, and who it was that asked: the user of the command line, or a key's.
_OWN = {
    "seconds", "spent", "rows_per_second", "trace", "correlation_id", "requested_by", "updated_by", "actor", "key",
    "prefix", "subject", "duration_seconds", "snapshots",
}  # fmt: skip
_CHANGING = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"), "<time>"),
    (re.compile(r"rows in [\d.]+ s"), "rows in <seconds>"),
)
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

Answer = tuple[int, Any]


class Ids:
    """Names ids by the order in which they are met."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def plain(self, value: Any, name: str = "") -> Any:
        """An answer without what is its own."""
        if isinstance(value, dict) and name not in _OWN:
            return {key: self.plain(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [self.plain(item) for item in value]
        if name in _OWN or (name == "next_cursor" and value is not None):
            return f"<{name}>"
        if isinstance(value, str):
            for pattern, word in _CHANGING:
                value = pattern.sub(word, value)
            return _ID.sub(lambda found: self._known.setdefault(found[0], f"<{len(self._known)}>"), value)
        return value


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What commands change of their process, put back; nothing of this one's environment is theirs."""
    for name in os.environ:
        if name.startswith(("HEADRACE_", "DB_")) and not name.startswith("HEADRACE_TEST_"):
            monkeypatch.delenv(name)
    root = logging.getLogger()
    kept, handlers, level, mask = structlog.get_config(), root.handlers[:], root.level, os.umask(0o077)
    yield
    os.umask(mask)
    structlog.configure(**kept)
    root.handlers[:] = handlers
    root.setLevel(level)


def project_in(folder: Path) -> Path:
    new_project(folder)
    with_people(folder, rows=300)
    write(folder, "data/more/people.csv", "id\n1\n")
    for name, on_violation in (("people", "quarantine"), ("broken", "fail")):
        write(folder, f"pipelines/{name}.yaml", _PIPELINE.format(name, on_violation))
    return folder


def answers(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> dict[str, list[Answer]]:
    """What commands say, run one after the other."""
    found: dict[str, list[Answer]] = {}
    ids, run, cursor = Ids(), "", ""
    monkeypatch.chdir(folder)
    for command in COMMANDS:
        given = [{"RUN": run, "CURSOR": cursor}.get(word, word) for word in command.split()]
        monkeypatch.setattr(sys, "argv", ["headrace", *given, "--json"])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        answer = json.loads(said.out) if said.out else said.err
        if isinstance(answer, dict):
            run = answer["id"] if "lane" in answer else run
            cursor = answer.get("next_cursor") or cursor
        found.setdefault(command, []).append((code, _comparable(command, ids.plain(answer))))
    return found


def _comparable(command: str, answer: Any) -> Any:
    if command == "doctor":  # It tells whether there is a server, and how full the disk is.
        return [line for line in answer if line["check"] not in ("server", "disk", "home")]
    if command == "keys list":  # The server has one of its own.
        return [key for key in answer["items"] if key["roles"] != ["platform_admin"]]
    return answer


@pytest.mark.usefixtures("process")
def test_commands_answer_the_same_with_and_without_a_running_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = answers(project_in(tmp_path / "alone"), monkeypatch, capsys)
    with serving(project_in(tmp_path / "beside")):
        beside = answers(tmp_path / "beside", monkeypatch, capsys)

    assert {command: told for command, told in beside.items() if told != alone[command]} == {
        command: told for command, told in alone.items() if told != beside[command]
    }
    codes = [code for told in alone.values() for code, _ in told]
    assert (codes.count(0) > 30, set(codes)) == (True, {0, 1, 2})


def test_every_command_is_tried_both_ways_or_has_a_reason_not_to_be() -> None:
    known = set()
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        known |= {name} if below is None else {f"{name} {each}" for each in below}
    tried = {name for name in known if any(f"{line} ".startswith(f"{name} ") for line in COMMANDS)}

    assert known - tried == set(HERE_ONLY)


@pytest.mark.usefixtures("process")
def test_a_server_is_asked_for_what_is_of_its_organization(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    home = project / ".headrace"
    assert isinstance(Cli().client(), InProcessClient)
    home.mkdir()
    write_server(home / "server.json", "http://127.0.0.1:1")
    (home / "admin.key").write_text("hr_key")

    assert isinstance(Cli().client(), RemoteClient)
    assert isinstance(Cli(organization="default").client(), RemoteClient)
    assert isinstance(Cli(organization="other").client(), InProcessClient)
