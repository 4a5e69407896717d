"""What a Postgres source cannot tell about rows that may still come below a cursor, each with the remedy."""

from domain.errors import InvalidInputError
from domain.pipelines.spec import CursorSpec, SourceSpec
from domain.stores.table import LOADED_AT
from infrastructure.stores.cursor_axis import Axis
from infrastructure.stores.postgres.selection import Selection
from infrastructure.stores.postgres.session import PostgresSession

_AMONG = "= ANY (string_to_array($1, ','))"
_STANDBY = (
    "The source is a standby, which cannot show transactions of its primary that are open and have not written yet: "
    "read the primary, or give the cursor a hold_back longer than the longest transaction."
)
_ELSEWHERE = (
    "SELECT c.relname::text, c.relkind::text FROM pg_class c "
    f"WHERE c.oid::text {_AMONG} AND c.relkind IN ('f', 'm') ORDER BY 1"
)
_SUBSCRIBED = (
    "SELECT c.relname::text FROM pg_subscription_rel r JOIN pg_class c ON c.oid = r.srrelid "
    f"WHERE r.srrelid::text {_AMONG} ORDER BY 1"
)
_CALLING = (
    "SELECT DISTINCT c.relname::text, p.proname::text FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class "
    "JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_proc'::regclass "
    f"JOIN pg_proc p ON p.oid = d.refobjid WHERE w.ev_class::text {_AMONG} AND p.provolatile = 'v' ORDER BY 1, 2"
)
_VOLATILE = f"SELECT DISTINCT proname::text FROM pg_proc WHERE oid >= 16384 AND provolatile = 'v' AND proname {_AMONG}"


def axis_of(selection: Selection, cursor: CursorSpec) -> Axis:
    """The axis of a cursor of a selection.

    Raises:
        InvalidInputError: there is no such column, or it cannot be a cursor.
    """
    kinds = {column.name: column.type for column in selection.columns}
    if cursor.column not in kinds:
        raise InvalidInputError(f"The source has no column {cursor.column}.", code="source.column_missing")
    return Axis.of(cursor, kinds[cursor.column])


def unknowns(session: PostgresSession, source: SourceSpec, axis: Axis, relations: str) -> tuple[str, ...]:
    """Say what is not known of the relations that a read touches; empty where everything is."""
    found = [_STANDBY] if session.execute("SELECT pg_is_in_recovery()")[0][0] else []
    remedy = "give the cursor a hold_back longer than that takes"
    if axis.cursor.column == LOADED_AT:
        found.append(f"{LOADED_AT} is put by the clock of a worker, before its batch is committed: {remedy}.")
    for name, kind in session.execute(_ELSEWHERE, (relations,)):
        what = (
            "a foreign table, whose server's transactions are not seen here"
            if kind == "f"
            else ("a materialized view, to which older rows come when it is refreshed")
        )
        found.append(f"{name} is {what}: read what is behind it, or {remedy}.")
    for (name,) in session.execute(_SUBSCRIBED, (relations,)):
        found.append(
            f"{name} is filled by a subscription, with times of its publisher: read the publisher, or {remedy}."
        )
    called = [(f"The view {name}", function) for name, function in session.execute(_CALLING, (relations,))]
    if source.query is not None:
        functions = session.queries.analyzed(source.query, session.trusted_schemas).functions
        called += [("The query", name) for (name,) in session.execute(_VOLATILE, (",".join(sorted(functions)),))]
    for what, function in called:
        found.append(f"{what} calls {function}, of which nothing is known: read the tables behind it, or {remedy}.")
    return tuple(found)
