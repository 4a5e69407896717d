"""API keys, without the keys."""

from collections.abc import Sequence
from typing import Any

from application.identity.access import IssuedKey
from domain.ports.records.identity import StoredKey


def key_body(key: StoredKey, state: str) -> dict[str, Any]:
    """What is stored of an API key; the key itself is nowhere."""
    return {
        "prefix": key.prefix,
        "subject": key.subject,
        "roles": list(key.roles),
        "state": state,
        "created_at": key.created_at.isoformat(),
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
    }


def issued_body(issued: IssuedKey) -> dict[str, Any]:
    """A new key, which is shown once, and what is stored of it."""
    return {"key": issued.key, **key_body(issued.stored, "live")}


def keys_body(found: Sequence[tuple[StoredKey, str]]) -> dict[str, Any]:
    """The keys of an organization, each with its state."""
    return {"items": [key_body(key, state) for key, state in found]}
