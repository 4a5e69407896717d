"""DuckDB as steps and rules have it: in memory, locked down, with nothing in it but what it is given."""

import duckdb

from infrastructure.descriptors import need_descriptors


def locked_down(memory_limit: str, threads: int) -> duckdb.DuckDBPyConnection:
    """Start an instance; blocking, for longer than it takes to compile a plan."""
    return _started(memory_limit, threads)


def for_many_parts(memory_limit: str, threads: int) -> duckdb.DuckDBPyConnection:
    """As `locked_down`, for plans of which DuckDB would compare each part with each other, to work out once what is the
    same.
    """
    return _started(memory_limit, threads, "SET GLOBAL disabled_optimizers = 'common_subexpressions'")


def _started(memory_limit: str, threads: int, *more: str) -> duckdb.DuckDBPyConnection:
    need_descriptors()
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
        *more,
        "SET enable_external_access = false",
        "SET lock_configuration = true",
    ):
        connection.execute(statement)
    return connection
