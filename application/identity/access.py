"""Turns a key into a principal, and issues, lists and revokes keys."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from application.log import log
from domain.errors import ConflictError, InvalidInputError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from domain.identity.policy import Action, may_grant, require
from domain.identity.principal import Principal, Role
from domain.identity.scope import PLATFORM
from domain.ports.records.identity import StoredKey
from domain.ports.records.unit_of_work import IRecords
from domain.ports.runtime import IClock
from domain.ports.security import IApiKeys

# No colon: `cli:<user>` is who acts on the command line, and the audit trail must not take one for the other.
_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+-]{0,99}")
_LONGEST = timedelta(days=3650)


@dataclass(frozen=True)
class IssueKey:
    """What a new key is to be; without `subject` it has one that no other key has, and with `expires_in` None it is
    kept until it is revoked.
    """

    role: str
    subject: str | None = None
    expires_in: timedelta | None = None


@dataclass(frozen=True)
class IssuedKey:
    """A new key, which is shown once, and what is stored of it."""

    key: str
    stored: StoredKey


@dataclass(frozen=True)
class Authenticator:
    """Finds out who is calling."""

    records: IRecords
    keys: IApiKeys

    async def principal_of(self, key: str | None) -> Principal:
        """Return whose key it is.

        Raises:
            UnauthenticatedError: none, malformed, unknown, expired, revoked, or of a role that is not known; the same
                sentence for all.
        """
        prefix = self.keys.prefix_of(key) if key else None
        if key is not None and prefix is not None:
            async with self.records.read(PLATFORM) as unit:
                found = await unit.identity.find_key(prefix)
            # Unknown prefixes cost the same comparison as wrong keys.
            digest, principal = found if found else ("0" * 64, None)
            if self.keys.matches(key, digest) and principal is not None:
                if principal.roles:
                    return principal
                log.warning("key.role_unknown", prefix=prefix)
        raise UnauthenticatedError("Send a valid key: Authorization: Bearer <key>.")

    async def create_administrator(self, organization: str, subject: str) -> str:
        """Create a platform administrator's key and return it; it cannot be shown again."""
        key, prefix, digest = self.keys.new()
        principal = Principal(subject, organization, frozenset({Role.PLATFORM_ADMIN}))
        async with self.records.unit(principal.scope) as unit:
            await unit.identity.ensure_organization(organization)
            await unit.identity.add_key(principal, prefix=prefix, digest=digest, expires_at=None)
            await unit.audit.add(principal, "create key", prefix)
            await unit.commit()
        return key


@dataclass(frozen=True)
class KeyKeeper:
    """Issues, lists and revokes the keys of an organization."""

    records: IRecords
    api_keys: IApiKeys
    clock: IClock

    async def issue(self, principal: Principal, wanted: IssueKey) -> IssuedKey:
        """Make a key. It is returned here and nowhere else; a digest is stored.

        Raises:
            PermissionDeniedError: the principal may manage no keys, or the role may do more than the principal.
            InvalidInputError: `key.role`, `key.subject` or `key.expiry`.
            NotFoundError: no such organization (`organization.not_found`).
        """
        require(principal, Action.MANAGE_KEYS)
        role = role_named(wanted.role)
        if not may_grant(principal, role):
            raise PermissionDeniedError(f"{principal.subject} may not issue the role {role}, which is above their own.")
        if wanted.subject is not None and not _SUBJECT.fullmatch(wanted.subject):
            raise InvalidInputError(
                "The name of a key is 1 to 100 letters, digits or any of @ . _ + -, and begins with a letter or digit.",
                code="key.subject",
            )
        expires_at = self._expiry(wanted.expires_in)
        key, prefix, digest = self.api_keys.new()
        # Each its own: who share a name share what one caller may ask for at a time, and are one in the audit trail.
        subject = wanted.subject if wanted.subject is not None else f"{role.value}-{prefix}"
        owner = Principal(subject, principal.organization, frozenset({role}))
        async with self.records.unit(principal.scope) as unit:
            if not await unit.identity.has_organization(principal.organization):
                raise NotFoundError(
                    f"There is no organization {principal.organization}.", code="organization.not_found"
                )
            await unit.identity.add_key(owner, prefix=prefix, digest=digest, expires_at=expires_at)
            await unit.audit.add(principal, "issue key", f"{prefix} {role} {subject}")
            stored = _find(await unit.identity.keys(principal.organization), prefix)
            await unit.commit()
        return IssuedKey(key, stored)

    async def page(self, principal: Principal) -> Sequence[tuple[StoredKey, str]]:
        """List the keys, the oldest first, each with its state: live, expired, revoked or refused."""
        require(principal, Action.MANAGE_KEYS)
        async with self.records.read(principal.scope) as unit:
            found = await unit.identity.keys(principal.organization)
        return [(key, _state(key, self.clock.now())) for key in found]

    async def revoke(self, principal: Principal, named: str) -> StoredKey:
        """Revoke the key of a prefix (or the key itself, by its prefix); it is refused from now on.

        Raises:
            PermissionDeniedError: the principal may manage no keys, or the key may do more than the principal.
            NotFoundError: no such key (`key.not_found`).
            ConflictError: it is revoked already (`key.revoked`).
        """
        require(principal, Action.MANAGE_KEYS)
        prefix = self.api_keys.prefix_of(named) or named.removeprefix("hr_")
        async with self.records.unit(principal.scope) as unit:
            before = _find(await unit.identity.keys(principal.organization), prefix)
            roles = [Role(name) for name in before.roles if name in set(Role)]
            if not all(may_grant(principal, role) for role in roles):
                raise PermissionDeniedError(f"{principal.subject} may not revoke a key of a role above their own.")
            if not await unit.identity.revoke_key(principal.organization, prefix):
                since = f"{before.revoked_at:%Y-%m-%d %H:%M:%S} UTC" if before.revoked_at else "just now"
                raise ConflictError(f"The key {prefix} is revoked already ({since}).", code="key.revoked")
            await unit.audit.add(principal, "revoke key", f"{prefix} {before.subject}")
            stored = _find(await unit.identity.keys(principal.organization), prefix)
            await unit.commit()
        return stored

    def _expiry(self, expires_in: timedelta | None) -> datetime | None:
        if expires_in is None:
            return None
        if not timedelta() < expires_in <= _LONGEST:
            raise InvalidInputError(
                f"A key expires after more than nothing and at most {_LONGEST.days} days.", code="key.expiry"
            )
        return self.clock.now() + expires_in


def role_named(name: str) -> Role:
    """Find a role.

    Raises:
        InvalidInputError: there is none of this name; the sentence lists them (`key.role`).
    """
    try:
        return Role(name)
    except ValueError:
        known = ", ".join(role.value for role in Role)
        raise InvalidInputError(f"There is no such role; there are {known}.", code="key.role") from None


def _find(keys: Sequence[StoredKey], prefix: str) -> StoredKey:
    found = next((key for key in keys if key.prefix == prefix), None)
    if found is None:
        raise NotFoundError(
            "There is no key of this prefix; headrace keys list shows those there are.", code="key.not_found"
        )
    return found


def _state(key: StoredKey, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= now:
        return "expired"
    return "live" if key.roles and set(key.roles) <= set(Role) else "refused"
