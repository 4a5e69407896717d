"""Verdicts from a process that wrote nothing: EXCEPT ALL both ways, with types."""

from pathlib import Path
from typing import Any

import duckdb

from tests.databases import postgres

__all__ = ["duckdb_differences", "duckdb_rows", "postgres", "postgres_differences"]
_INTERNAL = ("_headrace_loaded_at", "_headrace_run_id")


def duckdb_rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def duckdb_differences(expected: Path, found: Path, table: str) -> list[str]:
    """Name what differs between a table of two files; empty when they are equal as multisets with types."""
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{expected}' AS expected (READ_ONLY)")
        connection.execute(f"ATTACH '{found}' AS found (READ_ONLY)")
        columns = [
            connection.execute(
                "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = $1 AND table_name = $2 "
                "AND NOT starts_with(column_name, '_headrace_') ORDER BY column_index",
                [side, table],
            ).fetchall()
            for side in ("expected", "found")
        ]
        names = ", ".join(f'"{name}"' for name, _ in columns[0])
        left, right = (f"SELECT {names} FROM {side}.{table}" for side in ("expected", "found"))
        return _differences(columns, [
            connection.execute(f"SELECT count(*) FROM ({a} EXCEPT ALL {b})").fetchall()[0][0]
            for a, b in ((left, right), (right, left))
        ])  # fmt: skip


def postgres_differences(url: str, expected: str, found: str) -> list[str]:
    """Name what differs between two tables of one database."""
    columns = [
        postgres(
            url,
            "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = "
            f"'{table}'::regclass AND attnum > 0 AND NOT attisdropped AND attname::text <> ALL "
            f"(ARRAY{list(_INTERNAL)}) ORDER BY attnum",
        )
        for table in (expected, found)
    ]
    names = ", ".join(f'"{name}"' for name, _ in columns[0])
    left, right = (f"SELECT {names} FROM {table}" for table in (expected, found))
    return _differences(columns, [
        postgres(url, f"SELECT count(*) FROM ({a} EXCEPT ALL {b}) AS d")[0][0] for a, b in ((left, right), (right, left))
    ])  # fmt: skip


def _differences(columns: list[Any], counts: list[int]) -> list[str]:
    found = [] if columns[0] == columns[1] else [f"columns {columns[0]} and {columns[1]}"]
    missing, doubled = counts
    return found + ([f"{missing} missing"] if missing else []) + ([f"{doubled} doubled or foreign"] if doubled else [])
