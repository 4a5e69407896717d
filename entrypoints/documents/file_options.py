"""How a file of a source is read, as its document says it: delimiter, NULLs, encoding, lines before the header, types,
folders.
"""

import re
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from entrypoints.documents.strict import Model

# They lose nothing on the way to UTF-8.
ENCODINGS = (
    "utf-8",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "latin-1",
    *(f"iso-8859-{number}" for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16)),
    *(f"windows-{number}" for number in range(1250, 1259)),
    "cp437",
    "cp850",
    "mac-roman",
    "koi8-r",
    "shift_jis",
    "euc-jp",
    "gb18030",
    "big5",
    "euc-kr",
)
_TYPE = re.compile(
    r"bool|u?int(8|16|32|64)|float(32|64)|decimal\([0-9]{1,2},[0-9]{1,2}\)|string|binary|date|time|timestamp"
    r"|timestamptz|uuid|json"
)


def known_type(value: str) -> str:
    """Check the name of a type."""
    if not _TYPE.fullmatch(value):
        raise ValueError("a type is one of bool, int64, float64, decimal(p,s), string, date, timestamp, …")
    return value


class FileOptions(Model):
    """How a file is read."""

    null_text: str | list[str] | None = None
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] | None = None
    encoding: str | None = None
    skip_rows: Annotated[int, Field(ge=0, le=1000)] | None = None
    types: dict[str, str] | None = None
    hive_partitioning: bool | None = None

    @field_validator("delimiter")
    @classmethod
    def _separates(cls, value: str | None) -> str | None:
        if value is not None and (value in '"\r\n\0' or len(value.encode()) > 1):
            raise ValueError("a delimiter is one ASCII character, and no quote or line break")
        return value

    @field_validator("encoding")
    @classmethod
    def _encodes(cls, value: str | None) -> str | None:
        if value is not None and value.lower() not in ENCODINGS:
            raise ValueError(f"an encoding is one of {', '.join(ENCODINGS)}")
        return value

    @field_validator("types")
    @classmethod
    def _known(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        for kind in (value or {}).values():
            known_type(kind)
        return value
