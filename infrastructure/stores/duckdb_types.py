"""DuckDB types in our names and back."""

import re

from domain.errors import SchemaMismatchError

_TO_LOGICAL = {
    "BOOLEAN": "bool",
    "TINYINT": "int8",
    "SMALLINT": "int16",
    "INTEGER": "int32",
    "BIGINT": "int64",
    "HUGEINT": "decimal(38,0)",
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
    "TIMESTAMP": "timestamp",
    "TIMESTAMP_S": "timestamp",
    "TIMESTAMP_MS": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamptz",
    "UUID": "uuid",
    "JSON": "json",
    "INTERVAL": "interval",
}
_TO_NATIVE = {logical: native for native, logical in reversed(_TO_LOGICAL.items())} | {
    "timestamp": "TIMESTAMP",
    "decimal(38,0)": "DECIMAL(38,0)",
    "native:json": "JSON",  # Postgres' json keeps the text as it was written, and so does DuckDB's.
}
_DECIMAL = re.compile(r"DECIMAL\(([0-9]+),\s*([0-9]+)\)")


def logical_of(native: str) -> str:
    """Name a DuckDB type in our names."""
    if native in _TO_LOGICAL:
        return _TO_LOGICAL[native]
    if match := _DECIMAL.fullmatch(native):
        return f"decimal({match[1]},{match[2]})"
    if native.endswith("[]"):
        return f"list<{logical_of(native[:-2])}>"
    if native.startswith("ENUM("):
        return "string"
    return f"native:{native}"


def native_of(logical: str) -> str:
    """Spell one of our types in DuckDB's SQL.

    Raises:
        SchemaMismatchError: another store's native type.
    """
    if logical in _TO_NATIVE:
        return _TO_NATIVE[logical]
    if logical.startswith("decimal("):
        return logical.upper()
    if logical.startswith("list<"):
        return f"{native_of(logical[5:-1])}[]"
    raise SchemaMismatchError(f"DuckDB has no type for {logical}.")
