"""Stored documents over HTTP, the same for pipelines and connections."""

from typing import Any

from fastapi import Response

from application.catalog.documents import PutDocument
from domain.identity.principal import Principal
from entrypoints.answers.cursors import single_place_of
from entrypoints.answers.documents import document_body, documents_body
from entrypoints.http.dependencies import Place
from entrypoints.http.large import large
from entrypoints.use_cases import UseCases


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
    after = single_place_of(caller.organization, kind, cursor)
    async with turn:
        page = await cases.catalog.page(
            caller, kind, after=after, limit=limit, most_characters=cases.answers.page_characters
        )
        return await large(lambda: documents_body(caller.organization, kind, page))
