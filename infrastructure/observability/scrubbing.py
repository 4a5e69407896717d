"""Takes secrets out of whatever leaves the process as text: logs, spans, events."""

import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

from domain.plain_text import escaped, in_one_line
from infrastructure.known_secrets import pattern

HIDDEN = "***"
_NAMES = r"password|passwd|passphrase|pwd|secret|token|api[_-]?key|authorization|credential|private[_-]?key|sslpassword"
_SECRET_KEY = re.compile(_NAMES, re.IGNORECASE)
# Each begins with words of its own, so that a long text is looked at once.
_OF_URL = re.compile(r"(?P<before>://[^\s:/@'\"]{0,256}:)[^\s'\"/]{1,256}(?=@)")
_ASSIGNED = re.compile(
    rf"(?P<before>(?:{_NAMES})[\w.-]{{0,64}}\s{{0,3}}=\s{{0,3}})"
    # In quotes, in quotes that are escaped, behind a quote that is never closed, or without any.
    r"(?:'[^']{1,1024}'|\"[^\"]{1,1024}\"|\\{1,3}['\"][^'\"\\]{1,1024}(?:\\{1,3}['\"])?"
    r"|['\"]?[^\s'\"&,;)}\]]{1,1024})",
    re.IGNORECASE,
)
_IN_MAPPING = re.compile(
    rf"(?P<before>(?:{_NAMES})[\w.-]{{0,64}}\\{{0,2}}['\"]\s{{0,3}}:\s{{0,3}}\\{{0,2}}['\"])[^'\"\\]{{1,1024}}",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(?P<before>\b(?:Bearer|Basic)\s{1,3})[A-Za-z0-9._~+/=-]{6,4096}", re.IGNORECASE)
_KEY_OF_OURS = re.compile(r"(?P<before>\bhr_)[a-z0-9]{12}_[A-Za-z0-9_-]{43}")
_MOST_NESTED = 8
_MOST_ITEMS = 1_000
_MOST_CHARACTERS = 65_536
_BEYOND = 4_096
"""So much behind the cut is looked at too: a secret may begin before it."""


def scrubbed(text: str) -> str:
    """A text without passwords of URLs, values of what is called a secret, and values of known secrets; one that is
    very long is cut.
    """
    length = len(text)
    if length > _MOST_CHARACTERS:
        text = text[: _MOST_CHARACTERS + _BEYOND]
    if (known := pattern()) is not None:
        text = known.sub(HIDDEN, text)
    for form in (_OF_URL, _ASSIGNED, _IN_MAPPING, _BEARER, _KEY_OF_OURS):
        text = form.sub(rf"\g<before>{HIDDEN}", text)
    if length > _MOST_CHARACTERS:
        text = f"{text[:_MOST_CHARACTERS]}… ({length - _MOST_CHARACTERS:,} more characters)"
    return text


def scrubbed_value(value: Any, nested: int = 0) -> Any:
    """A field of a line without secrets, also of those that stand within it: plain values of JSON, each text in one
    line. Whoever writes the line writes nothing else, so that nobody has to look for secrets in what is written, where
    marks of the format may be taken for those of a secret.
    """
    if isinstance(value, str):
        return in_one_line(scrubbed(value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _number(value)
    if nested > _MOST_NESTED:
        return "…"
    if isinstance(value, Mapping):
        items = {str(key): item for key, item in _first(value.items())}
        return {in_one_line(scrubbed(key)): scrubbed_field(key, item, nested + 1) for key, item in items.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [scrubbed_value(item, nested + 1) for item in _first(value)]
    return in_one_line(scrubbed(_written(value)))


def scrubbed_lines(text: str) -> str:
    """A text that may have more than one line, as a traceback has."""
    return escaped(scrubbed(text))


def scrubbed_field(name: str, value: Any, nested: int = 0) -> Any:
    """The same of a field whose name may say that it is a secret."""
    return HIDDEN if _is_secret(name) else scrubbed_value(value, nested)


def _first(items: Iterable[Any]) -> Iterable[Any]:
    return islice(items, _MOST_ITEMS)


def _number(value: float) -> Any:
    """A number as it is, unless it is a secret, or JSON has none of its kind."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = _written(value)
    known = pattern()
    return HIDDEN if known is not None and known.fullmatch(text) else value if text[:1] != "<" else text


def _written(value: object) -> str:
    try:
        if isinstance(value, BaseException):  # Its representation would write once more what it says.
            return f"{type(value).__name__}: {value}"
        return str(value) if isinstance(value, int | float) else repr(value)
    except Exception:  # noqa: BLE001 - a line is written, whatever the object in it does
        return f"<{type(value).__name__}>"


@lru_cache(maxsize=4096)
def _is_secret(name: str) -> bool:
    return _SECRET_KEY.search(name) is not None
