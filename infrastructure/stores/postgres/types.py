"""Postgres types in our names and back, and the bytes that COPY wants."""

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import SchemaMismatchError
from infrastructure.tabular.nested_types import digits_of, is_text_on_the_way

_TO_LOGICAL = {
    "boolean": "bool",
    "smallint": "int16",
    "integer": "int32",
    "bigint": "int64",
    "real": "float32",
    "double precision": "float64",
    "text": "string",
    "name": "string",
    "bytea": "binary",
    "date": "date",
    "time without time zone": "time",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "uuid": "uuid",
    "jsonb": "json",
    "interval": "interval",
}
_TO_NATIVE = {
    "int8": "smallint",
    "uint8": "smallint",
    "uint16": "integer",
    "uint32": "bigint",
    "uint64": "numeric(20,0)",
    **{logical: native for native, logical in _TO_LOGICAL.items() if native != "name"},
}
_NUMERIC = re.compile(r"numeric\(([0-9]+),([0-9]+)\)")
# A type of Postgres' own, as its catalog spells it: only such a spelling may become part of a statement.
_OWN = re.compile(
    r"""native:([a-z_][a-z0-9_ ]*(\([0-9]+(,-?[0-9]+)?\))?(\[\])*|NAME(\.NAME)?(\[\])*)""".replace(
        "NAME", r'([a-z_][a-z0-9_$]*|"([^"\x00]|"")+")'
    )
)
_CHARACTERS = re.compile(r"character( varying)?(\([0-9]+\))?")


def logical_of(native: str) -> str:
    """Name a Postgres type in our names; what has no Arrow type of its own travels as text."""
    if native in _TO_LOGICAL:
        return _TO_LOGICAL[native]
    if match := _NUMERIC.fullmatch(native):
        return f"decimal({match[1]},{match[2]})" if int(match[2]) <= int(match[1]) else f"native:{native}"
    if _CHARACTERS.fullmatch(native):
        return "string"
    return f"native:{native}"


def native_of(logical: str) -> str:
    """Spell one of our types in Postgres' SQL.

    Raises:
        SchemaMismatchError: a type of another store.
    """
    if logical in _TO_NATIVE:
        return _TO_NATIVE[logical]
    if match := _OWN.fullmatch(logical):
        return match[1]
    precision, scale = digits_of(logical)
    if 0 < precision <= 1000:
        return f"numeric({precision},{scale})"
    if logical.startswith(("struct<", "map<", "list<")):
        raise SchemaMismatchError(
            f"Postgres has no type for {logical}; write it as JSON in a step, as in: "
            "sql: select * replace (to_json(name) as name) from batch."
        )
    raise SchemaMismatchError(
        f"Postgres has no type for {logical}; cast it in the source query or in a step, for example to text."
    )


def needs_cast(native: str) -> bool:
    """Whether COPY's binary form of text is not the type's own, so that SQL has to cast."""
    return native in ("json", "jsonb") or is_text_on_the_way(logical_of(native))


def with_binary_uuids(rows: pa.Table, names: Sequence[str]) -> pa.Table:
    """Give uuid columns, which travel as text, the 16 bytes that COPY wants."""
    for name in names:
        index = rows.schema.get_field_index(name)
        if pa.types.is_fixed_size_binary(rows.schema.field(index).type):
            continue
        rows = rows.set_column(index, name, uuid_bytes(rows.column(index)))
    return rows


def uuid_bytes(values: pa.ChunkedArray) -> pa.Array:
    """Turn text into 16 bytes each.

    Raises:
        SchemaMismatchError: a value is not a UUID.
    """
    filled = pc.fill_null(values, "0" * 32).combine_chunks()
    text = pc.replace_substring(filled, "-", "")
    if not pc.all(pc.match_substring_regex(text, "^[0-9a-fA-F]{32}$")).as_py() and len(text):
        raise SchemaMismatchError("A value is not a UUID.")
    # The text lies end to end in the array's buffer: 32 digits each, so no value becomes a Python object.
    _, _, digits = text.buffers()
    begin = text.offset * 32
    data = pa.py_buffer(bytes.fromhex(digits.slice(begin, len(text) * 32).to_pybytes().decode() if digits else ""))
    array = pa.Array.from_buffers(pa.binary(16), len(text), [None, data])
    if values.null_count == 0:
        return array
    return pc.if_else(pc.is_valid(values.combine_chunks()), array, pa.nulls(len(text), pa.binary(16)))
