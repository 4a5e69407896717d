"""What a plan tells beside a running `headrace up`: the server opens only what is stored, this process the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from domain.errors import NotFoundError
from domain.pipelines.spec import PipelineSpec
from domain.stores.kinds import DUCKDB
from domain.stores.table import Column, TableName, TableSchema
from entrypoints.client.protocol import Body

if TYPE_CHECKING:
    from application.catalog.documents import PutDocument
    from domain.ports.data_store import IDataStore
    from entrypoints.client.in_process import InProcessClient
    from entrypoints.client.server import RemoteServer


def planned_beside(
    server: RemoteServer, own: InProcessClient, documents: Sequence[PutDocument], *, prune: bool
) -> list[Body]:
    """Ask the server, and look here at what pipelines read and write by connections that are not applied yet.

    The DuckDB files that the server holds are not touched: what it tells of their tables stands in for them.
    """
    asked = {"documents": [dict(document.body) for document in documents], "prune": prune}
    changes: list[Body] = server.request("POST", "/v1/plans", asked)["changes"]
    pending = {c["name"] for c in changes if c["kind"] == "connection" and c["action"] in ("create", "update")}
    given = [PipelineSpec.from_document(document.body) for document in documents if document.kind == "pipeline"]
    specs = {spec.name: spec for spec in given if spec.connections & pending}
    if not specs:
        return changes
    held = own.tables_in(specs.values(), DUCKDB.name, but=pending)  # Of a DuckDB file one process is the owner.
    standing_in = {name: _stand_in(server, name, tables) for name, tables in held.items()}
    planned = own.plan_these(documents, prune=prune, standing_in=standing_in, only=specs)
    mine = {change["name"]: change for change in planned if change["kind"] == "pipeline"}
    return [mine[c["name"]] if c["kind"] == "pipeline" and c["name"] in specs else c for c in changes]


def _stand_in(server: RemoteServer, connection: str, tables: Sequence[str]) -> IDataStore:
    from entrypoints.composition.standing_in import duckdb_as_described

    found = [_described(server, connection, name) for name in tables]
    return duckdb_as_described([schema for schema in found if schema is not None])


def _described(server: RemoteServer, connection: str, table: str) -> TableSchema | None:
    try:
        body: Mapping[str, Any] = server.request(
            "GET", f"/v1/connections/{quote(connection, safe='')}/tables?table={quote(table, safe='')}"
        )
    except NotFoundError:
        return None
    columns = tuple(Column(c["name"], c["type"], c["nullable"]) for c in body["columns"])
    return TableSchema(TableName.parse(body["table"]), columns, tuple(body["primary_key"]))
