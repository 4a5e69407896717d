"""docs/reference/types.md is what happens: every type, its extremes and its special values, on every way."""

from pathlib import Path

import pyarrow as pa
import pytest

from domain.pipelines.spec import SourceSpec
from domain.stores.table import TableName
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.databases import postgres
from tests.ports.backends import address_of
from tests.ports.type_matrix import DOCUMENT, HEADER, TYPES, opened, row_of


@pytest.mark.parametrize("kind", TYPES)
async def test_type_does_what_the_reference_says(kind: str, postgres_database: str, tmp_path: Path) -> None:
    async with opened(postgres_database, tmp_path) as matrix:
        assert await row_of(matrix, kind) in DOCUMENT.read_text().splitlines()


def test_reference_names_every_type_once() -> None:
    lines = DOCUMENT.read_text().removeprefix(HEADER).splitlines()

    assert [line.split(" | ")[0].removeprefix("| ").strip("`") for line in lines] == list(TYPES)


async def test_types_that_the_server_cannot_send_as_bytes_travel_as_text(postgres_database: str) -> None:
    for statement in (
        "create extension seg",
        "create extension isn",
        "create domain span as seg",
        "create table source (id int, s seg, i isbn, d span, p aclitem, ss seg[])",
        "insert into source values (1, '1 .. 2', '978-0-393-04002-9', '3 .. 4', '=r/postgres', '{5}'), (2, null, null, null, null, null)",
        "create table copied (like source)",
    ):
        postgres(postgres_database, statement)
    store = PostgresDataStore(address_of(postgres_database))
    try:
        for source in (SourceSpec(table=TableName("source")), SourceSpec(query="select * from source")):
            batches = [batch async for batch in store.read(source, batch_rows=10)]
            assert pa.table(batches[0]).column("i").to_pylist() == ["0-393-04002-X", None]
            await store.write(TableName("copied"), batches)
    finally:
        await store.close()

    differing = "select count(*) from (select source::text from source except select copied::text from copied) as d"
    assert postgres(postgres_database, differing) == [(0,)]
    assert postgres(postgres_database, "select count(*) from copied") == [(4,)]
