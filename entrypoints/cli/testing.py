"""`headrace test`: the tests that documents carry themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from entrypoints.cli.context import Cli
from entrypoints.cli.output import say
from entrypoints.cli.render import AsJson, print_json

if TYPE_CHECKING:
    from application.pipelines.spec_tests import TestOutcome
    from entrypoints.use_cases import UseCases


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command("test")(run_tests)


def run_tests(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A pipeline of the project, or a file; without it, all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the tests in pipeline documents; nothing is opened, read or written."""
    from domain.errors import NotFoundError
    from domain.pipelines.spec import PipelineSpec
    from entrypoints.documents.project import is_file_name

    cli: Cli = context.obj
    is_file = name is not None and is_file_name(name)
    documents = cli.documents(Path(name) if name is not None and is_file else None)
    specs = [
        PipelineSpec.from_document(document.body)
        for document in documents
        if document.kind == "pipeline" and (name is None or is_file or document.name == name)
    ]
    if name is not None and not specs:
        raise NotFoundError(f"There is no pipeline named {name} in this project.", code="pipeline.not_found")

    async def tested(use_cases: UseCases) -> list[TestOutcome]:
        await use_cases.catalog.validate(documents)
        return await use_cases.tester.run(specs)

    outcomes = cli.look(tested)
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if as_json:
        print_json(
            [{**vars(outcome), "problems": list(outcome.problems), "passed": outcome.passed} for outcome in outcomes]
        )
    else:
        for outcome in outcomes:
            say(f"{'ok' if outcome.passed else 'FAILED'} {outcome.pipeline} {outcome.test}")
            for problem in outcome.problems:
                say(f"    {problem}")
        say(f"{len(outcomes) - len(failed)} of {len(outcomes)} tests passed")
    if failed:
        raise typer.Exit(1)
