"""The guards as one function: what is said to a payload before any store sees it, in this process."""

import logging

from domain.errors import PlatformError
from infrastructure.sql import check_row_predicate, parse_query, relations_of, row_wise
from tests.security.payloads import Payload

logging.getLogger("sqlglot").setLevel(logging.ERROR)


def check(where: str, engine: str, text: str) -> None:
    """Raise what the guard raises."""
    if where == "query":
        parse_query(text, engine)
    elif where == "transform":
        row_wise(text)
    else:
        check_row_predicate(text)


def refusal(payload: Payload, text: str | None = None) -> str | None:
    """The code that a payload, or another text in its place, is refused with; None if it is let through."""
    try:
        check(payload.where, payload.engine, payload.text if text is None else text)
    except PlatformError as error:
        return error.code if str(error) else "no words"
    return None


def relations(engine: str, text: str) -> frozenset[str]:
    """The relations that the guard says a query reads."""
    return relations_of(text, engine)
