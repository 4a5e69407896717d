"""Stored documents as answers, the same for pipelines and connections."""

from typing import Any

from fastapi import Response

from application.catalog.documents import PutDocument
from domain.identity.principal import Principal
from domain.ports.unit_of_work import StoredDocument
from entrypoints.cursors import cursor_of, place_of
from entrypoints.http.dependencies import Place
from entrypoints.http.large import large
from entrypoints.use_cases import UseCases

_PAGE_CHARACTERS = 1024 * 1024


def page_characters(cases: UseCases) -> int:
    """What an answer holds of documents, within what any answer may have: each may be large, and who only reads must not make
    this process hold hundreds.
    """
    return min(_PAGE_CHARACTERS, cases.answers.answer_bytes)


def document_body(stored: StoredDocument) -> dict[str, Any]:
    """A stored document as the API shows it."""
    return {
        "name": stored.name,
        "revision": stored.revision,
        "updated_by": stored.updated_by,
        "updated_at": stored.updated_at.isoformat(),
        "document": stored.document,
    }


async def put_document(cases: UseCases, caller: Principal, command: PutDocument, response: Response) -> dict[str, Any]:
    """Store a document: 201 for a new one, 200 otherwise; its revision is the ETag."""
    stored, is_new = await cases.catalog.put(caller, command)
    response.status_code = 201 if is_new else 200
    response.headers["ETag"] = f'"{stored.revision}"'
    return document_body(stored)


async def get_document(cases: UseCases, caller: Principal, kind: str, name: str, response: Response) -> dict[str, Any]:
    """Answer a document with its ETag."""
    stored = await cases.catalog.get(caller, kind, name)
    response.headers["ETag"] = f'"{stored.revision}"'
    return document_body(stored)


async def list_documents(
    cases: UseCases, caller: Principal, turn: Place, kind: str, cursor: str | None, limit: int
) -> Response:
    """Answer a page of documents."""
    place = place_of(caller.organization, kind, cursor)
    async with turn:
        page = await cases.catalog.page(
            caller, kind, after=place[0] if place else None, limit=limit, most_characters=page_characters(cases)
        )
        following = (page.next_cursor,) if page.next_cursor is not None else None
        next_cursor = cursor_of(caller.organization, kind, following)
        return await large(
            lambda: {"items": [document_body(stored) for stored in page.items], "next_cursor": next_cursor}
        )
