"""What connections lead to."""

from collections.abc import Iterable
from typing import Any

from application.answers import AnswerLimits
from domain.ports.data_store import StoreHealth
from domain.stores.table import TableName, TableSchema
from entrypoints.answers.sizes import listed


def health_body(health: StoreHealth) -> dict[str, Any]:
    """Whether a connection works; `step` names what failed."""
    return {"ok": health.is_healthy, "step": health.step, "detail": health.detail}


def tables_body(names: Iterable[TableName], limits: AnswerLimits) -> dict[str, Any]:
    """The tables of a connection, as far as there is room."""
    return listed({"items": [str(name) for name in names]}, "items", limits.answer_bytes)


def table_body(schema: TableSchema, limits: AnswerLimits) -> dict[str, Any]:
    """A table's columns and key, as far as there is room."""
    columns = [{"name": c.name, "type": c.type, "nullable": c.nullable} for c in schema.columns]
    body = {"table": str(schema.name), "columns": columns, "primary_key": list(schema.primary_key)}
    return listed(body, "columns", limits.answer_bytes)
