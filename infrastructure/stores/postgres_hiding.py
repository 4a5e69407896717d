"""What hides rows of a Postgres from this role, or keeps them from landing, without an error: policies, triggers, rules."""

from sqlglot import exp

from domain.pipelines.spec import SourceSpec
from domain.pipelines.table import TableName
from infrastructure.sql import parse_query, quote_table
from infrastructure.stores.sql_session import Session

_HAS_POLICIES = (
    "SELECT c.relkind IN ('r', 'p') AND row_security_active(c.oid) FROM pg_class c WHERE c.oid = to_regclass($1)"
)
# A trigger for each row or a rule may write a row elsewhere, or nowhere; on a partition too.
_MAY_SUPPRESS = """
SELECT row_security_active(c.oid) OR EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type = '3')
  OR EXISTS (
    SELECT FROM pg_trigger t WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND (t.tgtype & 4) = 4
      AND (t.tgrelid = c.oid OR t.tgrelid IN (SELECT p.relid FROM pg_partition_tree(c.oid) p)))
FROM pg_class c WHERE c.oid = to_regclass($1)"""


def hidden_at(session: Session, source: SourceSpec) -> tuple[str, ...]:
    """Say of which tables a source may not see every row, as policies hide some from this role."""
    names = [quote_table(source.table)] if source.table is not None else []
    if source.query is not None:
        tables = [table for table in parse_query(source.query, "postgres").find_all(exp.Table) if table.name]
        names = sorted({quote_table(TableName(table.name, table.db or None)) for table in tables})
    found = []
    for name in names:
        rows = session.execute(_HAS_POLICIES, (name,))
        if rows and rows[0][0] is True:
            found.append(
                f"row-level security is on for {name} and this role: rows that its policies hide are not read, and nobody "
                "counts them; read as the owner, or as a role with BYPASSRLS"
            )
    return tuple(found)


def may_suppress(session: Session, table: TableName) -> bool:
    """Whether rows that are written to a table may not show in it."""
    rows = session.execute(_MAY_SUPPRESS, (quote_table(table),))
    return bool(rows and rows[0][0])


def insert_counted(session: Session, into: str, rows: str, names: str) -> int:
    """Insert what a query gives and return how many rows that is, not how many of them were let in."""
    session.execute(f"CREATE TEMPORARY TABLE headrace_selected ({names}) ON COMMIT DROP AS {rows}")
    session.execute(f"{into} SELECT * FROM pg_temp.headrace_selected")
    count = int(session.execute("SELECT count(*) FROM pg_temp.headrace_selected")[0][0])
    session.execute("DROP TABLE pg_temp.headrace_selected")
    return count
