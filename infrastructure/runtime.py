"""Clock and identifiers of a real process."""

import secrets

import uuid_utils

from domain.ports.runtime import IIdentifiers


class RandomIdentifiers(IIdentifiers):
    """UUIDv7 and the system's random source."""

    def new_id(self) -> str:
        return str(uuid_utils.uuid7())

    def new_secret(self) -> str:
        return secrets.token_urlsafe(32)
