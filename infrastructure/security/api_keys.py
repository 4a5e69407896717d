"""IApiKeys: random keys whose digests are compared in constant time."""

import hashlib
import hmac
import re
import secrets

from domain.ports.security import IApiKeys

_KEY = re.compile(r"hr_([a-z0-9]{12})_[A-Za-z0-9_-]{43}")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


class ApiKeys(IApiKeys):
    """`hr_<prefix>_<random>`: 256 random bits need no slow hash."""

    def new(self) -> tuple[str, str, str]:
        prefix = "".join(secrets.choice(_ALPHABET) for _ in range(12))
        key = f"hr_{prefix}_{secrets.token_urlsafe(32)}"
        return key, prefix, _digest(key)

    def prefix_of(self, key: str) -> str | None:
        match = _KEY.fullmatch(key)
        return match[1] if match else None

    def matches(self, key: str, digest: str) -> bool:
        return hmac.compare_digest(_digest(key), digest)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
