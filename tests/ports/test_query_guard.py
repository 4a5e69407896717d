"""One suite for IQueryGuard."""

import pytest

from domain.errors import InvalidInputError, QueryRefusedError
from infrastructure.security.query_guard import SqlQueryGuard


@pytest.fixture(params=["sqlglot"])
def guard() -> SqlQueryGuard:
    return SqlQueryGuard()


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
def test_source_query_only_reads(guard: SqlQueryGuard, query: str, code: str) -> None:
    with pytest.raises(QueryRefusedError) as caught:
        guard.check_source(query)

    assert caught.value.code == code
    guard.check_source("with a as (select 1 as id) select * from a union all select 2 -- fine")


@pytest.mark.clause("IQueryGuard", 2)
@pytest.mark.parametrize("sql", ["select sum(id) from batch", "select now() from batch", "select * from other"])
def test_transform_is_row_wise_and_repeatable(guard: SqlQueryGuard, sql: str) -> None:
    with pytest.raises(InvalidInputError):
        guard.check_transform(sql)
    with pytest.raises(InvalidInputError):
        guard.check_predicate("id = (select max(id) from batch)")

    guard.check_transform("select *, id + 1 as next from batch where id > 0")
    guard.check_predicate("id > 0 and name is not null -- fine")


@pytest.mark.clause("IQueryGuard", 3)
@pytest.mark.parametrize("text", ["selec 1", "", "select 1) as x; drop table y; --", "select 'open"])
def test_what_cannot_be_parsed_is_refused(guard: SqlQueryGuard, text: str) -> None:
    for check in (guard.check_source, guard.check_transform, guard.check_predicate):
        with pytest.raises(InvalidInputError):
            check(text)


@pytest.mark.clause("IQueryGuard", 4)
def test_relations_are_what_a_query_reads(guard: SqlQueryGuard) -> None:
    query = "with own as (select * from a.b) select * from own join c on true where id in (select id from d)"

    assert guard.relations(query) == {"a.b", "c", "d"}
    assert guard.relations("selec 1") == frozenset()
