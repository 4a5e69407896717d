"""Scopes as conditions of statements."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, FromClause, and_, true

from domain.identity.scope import Scope
from infrastructure.metadata.tables import runs


def within(scope: Scope, table: FromClause) -> ColumnElement[bool]:
    """The rows of a table that a scope has."""
    return true() if scope.organization is None else table.c.org_id == scope.organization


def named(scope: Scope, run_ids: Sequence[str]) -> ColumnElement[bool]:
    """The runs of these ids, as far as a scope has them."""
    return and_(runs.c.id.in_(run_ids), within(scope, runs))
