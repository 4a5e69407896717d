"""What runs before the last query of a batch: steps up to a Python function, or to more conversions than one statement
has.
"""

from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from domain.stores.table import ORDINAL
from infrastructure.sql import quote
from infrastructure.transforms.python import Hook
from infrastructure.transforms.refused import Refusal
from infrastructure.transforms.stages import FAILED, Stages
from infrastructure.transforms.verdicts import unconverted_rows
from infrastructure.transforms.wide import InParts


@dataclass(frozen=True)
class Before:
    """A query for the rows, one for those that did not convert on the way and have passed by, and what the rows go
    through then.
    """

    query: str
    failures: str | None
    then: Hook | InParts

    @classmethod
    def of(cls, stages: Stages, then: Hook | InParts) -> "Before":
        """What the stages make, and then something else."""
        names = ", ".join(quote(column.name) for column in stages.columns)
        return cls(f"{stages.text} SELECT {names}, {ORDINAL}, {FAILED} FROM {stages.last}", stages.failures, then)

    def run(
        self, connection: duckdb.DuckDBPyConnection, refused: list[Refusal], batch: pa.Table
    ) -> tuple[pa.Table, pa.Array]:
        """Give the rows and their ordinals; a function is not given those that did not convert, which are
        refused here.
        """
        found = connection.sql(self.query).to_arrow_table()
        if self.failures is not None:
            refused += unconverted_rows(connection.execute(self.failures).fetchall())
        if isinstance(self.then, InParts):
            ordinals = found.column(ORDINAL).combine_chunks()
            return self.then.convert(connection, found.drop_columns([ORDINAL])), ordinals
        failed = pc.is_valid(found.column(FAILED))
        if pc.any(failed).as_py():
            bad = found.filter(failed)
            refused += unconverted_rows(
                list(zip(bad.column(ORDINAL).to_pylist(), bad.column(FAILED).to_pylist(), strict=True))
            )
            found = found.filter(pc.invert(failed))
        return self.then.call(found.drop_columns([ORDINAL, FAILED]), found.column(ORDINAL).combine_chunks(), batch)
