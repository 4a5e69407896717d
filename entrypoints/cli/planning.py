"""What `headrace plan` shows beside a running `headrace up`: the server opens only what is stored, this process the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from entrypoints.cli.render import as_plain

if TYPE_CHECKING:
    from application.catalog.documents import PutDocument
    from domain.pipelines.spec import PipelineSpec
    from domain.ports.data_store import IDataStore
    from domain.stores.table import TableSchema
    from entrypoints.cli.context import Cli
    from entrypoints.cli.remote import RemoteServer
    from entrypoints.use_cases import UseCases


def planned_beside(
    cli: Cli, server: RemoteServer, documents: Sequence[PutDocument], *, prune: bool
) -> list[dict[str, Any]]:
    """Ask the server, and look here at what pipelines read and write by connections that are not applied yet.

    The DuckDB files that the server holds are not touched: what it tells of their tables stands in for them.
    """
    from domain.stores.kinds import DUCKDB

    asked = {"documents": [dict(document.body) for document in documents], "prune": prune}
    changes: list[dict[str, Any]] = server.request("POST", "/v1/plans", asked)["changes"]
    pending = {c["name"] for c in changes if c["kind"] == "connection" and c["action"] in ("create", "update")}
    specs = {spec.name: spec for spec in _pipelines(documents) if spec.connections & pending}
    if not specs:
        return changes

    async def look(use_cases: UseCases) -> list[Any]:
        # Of a DuckDB file one process is the owner.
        held = await use_cases.planner.tables_in(cli.principal, specs.values(), DUCKDB.name, but=pending)
        standing_in = {name: _stand_in(server, name, tables) for name, tables in held.items()}
        return await use_cases.planner.plan_own(
            cli.principal, documents, prune=prune, standing_in=standing_in, only=specs
        )

    own = {change["name"]: change for change in as_plain(cli.call(look)) if change["kind"] == "pipeline"}
    return [own[c["name"]] if c["kind"] == "pipeline" and c["name"] in specs else c for c in changes]


def _pipelines(documents: Sequence[PutDocument]) -> Iterator[PipelineSpec]:
    from domain.pipelines.spec import PipelineSpec

    for document in documents:
        if document.kind == "pipeline":
            yield PipelineSpec.from_document(document.body)


def _stand_in(server: RemoteServer, connection: str, tables: Sequence[str]) -> IDataStore:
    from entrypoints.composition.standing_in import duckdb_as_described

    found = [_described(server, connection, name) for name in tables]
    return duckdb_as_described([schema for schema in found if schema is not None])


def _described(server: RemoteServer, connection: str, table: str) -> TableSchema | None:
    from domain.errors import NotFoundError
    from domain.stores.table import Column, TableName, TableSchema

    try:
        body: Mapping[str, Any] = server.request(
            "GET", f"/v1/connections/{quote(connection, safe='')}/tables?table={quote(table, safe='')}"
        )
    except NotFoundError:
        return None
    columns = tuple(Column(c["name"], c["type"], c["nullable"]) for c in body["columns"])
    return TableSchema(TableName.parse(body["table"]), columns, tuple(body["primary_key"]))
