"""Stored documents, the same for pipelines and connections."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from application.answers import AnswerLimits
from domain.ports.unit_of_work import Page, StoredDocument
from entrypoints.answers.cursors import following

_PAGE_CHARACTERS = 1024 * 1024


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


def page_characters(limits: AnswerLimits) -> int:
    """What an answer holds of documents, within what any answer may have: each may be large, and who only reads must
    not make a process hold hundreds.
    """
    return min(_PAGE_CHARACTERS, limits.answer_bytes)


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
