"""Notices that others empty or exchange the table in which a run's rows land: what follows would look like
the whole.
"""

from collections.abc import Callable
from dataclasses import dataclass

from domain.errors import ConflictError
from domain.loads.memory import LandingNote
from domain.stores.table import TableName


@dataclass
class LandingWatch:
    """What a writer knows of its landing table.

    `known` is how the store tells the table from another that took its place, None while nothing was asked or known.
    `landed_by` are the runs whose rows vouch for a table written anew, any run where an earlier version noted none.
    `was_filled` says that rows were seen in it after a commit: where a policy or trigger hides them, nothing can be
    said. `may_be_emptied`: rows that say that their key is gone may do it.
    """

    table: TableName
    may_be_emptied: bool = False
    known: str | None = None
    landed_by: tuple[str, ...] = ()
    is_begun: bool = False
    was_filled: bool = False

    def begin(self, noted: LandingNote | None) -> None:
        """Take over what the head has noted since the read set was opened; an earlier version noted less."""
        if noted is not None:
            self.known, self.landed_by = noted.table, noted.runs or ()
        self.is_begun = True

    def check(self, now: str | None, keeps_rows: Callable[[str], bool], is_filled: Callable[[], bool | None]) -> None:
        """Refuse to go on in another table, in one that was written anew without its rows, or in one that has lost all.

        Raises:
            ConflictError: `destination.changed`.
        """
        if self.known not in (None, now) and not keeps_rows(self.known or ""):
            raise changed(self.table)
        if self.was_filled and not self.may_be_emptied and is_filled() is False:
            raise changed(self.table)
        self.known = now


def changed(table: TableName) -> ConflictError:
    """Say that the rows that had landed are gone."""
    return ConflictError(
        f"Somebody else has emptied the table {table}, or put another in its place, after rows of this load had "
        "landed in it; nothing more was written. Run with --full-refresh to load everything again, or forget the "
        "position with 'headrace pipelines reset' and run.",
        code="destination.changed",
    )
