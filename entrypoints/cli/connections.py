"""Connections: list, test, discover."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from entrypoints.cli.context import Cli
from entrypoints.cli.output import say
from entrypoints.cli.render import AsJson, print_json, print_table

if TYPE_CHECKING:
    from entrypoints.use_cases import UseCases

app = typer.Typer(help="Stores that pipelines read from and write to.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The connection's name; default is the store of the settings.")]


@app.command("list")
def list_connections(context: typer.Context, as_json: AsJson = False) -> None:
    """List connections by name."""
    cli: Cli = context.obj
    page = cli.call(lambda use_cases: use_cases.catalog.page(cli.principal, "connection", limit=1000))
    kind = cli.loaded.settings.store.kind
    if as_json:
        print_json({"default": kind, "items": page.items, "next_cursor": page.next_cursor})
        return
    rows = [["default", kind, "settings"]]
    rows += [[stored.name, stored.document["kind"], f"revision {stored.revision}"] for stored in page.items]
    print_table(["connection", "kind", "from"], rows)


@app.command("test")
def try_connection(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Try a connection and say which step fails: name, network, tls, sign_in, query."""
    cli: Cli = context.obj
    if name == "default":
        cli.refuse_beside_server("GET /ready")
    health = cli.call(lambda use_cases: use_cases.probe.test(cli.principal, name))
    if as_json:
        print_json(health)
    elif health.is_healthy:
        say(f"ok {name}")
    else:
        say(f"failed at {health.step}: {health.detail}")
    if not health.is_healthy:
        raise typer.Exit(3)


@app.command()
def discover(
    context: typer.Context,
    name: Name,
    table: Annotated[str | None, typer.Argument(help="A table to describe, with its columns.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the tables of a connection, or the columns of one."""
    from domain.errors import InvalidInputError
    from domain.stores.table import TableName
    from entrypoints.answers.connections import table_body

    cli: Cli = context.obj
    if name == "default":
        cli.refuse_beside_server("GET /v1/connections/default/tables")
    if table is None:
        tables = [str(t) for t in cli.call(lambda use_cases: use_cases.probe.tables(cli.principal, name))]
        print_json({"items": tables}) if as_json else print_table(["table"], [[t] for t in tables])
        return
    try:
        parsed = TableName(table) if "/" in table or table.endswith((".csv", ".parquet")) else TableName.parse(table)
    except ValueError as error:
        raise InvalidInputError(str(error), code="identifier.invalid") from error

    async def described(use_cases: UseCases) -> dict[str, Any]:
        return table_body(await use_cases.probe.describe(cli.principal, name, parsed), use_cases.answers)

    found = cli.call(described)
    if as_json:
        print_json(found)
        return
    key = set(found["primary_key"])
    rows = [[c["name"], c["type"], c["nullable"], "key" if c["name"] in key else ""] for c in found["columns"]]
    print_table(["column", "type", "nullable", ""], rows)
