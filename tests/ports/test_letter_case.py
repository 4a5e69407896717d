"""DuckDB tells no letter case of a name from the other, whatever it was made as."""

from pathlib import Path

import duckdb
import pytest

from domain.stores.table import TableName
from tests.e2e.inside import inside


@pytest.mark.line("8")
async def test_schemas_and_tables_of_duckdb_are_found_in_any_letter_case(project: Path) -> None:
    async with inside(project) as installation:
        store = await installation.store("default")
        async with store._file.lent() as connection, store._session() as (session, thread):  # type: ignore[attr-defined]
            assert isinstance(connection, duckdb.DuckDBPyConnection)
            connection.execute("create table s as select 1 as id, 'x' as v")
            connection.execute("create view w as from s")
            connection.execute("create schema other")
            for name in (
                TableName("s"),
                TableName("S"),
                TableName("s", "MAIN"),
                TableName("S", "Main"),
                TableName("W", "MAIN"),
            ):
                found = await thread.call(session.describe, name)
                assert found is not None, name
                assert [column.name for column in found.columns] == ["id", "v"]
            assert await thread.call(session.identity, TableName("S", "MAIN")) == await thread.call(
                session.identity, TableName("s")
            )
            assert await thread.call(session.describe, TableName("s", "other")) is None
        for mode in ("mode: append", "mode: replace"):
            await installation.pipeline("p", "table: s, key: [id]", f"table: MAIN.t, {mode}")
            assert (await installation.report("p"))["counts"]["produced"] == 1
