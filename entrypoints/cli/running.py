"""run and preview, of stored pipelines and of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from entrypoints.cli.context import Cli
from entrypoints.cli.ending import finish
from entrypoints.cli.output import say
from entrypoints.cli.render import AsJson, listening, print_json, print_table

if TYPE_CHECKING:
    from application.catalog.documents import PutDocument

Target = Annotated[str, typer.Argument(help="A pipeline's name, or a file ending in .yaml, .yml or .json.")]
Parameters = Annotated[
    list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="A parameter of the source query.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Read at most so many rows.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command()(run)
    app.command()(preview)


def run(
    context: typer.Context,
    target: Target,
    param: Parameters = None,
    limit: Limit = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read, transform and judge; write nothing.")] = False,
    full_refresh: Annotated[
        bool, typer.Option("--full-refresh", help="Read everything again and replace the table in one step.")
    ] = False,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Forget what the last run left unfinished; its committed rows stay.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Only ask a running headrace up; do not wait.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a pipeline and wait for its report; goes through a running headrace up."""
    from domain.runs.run import RunRequest

    cli: Cli = context.obj
    name, documents = named(cli, target)
    request = RunRequest(_parameters(param), limit, full_refresh, abandon)
    with cli.client() as client:
        if dry_run:
            found = client.preview(name, documents, limit=limit, rows=False)
        elif detach:
            found = client.trigger(name, documents, request)
        else:
            found = client.run_to_end(name, documents, request, listening(name))
    if dry_run:
        _show_preview(found, as_json=as_json, with_rows=False)
    elif detach:
        print_json(found) if as_json else say(f"asked for run {found['id']}")
    else:
        finish(found, name, as_json=as_json)


def preview(
    context: typer.Context,
    target: Target,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Rows to read.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show the first rows after transforms and rules; writes nothing."""
    cli: Cli = context.obj
    name, documents = named(cli, target)
    with cli.client() as client:
        found = client.preview(name, documents, limit=limit, rows=True)
    _show_preview(found, as_json=as_json, with_rows=True)


def _show_preview(found: dict[str, Any], *, as_json: bool, with_rows: bool) -> None:
    if as_json:
        print_json(found)
        return
    if with_rows:
        headers = [column["name"] for column in found["columns"]]
        print_table(headers, [[_shown(row.get(header)) for header in headers] for row in found["rows"]])
    counts = found["counts"]
    kept = ", ".join(f"{counts[key]:,} {key}" for key in ("read", "used", "filtered", "quarantined", "failed"))
    say(f"{kept}; nothing was written")
    if found.get("note"):
        say(f"note: {found['note']}")


def named(cli: Cli, target: str) -> tuple[str, list[PutDocument]]:
    """The pipeline's name, and the documents to apply first: the file's own and the connections it names."""
    from domain.errors import InvalidInputError
    from entrypoints.documents.project import is_file_name

    if not is_file_name(target):
        return target, []
    cli.file = Path(target)
    own = cli.documents(Path(target))
    if len(own) != 1 or own[0].kind != "pipeline":
        raise InvalidInputError(f"{target} is not a pipeline's file.", code="spec.kind")
    body = own[0].body
    named = {body["source"].get("connection"), body["destination"].get("connection")} - {None, "default"}
    return own[0].name, [*_connections(cli, Path(target), named), *own]


def _connections(cli: Cli, file: Path, names: set[str | None]) -> list[PutDocument]:
    """The named connections that lie in the project, or beside the file when there is no project."""
    from entrypoints.documents.project import document_files

    folders = {cli.project.folder, file.absolute().parent, file.absolute().parent.parent}
    paths = {path for folder in folders for path in document_files(folder) if path.parent.name == "connections"}
    chosen = [path for path in sorted(paths) if path.stem in names]
    return cli.read(chosen)


def _parameters(given: list[str] | None) -> dict[str, Any]:
    from domain.errors import InvalidInputError

    parameters: dict[str, Any] = {}
    for assignment in given or []:
        name, separator, text = assignment.partition("=")
        if not separator:
            raise InvalidInputError("--param wants NAME=VALUE.", code="run.parameter")
        parameters[name] = _typed(text)
    return parameters


def _typed(text: str) -> Any:
    """Read numbers, true, false and null as JSON does; everything else is text."""
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, int | float | bool | None) else text


def _no_number(name: str) -> None:
    raise ValueError(name)  # NaN and its like are none of JSON's.


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)
