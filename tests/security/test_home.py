"""The home is its owner's: one that is open to others is closed, or refused where it is something else too."""

from pathlib import Path

import pytest

from entrypoints.composition.paths import Paths
from infrastructure.confinement import Confinement
from tests.e2e.api import headrace, serving


def open_to_others(folder: Path) -> list[str]:
    return [str(path) for path in (folder, *folder.rglob("*")) if path.lstat().st_mode & 0o077]


@pytest.mark.line("38")
def test_a_home_that_is_open_is_closed_and_so_is_what_lies_in_it(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("[settings]\n")
    home = tmp_path / ".headrace"
    home.mkdir(mode=0o755)
    home.chmod(0o755)
    with serving(tmp_path) as server:
        assert server.call("GET", "/v1/runs").status == 200
        assert open_to_others(home) == []
    for path in (home, *home.iterdir()):
        path.chmod(0o777 if path.is_dir() else 0o666)

    assert headrace(tmp_path, "runs", "list").returncode == 0

    assert open_to_others(home) == []


@pytest.mark.line("38")
def test_a_folder_of_something_else_is_left_alone_and_refused_as_a_home(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("[settings]\n")
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "letters").mkdir(mode=0o755)
    sticky = tmp_path / "sticky"
    sticky.mkdir()
    for folder, mode in ((shared, 0o755), (shared, 0o750), (shared, 0o701), (sticky, 0o1777)):
        folder.chmod(mode)
        done = headrace(tmp_path, "runs", "list", HEADRACE_HOME=str(folder))
        assert (done.returncode, "home.open" in done.stderr) == (3, True), done.stderr
        assert folder.stat().st_mode & 0o7777 == mode
        assert [path.name for path in folder.iterdir()] == (["letters"] if folder == shared else [])

    shared.chmod(0o700)
    assert headrace(tmp_path, "runs", "list", HEADRACE_HOME=str(shared)).returncode == 0
    assert (shared / "letters").stat().st_mode & 0o777 == 0o755  # It lies behind a closed door, and is not ours.


@pytest.mark.line("38")
def test_what_lies_behind_a_link_in_the_home_keeps_its_mode(tmp_path: Path) -> None:
    elsewhere, home = tmp_path / "elsewhere", tmp_path / "home"
    for folder in (elsewhere, home):
        folder.mkdir(mode=0o700)
    (home / "scratch").symlink_to(elsewhere)
    (home / "records.db").symlink_to(elsewhere / "letter")
    (elsewhere / "letter").touch()
    (elsewhere / "letter").chmod(0o644)
    paths = Paths(home, tmp_path, tmp_path, Confinement(tmp_path, (), ()))

    paths.create_home()

    assert (elsewhere / "letter").stat().st_mode & 0o777 == 0o644
    (home / "scratch").unlink()
    elsewhere.rename(home / "scratch")
    paths.create_home()
    assert (home / "scratch" / "letter").stat().st_mode & 0o777 == 0o600
