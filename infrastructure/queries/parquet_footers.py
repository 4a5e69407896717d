"""The footer of a Parquet file, looked at where it may fail: of one that contradicts itself, Arrow ends the process
that asks.
"""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from domain.errors import InvalidInputError
from domain.ports.security import TOO_LARGE
from infrastructure.confinement import open_unlinked
from infrastructure.descriptors import shortage

_MOST_COLUMNS = 20_000
_MOST_KEYS = 10_000


def look_at_footer(path: str) -> bool:
    """Ask of each column of each row group what reading asks; whether it is Parquet at all. In the path no link is
    followed.

    Arrow's own code for this throws where nothing catches: the levels that a footer counts are not those of its schema.

    Raises:
        InvalidInputError: it has more columns or keys of metadata than anybody reads, each of which takes a hundred
            times its bytes.
    """
    try:
        with os.fdopen(open_unlinked(Path(path)), "rb") as file, pq.ParquetFile(file) as parquet:
            if parquet.metadata.num_columns > _MOST_COLUMNS or len(parquet.metadata.metadata or ()) > _MOST_KEYS:
                raise InvalidInputError("The footer has too many columns or keys.", code=TOO_LARGE)
            for group in range(parquet.metadata.num_row_groups):
                found = parquet.metadata.row_group(group)
                for place in range(found.num_columns):
                    found.column(place)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        if short := shortage(error):
            raise short from error
        return False
    return True
