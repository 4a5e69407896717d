"""A folder that somebody else has made: nobody's commands act by it unasked, and whatever lies in it is told in a
sentence.
"""

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from domain.errors import PermissionDeniedError, SettingsError, SpecError
from entrypoints.cli import main as command_line
from entrypoints.cli.again import this_program
from entrypoints.documents.project import find_project
from entrypoints.process.server_file import read_server
from infrastructure.metadata.lease_holders import this_process
from infrastructure.settings.sources import load_settings

SECRET = "correct-horse-battery"
FILE = "headrace.toml"
HOSTILE_TOML = {
    "nested": b"[settings]\nx = " + b"[" * 3000 + b"]" * 3000,
    "nested tables": b"[settings]\nx = " + b"{x=" * 3000 + b"1" + b"}" * 3000,
    "a number": b"[settings]\nx = " + b"1" * 5000,
    "a negative number": b"[variables]\nx = -" + b"9" * 4301,
    "not UTF-8": b"[settings]\nx = '\xff'",
    "large": b"#" * (1024 * 1024 + 1),
    "a time": b"[variables]\nx = 0000-00-00T99:99:99Z",
}


@pytest.fixture
def another(monkeypatch: pytest.MonkeyPatch) -> int:
    """The id of another user, whose files `give` makes."""
    if os.geteuid():  # Who may give nothing away is another user than the one that made all files.
        monkeypatch.setattr(os, "geteuid", lambda: 65_534)
    return 65_534


def give(path: Path, user: int) -> None:
    if os.geteuid() == 0:
        os.lchown(path, user, -1)


@pytest.mark.line("38")
@pytest.mark.parametrize("what", ["the file", "the folder", "a link to ours", "all"])
def test_a_project_of_another_user_above_the_folder_is_not_acted_by(tmp_path: Path, another: int, what: str) -> None:
    shared, mine = tmp_path / "shared", tmp_path / "shared" / "a" / "b"
    mine.mkdir(parents=True)
    ours = tmp_path / "ours.toml"
    ours.write_text("[variables]\ncountry = 'CH'\n")
    (shared / FILE).symlink_to(ours) if what == "a link to ours" else (shared / FILE).write_bytes(ours.read_bytes())
    for path in {"the folder": [shared], "all": [shared, shared / FILE]}.get(what, [shared / FILE]):
        give(path, another)

    for start in (mine, mine.parent):
        with pytest.raises(PermissionDeniedError) as caught:
            find_project(start, None)
        assert caught.value.code == "project.of_another"

    assert find_project(shared, None).variables == {"country": "CH"}  # Whoever goes there means it.
    (mine / FILE).write_text("")
    assert find_project(mine, None).root == mine


@pytest.mark.line("38")
def test_a_project_of_ones_own_or_of_the_system_is_found_above(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / FILE).write_text("")

    assert find_project(below, None).root == tmp_path


@pytest.mark.line("1")
@pytest.mark.parametrize("content", HOSTILE_TOML.values(), ids=HOSTILE_TOML)
def test_a_hostile_headrace_toml_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)

    with pytest.raises(SpecError) as of_project:
        find_project(tmp_path, None)
    with pytest.raises(SettingsError) as of_settings:
        load_settings(root=tmp_path, environment={})

    assert [problem.code for problem in of_project.value.problems] == ["project.toml"]
    assert [problem.code for problem in of_settings.value.problems] == ["settings.toml"]
    assert len(str(of_project.value)) < 300


@pytest.mark.line("1")
def test_tables_in_tables_are_unknown_settings(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("[settings]\n" + ".".join(["a"] * 3000) + " = 1\n")

    with pytest.raises(SettingsError) as caught:
        load_settings(root=tmp_path, environment={})

    assert [problem.code for problem in caught.value.problems] == ["settings.unknown"]


@pytest.mark.line("1")
@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        (".env", b"APP_NAME=\xff", ".env"),
        (".env.staging", b"APP_NAME=\xff", ".env.staging"),
        (FILE, b'[settings]\nhome = "a\\u0000b"', "HEADRACE_HOME (headrace.toml)"),
        (FILE, b'[settings]\ndata_roots = ["data", "a\\u0000b"]', "HEADRACE_DATA_ROOTS (headrace.toml)"),
        ("secrets/DB_PASSWORD", b"\xff", "DB_PASSWORD (secrets folder)"),
        ("secrets/DB_PASSWORD", b"a\0b", "DB_PASSWORD (secrets folder)"),
    ],
)
def test_files_of_settings_that_nothing_can_be_made_of_are_named(
    tmp_path: Path, name: str, content: bytes, place: str
) -> None:
    environment = {
        "ENVIRONMENT": "staging", "DB_USER": SECRET, "HEADRACE_SECRETS_DIR": str(tmp_path / "secrets"),
    }  # fmt: skip
    (tmp_path / "secrets").mkdir()
    assert load_settings(root=tmp_path, environment=environment).settings.app.environment == "staging"
    (tmp_path / name).write_bytes(content)

    with pytest.raises(SettingsError) as caught:
        load_settings(root=tmp_path, environment=environment)

    assert {problem.place for problem in caught.value.problems} == {place}
    assert SECRET not in str(caught.value)


@pytest.fixture
def unset_logs() -> Iterator[None]:
    """Logs as they are before the settings are known."""
    root = logging.getLogger()
    kept, handlers, level = structlog.get_config(), root.handlers[:], root.level
    structlog.reset_defaults()
    yield
    structlog.configure(**kept)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.line("31")
@pytest.mark.usefixtures("unset_logs")
def test_what_fails_before_the_settings_are_known_tells_no_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        surroundings = {"DB_PASSWORD": SECRET}
        raise RuntimeError(str(len(surroundings)))

    monkeypatch.setattr(command_line, "app", fails)

    with pytest.raises(SystemExit):
        command_line.main()

    told = capsys.readouterr()
    assert "RuntimeError" in told.err
    assert SECRET not in told.err + told.out


@pytest.mark.line("38")
def test_a_server_file_that_is_none_is_no_server(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    for content in (
        "[1]",
        "null",
        '{"process": 1}',
        "{}",
        "[" * 100_000,
        '{"process": "x", "pid": [], "url": 1}',
        "\x00",
    ):
        path.write_text(content)
        assert read_server(path) is None, content[:20]

    path.write_text(f'{{"url": "http://127.0.0.1:1", "pid": {os.getpid()}, "process": "{this_process()}"}}')
    assert read_server(path) is not None


@pytest.mark.line("38")
def test_this_program_started_again_imports_nothing_of_the_folder(tmp_path: Path) -> None:
    for name in ("typer", "domain"):
        (tmp_path / f"{name}.py").write_text("open('imported', 'w')\n")

    done = subprocess.run(this_program("--version"), cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (done.returncode, [path.name for path in tmp_path.glob("imported")]) == (0, []), done.stderr
