"""Rows that were refused: which ones, what is known of each, and what may become of it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from domain.loads.checkpoint import Position
from domain.stores.table import TableName

PLACE = ("read_set", "stream", "seq", "ordinal")
"""What a refused row is known by (D9), and the order in which refused rows are listed and replayed."""

ALL_RUNS = "all"

LEFT = (
    "not replayed: nothing tells whether a row of its key was read later. Put it right at the source, so that it is "
    "read again, or run the pipeline with --full-refresh"
)
"""Why a replay has left a row where it is, behind the reason for which it was refused."""


class RefusedState(StrEnum):
    """What became of a refused row."""

    WAITING = "waiting"
    """The run that refused it is not published yet."""
    OPEN = "open"
    """It may be replayed."""
    REPAIRED = "repaired"
    """A replay has put it into the destination."""
    SUPERSEDED = "superseded"
    """A later run has read this row again, by its key or with the whole source; or, where rows are merged, a later row
    of its merge key has landed.
    """
    ABANDONED = "abandoned"
    """The run that refused it was never published."""


@dataclass(frozen=True)
class Refusals:
    """Refused rows of a pipeline beside its table; all of them, or those of one run, in one state or of one lane.

    `cursor` is the source's, by which a replay knows that a row it would merge is older than the one that is there.
    """

    organization: str
    pipeline: str
    table: TableName
    run_id: str | None = None
    state: RefusedState | None = None
    cursor: str | None = None
    lane: str | None = None


@dataclass(frozen=True)
class RefusedRow:
    """One refused row.

    `place` are the values of PLACE as text; `record` is the row as it was read, as a JSON object, and `columns` the
    JSON that says of which types its values are, of several rows of a batch perhaps told by the first alone.
    """

    place: Position
    run_id: str
    kind: str
    rule: str | None
    reason: str
    record: str
    columns: str | None
    state: RefusedState
    settled_by: str | None
    refused_at: datetime
