"""What the names in a query stand for: asked of the catalog under the role's own path, before that is pinned for the
query.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from domain.pipelines.spec import SourceSpec
from infrastructure.queries.postgres_known import ROW, Field, Known, Named, Relation
from infrastructure.queries.postgres_names import TYPES
from infrastructure.queries.postgres_query import PostgresQueries, PostgresQuery
from infrastructure.sql import quote_table
from infrastructure.stores.postgres.catalog import plain_tables
from infrastructure.stores.postgres.reserved import Catalog


class Resolving(Catalog, Protocol):
    """What resolving names needs of a session."""

    queries: PostgresQueries
    trusted_schemas: tuple[str, ...]

    def use_own_path(self) -> None:
        """Look for names where the role says, until another path is bound."""


# How Postgres spells what is its own.
_SPELT = frozenset(
    [
        *(
            "smallint",
            "integer",
            "bigint",
            "real",
            "double precision",
            "boolean",
            "character",
            "character varying",
            "bit varying",
        ),
        *(
            "time without time zone",
            "time with time zone",
            "timestamp without time zone",
            "timestamp with time zone",
            '"char"',
        ),
        *(name for name in TYPES if not name.startswith("_")),
    ]
)
_TRUSTED = (
    "SELECT oid FROM pg_namespace WHERE nspname = 'pg_catalog' OR nspname IN (SELECT "
    "json_array_elements_text({}::json))"
)
# Rows are compared, sorted and written as JSON by what their columns' types have for it.
_NESTED = """(e.typtype = 'c' AND EXISTS (SELECT FROM pg_attribute f JOIN pg_type d ON d.oid = f.atttypid
        WHERE f.attrelid = e.typrelid AND f.attnum > 0 AND NOT f.attisdropped AND d.typnamespace NOT IN (SELECT oid FROM
        trusted)))"""
# A type that is neither Postgres' own nor trusted: its operators are found by a path, unless they are those of all
# enums and such.
_FOREIGN = """(
  EXISTS (SELECT FROM pg_type e WHERE e.oid = coalesce(nullif(CASE WHEN {t}.typcategory = 'A' THEN {t}.typelem END, 0),
  {t}.oid)
    AND e.typnamespace NOT IN (SELECT oid FROM trusted) AND (
      e.typtype NOT IN ('e', 'c', 'r', 'm', 'd')
      OR (e.typtype = 'd' AND NOT EXISTS (SELECT FROM pg_type b WHERE b.oid = e.typbasetype AND b.typnamespace IN
      (SELECT oid FROM trusted)))
      OR EXISTS (SELECT FROM pg_operator o WHERE e.oid IN (o.oprleft, o.oprright) AND o.oprnamespace NOT IN (SELECT oid
      FROM trusted))
      OR {nested} OR {cast} OR {check})))"""
# What is written out, as an item of an array or a row, is read as the type that stands beside it, and a domain then
# checks it.
_CHECK = """EXISTS (SELECT FROM pg_constraint k JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid =
        k.oid
        LEFT JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
        LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
        LEFT JOIN pg_type y ON d.refclassid = 'pg_type'::regclass AND y.oid = d.refobjid AND y.oid <> e.oid
        WHERE k.contypid = e.oid AND coalesce(p.pronamespace, o.oprnamespace, y.typnamespace) NOT IN (SELECT oid FROM
        trusted))"""
# An array has casts of its own, and those of its items.
_CAST = """EXISTS (SELECT FROM pg_cast k JOIN pg_proc p ON p.oid = k.castfunc
        WHERE p.pronamespace NOT IN (SELECT oid FROM trusted)
          AND ({e}.oid IN (k.castsource, k.casttarget) OR nullif({e}.typarray, 0) IN (k.castsource, k.casttarget)))"""
_IS_FOREIGN = _FOREIGN.format(t="t", cast=_CAST.format(e="e"), nested=_NESTED, check=_CHECK)
# Text that a type is cast to by a function of somebody's own would be made by that.
_MAY_CAST = """NOT EXISTS (SELECT FROM pg_cast k JOIN pg_proc p ON p.oid = k.castfunc
        WHERE k.castsource IN (t.oid, nullif(t.typarray, 0), CASE WHEN t.typcategory = 'A' THEN t.typelem END) AND
        p.pronamespace NOT IN (SELECT oid FROM trusted))"""
# What extensions have compiled is not somebody's own.
_SORTS = f"""EXISTS (SELECT FROM pg_type e WHERE e.oid = coalesce(nullif(CASE WHEN t.typcategory = 'A' THEN t.typelem
    END, 0), t.oid)
    AND ({_NESTED} OR EXISTS (
      SELECT FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod AND m.amname IN ('btree', 'hash') CROSS JOIN LATERAL
      (
        SELECT amproc FROM pg_amproc WHERE amprocfamily = o.opcfamily
        UNION SELECT r.oprcode FROM pg_amop s JOIN pg_operator r ON r.oid = s.amopopr WHERE s.amopfamily = o.opcfamily)
        AS c(code)
      JOIN pg_proc p ON p.oid = c.code JOIN pg_language l ON l.oid = p.prolang
      WHERE o.opcintype = coalesce(nullif(e.typbasetype, 0), e.oid) AND o.opcdefault AND l.lanname NOT IN ('internal',
      'c')
        AND p.pronamespace NOT IN (SELECT oid FROM trusted))))"""
_FOREIGN_TYPES = f"""
WITH trusted AS ({_TRUSTED.format("$2")})
SELECT t.oid::bigint, t.oid::regtype::text, {_IS_FOREIGN}, {_MAY_CAST}, {_SORTS}
FROM json_array_elements_text($1::json) AS a(number) JOIN pg_type t ON t.oid = a.number::oid"""
_CASTS = """(SELECT json_agg(format('(%s AS %s)', k.castsource::regtype, k.casttarget::regtype))
    FROM pg_cast k JOIN pg_proc p ON p.oid = k.castfunc JOIN pg_type a ON a.oid = k.castsource JOIN pg_type b ON b.oid =
    k.casttarget
    WHERE k.castfunc >= 16384 AND p.pronamespace NOT IN (SELECT oid FROM trusted)
      AND a.typnamespace = 'pg_catalog'::regnamespace AND b.typnamespace = 'pg_catalog'::regnamespace)::text"""
_CASTS_ALONE = f"WITH trusted AS ({_TRUSTED.format('$1')}) SELECT {_CASTS}"
# A type of another schema than Postgres' own is told by its number.
_RELATIONS = f"""
WITH trusted AS ({_TRUSTED.format("$2")})
SELECT (
  SELECT json_agg(json_build_array(a.number, n.nspname, c.relname, (
    SELECT coalesce(json_agg(json_build_array(f.attname,
      CASE WHEN t.typnamespace <> 'pg_catalog'::regnamespace THEN t.oid::bigint END) ORDER BY f.attnum), '[]')
    FROM pg_attribute f JOIN pg_type t ON t.oid = f.atttypid WHERE f.attrelid = c.oid AND f.attnum > 0 AND NOT
    f.attisdropped),
    EXISTS (SELECT FROM pg_type w WHERE w.oid = c.reltype AND {_CAST.format(e="w")})))
  FROM json_array_elements_text($1::json) WITH ORDINALITY AS a(name, number)
  JOIN pg_class c ON c.oid = to_regclass(a.name) JOIN pg_namespace n ON n.oid = c.relnamespace)::text,
  (SELECT json_agg(s) FROM json_array_elements_text($3::json) AS s WHERE EXISTS (
    SELECT FROM pg_proc p WHERE p.proname = s::name AND p.pronamespace IN (SELECT oid FROM trusted)
      AND (p.pronargs - p.pronargdefaults <= 1 AND p.pronargs > 0 OR p.provariadic <> 0))
  OR EXISTS (SELECT FROM pg_type p WHERE p.typname = s::name AND p.typtype <> 'c' AND p.typnamespace IN (SELECT oid FROM
  trusted)))::text,
  {_CASTS}"""
_REST = f"""
WITH trusted AS ({_TRUSTED.format("$2")}),
functions AS (
  SELECT json_agg(s) AS found FROM json_array_elements_text($1::json) AS s
  WHERE EXISTS (SELECT FROM pg_proc p WHERE p.proname = s::name AND p.pronamespace IN (SELECT oid FROM trusted))
    AND NOT EXISTS (SELECT FROM pg_proc p WHERE p.proname = s::name AND p.pronamespace = 'pg_catalog'::regnamespace)),
