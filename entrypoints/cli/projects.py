"""Project folders: init, validate, plan, apply."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from entrypoints.cli.context import Cli
from entrypoints.cli.output import say
from entrypoints.cli.render import AsJson, print_json

File = Annotated[Path | None, typer.Option("--file", "-f", help="A file or folder instead of the project.")]
Prune = Annotated[bool, typer.Option("--prune", help="Also forget stored documents that are not in the folder.")]

_MARKS = {"create": "+", "update": "~", "delete": "-", "keep": "="}

_FILES = {
    "headrace.toml": """# Settings, variables and profiles of this project. Never a secret.
[settings]
# store.kind = "duckdb"          # duckdb | memory | postgres

[variables]
# country = "CH"                 # used as ${var.country} in identifiers and parameters

[profiles.prod]
# variables = { country = "DE" }
""",
    "connections/landing.yaml": """version: 1
connection: landing
kind: files
options: {root: data}
""",
    "pipelines/people.yaml": """version: 1
pipeline: people
description: A first pipeline; run it with `headrace run pipelines/people.yaml`
source: {connection: landing, path: people.csv, key: [id]}
transform:
  - sql: select *, upper(name) as shouted from batch
quality:
  - {rule: not_null, column: id}
  - {rule: between, column: age, min: 0, max: 130, on_violation: quarantine}
destination: {table: people, mode: merge, key: [id]}  # By key, so that it may be run again.
tests:  # Run them with `headrace test`.
  - given: [{id: 1, name: Ada, age: 36}, {id: 2, name: Methuselah, age: 969}]
    expect: [{id: 1, shouted: ADA}]
    quarantined: [{id: 2}]
""",
    "data/people.csv": "id,name,age\n1,Ada,36\n2,Alan,41\n3,Methuselah,969\n",
    ".env.example": "# Copy to .env, which is never committed.\n# DB_PASSWORD=\n",
    ".gitignore": ".headrace/\n.env\n",
}


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    for command in (init, validate, plan, apply):
        app.command()(command)


def init(
    folder: Annotated[Path, typer.Argument(help="The folder to start a project in.")] = Path(), as_json: AsJson = False
) -> None:
    """Start a project folder with a pipeline that runs."""
    from domain.errors import InvalidInputError

    existing = [name for name in _FILES if (folder / name).exists()]
    if existing:
        raise InvalidInputError(f"{folder / existing[0]} exists already; nothing was written.", code="project.exists")
    for name, content in _FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    if as_json:
        print_json({"folder": str(folder), "files": list(_FILES)})
        return
    where = f"cd {folder} && " if folder != Path() else ""
    place = f"in {folder}" if folder != Path() else "here"
    say(f"Started a project {place}. Next: {where}headrace run pipelines/people.yaml")


def validate(context: typer.Context, file: File = None, as_json: AsJson = False) -> None:
    """Check documents without storing or opening anything."""
    cli: Cli = context.obj
    documents = cli.documents(file)
    cli.look(lambda use_cases: use_cases.catalog.validate(documents))
    if as_json:
        print_json([{"kind": document.kind, "name": document.name} for document in documents])
        return
    for document in documents:
        say(f"ok {document.kind} {document.name}")


def plan(
    context: typer.Context,
    file: File = None,
    prune: Prune = False,
    exit_on_changes: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if anything would change.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what apply would change."""
    cli: Cli = context.obj
    documents = cli.documents(file)
    with cli.client() as client:
        changes = client.plan(documents, prune=prune)
    _show(changes, as_json=as_json)
    if exit_on_changes and any(change["action"] != "keep" for change in changes):
        raise typer.Exit(1)


def apply(
    context: typer.Context,
    file: File = None,
    prune: Prune = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before forgetting documents.")] = False,
    as_json: AsJson = False,
) -> None:
    """Store the documents of the project folder."""
    cli: Cli = context.obj
    documents = cli.documents(file)
    with cli.client() as client:
        doomed = client.forgotten(documents) if prune and not yes else []
        if doomed:
            _show(doomed, as_json=False)
            typer.confirm("Forget these?", abort=True, err=True)
        changes = client.apply(documents, prune=prune)
    _show(changes, as_json=as_json)


def _show(changes: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(changes)
        return
    for change in changes:
        fields = f": {', '.join(change['fields'])}" if change["fields"] else ""
        say(f"{_MARKS[change['action']]} {change['action']} {change['kind']} {change['name']}{fields}")
        for note in change["notes"]:
            say(f"    {note}")
        for column in change["columns"]:
            source, landing = column["source"], column["landing"]
            given = f"{source} → " if source and source != landing else ""
            native = column["native"] or "no type there"
            say(f"    column {column['name']}: {given}{landing}, {native} ({column['verdict']})")
