"""Connections over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from domain.errors import InvalidInputError
from domain.stores.table import TableName
from entrypoints.answer_size import listed
from entrypoints.documents.connection_models import ConnectionDocument
from entrypoints.http import bodies
from entrypoints.http.dependencies import Bodies, Caller, Cases, ConnectionWriter, Place, Previewer
from entrypoints.http.documents import get_document, list_documents, put_document
from entrypoints.http.pipelines import Cursor, Limit
from entrypoints.rendering import table_body

router = APIRouter(prefix="/v1/connections", tags=["connections"])


@router.get("", response_model=bodies.DocumentPage)
async def list_connections(cases: Cases, caller: Caller, turn: Place, limit: Limit = 100, cursor: Cursor = None) -> Any:
    """List connections by name; secrets are references, never values."""
    return await list_documents(cases, caller, turn, "connection", cursor, limit)


@router.get("/{name}", response_model=bodies.Document)
async def get_connection(name: str, cases: Cases, caller: Caller, response: Response) -> Any:
    """Show a connection's latest revision."""
    return await get_document(cases, caller, "connection", name, response)


@router.put("/{name}", response_model=bodies.Document, openapi_extra=bodies.document_schema(ConnectionDocument))
async def put_connection(
    name: str, request: Request, cases: Cases, caller: ConnectionWriter, reader: Bodies, response: Response
) -> Any:
    """Store a connection; it is opened when it is first used."""
    return await put_document(cases, caller, await reader.document(request, "connection", name), response)


@router.delete("/{name}", status_code=204)
async def delete_connection(name: str, cases: Cases, caller: ConnectionWriter) -> None:
    """Forget a connection."""
    await cases.catalog.delete(caller, "connection", name)


@router.post("/{name}/test")
async def try_connection(name: str, cases: Cases, caller: Previewer) -> dict[str, Any]:
    """Try a connection; `step` names what failed: name, network, tls, sign_in, query, write."""
    health = await cases.probe.test(caller, name)
    return {"ok": health.is_healthy, "step": health.step, "detail": health.detail}


@router.get("/{name}/tables")
async def list_tables(
    name: str, cases: Cases, caller: Previewer, table: Annotated[str | None, Query(max_length=130)] = None
) -> dict[str, Any]:
    """List tables, or describe one."""
    if table is None:
        names = [str(found) for found in await cases.probe.tables(caller, name)]
        return listed({"items": names}, "items", cases.answers.answer_bytes)
    try:
        parsed = TableName.parse(table)
    except ValueError as error:
        raise InvalidInputError(str(error), code="identifier.invalid") from error
    described = table_body(await cases.probe.describe(caller, name, parsed))
    return listed(described, "columns", cases.answers.answer_bytes)
