"""DuckDB as steps and rules have it: in memory, locked down, with nothing in it but what it is given."""

import duckdb


def locked_down(memory_limit: str, threads: int) -> duckdb.DuckDBPyConnection:
    """Start an instance; blocking, for longer than it takes to compile a plan."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": memory_limit,
            "threads": threads,
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        },
    )
    for statement in (
        "SET GLOBAL TimeZone = 'UTC'",
        "SET enable_external_access = false",
        "SET lock_configuration = true",
    ):
        connection.execute(statement)
    return connection
