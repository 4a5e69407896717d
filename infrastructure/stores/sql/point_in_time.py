"""Point-in-time answers in SQL: for each row of a table of questions the values that could be known at its time.

A history holds one row for each change of an entity in a publication: its event time, when it could be read, and
whether it is a tombstone. A `reset` is the word of a rollback on an entity: it begins a *turn*, in which only what
comes with or after it counts. Of the rows that could be read at a time T, the greatest (turn, event time, publication)
is the answer; only then is asked whether it is a tombstone or too old: an older row is no answer in place of a newer.

Times are whole microseconds since 1970 in UTC. What an entity had is the greatest row so far, in the order in which
rows could be read: that is one sort, not a search for each question.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from infrastructure.sql import quote

EVENT_TIME = "_headrace_event_time"
PUBLICATION = "_headrace_publication"
READABLE = "_headrace_readable"
TOMBSTONE = "_headrace_tombstone"
RESET = "_headrace_reset"
NUMBER, PUBLISHED_AT = "number", "published_at"
ROW, AT = "_headrace_row", "_headrace_at"
STATUS = "_headrace_status"
MISSING, STALE, FRESH = "missing", "stale", "fresh"

_TURN, _BEGUN, _FROM, _PLACE, _BEFORE, _ASKED = (
    f"_headrace_{name}" for name in ("turn", "begun", "from", "place", "before", "asked")
)
_FIRST = -(2**63)
"""Before every time: the event time of what a rollback makes as if it had never been."""


@dataclass(frozen=True)
class PointInTime:
    """What is asked: relations as SQL, quoted already, and the columns in them.

    `history` has the keys, the columns above and the features, `publications` a row for each publication, and
    `questions` a row's number, the keys and a time. With `as_of` only what had been published by then is known, and
    for ever the same; `max_age` is in microseconds.
    """

    history: str
    publications: str
    questions: str
    keys: Sequence[str]
    features: Sequence[str]
    max_age: int | None = None
    as_of: int | None = None
    has_resets: bool = True
    """False where there was no rollback, which spares windows over all rows."""

    def for_duckdb(self) -> str:
        """One ASOF join: of each entity only the rows that were once the greatest are left, from when they could be
        read.
        """
        place = f"(CAST({EVENT_TIME} AS hugeint) + {2**63}) * {2**40} + {PUBLICATION}"
        if self.has_resets:
            place = f"CAST({_TURN} AS hugeint) * {2**104} + {place}"
        before = (
            f"max({_PLACE}) OVER (PARTITION BY {self._keys()} ORDER BY {_FROM}, {_PLACE} DESC "
            "ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
        )
        return (
            f"WITH {self._readable()}, "
            f"placed AS (SELECT *, {place} AS {_PLACE} FROM readable), "
            f"compared AS (SELECT *, {before} AS {_BEFORE} FROM placed), "
            f"greatest_once AS (SELECT * FROM compared WHERE {_BEFORE} IS NULL OR {_PLACE} > {_BEFORE}) "
            f"SELECT {self._answer()} FROM {self.questions} AS q ASOF LEFT JOIN greatest_once AS u "
            f"ON {self._same()} AND q.{AT} >= u.{_FROM}"
        )

    def for_postgres(self) -> str:
        """One window over history and questions together, whose greatest row so far answers a question."""
        keys, own = self._keys(), f"{_TURN}, {EVENT_TIME}, {PUBLICATION}"
        so_far = (
            f"max({_PLACE}) OVER (PARTITION BY {keys} ORDER BY {_FROM}, {_ASKED} NULLS FIRST ROWS UNBOUNDED PRECEDING)"
        )
        places = " AND ".join(
            f"u.{name} = a.{_PLACE}[{index}]" for index, name in enumerate((_TURN, EVENT_TIME, PUBLICATION), 1)
        )
        return (
            f"WITH {self._readable()}, "
            f"together AS (SELECT {keys}, {_FROM}, CAST(NULL AS bigint) AS {_ASKED}, ARRAY[{own}] AS {_PLACE} "
            f"FROM readable UNION ALL SELECT {keys}, {AT}, {ROW}, NULL FROM {self.questions}), "
            f"answered AS (SELECT {_ASKED}, {so_far} AS {_PLACE} FROM together) "
            f"SELECT {self._answer()} FROM {self.questions} AS q JOIN answered AS a ON a.{_ASKED} = q.{ROW} "
            f"LEFT JOIN readable AS u ON {self._same()} AND {places}"
        )

    def _readable(self) -> str:
        """History, with the turn of each row and the time from which it could be read."""
        known = "" if self.as_of is None else f" WHERE p.{PUBLISHED_AT} <= {self.as_of}"
        rows = (
            f"known AS (SELECT h.*, p.{PUBLISHED_AT} FROM {self.history} AS h "
            f"JOIN {self.publications} AS p ON p.{NUMBER} = h.{PUBLICATION}{known})"
        )
        readable = f"coalesce({READABLE}, {PUBLISHED_AT})"
        if not self.has_resets:
            own = f"greatest({EVENT_TIME}, {readable})"
            return f"{rows}, readable AS (SELECT *, CAST(0 AS bigint) AS {_TURN}, {own} AS {_FROM} FROM known)"
        of_entity = f"PARTITION BY {self._keys()}"
        begun = f"max(CASE WHEN {RESET} THEN {PUBLISHED_AT} END) OVER ({of_entity}, {_TURN})"
        own = (
            f"CASE WHEN {RESET} THEN {PUBLISHED_AT} "
            f"ELSE greatest({EVENT_TIME}, {readable}, coalesce({_BEGUN}, {_FIRST})) END"
        )
        return (
            f"{rows}, turned AS (SELECT *, count(*) FILTER (WHERE {RESET}) OVER ({of_entity} ORDER BY {PUBLICATION}) "
            f"AS {_TURN} FROM known), "
            f"begun AS (SELECT *, {begun} AS {_BEGUN} FROM turned), "
            f"readable AS (SELECT *, {own} AS {_FROM} FROM begun)"
        )

    def _answer(self) -> str:
        is_missing = f"u.{_FROM} IS NULL OR u.{TOMBSTONE}"
        is_stale = "false" if self.max_age is None else f"u.{EVENT_TIME} < q.{AT} - {self.max_age}"
        status = f"CASE WHEN {is_missing} THEN '{MISSING}' WHEN {is_stale} THEN '{STALE}' ELSE '{FRESH}' END"
        about = [f"CASE WHEN NOT ({is_missing}) THEN u.{name} END AS {name}" for name in (EVENT_TIME, PUBLICATION)]
        values = [
            f"CASE WHEN NOT ({is_missing} OR {is_stale}) THEN u.{quote(name)} END AS {quote(name)}"
            for name in self.features
        ]
        return ", ".join((f"q.{ROW}", f"{status} AS {STATUS}", *about, *values))

    def _keys(self) -> str:
        return ", ".join(map(quote, self.keys))

    def _same(self) -> str:
        return " AND ".join(f"u.{quote(key)} = q.{quote(key)}" for key in self.keys)
