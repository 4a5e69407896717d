"""The footer of a Parquet file, looked at where it may fail: of one that contradicts itself, Arrow ends the process
that asks.
"""

import pyarrow as pa
import pyarrow.parquet as pq


def look_at_footer(path: str) -> bool:
    """Ask of each column of each row group what reading asks; whether it is Parquet at all.

    Arrow's own code for this throws where nothing catches: the levels that a footer counts are not those of its schema.
    """
    try:
        with pq.ParquetFile(path) as parquet:
            for group in range(parquet.metadata.num_row_groups):
                found = parquet.metadata.row_group(group)
                for place in range(found.num_columns):
                    found.column(place)
    except (OSError, pa.ArrowException, UnicodeDecodeError):
        return False
    return True
