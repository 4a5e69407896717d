"""Who else writes a table of a Postgres that is named with its schema here and without there, where the role's path
leads: what Headrace notes of it lies beside each of the names.
"""

import json

from domain.stores.table import TableName
from infrastructure.sql import quote_table
from infrastructure.stores.postgres.reserved import Catalog
from infrastructure.stores.sql.session import OWNER

# Nobody else's table of that name is asked: it might be of other columns, or locked.
_WHERE_NOTED = """
SELECT coalesce(json_agg(n.nspname), '[]')::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid <> to_regclass($2) AND c.relkind = 'r' AND (
    c.oid = to_regclass($1)
    OR (c.relname = $1 AND c.relnamespace = (SELECT t.relnamespace FROM pg_class t WHERE t.oid = to_regclass($3))))
  AND to_regclass($3) IS NOT NULL AND pg_has_role(c.relowner, 'USAGE') AND has_schema_privilege(n.oid, 'USAGE')
  AND 4 = (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.atttypid = 'text'::regtype
           AND a.attname IN ('table', 'org', 'pipeline', 'mode'))"""
# What has no schema is noted beside what Headrace keeps without one.
_WRITERS = """
SELECT o."org", o."pipeline", o."mode" FROM {owners} AS o
CROSS JOIN LATERAL (SELECT to_regclass(quote_ident($1) || '.' || quote_ident(o."table")) AS named) AS n
WHERE o."table" = (SELECT c.relname::text FROM pg_class c WHERE c.oid = to_regclass($2))
  AND coalesce(n.named, CASE WHEN to_regclass($3) = to_regclass($4) THEN to_regclass(quote_ident(o."table")) END)
  = to_regclass($2)"""
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(727201403)"


def writers_by_other_names(session: Catalog, table: TableName) -> list[tuple[str, str, str]]:
    """Organization, pipeline and mode of each; until the transaction ends there come no others."""
    named, beside = quote_table(table), quote_table(table.beside(OWNER))
    [(schemas,)] = session.execute(_WHERE_NOTED, (OWNER, beside, named))
    if schemas == "[]":
        return []
    session.execute(_ONE_AT_A_TIME)
    writers: list[tuple[str, str, str]] = []
    for schema in json.loads(schemas):
        owners = quote_table(TableName(OWNER, schema))
        writers += [
            (str(organization), str(pipeline), str(mode))
            for organization, pipeline, mode in session.execute(
                _WRITERS.format(owners=owners), (schema, named, OWNER, owners)
            )
        ]
    return writers
