"""SQL expressions that convert a value without loss or give NULL: nothing is rounded, wrapped or guessed."""

import re

from infrastructure.exact import INTEGERS

_SIMPLE = {
    **INTEGERS,
    "bool": "BOOLEAN",
    "float32": "FLOAT",
    "float64": "DOUBLE",
    "string": "VARCHAR",
    "binary": "BLOB",
    "date": "DATE",
    "time": "TIME",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMPTZ",
    "interval": "INTERVAL",
    "uuid": "VARCHAR",
    "json": "VARCHAR",
}
_ZONE = r".*([zZ]|[+-][0-9]{2}(:?[0-9]{2})?)"
_PATTERNS = {
    "date": r"[0-9]{4,6}-[0-9]{2}-[0-9]{2}",
    "time": r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?",
    "timestamptz": r"[0-9]{4,6}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}.*",
    "bool": r"(?i)true|false|t|f|0|1|yes|no",
    "uuid": r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
}


def sql_type(logical: str) -> str:
    """Spell one of our types in DuckDB's SQL, as it travels through a transform."""
    if logical.startswith("decimal("):
        return logical.upper()
    if logical.startswith("list<"):
        return f"{sql_type(logical[5:-1])}[]"
    return _SIMPLE.get(logical, "VARCHAR")


def conversion(expression: str, given: str, wanted: str) -> str:
    """Return SQL that converts `expression` from one type to another, NULL where that would lose something."""
    target = sql_type(wanted)
    if given == "string" and wanted != "string":
        return _from_text(expression, wanted, target)
    if wanted == "string":
        return f"CAST({expression} AS VARCHAR)"
    tried = f"TRY_CAST({expression} AS {target})"
    return f"CASE WHEN TRY_CAST({tried} AS {sql_type(given)}) IS NOT DISTINCT FROM {expression} THEN {tried} END"


def _from_text(expression: str, wanted: str, target: str) -> str:
    tried = f"TRY_CAST({expression} AS {target})"
    if wanted in INTEGERS:
        return _when(expression, r"[+-]?[0-9]+", tried)
    if match := re.fullmatch(r"decimal\([0-9]+,([0-9]+)\)", wanted):
        return _when(expression, rf"[+-]?[0-9]*(\.[0-9]{{0,{match[1]}}}0*)?", tried)
    if wanted == "timestamp":
        # DuckDB would drop a zone silently; a naive column must not get a value that had one.
        date = _PATTERNS["timestamptz"]
        return (
            f"CASE WHEN regexp_full_match({expression}, '{date}') "
            f"AND NOT regexp_full_match({expression}, '[^ T]*[ T]{_ZONE}') THEN {tried} END"
        )
    if wanted in _PATTERNS:
        return _when(expression, _PATTERNS[wanted], tried)
    if wanted == "binary":
        # Postgres' way to write bytes in hexadecimal; DuckDB's own cast would read escapes in the middle of a text.
        return _when(expression, r"\\x([0-9a-fA-F]{2})*", f"unhex(substr({expression}, 3))")
    if wanted == "json":
        return f"CASE WHEN json_valid({expression}) THEN {expression} END"
    return tried


def _when(expression: str, pattern: str, result: str) -> str:
    return f"CASE WHEN regexp_full_match({expression}, '{pattern}') THEN {result} END"
