"""A named store of an organization: its kind, options and *references* to secrets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from domain.errors import PlatformError, StoreUnavailableError

_STEPS = {
    "connection.host_forbidden": "name",
    "path.forbidden": "name",
    "store.host_unknown": "name",
    "store.tls": "tls",
    "store.sign_in": "sign_in",
    "store.sign_in_method": "sign_in",
    "store.password_in_clear": "sign_in",
    "store.database_missing": "sign_in",
    "secret.forbidden": "sign_in",
    "secret.not_found": "sign_in",
}


@dataclass(frozen=True)
class ConnectionSpec:
    """What a connection document says. `secrets` maps an option to a reference such as `env:SECRET_SHOP_PASSWORD`."""

    name: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "ConnectionSpec":
        """Build the spec from a document that `entrypoints/documents` has checked."""
        return cls(
            name=document["connection"],
            kind=document["kind"],
            options=dict(document.get("options") or {}),
            secrets=dict(document.get("secrets") or {}),
        )


def failing_step(error: PlatformError) -> str:
    """Name the step of reaching a store that an error tells of: name, network, tls or sign_in."""
    return known_step(error) or "network"


def known_step(error: PlatformError) -> str | None:
    """The same of an error that may tell of something else."""
    return "network" if error.code == StoreUnavailableError.code else _STEPS.get(error.code)
