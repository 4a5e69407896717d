"""A plan tells of every table whose policies hide rows from the role that reads it, however the source comes to the
table.
"""

import pytest

from domain.pipelines.spec import SourceSpec
from domain.stores.table import TableName
from infrastructure.stores.postgres.store import PostgresDataStore
from tests.ports.backends import address_of
from tests.somebody import Somebody

GUARDED = (
    "CREATE TABLE {0} (id bigint, team text); ALTER TABLE {0} ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON {0} "
    "USING (id > 1)"
)
PARTS = (
    "CREATE TABLE whole (id bigint) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF whole DEFAULT; "
    "ALTER TABLE {0} ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON {0} USING (id > 1)"
)
GUARDED_T = GUARDED.format("guarded")
HIDING = {
    "table": (GUARDED_T, "guarded", "this role"),
    "query": (GUARDED_T, "SELECT * FROM guarded g", "this role"),
    "mixed case": (GUARDED_T, "SELECT * FROM Guarded", "this role"),
    "quoted": (GUARDED.format('"Guarded"'), 'SELECT * FROM "Guarded"', "this role"),
    "other schema": (f"CREATE SCHEMA s; {GUARDED.format('s.guarded')}", "SELECT * FROM S.guarded", "this role"),
    "join": (f"CREATE TABLE free (id bigint); {GUARDED_T}", "SELECT f.id FROM free f JOIN GUARDED g USING (id)", "this role"),
    "view of a plain role": (f"{GUARDED_T}; CREATE VIEW v AS SELECT * FROM guarded; ALTER VIEW v OWNER TO {{other}}", "v", "{other}"),
    "view of a view": (
        f"{GUARDED_T}; CREATE VIEW w AS SELECT * FROM guarded; ALTER VIEW w OWNER TO {{other}}; CREATE VIEW v AS " "SELECT * FROM w",
        "v",
        "{other}",
    ),
    "view for whoever reads": (f"{GUARDED_T}; CREATE VIEW v WITH (security_invoker) AS SELECT * FROM guarded", "v", "this role"),
    "such a view in another": (
        f"{GUARDED_T}; CREATE VIEW w WITH (security_invoker = on) AS SELECT * FROM guarded; CREATE VIEW v AS SELECT * " "FROM w",
        "v",
        "this role",
    ),
    "partitioned": (PARTS.format("whole"), "whole", "this role"),
    "partition": (PARTS.format("part"), "SELECT * FROM Part", "this role"),
    "forced on its owner": (
        f"{GUARDED_T}; ALTER TABLE guarded FORCE ROW LEVEL SECURITY; ALTER TABLE guarded OWNER TO {{role}}", "guarded", "this role"
    ),
}  # fmt: skip
OPEN = {
    "no policies": ("CREATE TABLE t (id bigint)", "t"),
    "owner": (f"{GUARDED_T}; ALTER TABLE guarded OWNER TO {{role}}", "guarded"),
    "view of who sees all": (f"{GUARDED_T}; CREATE VIEW v AS SELECT * FROM guarded", "v"),
    "partition by way of the whole": (PARTS.format("part"), "whole"),
    "name in another schema": (
        f"CREATE SCHEMA s; {GUARDED.format('s.guarded')}; CREATE TABLE guarded (id bigint)",
        "SELECT * FROM public.guarded",
    ),
}


async def warned(script: str, source: str, url: str, somebody: Somebody) -> tuple[tuple[str, ...], str, str]:
    """Plan a source as a role that may read everything, but for policies."""
    role, other = (f"{kind}_{url.rsplit('/', 1)[1]}" for kind in ("reader", "viewer"))
    for name in (role, other):
        somebody.does(f"CREATE ROLE {name} LOGIN; GRANT pg_read_all_data TO {name}")
    try:
        somebody.does(script.format(role=role, other=other))
        store = PostgresDataStore(address_of(url.replace("postgres@", f"{role}@")))
        spec = SourceSpec(query=source) if " " in source else SourceSpec(table=TableName(source))
        plan = await store.plan(spec, lo=None, limit=None)
        await store.close()
        return plan.warnings, role, other
    finally:
        for name in (role, other):
            somebody.does(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


@pytest.mark.parametrize("how", HIDING)
async def test_table_that_hides_rows_is_told(how: str, postgres_database: str, somebody: Somebody) -> None:
    script, source, reader = HIDING[how]
    warnings, role, other = await warned(script, source, postgres_database, somebody)

    assert len(warnings) == 1
    assert "row-level security is on for" in warnings[0]
    assert reader.format(role=role, other=other) in warnings[0]


@pytest.mark.parametrize("how", OPEN)
async def test_table_that_hides_nothing_gives_no_warning(how: str, postgres_database: str, somebody: Somebody) -> None:
    script, source = OPEN[how]

    assert (await warned(script, source, postgres_database, somebody))[0] == ()