outputs AS (
  SELECT json_agg(json_build_array(p.proname, p.outs)) AS found FROM (
    SELECT p.proname, min(o.outs::text)::json AS outs FROM pg_proc p CROSS JOIN LATERAL (
      SELECT json_agg(a.name ORDER BY a.place) FROM unnest(p.proargnames, p.proargmodes::text[]) WITH ORDINALITY AS
      a(name, mode, place)
      WHERE a.mode IN ('o', 't', 'b')) AS o(outs)
    WHERE p.proname IN (SELECT json_array_elements_text($3::json)::name) AND p.pronamespace IN (SELECT oid FROM trusted)
    GROUP BY 1 HAVING count(*) = count(o.outs) AND min(o.outs::text) = max(o.outs::text)) AS p),
types AS (
  SELECT json_agg(json_build_array(a.number, n.nspname)) AS found
  FROM json_array_elements_text($4::json) WITH ORDINALITY AS a(name, number) JOIN pg_type t ON t.oid =
  to_regtype(a.name)
  JOIN pg_namespace n ON n.oid = t.typnamespace
  WHERE n.oid IN (SELECT oid FROM trusted) OR (t.typtype IN ('e', 'c') AND NOT {_IS_FOREIGN})),
literals AS (
  SELECT json_agg(json_build_array(a.text, n.nspname, c.relname)) AS found FROM json_array_elements_text($5::json) AS
  a(text)
  JOIN pg_class c ON c.oid = to_regclass(a.text) JOIN pg_namespace n ON n.oid = c.relnamespace)
