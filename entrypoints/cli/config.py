"""Settings and the records' schema: config show|check|reference|schema, db upgrade|current."""

from __future__ import annotations

from typing import Annotated

import typer

from entrypoints.cli.context import Cli
from entrypoints.cli.output import say, say_lines
from entrypoints.cli.render import AsJson, print_json, print_table

app = typer.Typer(help="Settings.", no_args_is_help=True)
database = typer.Typer(help="The schema of the platform's records.", no_args_is_help=True)


@app.command()
def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Show every setting with its origin; secrets are masked."""
    from entrypoints.composition import configuration

    cli: Cli = context.obj
    rows = configuration.shown(cli.loaded)
    if as_json:
        print_json([{"name": name, "value": value, "origin": origin} for name, value, origin in rows])
        return
    print_table(["setting", "value", "origin"], rows)


@app.command()
def check(context: typer.Context, as_json: AsJson = False) -> None:
    """Check the settings; all problems are told at once."""
    cli: Cli = context.obj
    environment = cli.loaded.settings.app.environment
    print_json({"ok": True, "environment": environment}) if as_json else say(f"ok, for {environment}")


@app.command()
def reference() -> None:
    """Print the settings reference in Markdown."""
    from entrypoints.composition import configuration

    say_lines(configuration.reference())


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(help="settings, pipeline or connection")] = "settings",
) -> None:
    """Print a JSON Schema for editors."""
    from domain.errors import InvalidInputError
    from entrypoints.composition import configuration
    from entrypoints.documents.reading import json_schema

    if kind not in ("settings", "pipeline", "connection"):
        raise InvalidInputError("A schema is one of settings, pipeline, connection.", code="usage")
    say_lines(configuration.schema() if kind == "settings" else json_schema(kind))


@database.command()
def upgrade(context: typer.Context, as_json: AsJson = False) -> None:
    """Bring the records' schema to the newest revision."""
    from entrypoints.composition.schema import upgrade_schema

    cli: Cli = context.obj
    revision = upgrade_schema(cli.container)
    print_json({"revision": revision}) if as_json else say(f"the records are at revision {revision}")


@database.command()
def current(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the records' schema revision and the newest known."""
    from entrypoints.composition.schema import schema_revisions

    cli: Cli = context.obj
    revision, newest = schema_revisions(cli.container)
    if as_json:
        print_json({"revision": revision, "newest": newest})
        return
    say(f"revision {revision or 'none'}, newest {newest}")
