"""How large the footer of a Parquet file is, asked before Arrow reads it: what it lists takes many times its bytes."""

import os
import struct
from pathlib import Path

from domain.errors import InvalidInputError

LOOKED_AT_BYTES = 256 * 1024
"""A footer of more is first read where it may take too much."""
COPIES = 20
"""How many times its bytes a footer takes while it is read, where no process apart refuses it."""
_END = struct.Struct("<I4s")
_MARKS = (b"PAR1", b"PARE")


def footer_bytes(file: str, name: str, most: int) -> int:
    """How many bytes the footer of a file says that it has, 0 where there is none: that is Arrow's to tell.

    Raises:
        InvalidInputError: they are more than they may be (`file.footer_too_large`).
    """
    with Path(file).open("rb") as raw:
        size = raw.seek(0, os.SEEK_END) - _END.size
        if size < 0:
            return 0
        raw.seek(size)
        count, mark = _END.unpack(raw.read(_END.size))
    if mark not in _MARKS or count > size:
        return 0
    if count > most:
        raise InvalidInputError(
            f"The footer of {name} has {count:,} bytes; it may have {most:,} (HEADRACE_LIMITS__FOOTER_BYTES). Write "
            "the file with larger row groups, as several files, or with less metadata.",
            code="file.footer_too_large",
        )
    return int(count)