SELECT (SELECT found FROM functions)::text, (SELECT found FROM outputs)::text, (SELECT found FROM types)::text,
  (SELECT found FROM literals)::text"""


def path_of(trusted_schemas: Sequence[str]) -> str:
    """The path by which the names of a query are found: nobody can put anything before what Postgres itself has."""
    return ", ".join(["pg_catalog", *(_quoted(schema) for schema in trusted_schemas), "pg_temp"])


def look_up(session: Resolving, query: PostgresQuery) -> Known:
    """Ask the catalog what the names of a query stand for."""
    session.use_own_path()
    trusted, types = json.dumps(list(session.trusted_schemas)), sorted(query.types)
    asked = (json.dumps([_spelt(named) for named in query.relations]), trusted, json.dumps(sorted(query.selected)))
    relations, callable_names, casts = (json.loads(text or "[]") for text in session.execute(_RELATIONS, asked)[0])
    numbers = {number for *_, columns, _ in relations for _, number in columns if number is not None}
    foreign = _foreign(session, numbers)
    rest: list[Any] = [[], [], [], []]
    if query.unlisted or query.sources or types or query.literals:
        spelt = [".".join(_quoted(part) for part in kind) for kind in types]
        lists = [json.dumps(names) for names in (sorted(query.sources), spelt, sorted(query.literals))]
        found = session.execute(_REST, (json.dumps(sorted(query.unlisted)), trusted, *lists))
        rest = [json.loads(text or "[]") for text in found[0]]
    functions, outputs, kinds, literals = rest
    return Known(
        relations={
            query.relations[number - 1]: Relation(
                schema,
                name,
                (
                    *(Field(column, *foreign.get(kind, ())) for column, kind in columns),
                    *((Field(ROW, name, may_cast=False),) if is_cast else ()),
                ),
                is_builtin=all(kind is None for _, kind in columns),
            )
            for number, schema, name, columns, is_cast in relations
        },
        callable=frozenset(callable_names),
        outputs={name: tuple(names) for name, names in outputs},
        functions=frozenset(functions),
        types={types[number - 1]: schema for number, schema in kinds},
        literals={text: (schema, name) for text, schema, name in literals},
        trusted=frozenset(session.trusted_schemas),
        casts=tuple(casts),
    )


def _foreign(session: Resolving, numbers: Collection[int]) -> dict[int, tuple[str, bool, bool]]:
    """Of types by their numbers those that are foreign to a query, with whether they are cast by Postgres itself, and
    whether sorting by them calls what is not Postgres' own.
    """
    if not numbers:
        return {}
    asked = (json.dumps([str(number) for number in sorted(numbers)]), json.dumps(list(session.trusted_schemas)))
    rows = session.execute(_FOREIGN_TYPES, asked)
    return {int(number): (name, may_cast, sorts) for number, name, is_foreign, may_cast, sorts in rows if is_foreign}


def is_own(native: str) -> bool:
    """Whether a type, as it is spelt by a path on which pg_catalog comes first, is one of Postgres' own; some of them
    are not told.
    """
    return re.sub(r"\([0-9, -]*\)|\[\]", "", native) in _SPELT


def as_text(column: str, native: str) -> str:
    """The text of a column, as Postgres writes it. What a type of somebody's is cast to text by may be a function of
    somebody's.
    """
    if is_own(native):
        return f"{column}::text"
    return f"CASE WHEN pg_catalog.num_nulls({column}) OPERATOR(pg_catalog.=) 0 THEN pg_catalog.concat({column}) END"


def own_types(session: Resolving, natives: Iterable[str]) -> Mapping[str, tuple[str, bool]]:
    """Of types that are not Postgres' own, as they are spelt by the path of now: how the role spells them, and whether
    they are foreign to a query.
    """
    asked = sorted({native for native in natives if not is_own(native)})
    if not asked:
        return {}
    oids = session.execute(
        "SELECT a.name, t.oid::bigint FROM json_array_elements_text($1::json) AS a(name) JOIN pg_type t "
        "ON t.oid = to_regtype(a.name) WHERE t.oid >= 16384",
        (json.dumps(asked),),
    )
    session.use_own_path()
    found = (json.dumps([str(oid) for _, oid in oids]), json.dumps(list(session.trusted_schemas)))
    rows = {
        int(number): (name, bool(is_foreign)) for number, name, is_foreign, *_ in session.execute(_FOREIGN_TYPES, found)
    }
    return {name: rows[int(oid)] for name, oid in oids}


def names_of(query: PostgresQuery, known: Known) -> list[str]:
    """The relations of a query as any path finds them."""
    return sorted(
        _spelt((found.schema, found.name)) if (found := known.relations.get(named)) else _spelt(named)
        for named in query.relations
    )


def runs_inside(session: Resolving, source: SourceSpec) -> bool:
    """Whether nothing of anybody's runs when a source is selected: columns, literals and casts of Postgres' own, of
    plain tables.
    """
    if source.table is not None:
        casts = session.execute(_CASTS_ALONE, (json.dumps(list(session.trusted_schemas)),))[0][0]
        return casts is None and plain_tables(session, [quote_table(source.table)])
    if source.query is None:
        return False
    query = session.queries.analyzed(source.query, session.trusted_schemas)
    if not query.is_plain:
        return False
    known = look_up(session, query)
    if known.casts:
        return False
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
