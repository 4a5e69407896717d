"""Stored documents, the same for pipelines and connections."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from domain.ports.records.documents import StoredDocument
from domain.ports.records.page import Page
from entrypoints.answers.cursors import following


class Document(BaseModel):
    """A stored document."""

    name: str
    revision: int
    updated_by: str
    updated_at: str
    document: dict[str, Any]


class DocumentPage(BaseModel):
    """Documents, and where the next page begins."""

    items: list[Document]
    next_cursor: str | None


def document_body(stored: StoredDocument) -> dict[str, Any]:
    """A stored document."""
    return {
        "name": stored.name,
        "revision": stored.revision,
        "updated_by": stored.updated_by,
        "updated_at": stored.updated_at.isoformat(),
        "document": stored.document,
    }


def revisions_body(found: Sequence[StoredDocument]) -> list[dict[str, Any]]:
    """The revisions of a document."""
    return [document_body(stored) for stored in found]


def documents_body(organization: str, kind: str, page: Page) -> dict[str, Any]:
    """A page of documents, and the cursor of the next one."""
    return {
        "items": [document_body(stored) for stored in page.items],
        "next_cursor": following(organization, kind, page),
    }
