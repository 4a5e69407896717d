"""Connections: list, test, discover."""

from __future__ import annotations

from typing import Annotated

import typer

from entrypoints.cli.context import Cli
from entrypoints.cli.output import say
from entrypoints.cli.render import AsJson, print_json, print_table

app = typer.Typer(help="Stores that pipelines read from and write to.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The connection's name; default is the store of the settings.")]


@app.command("list")
def list_connections(context: typer.Context, as_json: AsJson = False) -> None:
    """List connections by name."""
    cli: Cli = context.obj
    with cli.client() as client:
        page = client.documents("connection")
    kind = cli.loaded.settings.store.kind
    if as_json:
        print_json({"default": kind, **page})
        return
    rows = [["default", kind, "settings"]]
    rows += [[found["name"], found["document"]["kind"], f"revision {found['revision']}"] for found in page["items"]]
    print_table(["connection", "kind", "from"], rows)


@app.command("test")
def try_connection(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Try a connection and say which step fails: name, network, tls, sign_in, query."""
    cli: Cli = context.obj
    with cli.client() as client:
        health = client.try_connection(name)
    if as_json:
        print_json(health)
    elif health["ok"]:
        say(f"ok {name}")
    else:
        say(f"failed at {health['step']}: {health['detail']}")
    if not health["ok"]:
        raise typer.Exit(3)


@app.command()
def discover(
    context: typer.Context,
    name: Name,
    table: Annotated[str | None, typer.Argument(help="A table to describe, with its columns.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the tables of a connection, or the columns of one."""
    cli: Cli = context.obj
    with cli.client() as client:
        found = client.tables(name) if table is None else client.table(name, table)
    if as_json:
        print_json(found)
        return
    if table is None:
        print_table(["table"], [[each] for each in found["items"]])
        return
    key = set(found["primary_key"])
    rows = [[c["name"], c["type"], c["nullable"], "key" if c["name"] in key else ""] for c in found["columns"]]
    print_table(["column", "type", "nullable", ""], rows)
