"""One suite for IQueryGuard."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from domain.errors import InvalidInputError, MissingExtraError, QueryRefusedError, UnavailableError
from domain.ports.security import Cost
from domain.stores.connection import ConnectionSpec
from infrastructure.bench.bench import Bench
from infrastructure.bench.process import ChildLimits
from infrastructure.bench.refusals import query_too_large
from infrastructure.security.query_guard import SqlQueryGuard


@pytest.fixture(params=["engines"])
async def guard() -> AsyncIterator[SqlQueryGuard]:
    bench = Bench(ChildLimits(400, 5.0), query_too_large)
    yield SqlQueryGuard(bench)
    await bench.close()


@pytest.mark.clause("IQueryGuard", 1)
@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("select 1; select 2", "query.multiple_statements"),
        ("delete from x", "query.not_readonly"),
        ("create table x as select 1", "query.not_readonly"),
        ("copy x to '/tmp/x'", "query.not_readonly"),
        ("set search_path = x", "query.not_readonly"),
        ('select * from a."_HEADRACE_checkpoint"', "query.forbidden_relation"),
    ],
)
async def test_source_query_only_reads(guard: SqlQueryGuard, query: str, code: str) -> None:
    with pytest.raises(QueryRefusedError) as caught:
        await guard.check_source(query)

    assert caught.value.code == code
    await guard.check_source("with a as (select 1 as id) select * from a union all select 2 -- fine")


@pytest.mark.clause("IQueryGuard", 2)
@pytest.mark.parametrize("sql", ["select sum(id) from batch", "select now() from batch", "select * from other"])
async def test_transform_is_row_wise_and_repeatable(guard: SqlQueryGuard, sql: str) -> None:
    with pytest.raises(InvalidInputError):
        await guard.check_transform(sql)
    with pytest.raises(InvalidInputError):
        await guard.check_predicate("id = (select max(id) from batch)")

    await guard.check_transform("select *, id + 1 as next from batch where id > 0")
    await guard.check_predicate("id > 0 and name is not null -- fine")


@pytest.mark.clause("IQueryGuard", 3)
@pytest.mark.parametrize("text", ["selec 1", "", "select 1) as x; drop table y; --", "select 'open"])
async def test_what_cannot_be_parsed_is_refused(guard: SqlQueryGuard, text: str) -> None:
    for check in (guard.check_source, guard.check_transform, guard.check_predicate):
        with pytest.raises(InvalidInputError):
            await check(text)


@pytest.mark.clause("IQueryGuard", 4)
async def test_relations_are_what_a_query_reads(guard: SqlQueryGuard) -> None:
    query = "with own as (select * from a.b) select * from own join c on true where id in (select id from d)"

    assert await guard.relations(query) == {"a.b", "c", "d"}
    assert await guard.relations("selec 1") == frozenset()


@pytest.mark.clause("IQueryGuard", 5)
@pytest.mark.line("11")
async def test_what_takes_too_long_is_refused_and_others_go_on(guard: SqlQueryGuard) -> None:
    many = f"a in ({', '.join(map(str, range(3_500)))})"
    bench = Bench(ChildLimits(400, 0.02), query_too_large, modules=["infrastructure.security.query_guard"])
    bench.warm()
    hasty = SqlQueryGuard(bench)

    async def refused(check: Callable[[], Awaitable[None]]) -> str:
        while True:
            try:
                await check()
            except InvalidInputError as error:
                return error.code
            except UnavailableError:  # This machine had no time for it, so that nothing was found of what it takes.
                continue

    checks = (
        lambda: hasty.check_transform(f"select {many} as d from batch"),
        lambda: hasty.check_predicate(f"{many} is null"),
    )
    tasks = [asyncio.create_task(refused(check)) for check in checks]
    turns = 0
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0.01)
        turns += 1

    assert [await task for task in tasks] == ["query.too_large"] * 2
    assert turns > 1
    await bench.close()
    await guard.check_transform(f"select {many} as d from batch")


@pytest.mark.clause("IQueryGuard", 6)
async def test_what_judging_takes_is_counted_also_of_what_is_refused(guard: SqlQueryGuard) -> None:
    accepted, refused, nothing = Cost(), Cost(), Cost()
    many = f"a in ({', '.join(map(str, range(3_500)))})"
    guard.counting(nothing)

    await guard.counting(accepted).check_source(f"select {many} as a from b")
    with pytest.raises(InvalidInputError):
        await guard.counting(refused).check_source(f"insert into b select {many} from a")

    assert accepted.seconds > 0
    assert refused.seconds > 0
    assert nothing.seconds == 0


async def test_install_without_postgres_still_has_queries_of_its_own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "postgast", None)
    guard = SqlQueryGuard()

    await guard.check_source("select id from orders")
    assert await guard.relations("select id from orders") == {"orders"}
    with pytest.raises(QueryRefusedError):
        await guard.check_source("select 1; select 2")
    with pytest.raises(MissingExtraError):
        await guard.check_source("select 1", ConnectionSpec(name="shop", kind="postgres", options={}))
