"""What Postgres calls of somebody's where values are read from text and compared, which no document asks for."""

import json
from collections.abc import Iterable, Mapping

from domain.errors import InvalidInputError
from infrastructure.stores.postgres.resolving import Resolving, is_own

# A domain is its base type to a comparison, and is checked by nobody then. What an array, a row or a range holds is
# read with it.
_CALLS = """
WITH RECURSIVE trusted AS (
  SELECT oid FROM pg_namespace WHERE nspname = 'pg_catalog' OR nspname IN (SELECT json_array_elements_text($2::json))),
asked AS (SELECT a.name, to_regtype(a.name)::oid AS oid FROM json_array_elements_text($1::json) AS a(name)),
bases AS (
  SELECT name, oid, -1 AS modifier, false AS is_domain FROM asked UNION
  SELECT b.name, t.typbasetype, t.typtypmod, true FROM bases b JOIN pg_type t ON t.oid = b.oid WHERE t.typtype = 'd'),
parts AS (
  SELECT b.name, b.oid, CASE WHEN b.is_domain THEN format_type(b.oid, b.modifier) ELSE b.name END AS base
  FROM bases b JOIN pg_type t ON t.oid = b.oid WHERE t.typtype <> 'd' UNION
  SELECT p.name, x.oid, NULL FROM parts p JOIN pg_type t ON t.oid = p.oid CROSS JOIN LATERAL (
    SELECT t.typelem UNION SELECT t.typbasetype UNION
    SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid) UNION
    SELECT f.atttypid FROM pg_attribute f WHERE f.attrelid = nullif(t.typrelid, 0) AND f.attnum > 0 AND NOT
    f.attisdropped
  ) AS x(oid) WHERE x.oid >= 16384),
called AS (
  SELECT p.name, true AS is_cast, k.castfunc AS code FROM parts p JOIN pg_type t ON t.oid = p.oid
  JOIN pg_cast k ON k.casttarget IN (t.oid, nullif(t.typarray, 0)) WHERE t.oid >= 16384 UNION ALL
  SELECT p.name, false, o.oprcode FROM parts p JOIN pg_operator o ON p.oid IN (o.oprleft, o.oprright) WHERE p.oid >=
  16384 UNION ALL
  SELECT p.name, false, coalesce(o.oprcode, d.refobjid) FROM parts p JOIN pg_constraint k ON k.contypid = p.oid
  JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
    AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
  LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid),
found AS (
  SELECT c.name, c.is_cast FROM called c JOIN pg_proc f ON f.oid = c.code JOIN pg_language l ON l.oid = f.prolang
  WHERE l.lanname NOT IN ('internal', 'c') AND f.pronamespace NOT IN (SELECT oid FROM trusted))
SELECT p.name, p.base, EXISTS (SELECT FROM found f WHERE f.name = p.name AND f.is_cast),
  EXISTS (SELECT FROM found f WHERE f.name = p.name) FROM parts p WHERE p.base IS NOT NULL"""


def placing_types(session: Resolving, natives: Mapping[str, str], placed: Iterable[str]) -> Mapping[str, str]:
    """As what types the places of a table's rows are read and compared: domains as what they are made of.

    Raises:
        InvalidInputError: a function of somebody's would be called for a column of these (`query.untrusted_type`).
    """
    asked = {name: natives[name] for name in placed if name in natives and not is_own(natives[name])}
    if not asked:
        return natives
    found = _looked_at(session, asked.values())
    for name, native in asked.items():
        if found.get(native, ("", False, False))[2]:
            raise _untrusted(name, native, "values are compared or read from text")
    return {**natives, **{name: found[native][0] for name, native in asked.items() if native in found}}


def refuse_calling_casts(session: Resolving, natives: Mapping[str, str]) -> None:
    """Refuse columns into which text is cast by a function of somebody's.

    Raises:
        InvalidInputError: there is one (`query.untrusted_type`).
    """
    asked = {name: native for name, native in natives.items() if not is_own(native)}
    found = _looked_at(session, asked.values()) if asked else {}
    for name, native in asked.items():
        if found.get(native, ("", False, False))[1]:
            raise _untrusted(name, native, "text is cast to it")


def _looked_at(session: Resolving, natives: Iterable[str]) -> dict[str, tuple[str, bool, bool]]:
    rows = session.execute(_CALLS, (json.dumps(sorted(set(natives))), json.dumps(list(session.trusted_schemas))))
    return {str(name): (str(base), bool(casts), bool(calls)) for name, base, casts, calls in rows}


def _untrusted(column: str, native: str, what: str) -> InvalidInputError:
    return InvalidInputError(
        f"The column {column} has the type {native[:63]}, and functions that are somebody's own are called where "
        f"{what}. Name their schema among the trusted_schemas of the connection, or take another column or type.",
        code="query.untrusted_type",
    )
