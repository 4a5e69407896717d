"""The port to documents: connections and pipelines, with all of their revisions."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from domain.ports.records.page import Page


@dataclass(frozen=True)
class StoredDocument:
    """A document as it was put, with its revision (1 for the first) and when."""

    name: str
    revision: int
    document: Mapping[str, Any]
    updated_by: str
    updated_at: datetime


class IDocumentRecords(ABC):
    """Named, revisioned documents of one kind (pipelines or connections)."""

    @abstractmethod
    async def get(self, organization: str, name: str) -> StoredDocument | None:
        """Return the latest revision."""

    @abstractmethod
    async def page(
        self, organization: str, *, after: str | None, limit: int, most_characters: int | None = None
    ) -> Page:
        """Return documents ordered by name: one at least, then no more than have so many characters together."""

    @abstractmethod
    async def parts(self, organization: str, paths: Sequence[Sequence[str]]) -> Mapping[str, Sequence[Any]]:
        """By the names of all documents, in order, what stands at some places in them; the rest is not read."""

    @abstractmethod
    async def latest(self, organization: str, names: Sequence[str]) -> Mapping[str, int]:
        """The latest revisions of those of these documents that there are."""

    @abstractmethod
    async def hold(self, organization: str) -> None:
        """Have whoever writes documents of an organization, of whatever kind, wait until this unit ends."""

    @abstractmethod
    async def revisions(
        self,
        organization: str,
        name: str,
        *,
        before: int | None = None,
        limit: int | None = None,
        most_characters: int | None = None,
    ) -> Sequence[StoredDocument]:
        """Return the revisions before one, or all, newest first; bounded like a page."""

    @abstractmethod
    async def put(self, organization: str, name: str, document: Mapping[str, Any], actor: str) -> StoredDocument:
        """Store a new revision; an equal document keeps the old one."""

    @abstractmethod
    async def delete(self, organization: str, name: str) -> bool:
        """Forget a document; say whether there was one. Its runs stay."""
