"""Names of types that hold other types: `list<…>`, `struct<name:…,…>` and `map<…,…>`, and how such texts are cut."""

import re
from collections.abc import Iterator, Sequence

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
KEPT_JSON = "native:json"
"""JSON whose text is kept as it was written; `json` is Postgres' jsonb, which writes it anew."""
_OPENING, _CLOSING = "(<[", ")>]"


def item_of(name: str) -> str | None:
    """The type of a list's items, None where it is no list."""
    return name[5:-1] if name.startswith("list<") and name.endswith(">") else None


def fields_of(name: str) -> list[tuple[str, str]] | None:
    """The fields of a struct with their types, None where it is none."""
    if not (name.startswith("struct<") and name.endswith(">")):
        return None
    return [_field(part) for part in cut(name[7:-1], ",")]


def entries_of(name: str) -> tuple[str, str] | None:
    """The types of a map's keys and values, None where it is none."""
    if not (name.startswith("map<") and name.endswith(">")):
        return None
    key, value = cut(name[4:-1], ",")
    return key, value


def struct_of(fields: Sequence[tuple[str, str]]) -> str:
    """Name a struct."""
    return f"struct<{','.join(f'{_spelled(name)}:{kind}' for name, kind in fields)}>"


def is_text_on_the_way(name: str) -> bool:
    """Whether a type is more than Arrow or DuckDB can count: text on the way, checked and stored as what it is by the
    store.

    Texts, UUIDs and JSON are text to everybody and not meant.
    """
    precision, scale = digits_of(name)
    is_own = name.startswith("native:") and name != KEPT_JSON
    return is_own or precision > 38 or not 0 <= scale <= precision


def digits_of(name: str) -> tuple[int, int]:
    """Precision and scale of `decimal(p,s)`; (0, 0) for every other type."""
    match = re.fullmatch(r"decimal\(([0-9]+),(-?[0-9]+)\)", name)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def cut(text: str, separator: str) -> list[str]:
    """Cut a text at a separator that stands in no brackets and no quotes; nothing is left of an empty text."""
    return [part.strip() for part in _cut(text, separator)] if text.strip() else []


def _cut(text: str, separator: str) -> Iterator[str]:
    depth, begin, quoted = 0, 0, ""
    for place, letter in enumerate(text):
        if quoted:
            quoted = "" if letter == quoted else quoted
        elif letter in "\"'":
            quoted = letter
        elif letter in _OPENING:
            depth += 1
        elif letter in _CLOSING:
            depth -= 1
        elif letter == separator and depth == 0:
            yield text[begin:place]
            begin = place + 1
    yield text[begin:]


def unquoted(name: str) -> str:
    """A name without the quotes around it."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _field(part: str) -> tuple[str, str]:
    name, *kind = cut(part, ":")
    return unquoted(name), ":".join(kind)


def _spelled(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'
