"""`headrace crashtest NAME`: kills the user's own pipeline at every step, on the user's own stores, and compares."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from entrypoints.cli.again import this_program
from entrypoints.cli.context import Cli
from entrypoints.cli.output import say
from entrypoints.cli.render import AsJson, print_json, print_table
from entrypoints.composition.clock import CLOCK

if TYPE_CHECKING:
    from application.catalog.documents import PutDocument
    from application.pipelines.rehearse import Content
    from domain.pipelines.spec import PipelineSpec
    from entrypoints.use_cases import UseCases

# Where a run can die, and at which passing: the second time where a batch should be behind it.
POINTS = (
    ("claim.after_update", 1),
    ("dest.after_fence", 1),
    ("plan.after_store", 1),
    ("extract.mid_page", 2),
    ("batch.before_begin", 2),
    ("batch.after_checkpoint", 2),
    ("batch.mid_rows", 2),
    ("batch.before_commit", 2),
    ("batch.commit_sent", 2),
    ("batch.after_commit", 2),
    ("publish.before_swap", 1),
    ("publish.after_swap", 1),
    ("publish.before_commit", 1),
    ("publish.after_commit", 1),
    ("finish.before_state", 1),
)
_BATCHES = 10
_RUN_SECONDS = 600


@dataclass(frozen=True)
class Outcome:
    """What became of one kill."""

    point: str
    killed: bool
    missing: int
    doubled: int
    recovery_seconds: float | None
    verdict: str


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command()(crashtest)


def crashtest(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="A pipeline's name, or a file ending in .yaml, .yml or .json.")],
    limit: Annotated[int, typer.Option(min=10, max=1_000_000, help="Rows of the source to rehearse with.")] = 10_000,
    point: Annotated[list[str] | None, typer.Option("--point", help="Only this kill point; may be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Kill the worker at every step against your stores, into scratch tables, and compare with an uninterrupted run."""
    from domain.errors import InvalidInputError
    from domain.stores.kinds import KINDS

    cli: Cli = context.obj
    if not KINDS[cli.loaded.settings.store.kind].is_lasting:
        raise InvalidInputError(
            "A store in memory dies with its process, so there is nothing to resume from.", code="crashtest.memory"
        )
    chosen = [(name, nth) for name, nth in POINTS if point is None or name in point]
    unknown = set(point or ()) - {name for name, _ in POINTS}
    if unknown:
        raise InvalidInputError(
            f"There is no kill point {min(unknown)}; they are: {', '.join(name for name, _ in POINTS)}.",
            code="crashtest.point",
        )
    cli.refuse_beside_server("POST /v1/pipelines/NAME/trigger")
    with _scratch(cli) as scratch:
        stage = _Stage(cli, scratch, target, limit)
        outcomes = stage.rehearse(chosen)
    _show(outcomes, stage, as_json=as_json)
    if any(outcome.verdict not in ("exact", "not reached") for outcome in outcomes):
        raise typer.Exit(1)


