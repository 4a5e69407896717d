"""How text becomes a column's own type without losing anything, and which column a refused value was for."""

import re
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from domain.errors import PlatformError
from infrastructure.sql import quote
from infrastructure.stores.postgres.losses import MODIFIER
from infrastructure.stores.postgres.types import native_of, needs_cast
from infrastructure.tabular.arrow import logical_type

# And not what somebody's own type begins with.
_BIT, _LETTER = re.compile(r"^bit(?=(\[\])*$)"), re.compile(r"^character(?=(\[\])*$)")
_LENGTH = re.compile(r"(?:character|character varying|bit|bit varying)\(([0-9]+)\)")


def cast(name: str, native: str) -> str:
    """Cast a staged column so that the insert itself applies length and precision: a cast would cut without a word."""
    base = MODIFIER.sub("", native)
    return f"{quote(name)}::{_LETTER.sub('text', _BIT.sub('bit varying', base))}"


def naming_column(error: PlatformError, rows: pa.Table, natives: Mapping[str, str]) -> PlatformError:
    """The same error with the column in it, where the server did not know it and the rows show it."""
    if not error.code.startswith("value.") or not error.message.startswith("There is "):
        return error
    staged = [name for name in rows.column_names if needs_cast(natives[name])]
    if error.code == "value.too_long":
        names = [name for name in rows.column_names if _is_too_long(rows.column(name), natives[name])]
        names = names or [name for name in rows.column_names if _LENGTH.match(natives[name])] or staged
    else:
        names = [name for name in staged if MODIFIER.sub("", natives[name]) in error.message] or staged
    if not names:
        return error
    what = error.message.removeprefix("There is ")
    return type(error)(f"{_spoken(names)} holds {what}", code=error.code)


def _spoken(names: Sequence[str]) -> str:
    return f"The column {names[0]}" if len(names) == 1 else f"One of the columns {', '.join(names)}"


def _is_too_long(values: pa.ChunkedArray, native: str) -> bool:
    length = _LENGTH.fullmatch(native)
    if length is None or not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return False
    longest = pc.max(pc.utf8_length(values)).as_py()
    return longest is not None and longest > int(length[1])


def staged_type(kind: pa.DataType) -> str:
    """The type of a column as which values lie before they are cast."""
    return "uuid" if pa.types.is_fixed_size_binary(kind) else native_of(logical_type(kind))
