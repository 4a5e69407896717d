"""Line 36a for whole projects: connections reach data, and nothing of the program's own, whichever way leads to it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.errors import InvalidInputError, NotFoundError, PlatformError, SettingsError
from domain.pipelines.spec import SourceSpec
from entrypoints.composition.paths import Paths
from infrastructure.confinement import Confinement
from infrastructure.settings.sources import load_settings
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.files.store import FilesSource
from tests.e2e.api import Server, headrace, serving

pytestmark = pytest.mark.line("36a")

OWN = (
    "state/admin.key.csv",
    "state/deep/x.csv",
    "secrets/password.csv",
    "python/hook.csv",
    "connections/x.csv",
    "pipelines/x.csv",
    ".env.csv",
    ".git/x.csv",
    "data/.hidden.csv",
    "data/.folder/x.csv",
)
ENVIRONMENT = {"HEADRACE_HOME": "state", "HEADRACE_DATA_ROOTS": ".", "HEADRACE_STORE__KIND": "memory"}


def filled(folder: Path) -> Path:
    """A project whose own files all look like data, beside data."""
    for name in (*OWN, "data/people.csv", "data/2024/people.csv", "more/connections/people.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("id\n1\n")
    (folder / "headrace.toml").write_text("")
    return folder


def paths_of(folder: Path, **environment: str) -> Paths:
    return Paths.of(load_settings(root=folder, environment=environment).settings, folder)


@pytest.fixture
def wide(tmp_path: Path) -> Confinement:
    """The widest root that there is: the project itself."""
    return paths_of(filled(tmp_path), **ENVIRONMENT).confinement


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = filled(tmp_path_factory.mktemp("paths"))
    with serving(folder, home="state", **{n: v for n, v in ENVIRONMENT.items() if n != "HEADRACE_HOME"}) as running:
        yield running


def refused(confinement: Confinement, relative: str) -> str:
    with pytest.raises(InvalidInputError) as caught:
        confinement.place(relative)
    assert caught.value.code == "path.forbidden"
    return caught.value.message


@pytest.mark.parametrize(
    "relative",
    [
        *("state", "state/", "./state", "state/drain", "state/records.db", "state/new/file", "data/../state/drain"),
        *("STATE/drain", "State/Records.db", "st\u200cate/drain", "ｓtate/drain", "state//drain", "state/./drain"),
        *("secrets", "secrets/x", "Secrets/x", "python/new.py", "connections/new.yaml", "pipelines", "headrace.toml"),
        *("HEADRACE.TOML", ".env", ".env.production", ".headrace/drain", "data/.x", "data/.x/y.duckdb", "．env"),
        *("\u200b.env", "..", "data/..", "../x", "/etc/passwd", "~/x", "data/\x00", "data/\nx"),
    ],
)
def test_what_is_the_programs_own_is_never_reached(wide: Confinement, relative: str) -> None:
    refused(wide, relative)


@pytest.mark.parametrize(
    "relative", ["data", "data/", "data/new.duckdb", "statement", "more/connections", "secrets.csv", "a..b/c", "x.d/y"]
)
def test_paths_beside_it_are(wide: Confinement, relative: str) -> None:
    wide.place(relative)


def test_default_root_is_data_and_the_refusal_says_what_to_do(tmp_path: Path) -> None:
    confinement = paths_of(filled(tmp_path)).confinement
    for relative in ("more", "more/connections/people.csv", "new.duckdb", ".", "database", "DATA", "data2/x"):
        said = refused(confinement, relative)
        assert "data/" in said
        assert "HEADRACE_DATA_ROOTS" in said
        assert str(tmp_path) not in said
    for relative in ("data", "data/new.duckdb", "./data/people.csv"):
        confinement.place(relative)


def test_other_roots_are_a_list(tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    project = filled(tmp_path / "project")
    (project / "link").symlink_to(tmp_path / "away")
    confinement = paths_of(project, HEADRACE_DATA_ROOTS=f"more, {tmp_path / 'away'}").confinement
    confinement.place("more/x")
    confinement.place("link/x")
    refused(confinement, "data/x")
    with pytest.raises(SettingsError, match="HEADRACE_DATA_ROOTS"):
        paths_of(project, HEADRACE_DATA_ROOT="data")


def test_links_lead_nowhere_else(wide: Confinement, tmp_path_factory: pytest.TempPathFactory) -> None:
    away = tmp_path_factory.mktemp("away")
    links = {
        "data/drain": "state/drain",
        "data/home": "state",
        "data/dot": ".git",
        "data/settings": "headrace.toml",
        "data/circle": "data/circle",
    }
    for name, target in links.items():
        (wide.base / name).symlink_to(wide.base / target)
    (wide.base / "data/away").symlink_to(away)
    (wide.base / "data/inside").symlink_to("2024")
    for name in (*links, "data/home/records.db", "data/away", "data/away/x"):
        if name != "data/circle":
            refused(wide, name)
    wide.place("data/inside/people.csv")


def test_what_is_kept_is_kept_under_other_names_too(tmp_path: Path) -> None:
    """A hard link stands here for what cannot be made without rights: another mount, or a name of other case."""
    confinement = paths_of(filled(tmp_path), HEADRACE_DATA_ROOTS=".").confinement
    os.link(tmp_path / "headrace.toml", tmp_path / "data/other.csv")
    refused(confinement, "data/other.csv")


def test_drain_file_and_folder_of_settings_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_SECRETS_DIR", str(tmp_path / "data/set"))
    confinement = paths_of(filled(tmp_path), HEADRACE_WORKER__DRAIN_FILE="data/stop").confinement
    refused(confinement, "data/stop")
    refused(confinement, "data/set/DB_PASSWORD")
    confinement.place("data/people.csv")


async def test_files_of_a_root_around_the_home(wide: Confinement) -> None:
    store = FilesSource(wide.place("."), wide)
    data = ["data/2024/people.csv", "data/people.csv", "more/connections/people.csv"]
    assert [str(name) for name in await store.tables()] == data
    for pattern, expected in (("**/*", data), ("**/*.csv", data), ("*/*.csv", data[1:2]), ("d*/**/p*.csv", data[:2])):
        plan = await store.plan(SourceSpec(path=pattern, format="csv"), lo=None, limit=None)
        assert [file.path for file in plan.files] == expected, pattern


@pytest.mark.parametrize("pattern", [*OWN, ".*/x.csv", "**/.*", "state/*", "secrets/**/*.csv", "./.env*", "STATE/*"])
async def test_patterns_that_name_it(wide: Confinement, pattern: str) -> None:
    store = FilesSource(wide.place("."), wide)
    with pytest.raises(PlatformError) as caught:
        await store.plan(SourceSpec(path=pattern, format="csv"), lo=None, limit=None)
    assert caught.value.code == "path.forbidden"


async def test_where_a_folder_is_on_this_machine_is_told_to_nobody(wide: Confinement) -> None:
    place = wide.place("data")
    for folder, pattern in ((place, "nothing.csv"), (place, "2024"), (place, "20*4"), (place / "gone", "x.csv")):
        store = FilesSource(folder, wide)
        with pytest.raises(PlatformError) as caught:
            await store.open()
            await store.plan(SourceSpec(path=pattern), lo=None, limit=None)
        assert str(place.parent) not in caught.value.message
        assert str(place.parent) not in ((await store.health_check()).detail or "")


@pytest.mark.parametrize(
    "pattern", ["[.]env*", "?env*", "s?ate/*.csv", "[s]ecrets/*", "*/.?", "data/[.]*", "data/?folder/*"]
)
async def test_wildcards_that_might_match_it(wide: Confinement, pattern: str) -> None:
    store = FilesSource(wide.place("."), wide)
    with pytest.raises(PlatformError) as caught:
        await store.plan(SourceSpec(path=pattern, format="csv"), lo=None, limit=None)
    assert caught.value.code in ("file.not_found", "path.forbidden")


@pytest.mark.parametrize(
    "pattern", ["away/x.csv", "away/*.csv", "a*/x.csv", "*/nothing.csv", "away/nothing.csv", "away/*/*"]
)
async def test_links_out_of_a_folder_tell_nothing_of_what_lies_there(
    wide: Confinement, tmp_path_factory: pytest.TempPathFactory, pattern: str
) -> None:
    away = tmp_path_factory.mktemp("away")
    (away / "x.csv").write_text("id\n1\n")
    (wide.base / "data/away").symlink_to(away)
    store = FilesSource(wide.place("data"), wide)
    with pytest.raises(InvalidInputError) as caught:
        await store.plan(SourceSpec(path=pattern), lo=None, limit=None)
    assert caught.value.code == "path.forbidden"
    assert [str(name) for name in await store.tables()] == ["2024/people.csv", "people.csv"]
    assert (await store.plan(SourceSpec(path="**/*.csv"), lo=None, limit=None)).files


async def test_file_that_becomes_a_link_before_it_is_read(wide: Confinement) -> None:
    store, source = FilesSource(wide.place("data"), wide), SourceSpec(path="people.csv")
    plan = await store.plan(source, lo=None, limit=None)
    (wide.base / "data/people.csv").unlink()
    (wide.base / "data/people.csv").symlink_to(wide.base / "secrets/password.csv")
    with pytest.raises(PlatformError) as caught:
        async with store.reader(source, plan, plan.streams[0], batch_rows=10) as reader:
            _ = [batch async for batch in reader.batches(None)]
    assert caught.value.code == "path.forbidden"
    with pytest.raises(InvalidInputError):
        await store.plan(source, lo=None, limit=None)


async def test_duckdb_opens_files_that_it_may(wide: Confinement) -> None:
    os.mkfifo(wide.base / "data/pipe")
    os.mkfifo(wide.base / "data/logged.wal")
    (wide.base / "data/linked.wal").symlink_to(wide.base / "state/drain")
    for name, code in (
        ("data", "store.not_duckdb"),
        ("data/pipe", "store.not_duckdb"),
        ("data/logged", "store.not_duckdb"),
        ("data/linked", "path.forbidden"),
        ("state/drain", "path.forbidden"),
    ):
        store = DuckDBDataStore(DuckDBOptions(wide.base / name, confinement=wide))
        with pytest.raises(PlatformError) as caught:
            await store.open()
        assert caught.value.code == code
    assert not (wide.base / "state/drain").exists()
    store = DuckDBDataStore(DuckDBOptions(wide.base / "data/new/file.duckdb", confinement=wide))
    await store.open()
    await store.close()
    assert (wide.base / "data/new/file.duckdb").is_file()


async def test_settings_own_duckdb_file_is_exempt(tmp_path: Path) -> None:
    store = DuckDBDataStore(DuckDBOptions(tmp_path / "state/data.duckdb"))
    await store.open()
    await store.close()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("duckdb", {"path": "state/drain"}),
        ("duckdb", {"path": "python/hook.py"}),
        ("files", {"root": "state"}),
    ],
)
def test_connections_of_both_doors(server: Server, kind: str, options: dict[str, str]) -> None:
    before = {path for path in server.folder.rglob("*") if path.parent.name != "scratch" and "-wal" not in path.name}
    document = {"version": 1, "connection": "own", "kind": kind, "options": options}
    answer = server.call("PUT", "/v1/connections/own", document)
    assert (answer.status, answer.body["code"]) == (422, "path.forbidden")
    assert server.call("GET", "/v1/connections/own").status == 404
    (server.folder / "own.json").write_text(json.dumps(document))
    done = headrace(server.folder, "validate", "-f", "own.json", **ENVIRONMENT)
    (server.folder / "own.json").unlink()
    assert (done.returncode, "path.forbidden" in done.stderr) == (2, True)
    name, [(option, target)] = f"data/turns_{kind}", options.items()
    permitted = {**document, "options": {option: name}}
    assert server.call("PUT", "/v1/connections/own", permitted).status in (
        200,
        201,
    )  # What it leads to may change later.
    (server.folder / name).symlink_to(server.folder / target)
    tried = server.call("POST", "/v1/connections/own/test").body
    assert (tried["ok"], tried["step"]) == (False, "name")
    listed = server.call("GET", "/v1/connections/own/tables")
    assert (listed.status, listed.body["code"]) == (422, "path.forbidden")
    done = headrace(server.folder, "connections", "discover", "own", **ENVIRONMENT)
    assert done.returncode == 2
    assert "path.forbidden" in done.stderr
    assert "Traceback" not in done.stderr
    (server.folder / name).unlink()
    assert server.call("DELETE", "/v1/connections/own").status == 204
    added = {
        path for path in server.folder.rglob("*") if path.parent.name != "scratch" and "-wal" not in path.name
    } - before
    assert not {path.name for path in added} - {"records.db-shm"}
    assert server.call("GET", "/ready").status == 200


@pytest.mark.parametrize(
    "options", [{"path": ".headrace/drain"}, {"path": "data/.x"}, {"path": "."}, {"path": "a/../b"}]
)
def test_spelling_alone_is_refused_when_it_is_stored(server: Server, options: dict[str, str]) -> None:
    document = {"version": 1, "connection": "spelt", "kind": "duckdb", "options": options}
    answer = server.call("PUT", "/v1/connections/spelt", document)
    if options["path"] == ".":  # No name at all: the project itself, which is no file.
        assert server.call("POST", "/v1/connections/spelt/test").body["ok"] is not True
        return
    assert answer.status == 422
    assert answer.body["errors"][0]["code"] == "path.forbidden"


def test_permitted_connections_of_both_doors(server: Server) -> None:
    for name, kind, options, seen in (
        ("wide", "files", {"root": "."}, "data/people.csv"),
        ("landing", "files", {"root": "data"}, "people.csv"),
        ("shelf", "duckdb", {"path": "data/shelf.duckdb"}, None),
    ):
        document = {"version": 1, "connection": name, "kind": kind, "options": options}
        assert server.call("PUT", f"/v1/connections/{name}", document).status == 201
        assert server.call("POST", f"/v1/connections/{name}/test").body["ok"] is True
        items = server.call("GET", f"/v1/connections/{name}/tables").body["items"]
        assert seen is None or seen in items
        assert not [item for item in items if item in OWN]
    done = headrace(server.folder, "connections", "discover", "wide", **ENVIRONMENT)
    assert done.returncode == 0
    assert "data/people.csv" in done.stdout
    assert "admin" not in done.stdout


async def test_nothing_found_is_what_a_hidden_folder_is(wide: Confinement) -> None:
    store = FilesSource(wide.place("."), wide)
    said = []
    for pattern in ("[.]git", "[.]none"):
        with pytest.raises(NotFoundError) as caught:
            await store.plan(SourceSpec(path=pattern), lo=None, limit=None)
        said.append(caught.value.message.replace(pattern, ""))
    assert said[0] == said[1]


async def test_links_of_a_mounted_volume_are_read(tmp_path: Path) -> None:
    """As Kubernetes mounts a ConfigMap: each file is a link to ..data, and that one to a folder of a time."""
    folder = filled(tmp_path) / "data/mounted"
    (folder / "..2026_11_27_22_50_54.1234567890").mkdir(parents=True)
    (folder / "..2026_11_27_22_50_54.1234567890/sales.csv").write_text("id\n1\n2\n")
    (folder / "..data").symlink_to("..2026_11_27_22_50_54.1234567890")
    (folder / "sales.csv").symlink_to("..data/sales.csv")
    (folder / "..other").mkdir()
    (folder / "..other/x.csv").write_text("id\n1\n")
    (folder / "x.csv").symlink_to("..other/x.csv")
    confinement = paths_of(tmp_path).confinement
    store = FilesSource(confinement.place("data/mounted"), confinement)

    assert [table.table for table in await store.tables()] == ["sales.csv"]
    for path in ("sales.csv", "s*.csv", "**/sales.csv"):
        rows = [batch async for batch in store.read(SourceSpec(path=path), batch_rows=10)]
        assert sum(len(batch) for batch in rows) == 2
    for path in ("..data/sales.csv", "..2026_11_27_22_50_54.1234567890/sales.csv", "x.csv", "..*/*.csv"):
        with pytest.raises(InvalidInputError) as caught:
            await store.plan(SourceSpec(path=path), lo=None, limit=None)
        assert caught.value.code == "path.forbidden"
    refused(confinement, "data/mounted/..data/sales.csv")
    (folder / "away.csv").symlink_to("../../.env.csv")
    (folder / "..data").unlink()
    (folder / "..data").symlink_to(tmp_path / "secrets")
    for path in ("away.csv", "sales.csv"):
        with pytest.raises((InvalidInputError, NotFoundError)):
            await store.plan(SourceSpec(path=path), lo=None, limit=None)
