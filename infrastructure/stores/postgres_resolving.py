"""What the names in a query stand for: asked of the catalog under the role's own path, before that is pinned for the query."""

import json
from collections.abc import Mapping, Sequence
from typing import Protocol

from domain.pipelines.spec import SourceSpec
from infrastructure.queries.postgres_known import Field, Known, Named, Relation
from infrastructure.queries.postgres_query import PostgresQueries, PostgresQuery
from infrastructure.sql import quote_table
from infrastructure.stores.postgres_catalog import plain_tables
from infrastructure.stores.postgres_reserved import Catalog


class Resolving(Catalog, Protocol):
    """What resolving names needs of a session."""

    queries: PostgresQueries
    trusted_schemas: tuple[str, ...]

    def use_own_path(self) -> None:
        """Look for names where the role says, until another path is bound."""


_TRUSTED = "SELECT oid FROM pg_namespace WHERE nspname = 'pg_catalog' OR nspname IN (SELECT json_array_elements_text({}::json))"
# A type that is neither Postgres' own nor trusted: its operators are found by a path, unless they are those of all enums and such.
FOREIGN = """(
  EXISTS (SELECT FROM pg_type e WHERE e.oid = coalesce(nullif(CASE WHEN {t}.typcategory = 'A' THEN {t}.typelem END, 0), {t}.oid)
    AND e.typnamespace NOT IN (SELECT oid FROM trusted) AND (
      e.typtype NOT IN ('e', 'c', 'r', 'm', 'd')
      OR (e.typtype = 'd' AND NOT EXISTS (SELECT FROM pg_type b WHERE b.oid = e.typbasetype AND b.typnamespace IN (SELECT oid FROM trusted)))
      OR EXISTS (SELECT FROM pg_operator o WHERE e.oid IN (o.oprleft, o.oprright) AND o.oprnamespace NOT IN (SELECT oid FROM trusted))
      OR {cast})))"""
_CAST = """EXISTS (SELECT FROM pg_cast k JOIN pg_proc p ON p.oid = k.castfunc
        WHERE e.oid IN (k.castsource, k.casttarget) AND p.pronamespace NOT IN (SELECT oid FROM trusted))"""
_IS_FOREIGN = FOREIGN.format(t="t", cast=_CAST)
# Text that a type is cast to by a function of somebody's own would be made by that.
_MAY_CAST = """NOT EXISTS (SELECT FROM pg_cast k JOIN pg_proc p ON p.oid = k.castfunc
        WHERE k.castsource = t.oid AND p.pronamespace NOT IN (SELECT oid FROM trusted))"""
_KNOWN = f"""
WITH trusted AS ({_TRUSTED.format("$2")}),
asked AS (SELECT name, number FROM json_array_elements_text($1::json) WITH ORDINALITY AS a(name, number)),
relations AS (
  SELECT json_agg(json_build_array(a.number, n.nspname, c.relname, (
    SELECT coalesce(json_agg(json_build_array(f.attname, CASE WHEN {_IS_FOREIGN} THEN format_type(t.oid, NULL) END, {_MAY_CAST},
      t.typnamespace = 'pg_catalog'::regnamespace) ORDER BY f.attnum), '[]')
    FROM pg_attribute f JOIN pg_type t ON t.oid = f.atttypid WHERE f.attrelid = c.oid AND f.attnum > 0 AND NOT f.attisdropped))) AS found
  FROM asked a JOIN pg_class c ON c.oid = to_regclass(a.name) JOIN pg_namespace n ON n.oid = c.relnamespace),
callable AS (
  SELECT json_agg(s) AS found FROM json_array_elements_text($3::json) AS s WHERE EXISTS (
    SELECT FROM pg_proc p WHERE p.proname = s AND p.pronamespace IN (SELECT oid FROM trusted)
      AND (p.pronargs - p.pronargdefaults <= 1 AND p.pronargs > 0 OR p.provariadic <> 0))
  OR EXISTS (SELECT FROM pg_type p WHERE p.typname = s AND p.typtype <> 'c' AND p.typnamespace IN (SELECT oid FROM trusted))),
functions AS (
  SELECT json_agg(s) AS found FROM json_array_elements_text($4::json) AS s
  WHERE EXISTS (SELECT FROM pg_proc p WHERE p.proname = s AND p.pronamespace IN (SELECT oid FROM trusted))
    AND NOT EXISTS (SELECT FROM pg_proc p WHERE p.proname = s AND p.pronamespace = 'pg_catalog'::regnamespace)),
outputs AS (
  SELECT json_agg(json_build_array(p.proname, p.outs)) AS found FROM (
    SELECT p.proname, min(o.outs::text)::json AS outs FROM pg_proc p CROSS JOIN LATERAL (
      SELECT json_agg(a.name ORDER BY a.place) FROM unnest(p.proargnames, p.proargmodes::text[]) WITH ORDINALITY AS a(name, mode, place)
      WHERE a.mode IN ('o', 't', 'b')) AS o(outs)
    WHERE p.proname IN (SELECT json_array_elements_text($5::json)) AND p.pronamespace IN (SELECT oid FROM trusted)
    GROUP BY 1 HAVING count(*) = count(o.outs) AND min(o.outs::text) = max(o.outs::text)) AS p),
types AS (
  SELECT json_agg(json_build_array(a.number, n.nspname)) AS found
  FROM json_array_elements_text($6::json) WITH ORDINALITY AS a(name, number) JOIN pg_type t ON t.oid = to_regtype(a.name)
  JOIN pg_namespace n ON n.oid = t.typnamespace
  WHERE n.oid IN (SELECT oid FROM trusted) OR (t.typtype IN ('e', 'c') AND NOT {_IS_FOREIGN}))
SELECT (
    SELECT json_agg(json_build_array(a.text, n.nspname, c.relname)) FROM json_array_elements_text($7::json) AS a(text)
    JOIN pg_class c ON c.oid = to_regclass(a.text) JOIN pg_namespace n ON n.oid = c.relnamespace)::text,
  (SELECT found FROM relations)::text, (SELECT found FROM callable)::text, (SELECT found FROM functions)::text,
  (SELECT found FROM outputs)::text, (SELECT found FROM types)::text"""


