"""Whatever is let through never calls a function as if it were a column, drawn at random and run on the real server."""

import random
from collections.abc import Iterator

import pytest
from adbc_driver_postgresql import dbapi

from domain.errors import QueryRefusedError
from infrastructure.queries.postgres_known import Field, Known, Relation
from infrastructure.queries.postgres_query import resolved
from tests.databases import new_database, postgres

_NAMES = ["p", "q", "r", "evil", "t1", "t2"]
_RELATIONS = {
    ("", name): Relation("public", name, tuple(Field(column) for column in columns))
    for name, columns in {"t1": ("evil", "a", "x"), "t2": ("a", "x"), "evil": ("a", "evil")}.items()
}
_KNOWN = Known(relations=_RELATIONS, callable=frozenset({"evil"}))


class Drawn:
    """Draws statements whose names mean now this and now that."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def _one(self, *texts: str) -> str:
        return self._random.choice(texts)

    def _name(self) -> str:
        return self._one(*_NAMES)

    def _expression(self, depth: int) -> str:
        kind = self._random.random()
        if kind < 0.55 or depth == 0:
            return self._one(f"{self._name()}.evil", f"{self._name()}.evil", "evil", "a", f"({self._name()}).evil", "1")
        if kind < 0.75:
            return f"(select {self._expression(depth - 1)} from {self._from(depth - 1)} limit 1)"
        return f"(select max(z.evil) from ({self.statement(depth - 1)}) z)"

    def _item(self, depth: int) -> str:
        kind, name = self._random.random(), self._name()
        if kind < 0.4 or depth == 0:
            return self._one(
                f"{self._one('t1', 't2', 'evil')} {name}",
                f"{self._one('t1', 't2')} {name}({self._one('evil', 'b')})",
                self._one("t1", "t2", "evil"),
                f"unnest(array['u']) {name}{self._one('', '(evil)')}",
                f"(values (1, 2)) {name}{self._one('', '(evil)', '(a, evil)')}",
            )
        if kind < 0.7:
            below = self.statement(depth - 1)
            return f"{self._one('', 'lateral ')}({below}) {name}{self._one('', '(evil)', '(a, evil)')}"
        condition = self._one("true", f"{self._expression(depth - 1)} is not null")
        joined = f"{self._item(depth - 1)} {self._one('join', 'left join')} {self._item(depth - 1)} on {condition}"
        return f"({joined}) {name}{self._one('', '(evil)', '(b, evil)')}" if self._random.random() < 0.4 else joined

    def _from(self, depth: int) -> str:
        return ", ".join(self._item(depth) for _ in range(self._random.choice([1, 1, 2])))

    def _select(self, depth: int) -> str:
        target = self._one("*", f"{self._name()}.*", f"{self._expression(depth)}{self._one('', ' as evil', ' as a')}")
        where = self._one("", f" where {self._expression(depth)} is not null", f" order by {self._expression(0)}")
        return f"select {target} from {self._from(depth)}{where}"

    def statement(self, depth: int) -> str:
        """Draw one."""
        kind, name = self._random.random(), self._name()
        if kind < 0.8 or depth == 0:
            return self._select(depth)
        columns = self._one("", "(evil)", "(b)")
        if kind < 0.9:
            return f"with {name}{columns} as ({self._select(depth - 1)}) {self._select(depth - 1)}"
        both = f"({self._select(depth - 1)}) union ({self._select(depth - 1)})"
        return f"with recursive {name}{columns} as ({both}) {self._select(depth - 1)}"


@pytest.fixture(scope="module")
def database(postgres_server_url: str) -> Iterator[str]:
    with new_database(postgres_server_url) as url:
        with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("set allow_system_table_mods = on")
            for kind in ("record", "text", "integer"):
                cursor.execute(
                    f"create function pg_catalog.evil({kind}) returns integer language plpgsql as "
                    "'begin raise exception ''evil was called''; end'"
                )
        for statement in (
            "create table t1 (evil int, a int, x text)",
            "create table t2 (a int, x text)",
            "create table evil (a int, evil int)",
            *(f"insert into {name} values (1, 2)" for name in ("t1", "t2", "evil")),
        ):
            postgres(url, statement)
        yield url


@pytest.mark.line("10")
def test_no_column_is_a_call(database: str) -> None:
    drawn, calls, passed = Drawn(20), 0, 0
    with dbapi.connect(database, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("set search_path = pg_catalog, pg_temp")

        def said(text: str) -> str:
            try:
                cursor.execute(text)
                cursor.fetchall()
            except dbapi.Error as error:
                return str(error)
            return ""

        for _ in range(400):
            query = drawn.statement(3)
            try:
                text = resolved(query, _KNOWN, {})
            except QueryRefusedError:
                if calls < 3:  # Some of what is refused does call, or this would show nothing.
                    calls += "evil was called" in said(resolved(query, Known(relations=_RELATIONS), {}))
                continue
            answer = said(text)
            assert "evil was called" not in answer, query
            assert "function evil" not in answer, query
            passed += answer == ""

    assert calls == 3
    assert passed > 20
