"""What a text must fulfil before any parser of SQL sees it: parsers crash, or take minutes, over what nobody would
write.
"""

import re

from domain.errors import QueryRefusedError

MAX_QUERY_BYTES = 32 * 1024
MAX_QUERY_TOKENS = 8_000
MAX_NESTING = 100
_TOKEN = re.compile(r"\w+|[^\w\s]")


def check_text(text: str) -> None:
    """Refuse a text that is too long or has too many parts, or that cannot be sent to a parser.

    Raises:
        QueryRefusedError: `query.unparsable`, `query.too_large`.
    """
    if "\x00" in text:
        raise QueryRefusedError("The query holds a NUL character.", code="query.unparsable")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise QueryRefusedError("The query holds half of a character.", code="query.unparsable") from error
    if size > MAX_QUERY_BYTES:
        raise QueryRefusedError(
            f"The query has {size:,} bytes; it may have {MAX_QUERY_BYTES:,}.", code="query.too_large"
        )
    if len(_TOKEN.findall(text)) > MAX_QUERY_TOKENS:
        raise QueryRefusedError(
            f"The query has more than {MAX_QUERY_TOKENS:,} words and signs; put lists of values into a table.",
            code="query.too_large",
        )


def nested_too_deeply() -> QueryRefusedError:
    """The refusal of a text whose parts lie too deep in one another."""
    return QueryRefusedError(
        f"The query is nested too deeply: {MAX_NESTING} levels are the most.", code="query.unparsable"
    )
