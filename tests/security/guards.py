"""The guards as one function: what is said to a payload before any store sees it, in this process."""

from domain.errors import PlatformError
from infrastructure.queries.duckdb_reading import read_query
from infrastructure.queries.duckdb_steps import read_predicate, read_step
from infrastructure.queries.postgres_query import analyzed
from infrastructure.security.query_guard import judge_source
from tests.security.payloads import Payload


def check(where: str, engine: str, text: str) -> None:
    """Raise what the guard raises."""
    if where == "query":
        judge_source(text, engine, ())
    elif where == "transform":
        read_step(text)
    else:
        read_predicate(text)


def refusal(payload: Payload, text: str | None = None) -> str | None:
    """The code that a payload, or another text in its place, is refused with; None if it is let through."""
    try:
        check(payload.where, payload.engine, payload.text if text is None else text)
    except PlatformError as error:
        return error.code if str(error) else "no words"
    return None


def relations(engine: str, text: str) -> frozenset[str]:
    """The relations that the guard says a query reads."""
    if engine == "duckdb":
        return frozenset(".".join(path) for path in read_query(text).relations)
    return frozenset(f"{schema}.{name}" if schema else name for schema, name in analyzed(text).relations)
