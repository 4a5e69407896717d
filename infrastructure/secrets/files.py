"""ISecretProvider for `file:` references: files under one folder per organization, as Kubernetes mounts them."""

import asyncio
import stat
from pathlib import Path, PurePosixPath

from domain.errors import InvalidInputError, NotFoundError
from domain.ports.secrets import ISecretProvider, Secret
from infrastructure.descriptors import shortage
from infrastructure.known_secrets import remember

_MAX_BYTES = 64 * 1024


class FileSecretProvider(ISecretProvider):
    """Reads regular files that lie, links resolved, under the root."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def scheme(self) -> str:
        return "file"

    def check(self, name: str) -> None:
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts or "\x00" in name:
            raise _outside()

    async def resolve(self, organization: str, name: str) -> Secret:
        self.check(name)
        return await asyncio.to_thread(self._read, name)

    def _read(self, name: str) -> Secret:
        root = self._root.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root) or path == root:
            raise _outside()
        try:
            status = path.stat()
        except OSError as error:
            raise NotFoundError(f"The secret file:{name} does not exist.", code="secret.not_found") from error
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            raise InvalidInputError("A secret is a regular file of at most 64 KiB.", code="secret.forbidden")
        try:
            text = path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise shortage(error) or NotFoundError(
                f"The secret file:{name} cannot be read.", code="secret.not_found"
            ) from error
        if "\x00" in text:  # Drivers quote what they cannot send.
            raise InvalidInputError("A secret is a text without NUL.", code="secret.forbidden")
        return Secret(remember(text))


def _outside() -> InvalidInputError:
    return InvalidInputError("A reference file:… stays inside the secrets folder.", code="secret.forbidden")
