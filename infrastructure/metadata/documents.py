"""Named, revisioned documents on SQLAlchemy."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Row, Select, Table, and_, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.identity.scope import Scope
from domain.ports.records.documents import IDocumentRecords, StoredDocument
from domain.ports.records.page import Page
from domain.runs.work import WorkKind
from infrastructure.clock import utc_now
from infrastructure.metadata.sizes import fitting
from infrastructure.metadata.tables import lanes, organizations

_NAMES_AT_A_TIME = 5_000  # No statement takes more than 32,766 values.


class SqlDocumentRecords(IDocumentRecords):
    """Documents of one kind: a head row per name, and all revisions. `work` is what kind of runs there are of them, if
    there are any.
    """

    def __init__(
        self, connection: AsyncConnection, scope: Scope, heads: Table, revisions: Table, work: WorkKind | None = None
    ) -> None:
        self._connection = connection
        self._scope = scope
        self._heads = heads
        self._revisions = revisions
        self._work = work

    async def get(self, organization: str, name: str) -> StoredDocument | None:
        self._scope.admit(organization)
        mine = {"organization": organization, "document": name}
        row = (await self._connection.execute(_newest_of_one(self._heads, self._revisions), mine)).first()
        return _stored(row) if row else None

    async def page(
        self, organization: str, *, after: str | None, limit: int, most_characters: int | None = None
    ) -> Page:
        query = self._latest(organization).order_by(self._heads.c.name)
        if after is not None:
            query = query.where(self._heads.c.name > after)
        if most_characters is not None:
            limit = await fitting(self._connection, query, [self._revisions.c.document], most_characters, limit)
        rows = (await self._connection.execute(query.limit(limit + 1))).all()
        items = [_stored(row) for row in rows[:limit]]
        return Page(items, items[-1].name if len(rows) > limit else None)

    async def parts(self, organization: str, paths: Sequence[Sequence[str]]) -> Mapping[str, Sequence[Any]]:
        places = [self._revisions.c.document[tuple(path)] for path in paths]
        query = self._latest(organization).with_only_columns(self._heads.c.name, *places).order_by(self._heads.c.name)
        return {row[0]: tuple(row[1:]) for row in (await self._connection.execute(query)).all()}

    async def latest(self, organization: str, names: Sequence[str]) -> Mapping[str, int]:
        self._scope.admit(organization)
        heads = self._heads
        query = select(heads.c.name, heads.c.revision).where(heads.c.org_id == organization, ~heads.c.is_deleted)
        found: dict[str, int] = {}
        for start in range(0, len(names), _NAMES_AT_A_TIME):
            some = names[start : start + _NAMES_AT_A_TIME]
            found |= {
                row.name: row.revision for row in await self._connection.execute(query.where(heads.c.name.in_(some)))
            }
        return found

    async def hold(self, organization: str) -> None:
        self._scope.admit(organization)
        # Weaker than what would keep others from referring to the organization; a SQLite file has one writer anyway.
        mine = select(organizations.c.id).where(organizations.c.id == organization)
        await self._connection.execute(mine.with_for_update(key_share=True))

    async def revisions(
        self,
        organization: str,
        name: str,
        *,
        before: int | None = None,
        limit: int | None = None,
        most_characters: int | None = None,
    ) -> Sequence[StoredDocument]:
        self._scope.admit(organization)
        revisions = self._revisions
        query = (
            select(revisions)
            .where(revisions.c.org_id == organization, revisions.c.name == name)
            .order_by(revisions.c.revision.desc())
        )
        if before is not None:
            query = query.where(revisions.c.revision < before)
        if most_characters is not None:
            limit = await fitting(self._connection, query, [revisions.c.document], most_characters, limit)
        return [_stored(row) for row in (await self._connection.execute(query.limit(limit))).all()]

    async def put(self, organization: str, name: str, document: Mapping[str, Any], actor: str) -> StoredDocument:
        current = await self.get(organization, name)
        if current is not None and current.document == document:
            return current
        heads = self._heads
        where = and_(heads.c.org_id == organization, heads.c.name == name)
        moved = await self._connection.execute(
            update(heads)
            .where(where)
            .values(revision=heads.c.revision + 1, is_deleted=False)
            .returning(heads.c.revision)
        )
        revision = moved.scalar()
        if revision is None:
            revision = 1
            await self._connection.execute(insert(heads).values(org_id=organization, name=name, revision=1))
            if self._work is not None:
                lane = {"org_id": organization, "work_kind": self._work.value, "work_name": name}
                await self._connection.execute(insert(lanes).values(lane))
        stored = StoredDocument(name, revision, dict(document), actor, utc_now())
        await self._connection.execute(
            insert(self._revisions).values(
                org_id=organization,
                name=name,
                revision=revision,
                document=stored.document,
                updated_by=actor,
                updated_at=stored.updated_at,
            )
        )
        return stored

    async def delete(self, organization: str, name: str) -> bool:
        self._scope.admit(organization)
        heads = self._heads
        result = await self._connection.execute(
            update(heads)
            .where(heads.c.org_id == organization, heads.c.name == name, heads.c.is_deleted.is_(False))
            .values(is_deleted=True)
        )
        return result.rowcount == 1

    def _latest(self, organization: str) -> Select[Any]:
        self._scope.admit(organization)
        return _joined(self._heads, self._revisions).where(self._heads.c.org_id == organization)


@cache
def _joined(heads: Table, revisions: Table) -> Select[Any]:
    """The newest revision of each document that is not deleted."""
    is_newest = and_(
        heads.c.org_id == revisions.c.org_id,
        heads.c.name == revisions.c.name,
        heads.c.revision == revisions.c.revision,
    )
    return select(revisions).join(heads, is_newest).where(heads.c.is_deleted.is_(False))


@cache
def _newest_of_one(heads: Table, revisions: Table) -> Select[Any]:
    """The newest revision of one document."""
    mine = (heads.c.org_id == bindparam("organization"), heads.c.name == bindparam("document"))
    return _joined(heads, revisions).where(*mine)


def _stored(row: Row[Any]) -> StoredDocument:
    return StoredDocument(row.name, row.revision, row.document, row.updated_by, row.updated_at)
