"""Connections over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from entrypoints.answers.connections import health_body, table_body, tables_body
from entrypoints.answers.documents import Document, DocumentPage
from entrypoints.documents.connection_models import ConnectionDocument
from entrypoints.http.bodies import document_schema
from entrypoints.http.dependencies import Bodies, Caller, Cases, ConnectionWriter, Place, Previewer
from entrypoints.http.documents import get_document, list_documents, put_document
from entrypoints.http.paging import Cursor, Limit

router = APIRouter(prefix="/v1/connections", tags=["connections"])


@router.get("", response_model=DocumentPage)
async def list_connections(cases: Cases, caller: Caller, turn: Place, limit: Limit = 100, cursor: Cursor = None) -> Any:
    """List connections by name; secrets are references, never values."""
    return await list_documents(cases, caller, turn, "connection", cursor, limit)


@router.get("/{name}", response_model=Document)
async def get_connection(name: str, cases: Cases, caller: Caller, response: Response) -> Any:
    """Show a connection's latest revision."""
    return await get_document(cases, caller, "connection", name, response)


@router.put("/{name}", response_model=Document, openapi_extra=document_schema(ConnectionDocument))
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
    return health_body(await cases.probe.test(caller, name))


@router.get("/{name}/tables")
async def list_tables(
    name: str, cases: Cases, caller: Previewer, table: Annotated[str | None, Query(max_length=130)] = None
) -> dict[str, Any]:
    """List tables, or describe one."""
    if table is None:
        return tables_body(await cases.probe.tables(caller, name), cases.answers)
    return table_body(await cases.probe.describe(caller, name, table), cases.answers)
