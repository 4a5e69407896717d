"""ISecretProvider for `env:` references: environment variables, confined by a prefix or a list of names."""

import os
from collections.abc import Callable, Collection, Mapping

from domain.errors import InvalidInputError, NotFoundError
from domain.ports.secrets import ISecretProvider, Secret
from infrastructure.environment_names import NAME, is_of_the_process
from infrastructure.known_secrets import remember


class EnvironmentSecretProvider(ISecretProvider):
    """Reads variables of this process whose names say that documents may use them, and none of the process's own."""

    def __init__(
        self,
        *,
        prefix: str,
        names: Collection[str] = (),
        is_setting: Callable[[str], bool],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._prefix = prefix
        self._names = frozenset(names)
        self._is_setting = is_setting
        self._environment = os.environ if environment is None else environment

    @property
    def scheme(self) -> str:
        return "env"

    def check(self, name: str) -> None:
        if not NAME.fullmatch(name):
            raise InvalidInputError(
                "A reference env:NAME holds letters, digits and underscores.", code="secret.forbidden"
            )
        line = f'secrets: {{password: "env:{self._prefix}{name.lstrip("_")}"}}'
        if is_of_the_process(name) or self._is_setting(name):
            raise InvalidInputError(
                f"The variable {name} belongs to Headrace or its process, and no document may read it. Give the "
                f"connection a variable of its own: {line}.",
                code="secret.forbidden",
            )
        if name not in self._names and not name.startswith(self._prefix):
            raise InvalidInputError(
                f"The variable {name} does not begin with {self._prefix}, as secrets do. Rename it and write {line}, "
                "or let HEADRACE_SECRETS__ENVIRONMENT_NAMES list its name.",
                code="secret.forbidden",
            )

    async def resolve(self, organization: str, name: str) -> Secret:
        self.check(name)
        value = self._environment.get(name)
        if value is None:
            raise NotFoundError(f"The environment variable {name} of a secret is not set.", code="secret.not_found")
        return Secret(remember(value))
