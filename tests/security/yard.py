"""A running server with stores that tell whether somebody touched them, and quick clients with a key of each role."""

import hashlib
import http.client
import json
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import duckdb
import yaml

from domain.identity.principal import Role
from tests.databases import new_database, postgres
from tests.e2e.api import Server, serving
from tests.e2e.projects import postgres_connection
from tests.security.canaries import Files, build, watched
from tests.security.keys import Canary, canary, key_of
from tests.security.payloads import Payload

T = TypeVar("T")
R = TypeVar("R")
_MEDIA = {True: "application/json", False: "application/yaml"}


@dataclass(frozen=True)
class Said:
    """A status, and the codes in the answer."""

    status: int
    codes: tuple[str, ...]
    text: str


@dataclass
class Yard:
    server: Server
    keys: dict[Role, str]
    outside: Path
    database: str
    files: Files
    bird: Canary
    local: threading.local

    def ask(self, role: Role, method: str, path: str, body: bytes | None = None, **headers: str) -> Said:
        """One request over this thread's own connection, which is kept."""
        sent = {"Authorization": f"Bearer {self.keys[role]}", **headers}
        for attempt in (1, 2):
            connection = getattr(self.local, "connection", None)
            if connection is None:
                place = urlsplit(self.server.url)
                connection = self.local.connection = http.client.HTTPConnection(
                    place.hostname or "", place.port, timeout=20
                )
            try:
                connection.putrequest(method, path, skip_accept_encoding=True)
                for name, value in sent.items():
                    connection.putheader(name.replace("_", "-"), value.encode("utf-8", "surrogatepass"))
                if body is not None:
                    connection.putheader("Content-Length", str(len(body)))
                connection.endheaders(body)
                answer = connection.getresponse()
                return _said(answer.status, answer.read())
            except (http.client.HTTPException, OSError):
                connection.close()
                self.local.connection = None
                if attempt == 2:
                    raise
        raise AssertionError

    def put(self, role: Role, payload: Payload, name: str, *, is_twin: bool = False) -> Said:
        text = payload.twin_as_document() if is_twin else payload.as_document()
        kind = "connections" if payload.where == "connection" else "pipelines"
        return self.ask(role, "PUT", f"/v1/{kind}/{name}", self.armed(text or ""), Content_Type=_media(text or ""))

    def armed(self, text: str) -> bytes:
        """A payload with the canaries' places in it."""
        for place, canary_place in (
            ("/etc/passwd", str(self.outside / "canary.csv")),
            ("127.0.0.1:1/", f"127.0.0.1:{self.bird.port}/"),
            ("port=1'", f"port={self.bird.port}'"),
            ("/tmp/x", str(self.outside / "written")),
        ):
            text = text.replace(place, canary_place)
        return text.encode("utf-8", "surrogatepass")

    def untouched(self) -> None:
        """Nothing was opened, dialled, called or written."""
        assert self.files.opened() == set()
        assert self.bird.dialled == 0
        assert not (self.outside / "told").exists()
        assert sorted(path.name for path in self.outside.iterdir()) == ["canary.csv"]
        assert postgres(self.database, "select count(*), max(id) from victim") == [(3, 3)]
        assert postgres(self.database, "select is_called from canary_seq") == [(False,)]

    def records(self) -> dict[str, Any]:
        """What is stored, without what a running server notes about itself."""
        found: dict[str, Any] = {}
        with sqlite3.connect(f"file:{self.server.folder / '.headrace/records.db'}?mode=ro", uri=True) as records:
            names = [name for (name,) in records.execute("select name from sqlite_master where type = 'table'")]
            for name in names:
                if name not in ("workers", "leases"):
                    rows = sorted(repr(row) for row in records.execute(f'select * from "{name}"'))
                    found[name] = (len(rows), hashlib.sha256("".join(rows).encode()).hexdigest())
        project = self.server.folder
        found["files"] = sorted(
            str(path.relative_to(project))
            for path in project.rglob("*")
            if not path.name.endswith((".log", "-wal", "-shm", ".wal")) and ".headrace/scratch" not in str(path)
        )
        return found

    def peak_mb(self) -> float:
        """What the server took at most; 0 where the system does not tell."""
        with suppress(OSError):
            for line in Path(f"/proc/{self.server.process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) / 1024
        return 0.0


def _media(text: str) -> str:
    return _MEDIA[text[:1] in ("{", "[", '"')]


def _said(status: int, data: bytes) -> Said:
    codes: tuple[str, ...] = ()
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        body = json.loads(data)
        codes = (body["code"], *(problem["code"] for problem in body["errors"]))
    return Said(status, codes, data.decode(errors="replace"))


def all_at_once(action: Callable[[T], R], given: Sequence[T], *, threads: int = 4) -> list[R]:
    """Do it for each, several at a time, in order."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(action, given))


@contextmanager
def _outside() -> Iterator[Path]:
    """A folder outside of the project that the database's server reaches, who may be somebody else."""
    with tempfile.TemporaryDirectory(prefix="headrace-outside-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "canary.csv").write_text("a,b\n1,2\n")
        yield folder


@contextmanager
def yard(folder: Path, server_url: str) -> Iterator[Yard]:
    """Start it."""
    project = folder / "project"
    (project / "data").mkdir(parents=True)
    (project / "headrace.toml").write_text("[settings]\n")
    kept = [project / name for name in ("canary.csv", "canary.json", "canary.parquet", "data/canary.csv")]
    for path in kept:
        path.write_text('{"a": 1}' if path.suffix == ".json" else "a\n1\n")
    with duckdb.connect(project / "data/shop.duckdb") as connection:
        connection.execute("create table orders as select 1::bigint as id, 'Ada' as name, now() as at")
        connection.execute("create table victim as select * from range(3) t(id)")
        connection.execute("create sequence canary_seq")
        connection.execute("create macro canary(a) as nextval('canary_seq') + a")
    with (
        _outside() as outside,
        new_database(server_url) as database,
        watched(outside / "canary.csv", *kept) as files,
        canary() as bird,
        serving(project) as server,
    ):
        build(database, outside / "told")
        keys = {role: key_of(project, role) for role in Role}
        for text in (
            postgres_connection(database, "postgres"),
            "{version: 1, connection: duckdb, kind: duckdb, options: {path: data/shop.duckdb}}",
            "{version: 1, connection: landing, kind: files, options: {root: data}}",
        ):
            name = yaml.safe_load(text)["connection"]
            answer = server.call("PUT", f"/v1/connections/{name}", text, kind="application/yaml")
            assert answer.status == 201, answer.body
        yield Yard(server, keys, outside, database, files, bird, threading.local())