class _Stage:
    """One rehearsal: scratch records, scratch tables, child processes."""

    def __init__(self, cli: Cli, scratch: Cli, target: str, limit: int) -> None:
        self._scratch = scratch
        self._limit = limit
        self._tag = f"crashtest_{secrets.token_hex(3)}"
        self._flags = [f"--set={path}={value}" for path, value in scratch.flags.items()]
        self._body, self._connections = _documents(cli, target)
        self._made: list[PipelineSpec] = []
        self.rows = 0
        self.batch_rows = 1

    def rehearse(self, points: list[tuple[str, int]]) -> list[Outcome]:
        """Run once whole, then once for every kill point; leave no table behind."""
        try:
            self.rows = self._scratch.call(self._count)
            self.batch_rows = max(1, self.rows // _BATCHES)
            whole = self._new("whole")
            self._run(whole, failpoint=None)
            expected = self._content(whole)
            outcomes = []
            for number, (name, nth) in enumerate(points):
                say(f"crashtest: {number + 1} of {len(points)}, {name}", to_stderr=True, flush=True)
                outcomes.append(self._kill(name, nth, number, expected))
            return outcomes
        finally:
            self._scratch.call(self._clear)

    def _kill(self, name: str, nth: int, number: int, expected: Content) -> Outcome:
        spec = self._new(f"k{number}")
        if self._run(spec, failpoint=f"{name}:{nth}:kill") != -9:
            return Outcome(name, False, 0, 0, None, "not reached")
        begun = CLOCK.monotonic()
        self._run(spec, failpoint=None)
        took = round(CLOCK.monotonic() - begun, 2)
        found = self._content(spec)
        missing = sum((expected.rows - found.rows).values())
        doubled = sum((found.rows - expected.rows).values())
        is_exact = not (missing or doubled) and found.types == expected.types
        return Outcome(name, True, missing, doubled, took, "exact" if is_exact else "WRONG")

    def _new(self, suffix: str) -> PipelineSpec:
        from application.catalog.documents import PutDocument
        from domain.pipelines.spec import PipelineSpec

        body = json.loads(json.dumps(self._body))
        schema, _, _ = body["destination"]["table"].rpartition(".")
        name = f"{self._tag}_{suffix}"
        body["pipeline"] = name
        body["destination"]["table"] = f"{schema}.{name}" if schema else name
        body["run"] = {**(body.get("run") or {}), "batch_rows": self.batch_rows}
        body.pop("schedule", None)
        documents = [*self._connections, PutDocument("pipeline", name, body)]
        cli = self._scratch
        cli.call(lambda use_cases: use_cases.catalog.apply(cli.principal, documents, prune=False))
        spec = PipelineSpec.from_document(body)
        self._made.append(spec)
        return spec

    def _run(self, spec: PipelineSpec, *, failpoint: str | None) -> int:
        from domain.errors import WorkFailedError

        environment = {name: value for name, value in os.environ.items() if name != "HEADRACE_FAILPOINT"}
        if failpoint is not None:
            environment["HEADRACE_FAILPOINT"] = failpoint
        done = subprocess.run(
            this_program(*self._flags, "run", spec.name, "--json", f"--limit={self._limit}"),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_RUN_SECONDS,
        )
        if done.returncode not in (0, -9) or (failpoint is None and done.returncode != 0):
            said = done.stderr.strip().splitlines()
            raise WorkFailedError(
                f"The rehearsed run failed without being killed: {said[-1] if said else done.returncode}",
                code="crashtest.failed",
            )
        return done.returncode

    def _content(self, spec: PipelineSpec) -> Content:
        cli = self._scratch
        return cli.call(lambda use_cases: use_cases.rehearsal.content(cli.principal, spec))

    async def _count(self, use_cases: UseCases) -> int:
        from domain.pipelines.spec import PipelineSpec

        await use_cases.catalog.apply(self._scratch.principal, self._connections, prune=False)
        spec = PipelineSpec.from_document(self._body)
        found = await use_cases.previewer.preview(self._scratch.principal, spec, limit=self._limit, keep_rows=False)
        return found.counts.read

    async def _clear(self, use_cases: UseCases) -> None:
        for spec in self._made:
            await use_cases.rehearsal.discard(self._scratch.principal, spec)


@contextmanager
def _scratch(cli: Cli) -> Iterator[Cli]:
    """The same stores with records and a home of their own, so that the rehearsal leaves no run behind."""
    real = cli.paths
    real.create_home()
    folder = Path(tempfile.mkdtemp(prefix="headrace-crashtest-"))
    chosen = cli.loaded.settings.store.duckdb.path or real.data
    flags = {
        **cli.flags,
        "home": str(folder),
        "metadata.kind": "sqlite",
        "queue.kind": "memory",
        "data_roots": ",".join(str(root) for root in real.confinement.roots),
        "secrets.file_root": str(real.secrets),
        "store.duckdb.path": str(chosen),
    }
    try:
        yield Cli(flags, cli.profile, cli.organization, cli.is_verbose)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _documents(cli: Cli, target: str) -> tuple[dict[str, Any], list[PutDocument]]:
    """The pipeline's document, and those of the connections it names, from files or from the records."""
    from application.catalog.documents import PutDocument
    from entrypoints.cli.running import named

    name, documents = named(cli, target)
    if documents:
        body = next(document.body for document in documents if document.kind == "pipeline")
        return dict(body), [document for document in documents if document.kind == "connection"]

    with cli.client() as client:
        stored: dict[str, Any] = client.document("pipeline", name)["document"]
        ends = (stored["source"], stored["destination"])
        names = sorted({end.get("connection") or "default" for end in ends} - {"default"})
        return stored, [
            PutDocument("connection", each, client.document("connection", each)["document"]) for each in names
        ]


def _show(outcomes: list[Outcome], stage: _Stage, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {"rows": stage.rows, "batch_rows": stage.batch_rows, "points": [asdict(outcome) for outcome in outcomes]}
        )
        return
    say(f"{stage.rows:,} rows in batches of {stage.batch_rows:,}; a kill is SIGKILL of the process that runs")
    rows = [
        [
            o.point,
            o.killed,
            o.missing if o.killed else None,
            o.doubled if o.killed else None,
            o.recovery_seconds,
            o.verdict,
        ]
        for o in outcomes
    ]
    print_table(["kill point", "killed", "missing", "doubled", "recovery s", "verdict"], rows)
    killed = [outcome for outcome in outcomes if outcome.killed]
    exact = sum(outcome.verdict == "exact" for outcome in killed)
    say()
    say(f"{exact} of {len(killed)} kills left the table of an uninterrupted run")
