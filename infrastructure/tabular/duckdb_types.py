"""DuckDB types in our names and back, and what of them Arrow would change on the way."""

import re

from domain.errors import SchemaMismatchError
from infrastructure.sql import quote
from infrastructure.tabular.nested_types import (
    KEPT_JSON,
    cut,
    digits_of,
    entries_of,
    fields_of,
    is_text_on_the_way,
    item_of,
    struct_of,
    unquoted,
)

_TO_LOGICAL = {
    "BOOLEAN": "bool",
    "TINYINT": "int8",
    "SMALLINT": "int16",
    "INTEGER": "int32",
    "BIGINT": "int64",
    "HUGEINT": "decimal(39,0)",
    "UTINYINT": "uint8",
    "USMALLINT": "uint16",
    "UINTEGER": "uint32",
    "UBIGINT": "uint64",
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "VARCHAR": "string",
    "BLOB": "binary",
    "DATE": "date",
    "TIME": "time",
    "TIME_NS": "time",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP_S": "timestamp",
    "TIMESTAMP_MS": "timestamp",
    "TIMESTAMP_NS": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamptz",
    "UUID": "uuid",
    "JSON": KEPT_JSON,
    "INTERVAL": "interval",
    '"NULL"': "string",
}
# What is text on the way and comes back from it; Arrow has no such type, or one that another value fits in.
_TEXTS = ("UHUGEINT", "BIGNUM", "BIT", "TIME WITH TIME ZONE")
_TO_NATIVE = (
    {logical: native for native, logical in reversed(_TO_LOGICAL.items())}
    | {f"native:{native}": native for native in _TEXTS}
    # Postgres' json keeps the text as it was written, and so does DuckDB's; its jsonb is JSON too.
    | {"string": "VARCHAR", "json": "JSON"}
)
_ARRAY = re.compile(r"(.*)\[[0-9]*\]", re.DOTALL)


def logical_of(native: str) -> str:
    """Name a DuckDB type in our names."""
    if native in _TO_LOGICAL:
        return _TO_LOGICAL[native]
    if digits := re.fullmatch(r"DECIMAL\(([0-9]+),\s*([0-9]+)\)", native):
        return f"decimal({digits[1]},{digits[2]})"
    if native.startswith("ENUM(") and native.endswith(")"):
        return "string"
    if array := _ARRAY.fullmatch(native):
        item = logical_of(array[1])
        return f"native:{native}" if is_text_on_the_way(item) else f"list<{item}>"
    if native.startswith(("STRUCT(", "MAP(")) and native.endswith(")"):
        return _nested(native) or f"native:{native}"
    return f"native:{native}"


def _nested(native: str) -> str | None:
    """Name a struct or a map, unless something in it is text on the way."""
    parts = cut(native[native.index("(") + 1 : -1], ",")
    if native.startswith("MAP("):
        kinds = [logical_of(part) for part in parts]
        return None if any(map(is_text_on_the_way, kinds)) else f"map<{','.join(kinds)}>"
    fields = []
    for part in parts:
        name, *rest = cut(part, " ")
        kind = logical_of(" ".join(rest)) if rest else "native:"
        if is_text_on_the_way(kind):
            return None
        fields.append((unquoted(name), kind))
    return struct_of(fields)


def native_of(logical: str) -> str:
    """Spell one of our types in DuckDB's SQL.

    Raises:
        SchemaMismatchError: another store's native type, or a decimal of more than 38 digits.
    """
    if logical in _TO_NATIVE:
        return _TO_NATIVE[logical]
    precision, scale = digits_of(logical)
    if 0 < precision <= 38 and 0 <= scale <= precision:
        return f"DECIMAL({precision},{scale})"
    if (item := item_of(logical)) is not None:
        return f"{native_of(item)}[]"
    if (fields := fields_of(logical)) is not None:
        return f"STRUCT({', '.join(f'{quote(name)} {native_of(kind)}' for name, kind in fields)})"
    if (entries := entries_of(logical)) is not None:
        return f"MAP({native_of(entries[0])}, {native_of(entries[1])})"
    raise SchemaMismatchError(
        f"DuckDB has no type for {logical}; cast it in the source query or in a step, for example to text."
    )


def sent(name: str, logical: str) -> str:
    """Select a column in the form in which its type travels."""
    column = quote(name)
    return f"CAST({column} AS VARCHAR) AS {column}" if is_text_on_the_way(logical) else column
