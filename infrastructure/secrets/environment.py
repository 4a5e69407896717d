"""ISecretProvider for `env:` references: environment variables, confined by a prefix."""

import os
import re
from collections.abc import Callable, Mapping

from domain.errors import InvalidInputError, NotFoundError
from domain.ports.secrets import ISecretProvider, Secret

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


class EnvironmentSecretProvider(ISecretProvider):
    """Reads variables of this process. Names of settings are refused, so that no document can send them anywhere."""

    def __init__(
        self,
        *,
        prefix: str = "",
        is_setting: Callable[[str], bool],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._prefix = prefix
        self._is_setting = is_setting
        self._environment = os.environ if environment is None else environment

    @property
    def scheme(self) -> str:
        return "env"

    async def resolve(self, organization: str, name: str) -> Secret:
        if not _NAME.fullmatch(name) or not name.startswith(self._prefix) or self._is_setting(name):
            raise InvalidInputError(
                f"env:{name} cannot be used as a secret: it is a setting's name or outside the allowed prefix."
                if _NAME.fullmatch(name)
                else "A reference env:NAME holds letters, digits and underscores.",
                code="secret.forbidden",
            )
        value = self._environment.get(name)
        if value is None:
            raise NotFoundError(f"The environment variable {name} of a secret is not set.", code="secret.not_found")
        return Secret(value)
