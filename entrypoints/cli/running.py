"""run and preview: here, or through a running headrace up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from entrypoints.cli.context import Cli
from entrypoints.cli.ending import finish
from entrypoints.cli.output import say
from entrypoints.cli.render import (
    AsJson,
    as_plain,
    end_progress,
    print_json,
    print_table,
    progress_line,
)

if TYPE_CHECKING:
    from application.catalog.documents import PutDocument
    from application.runs.launch import TriggerRun
    from domain.runs.run import RunRequest
    from entrypoints.cli.remote import RemoteServer
    from entrypoints.use_cases import UseCases

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
    from domain.errors import UnavailableError
    from domain.runs.run import RunRequest

    cli: Cli = context.obj
    name, documents = named(cli, target)
    request = RunRequest(_parameters(param), limit, full_refresh, abandon)
    server = cli.server()
    if dry_run:
        _preview(cli, server, name, documents, limit=limit, is_dry_run=True, as_json=as_json)
        return
    if server is not None:
        _run_remotely(server, name, documents, request, detach=detach, as_json=as_json)
        return
    if detach:
        raise UnavailableError("--detach needs a running headrace up to leave the run to.", code="server.gone")
    found = cli.call(lambda use_cases: _run_here(cli, use_cases, name, documents, request), with_store=False)
    finish(as_plain(found), name, as_json=as_json)


def preview(
    context: typer.Context,
    target: Target,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Rows to read.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show the first rows after transforms and rules; writes nothing."""
    cli: Cli = context.obj
    name, documents = named(cli, target)
    _preview(cli, cli.server(), name, documents, limit=limit, is_dry_run=False, as_json=as_json)


async def _run_here(cli: Cli, use_cases: UseCases, name: str, documents: list[PutDocument], request: RunRequest) -> Any:
    """Apply, then run in this process."""
    from application.runs.launch import TriggerRun

    if documents:
        await use_cases.catalog.apply(cli.principal, documents, prune=False)
    return await run_command(cli, use_cases, TriggerRun(name, request))


async def run_command(cli: Cli, use_cases: UseCases, command: TriggerRun) -> Any:
    """Run in this process, and say what else it did and left."""
    name = command.pipeline
    ran = await use_cases.here.run(cli.principal, command, progress_line(name))
    end_progress()
    for follower in ran.followers:
        say(f"{follower} runs after {name}; go on with: headrace run {follower}", to_stderr=True)
    if ran.resumed:
        say(f"resumed run {ran.run.id}, which an earlier process left unfinished", to_stderr=True)
    return ran.run


def _run_remotely(
    server: RemoteServer,
    name: str,
    documents: list[PutDocument],
    request: RunRequest,
    *,
    detach: bool,
    as_json: bool,
) -> None:
    server.put_documents(documents)
    body = {
        "parameters": dict(request.parameters),
        "limit": request.limit,
        "full_refresh": request.full_refresh,
        "abandon": request.abandon,
    }
    asked = server.request("POST", f"/v1/pipelines/{name}/trigger", body)
    if detach:
        print_json(asked) if as_json else say(f"asked for run {asked['id']}")
        return
    finish(server.wait_for(asked["id"]), name, as_json=as_json)


def _preview(
    cli: Cli,
    server: RemoteServer | None,
    name: str,
    documents: list[PutDocument],
    *,
    limit: int | None,
    is_dry_run: bool,
    as_json: bool,
) -> None:
    if server is not None:
        server.put_documents(documents)
        found = server.request("POST", f"/v1/pipelines/{name}/preview", {"limit": limit, "rows": not is_dry_run})
    else:
        found = cli.call(lambda use_cases: _preview_here(cli, use_cases, name, documents, limit, is_dry_run))
    if as_json:
        print_json(found)
        return
    if not is_dry_run:
        headers = [column["name"] for column in found["columns"]]
        print_table(headers, [[_shown(row.get(header)) for header in headers] for row in found["rows"]])
    counts = found["counts"]
    kept = ", ".join(f"{counts[key]:,} {key}" for key in ("read", "used", "filtered", "quarantined", "failed"))
    say(f"{kept}; nothing was written")
    if found.get("note"):
        say(f"note: {found['note']}")


async def _preview_here(
    cli: Cli, use_cases: UseCases, name: str, documents: list[PutDocument], limit: int | None, is_dry_run: bool
) -> dict[str, Any]:
    from domain.pipelines.spec import PipelineSpec
    from entrypoints.answers.pipelines import preview_body

    if documents:
        await use_cases.catalog.apply(cli.principal, [d for d in documents if d.kind == "connection"], prune=False)
        body = next(document.body for document in documents if document.kind == "pipeline")
        spec = PipelineSpec.from_document(body)
    else:
        spec = await use_cases.inspector.spec_of(cli.principal, name)
    found = await use_cases.inspector.preview(cli.principal, spec, limit=limit, keep_rows=not is_dry_run)
    return preview_body(found, use_cases.answers)


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
    return "" if value is None else str(value)