def path_of(trusted_schemas: Sequence[str]) -> str:
    """The path by which the names of a query are found: nobody can put anything before what Postgres itself has."""
    return ", ".join(["pg_catalog", *(_quoted(schema) for schema in trusted_schemas), "pg_temp"])


def look_up(session: Resolving, query: PostgresQuery) -> Known:
    """Ask the catalog what the names of a query stand for."""
    session.use_own_path()
    types = sorted(query.types)
    lists = (
        [_spelt(named) for named in query.relations],
        list(session.trusted_schemas),
        sorted(query.selected),
        sorted(query.unlisted),
        sorted(query.sources),
        [".".join(_quoted(part) for part in kind) for kind in types],
        sorted(query.literals),
    )
    found = session.execute(_KNOWN, [json.dumps(values) for values in lists])[0]
    literals, relations, callable_names, functions, outputs, kinds = (json.loads(text or "[]") for text in found)
    return Known(
        relations={query.relations[number - 1]: _relation(*rest) for number, *rest in relations},
        callable=frozenset(callable_names),
        outputs={name: tuple(names) for name, names in outputs},
        functions=frozenset(functions),
        types={types[number - 1]: schema for number, schema in kinds},
        literals={text: (schema, name) for text, schema, name in literals},
        trusted=frozenset(session.trusted_schemas),
    )


def _relation(schema: str, name: str, columns: list[tuple[str, str | None, bool, bool]]) -> Relation:
    fields = tuple(Field(column, foreign, may_cast) for column, foreign, may_cast, _ in columns)
    return Relation(schema, name, fields, all(is_builtin for *_, is_builtin in columns))


def own_types(session: Resolving, natives: Sequence[str]) -> Mapping[str, tuple[str, bool]]:
    """Of types that are not Postgres' own, as they are spelt by the path of now: how the role spells them, and whether they
    are foreign to a query.
    """
    if not natives:
        return {}
    rows: list[tuple[str, str, bool]] = []
    oids = session.execute(
        "SELECT a.name, t.oid::bigint FROM json_array_elements_text($1::json) AS a(name) JOIN pg_type t "
        "ON t.oid = to_regtype(a.name) WHERE t.oid >= 16384",
        (json.dumps(sorted(set(natives))),),
    )
    if oids:
        session.use_own_path()
        asked = {int(oid): name for name, oid in oids}
        rows = [
            (asked[int(oid)], name, is_foreign)
            for oid, name, is_foreign in session.execute(
                f"WITH trusted AS ({_TRUSTED.format('$2')}) SELECT t.oid::bigint, t.oid::regtype::text, {_IS_FOREIGN} "
                "FROM pg_type t WHERE t.oid::bigint::text IN (SELECT json_array_elements_text($1::json))",
                (json.dumps([str(oid) for oid in asked]), json.dumps(list(session.trusted_schemas))),
            )
        ]
    return {name: (own, is_foreign) for name, own, is_foreign in rows}


def names_of(query: PostgresQuery, known: Known) -> list[str]:
    """The relations of a query as any path finds them."""
    return sorted(
        _spelt((found.schema, found.name)) if (found := known.relations.get(named)) else _spelt(named)
        for named in query.relations
    )


def runs_inside(session: Resolving, source: SourceSpec) -> bool:
    """Whether nothing of anybody's runs when a source is selected: columns, literals and casts of Postgres' own, of plain tables."""
    if source.table is not None:
        return plain_tables(session, [quote_table(source.table)])
    if source.query is None:
        return False
    query = session.queries.analyzed(source.query, session.trusted_schemas)
    if not query.is_plain:
        return False
    known = look_up(session, query)
    found = [known.relations.get(named) for named in query.relations]
    return all(relation is not None and relation.is_builtin for relation in found) and plain_tables(
        session, names_of(query, known)
    )


def _spelt(named: Named) -> str:
    schema, name = named
    return f"{_quoted(schema)}.{_quoted(name)}" if schema else _quoted(name)


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
