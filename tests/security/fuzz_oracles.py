"""What must be true of whatever a guard lets through: the engine reads the same one statement, and nobody
was called.
"""

import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import asyncpg
import duckdb
import pyarrow as pa

from domain.errors import PlatformError
from domain.pipelines.spec import SourceSpec
from domain.pipelines.steps import SqlStep
from domain.ports.data_store import IDataStore
from domain.ports.transformer import IPreparedTransform, TransformPlan
from domain.stores.table import Column
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.postgres.store import PostgresDataStore
from infrastructure.transforms.duckdb import DuckDBTransformer
from tests.databases import new_database
from tests.ports.backends import address_of
from tests.security.canaries import build, watched
from tests.security.guards import check, relations

_SLOW_SECONDS = 1.0
_FAILED = "a row failed"
# A parameter by name, which is the guard's to read and not the engine's.
_NAMED = re.compile(r":[A-Za-z_]|\$[A-Za-z_]\w*(?![\w$])")
_UNREAD = (
    "syntax error",
    "unterminated",
    "trailing junk",
    "cannot insert multiple commands",
    "invalid Unicode",
    "zero-length",
)


class Oracle(ABC):
    """Judges texts; None is said of those that are refused, or let through with right."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened = AsyncExitStack()
        self.let_through = 0

    async def judge(self, text: str) -> str | None:
        """The kind of a finding, or None."""
        started = time.process_time()
        try:
            self.checked(text)
        except PlatformError as error:
            return self._slow(started) or _ours(error)
        except Exception as error:
            return f"the guard raised {type(error).__name__}"
        self.let_through += 1
        return self._slow(started) or await self.read(text) or await self.tried(text)

    async def tried(self, text: str) -> str | None:
        """Execute it as the program would; what was touched."""
        try:
            await self.execute(self.armed(text))
        except PlatformError as error:
            return _ours(error) or await self.touched()
        except TimeoutError:
            return await self.touched()
        except Exception as error:
            return f"execution raised {type(error).__name__}: {str(error)[:200]}"
        return await self.touched()

    @staticmethod
    def _slow(started: float) -> str | None:
        return "the guard took more than a second" if time.process_time() - started > _SLOW_SECONDS else None

    def armed(self, text: str) -> str:
        return text.replace("/etc/passwd", str(self._folder / "canary.csv"))

    async def open(self) -> None:
        """Make the canaries."""
        self._folder.mkdir(exist_ok=True)
        self._folder.chmod(0o777)  # The database's server may run as somebody else.
        (self._folder / "canary.csv").write_text("a,b\n1,2\n")
        self._files = self._opened.enter_context(watched(self._folder / "canary.csv"))

    async def close(self) -> None:
        await self._opened.aclose()

    @abstractmethod
    def checked(self, text: str) -> None:
        """Ask the guard."""

    @abstractmethod
    async def read(self, text: str) -> str | None:
        """Compare what the guard made of it with what the engine makes of it."""

    @abstractmethod
    async def execute(self, text: str) -> None:
        """Do what a preview does."""

    async def touched(self) -> str | None:
        return "a file was opened" if self._files.opened() else None


def _ours(error: PlatformError) -> str | None:
    return f"it ended as {error.code}" if error.code in ("internal", "run.failed") or not str(error) else None


async def _first_rows(store: IDataStore, text: str) -> None:
    source = SourceSpec(query=text)
    await store.plan(source, lo=None, limit=5)
    async with aclosing(store.read(source, batch_rows=5)) as batches:
        async for _ in batches:
            break


class PostgresOracle(Oracle):
    """Beside the store, a session of its own that only asks how the server reads the very text."""

    def __init__(self, folder: Path, server_url: str) -> None:
        super().__init__(folder)
        self._server_url = server_url

    async def open(self) -> None:
        await super().open()
        url = self._opened.enter_context(new_database(self._server_url))
        build(url, self._folder / "told")
        self._session = await asyncpg.connect(url)
        self._opened.push_async_callback(self._session.close)
        await self._session.execute(f"alter database {url.rpartition('/')[2]} set statement_timeout = '1s'")
        self._store = PostgresDataStore(address_of(url))
        self._opened.push_async_callback(self._store.close)
        await self._store.open()

    def checked(self, text: str) -> None:
        check("query", "postgres", text)

    async def read(self, text: str) -> str | None:
        transaction = self._session.transaction(readonly=True)
        await transaction.start()
        try:
            await self._session.execute("set local search_path = public")
            await self._session.prepare(text)
            locked = await self._session.fetch(
                "select c.relname from pg_locks l join pg_class c on c.oid = l.relation where l.pid = pg_backend_pid() "
                "and l.relation >= 16384 and c.relkind in ('r', 'v', 'm', 'f', 'p')"
            )
        except asyncpg.PostgresError as error:
            is_unread = error.sqlstate[:2] == "42" and str(error).startswith(_UNREAD) and not _NAMED.search(text)
            return f"the server cannot read it: {error}" if is_unread else None
        except (asyncpg.InterfaceError, asyncpg.InternalClientError, ValueError):
            return None
        finally:
            await transaction.rollback()
            (self._folder / "told").unlink(
                missing_ok=True
            )  # Nobody asked the store: this is what the server does with it.
        named = {name.rpartition(".")[2].lower() for name in relations("postgres", text)}
        unnamed = {row[0] for row in locked} - named - ({"orders"} if "seen" in named else set())
        return f"it reads {sorted(unnamed)}, which the guard does not know of" if unnamed else None

    async def execute(self, text: str) -> None:
        await _first_rows(self._store, text)

    async def touched(self) -> str | None:
        told = self._folder / "told"
        if told.exists():
            told.unlink()
            return "it called what belongs to a user"
        state = await self._session.fetchrow(
            "select (select count(*) from victim), (select is_called from canary_seq), (select count(*) from "
            "pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = "
            "current_database())), (select count(*) from pg_class where relname = 'x')"
        )
        return (
            f"it left something behind: {tuple(state)}" if tuple(state) != (3, False, 0, 0) else await super().touched()
        )


class DuckDBOracle(Oracle):
    """Beside the store, an instance of its own that only parses."""

    async def open(self) -> None:
        await super().open()
        path = self._folder / "shop.duckdb"
        with duckdb.connect(path) as connection:
            connection.execute("create table orders as select 1::bigint as id, 'Ada' as name, now() as made")
            connection.execute("create table victim as select * from range(3) t(id)")
            connection.execute("create view seen as select id, name from orders")
            connection.execute("create sequence canary_seq")
            connection.execute("create macro canary(a) as nextval('canary_seq') + a")
        self._parser = self._opened.enter_context(duckdb.connect(config={"python_enable_replacements": False}))
        self._store = DuckDBDataStore(DuckDBOptions(path=path, scratch=self._folder / "scratch"))
        self._opened.push_async_callback(self._store.close)
        await self._store.open()

    def checked(self, text: str) -> None:
        check("query", "duckdb", text)

    async def read(self, text: str) -> str | None:
        try:
            statements = self._parser.extract_statements(text)
            written = self._parser.execute("select json_serialize_sql(?)", [text]).fetchone()
        except duckdb.Error as error:
            return None if _NAMED.search(text) else f"the engine cannot read it: {type(error).__name__}"
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            return f"the engine reads {[statement.type.name for statement in statements]}"
        tree = json.loads(written[0]) if written else {}
        named = {name.lower() for name in relations("duckdb", text)}
        found = list(_nodes(tree))
        if {"canary", "nextval", "getenv"} & {str(node.get("function_name")) for node in found}:
            return "it calls what is not allowed"
        own = {entry["key"].lower() for node in found for entry in (node.get("cte_map") or {}).get("map", ())}
        read = {str(node["table_name"]).lower() for node in found if node.get("type") == "BASE_TABLE"} - own
        unnamed = {name for name in read if not any(f".{known}".endswith(f".{name}") for known in named)}
        return f"it reads {sorted(unnamed)}, which the guard does not know of" if unnamed else None

    async def execute(self, text: str) -> None:
        await _first_rows(self._store, text)

    async def touched(self) -> str | None:
        async with aclosing(
            self._store.read(SourceSpec(query="select count(*) as n from victim"), batch_rows=1)
        ) as batches:
            rows = [pa.table(batch).to_pylist() async for batch in batches]
        return f"it left something behind: {rows}" if rows != [[{"n": 3}]] else await super().touched()


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


class TransformOracle(Oracle):
    """A step gives the same rows twice, and the same for each row alone: it depends on nothing but the row."""

    _ROWS = pa.table(
        {"id": [1, 2, 3, 4, 5], "name": ["a", "b", None, "", "ü"], "v": [1.5, None, 2.0, -1.0, 0.0]},
    )
    _PLAN = (Column("id", "int64"), Column("name", "string"), Column("v", "float64"))

    def checked(self, text: str) -> None:
        check("transform", "duckdb", text)

    async def read(self, text: str) -> str | None:
        parts = [self._ROWS.slice(number, 1) for number in range(self._ROWS.num_rows)]
        try:
            async with DuckDBTransformer().prepare(TransformPlan(self._PLAN, (SqlStep(self.armed(text)),))) as step:
                once, again = await _judged(step, self._ROWS), await _judged(step, self._ROWS)
                alone = [row for part in parts for row in await _judged(step, part)]
        except PlatformError as error:
            return _ours(error)
        except Exception as error:
            return f"the step raised {type(error).__name__}: {str(error)[:200]}"
        if once != again:
            return "it gives another result when it is repeated"
        is_same = once[0] in alone if once[:1] == [_FAILED] else once == alone
        return None if is_same else "its result depends on where batches end"

    async def execute(self, text: str) -> None:
        del text


async def _judged(step: IPreparedTransform, rows: pa.Table) -> list[str]:
    try:
        found = await step.apply(rows)
    except PlatformError as error:
        if error.code == "internal":
            raise
        return [_FAILED]  # One row that cannot be judged fails them all.
    return [repr(row) for table in (found.accepted, found.refused) for row in pa.table(table).to_pylist()]


def oracle(engine: str, folder: Path, server_url: str) -> Oracle:
    """The one of an engine, not opened yet."""
    if engine == "postgres":
        return PostgresOracle(folder, server_url)
    return DuckDBOracle(folder) if engine == "duckdb" else TransformOracle(folder)


async def smallest(text: str, kind: str, judge: Callable[[str], Awaitable[str | None]], *, tries: int = 300) -> str:
    """A part of the text that is still found to be of the kind."""
    size = max(len(text) // 2, 1)
    while size and tries > 0:
        place, is_smaller = 0, False
        while place < len(text) and tries > 0:
            tries -= 1
            part = text[:place] + text[place + size :]
            if part and (await judge(part) or "")[:20] == kind[:20]:
                text, is_smaller = part, True
            else:
                place += size
        size = size if is_smaller and size < len(text) else size // 2
    return text
