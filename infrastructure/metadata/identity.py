"""Organizations and API keys on SQLAlchemy."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Text, cast, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.identity.principal import Principal, Role
from domain.identity.scope import Scope
from domain.ports.records.identity import IIdentityRecords, StoredKey
from infrastructure.clock import utc_now
from infrastructure.metadata.scopes import within
from infrastructure.metadata.tables import api_keys, organizations

# As text: what somebody else has written there may be no JSON at all.
_KEY = (
    *(column for column in api_keys.c if column.name != "roles"),
    cast(api_keys.c.roles, Text).label("roles"),
)


class SqlIdentityRecords(IIdentityRecords):
    """Organizations and API keys."""

    def __init__(self, connection: AsyncConnection, scope: Scope) -> None:
        self._connection = connection
        self._scope = scope

    async def ensure_organization(self, slug: str) -> None:
        if not await self.has_organization(slug):
            await self._connection.execute(insert(organizations).values(id=slug, created_at=utc_now()))

    async def has_organization(self, slug: str) -> bool:
        self._scope.admit(slug)
        found = await self._connection.execute(select(organizations.c.id).where(organizations.c.id == slug))
        return found.first() is not None

    async def add_key(self, principal: Principal, *, prefix: str, digest: str, expires_at: datetime | None) -> None:
        self._scope.admit(principal.organization)
        await self._connection.execute(
            insert(api_keys).values(
                org_id=principal.organization,
                prefix=prefix,
                digest=digest,
                subject=principal.subject,
                roles=sorted(principal.roles),
                created_at=utc_now(),
                expires_at=expires_at,
            )
        )

    async def find_key(self, prefix: str) -> tuple[str, Principal] | None:
        is_live = or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > utc_now())
        query = select(*_KEY).where(api_keys.c.prefix == prefix, api_keys.c.revoked_at.is_(None), is_live)
        query = query.where(within(self._scope, api_keys))
        row = (await self._connection.execute(query)).first()
        if row is None:
            return None
        names = _names(row.roles)
        roles = frozenset(Role(name) for name in names) if set(names) <= set(Role) else frozenset[Role]()
        return row.digest, Principal(row.subject, row.org_id, roles)

    async def keys(self, organization: str) -> Sequence[StoredKey]:
        self._scope.admit(organization)
        query = select(*_KEY).where(api_keys.c.org_id == organization)
        rows = (await self._connection.execute(query.order_by(api_keys.c.created_at, api_keys.c.prefix))).all()
        return [_stored(row) for row in rows]

    async def revoke_key(self, organization: str, prefix: str) -> bool:
        self._scope.admit(organization)
        done = await self._connection.execute(
            update(api_keys)
            .where(api_keys.c.org_id == organization, api_keys.c.prefix == prefix, api_keys.c.revoked_at.is_(None))
            .values(revoked_at=utc_now())
        )
        return done.rowcount > 0


def _stored(row: Row[Any]) -> StoredKey:
    return StoredKey(row.prefix, row.subject, _names(row.roles), row.created_at, row.expires_at, row.revoked_at)


def _names(text: str | None) -> tuple[str, ...]:
    """Read stored role names; what is no list of names is one that nobody knows."""
    try:
        found = json.loads(text or "null")
    except (ValueError, RecursionError):
        found = None
    is_list = isinstance(found, list) and all(isinstance(name, str) for name in found)
    return tuple(found) if is_list else ("?",)
