"""Turns a key into a principal, and makes the embedded default's first administrator."""

from dataclasses import dataclass

from domain.errors import UnauthenticatedError
from domain.identity.principal import Principal, Role
from domain.ports.security import IApiKeys
from domain.ports.unit_of_work import IRecords


@dataclass(frozen=True)
class Authenticator:
    """Finds out who is calling."""

    records: IRecords
    keys: IApiKeys

    async def principal_of(self, key: str | None) -> Principal:
        """Return whose key it is.

        Raises:
            UnauthenticatedError: none, malformed, unknown, expired or revoked; the same sentence for all.
        """
        prefix = self.keys.prefix_of(key) if key else None
        if key is not None and prefix is not None:
            async with self.records.unit() as unit:
                found = await unit.identity.find_key(prefix)
            # Unknown prefixes cost the same comparison as wrong keys.
            digest, principal = found if found else ("0" * 64, None)
            if self.keys.matches(key, digest) and principal is not None:
                return principal
        raise UnauthenticatedError("Send a valid key: Authorization: Bearer <key>.")

    async def create_administrator(self, organization: str, subject: str) -> str:
        """Create a platform administrator's key and return it; it cannot be shown again."""
        key, prefix, digest = self.keys.new()
        principal = Principal(subject, organization, frozenset({Role.PLATFORM_ADMIN}))
        async with self.records.unit() as unit:
            await unit.identity.ensure_organization(organization)
            await unit.identity.add_key(principal, prefix=prefix, digest=digest, expires_at=None)
            await unit.audit.add(principal, "create key", prefix)
            await unit.commit()
        return key
