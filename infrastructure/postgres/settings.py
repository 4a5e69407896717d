"""What every Postgres session of ours is set to, whatever the role, the database or the environment say.

Values that travel as text are written under one session's settings and read under another's, and statements mean what
the settings make of them. All of it is set by one statement after the connection stands, not by its start: a pooler in
between refuses parameters of the start that it does not know, and may hand on what another client has set.
"""

PINNED = {
    # How values are written as text, and read from it.
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "timezone_abbreviations": "Default",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "array_nulls": "on",
    "xmlbinary": "base64",
    "xmloption": "content",
    # What statements mean: literals, comparisons, the names of types, and what a transaction sees.
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
}

# Tables and types without a schema are looked for where the role says. Only pg_catalog has no place of its own on that
# path and so comes first: named behind another schema, its functions and operators could be hidden by that schema's.
_PATH = (
    "(SELECT coalesce(pg_catalog.string_agg(part, ','), '') "
    "FROM pg_catalog.unnest(pg_catalog.string_to_array(pg_catalog.current_setting('search_path'), ',')) AS part "
    "WHERE pg_catalog.btrim(part) OPERATOR(pg_catalog.!~) '^\"?pg_catalog\"?$')"
)


def pinned(*, is_local: bool = False) -> str:
    """Call what sets a session, or only its transaction, to what is pinned: the items of a SELECT."""
    scope = "true" if is_local else "false"
    values = {name: f"'{value}'" for name, value in PINNED.items()} | {"search_path": _PATH}
    return ", ".join(f"pg_catalog.set_config('{name}', {value}, {scope})" for name, value in values.items())
