"""The client that works through the use cases, in the process of the command."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from application.runs.launch import TriggerRun
from domain.errors import PlatformError, UnavailableError
from domain.loads.quarantine import RefusedState
from domain.pipelines.spec import PipelineSpec
from entrypoints.answers import (
    connections,
    documents,
    health,
    histories,
    keys,
    pipelines,
    plans,
    quarantine,
    runs,
    workers,
)
from entrypoints.client.protocol import MOST_OF_A_PAGE, NOBODY, Body, IClient, Listener, newest_pages
from entrypoints.composition.lifecycle import running
from entrypoints.log import bound

if TYPE_CHECKING:
    from application.catalog.documents import PutDocument
    from application.identity.access import IssueKey
    from application.runs.here import RanHere
    from domain.identity.principal import Principal
    from domain.ports.data_store import IDataStore
    from domain.ports.telemetry import ISpan
    from domain.runs.run import RunRequest
    from entrypoints.composition.container import Container
    from entrypoints.use_cases import UseCases

T = TypeVar("T")
_LOOK_EVERY_SECONDS = 0.2


class InProcessClient(IClient):
    """Opens the system with the first thing that is asked. The first SIGINT or SIGTERM drains, the second aborts."""

    def __init__(self, container: Callable[[], Container], principal: Principal) -> None:
        self._container = container
        self._principal = principal
        self._runner: asyncio.Runner | None = None
        self._open = AsyncExitStack()
        self._use_cases: UseCases | None = None
        self._span: ISpan | None = None
        self._correlation_id = uuid.uuid4().hex

    def call(self, action: Callable[[UseCases], Awaitable[T]]) -> T:
        """Do one thing."""

        async def called() -> T:
            if self._use_cases is None:
                self._use_cases = await self._open.enter_async_context(running(self._container(), with_store=False))
                # Whoever runs the command, as a scheduler does, may have a trace that this is a part of.
                span = self._use_cases.telemetry.span("command", trace=os.environ.get("TRACEPARENT"))
                self._span = self._open.enter_context(span)
            with self._failing(), _draining_on_signals(self._use_cases), bound(correlation_id=self._correlation_id):
                async with self._use_cases.scopes.create_scope(self._principal.scope):
                    return await action(self._use_cases)

        self._runner = self._runner or asyncio.Runner()
        return self._runner.run(called())

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Let the span of the command have the error that ends it."""
        try:
            yield
        except PlatformError as error:
            if self._span is not None:
                self._span.fail(error.code, error.message)
            raise

    def close(self) -> None:
        """Close the system."""
        if self._runner is None:
            return
        with self._runner as runner:
            runner.run(self._closed())
        self._runner, self._use_cases = None, None

    async def _closed(self) -> None:
        if self._use_cases is None:
            return
        with _draining_on_signals(self._use_cases):
            await self._open.aclose()

    def documents(self, kind: str) -> Body:
        """All stored documents of a kind by name, as one page."""

        async def listed(cases: UseCases) -> Body:
            items: list[Any] = []
            after: str | None = None
            while True:
                size = cases.answers.page_characters
                page = await cases.catalog.page(
                    self._principal, kind, after=after, limit=MOST_OF_A_PAGE, most_characters=size
                )
                body = documents.documents_body(self._principal.organization, kind, page)
                items += body["items"]
                after = page.next_cursor
                if after is None:
                    return {**body, "items": items}

        return self.call(listed)

    def document(self, kind: str, name: str) -> Body:
        """The latest revision of a document."""
        return documents.document_body(self.call(lambda cases: cases.catalog.get(self._principal, kind, name)))

    def delete(self, kind: str, name: str) -> None:
        """Forget a document."""
        self.call(lambda cases: cases.catalog.delete(self._principal, kind, name))

    def plan(self, documents: Sequence[PutDocument], *, prune: bool) -> list[Body]:
        """What applying a set of documents would change, and how its pipelines would run."""
        planned = self.call(lambda cases: cases.planner.plan_own(self._principal, documents, prune=prune))
        return plans.changes_body(planned)

    def plan_these(
        self,
        documents: Sequence[PutDocument],
        *,
        prune: bool,
        standing_in: Mapping[str, IDataStore],
        only: Collection[str],
    ) -> list[Body]:
        """As `plan`, looking at the stores of some pipelines, and at others in the place of what another
        process holds.
        """
        planned = self.call(
            lambda cases: cases.planner.plan_own(
                self._principal, documents, prune=prune, standing_in=standing_in, only=only
            )
        )
        return plans.changes_body(planned)

    def tables_in(
        self, specs: Collection[PipelineSpec], kind: str, *, but: Collection[str]
    ) -> Mapping[str, Sequence[str]]:
        """The tables that pipelines read and write in stored connections of a kind, by connection."""
        return self.call(lambda cases: cases.planner.tables_in(self._principal, specs, kind, but=but))

    def forgotten(self, documents: Sequence[PutDocument]) -> list[Body]:
        """What applying a set of documents with `prune` would forget."""
        planned = self.call(lambda cases: cases.catalog.plan(self._principal, documents, prune=True))
        return plans.changes_body([change for change in planned if change.action == "delete"])

    def apply(self, documents: Sequence[PutDocument], *, prune: bool) -> list[Body]:
        """Store a set of documents in one transaction; return what changed."""
        return plans.changes_body(self.call(lambda cases: cases.catalog.apply(self._principal, documents, prune=prune)))

    def state(self, name: str) -> Body:
        """Position and watermark at the destination."""
        return pipelines.state_body(name, self.call(lambda cases: cases.states.state(self._principal, name)))

    def reset(self, name: str, to: str | None) -> Body:
        """Forget the unfinished load and move the watermark."""
        return pipelines.state_body(name, self.call(lambda cases: cases.states.reset(self._principal, name, to)))

    def preview(self, name: str, documents: Sequence[PutDocument], *, limit: int | None, rows: bool) -> Body:
        """The first rows of a pipeline, which is stored or given with the connections that it names."""

        async def previewed(cases: UseCases) -> Body:
            spec = next((PipelineSpec.from_document(d.body) for d in documents if d.kind == "pipeline"), None)
            if spec is None:
                spec = await cases.states.spec_of(self._principal, name)
            else:
                named = [document for document in documents if document.kind == "connection"]
                await cases.catalog.apply(self._principal, named, prune=False)
            found = await cases.previewer.preview(self._principal, spec, limit=limit, keep_rows=rows)
            return pipelines.preview_body(found, cases.answers)

        return self.call(previewed)

    def runs(self, *, pipeline: str | None, limit: int, cursor: str | None) -> Body:
        """A page of runs, newest first."""

        async def listed(cases: UseCases) -> Body:
            organization = self._principal.organization
            after = runs.run_place_of(organization, cursor)
            page = await cases.history.runs(self._principal, pipeline=pipeline, limit=limit, after=after)
            return runs.runs_body(organization, page, cases.answers)

        return self.call(listed)

    def run(self, run_id: str) -> Body:
        """A run."""

        async def found(cases: UseCases) -> Body:
            return runs.shown_run(await cases.history.run(self._principal, run_id), cases.answers)

        return self.call(found)

    def transitions(self, run_id: str) -> Body:
        """A run's history, oldest first."""

        async def page(cases: UseCases, cursor: str | None) -> Body:
            own, size = self._principal.organization, MOST_OF_A_PAGE
            before = histories.transition_place_of(own, run_id, cursor)
            found = await cases.history.transitions(self._principal, run_id, before=before, newest=size + 1)
            return histories.transitions_body(own, run_id, found, size, cases.answers)

        return newest_pages(lambda cursor: self.call(lambda cases: page(cases, cursor)))

    def logs(self, run_id: str) -> Body:
        """A run's history together with its stored events, oldest first."""

        async def page(cases: UseCases, cursor: str | None) -> Body:
            own, size = self._principal.organization, MOST_OF_A_PAGE
            before = histories.log_place_of(own, run_id, cursor)
            found = await cases.history.logs(self._principal, run_id, before=before, newest=size + 1)
            return histories.logs_body(own, run_id, found, size, cases.answers)

        return newest_pages(lambda cursor: self.call(lambda cases: page(cases, cursor)))

    def wait_for(self, run_id: str) -> Body:
        """A run once it is at its end, or as it is when this process is to stop."""

        async def waited(cases: UseCases) -> Body:
            while True:
                found = await cases.history.run(self._principal, run_id)
                if found.state.is_terminal or cases.life.is_draining:
                    return runs.shown_run(found, cases.answers)
                await asyncio.sleep(_LOOK_EVERY_SECONDS)

        return self.call(waited)

    def trigger(self, name: str, documents: Sequence[PutDocument], request: RunRequest) -> Body:
        """There is nobody to leave a run to."""
        del name, documents, request
        raise UnavailableError("--detach needs a running headrace up to leave the run to.", code="server.gone")

    def run_to_end(
        self, name: str, documents: Sequence[PutDocument], request: RunRequest, listener: Listener = NOBODY
    ) -> Body:
        """Run here; first what an earlier process left unfinished."""
        if documents:
            self.apply(documents, prune=False)
        command = TriggerRun(name, request)
        return self._ran(lambda cases: cases.here.run(self._principal, command, listener.progress()), listener)

    def retry(self, run_id: str, *, abandon: bool, listener: Listener = NOBODY) -> Body:
        """Try a failed run again here."""
        return self._ran(
            lambda cases: cases.here.retry(self._principal, run_id, abandon=abandon, on_progress=listener.progress()),
            listener,
        )

    def cancel(self, run_id: str) -> Body:
        """Cancel a run."""
        return runs.run_body(self.call(lambda cases: cases.controller.cancel(self._principal, run_id)))

    def refused(self, pipeline: str, *, state: str | None, run: str | None, limit: int, cursor: str | None) -> Body:
        """A page of a pipeline's refused rows, oldest first."""

        async def listed(cases: UseCases) -> Body:
            organization = self._principal.organization
            after = quarantine.refused_place_of(organization, pipeline, cursor)
            chosen = RefusedState(state) if state is not None else None
            page = await cases.quarantine.page(
                self._principal, pipeline, state=chosen, run=run, after=after, limit=limit
            )
            return quarantine.refused_page_body(organization, pipeline, page, cases.answers)

        return self.call(listed)

    def replay(self, pipeline: str, *, run: str | None, listener: Listener = NOBODY) -> Body:
        """Replay a pipeline's open refused rows here."""

        async def replayed(cases: UseCases) -> RanHere:
            command = await cases.quarantine.command_to_replay(self._principal, pipeline, run=run)
            return await cases.here.run(self._principal, command, listener.progress())

        return self._ran(replayed, listener)

    def try_connection(self, name: str) -> Body:
        """Whether a connection works, and which step does not."""
        return connections.health_body(self.call(lambda cases: cases.probe.test(self._principal, name)))

    def tables(self, name: str) -> Body:
        """The tables of a connection."""

        async def listed(cases: UseCases) -> Body:
            return connections.tables_body(await cases.probe.tables(self._principal, name), cases.answers)

        return self.call(listed)

    def table(self, name: str, table: str) -> Body:
        """The columns and the key of a table."""

        async def described(cases: UseCases) -> Body:
            return connections.table_body(await cases.probe.describe(self._principal, name, table), cases.answers)

        return self.call(described)

    def issue_key(self, wanted: IssueKey) -> Body:
        """Make a key; the answer shows it, and nothing else ever will."""
        return keys.issued_body(self.call(lambda cases: cases.keys.issue(self._principal, wanted)))

    def keys(self) -> Body:
        """The keys, without the keys."""
        return keys.keys_body(self.call(lambda cases: cases.keys.page(self._principal)))

    def revoke_key(self, prefix: str) -> Body:
        """Revoke a key."""
        return keys.key_body(self.call(lambda cases: cases.keys.revoke(self._principal, prefix)), "revoked")

    def workers(self) -> Body:
        """The processes that were heard of lately, and how many rings wait."""

        async def listed(cases: UseCases) -> Body:
            alive = await cases.workers.alive(self._principal)
            return workers.workers_body(alive, await cases.workers.queue_depth(self._principal))

        return self.call(listed)

    def drain(self, worker_id: str) -> Body:
        """Ask a process to bring its runs to a checkpoint and to stop."""
        self.call(lambda cases: cases.workers.drain(self._principal, worker_id))
        return workers.draining_body(worker_id)

    def readiness(self) -> Body:
        """Whether work could be taken by this process, and each part's trouble."""
        return health.readiness_body(self.call(lambda cases: cases.health.readiness()))

    def _ran(self, action: Callable[[UseCases], Awaitable[RanHere]], listener: Listener) -> Body:
        """Run, and say what else was done and left: without a running `headrace up` nobody takes what runs after it."""

        async def ran(cases: UseCases) -> tuple[RanHere, Body]:
            found = await action(cases)
            return found, runs.shown_run(found.run, cases.answers)

        found, body = self.call(ran)
        for follower in found.followers:
            listener.note(f"{follower} runs after {found.run.work.name}; go on with: headrace run {follower}")
        if found.resumed:
            listener.note(f"resumed run {found.run.id}, which an earlier process left unfinished")
        return body


@contextmanager
def _draining_on_signals(use_cases: UseCases) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def drain() -> None:
        if use_cases.life.is_draining:
            os._exit(130)
        use_cases.life.begin_shutdown()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, drain)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
