"""The client of a running `headrace up`: the same words, over its API."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from entrypoints.client.protocol import MOST_OF_A_PAGE, NOBODY, Body, IClient, Listener, newest_pages

if TYPE_CHECKING:
    from application.catalog.documents import PutDocument
    from application.identity.access import IssueKey
    from domain.runs.run import RunRequest
    from entrypoints.client.in_process import InProcessClient
    from entrypoints.client.server import RemoteServer

_LOOK_EVERY_SECONDS = 0.2


class RemoteClient(IClient):
    """Asks a server. `own` is made where something is done beside it, in this process: see `IClient`."""

    def __init__(self, server: RemoteServer, own: Callable[[], InProcessClient]) -> None:
        self._server = server
        self._make_own = own
        self._made_own: InProcessClient | None = None

    @property
    def _own(self) -> InProcessClient:
        self._made_own = self._made_own or self._make_own()
        return self._made_own

    def close(self) -> None:
        """Close what was opened beside the server."""
        if self._made_own is not None:
            self._made_own.close()

    def documents(self, kind: str) -> Body:
        """All stored documents of a kind by name, as one page."""
        items: list[Any] = []
        cursor: str | None = None
        while True:
            page: Body = self._get(f"/v1/{kind}s", limit=MOST_OF_A_PAGE, cursor=cursor)
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return {**page, "items": items}

    def document(self, kind: str, name: str) -> Body:
        """The latest revision of a document."""
        return self._get(f"/v1/{kind}s/{_part(name)}")

    def delete(self, kind: str, name: str) -> None:
        """Forget a document."""
        self._server.request("DELETE", f"/v1/{kind}s/{_part(name)}")

    def plan(self, documents: Sequence[PutDocument], *, prune: bool) -> list[Body]:
        """What applying a set of documents would change, and how its pipelines would run."""
        from entrypoints.client.beside import planned_beside

        return planned_beside(self._server, self._own, documents, prune=prune)

    def forgotten(self, documents: Sequence[PutDocument]) -> list[Body]:
        """What applying a set of documents with `prune` would forget."""
        return self._own.forgotten(documents)

    def apply(self, documents: Sequence[PutDocument], *, prune: bool) -> list[Body]:
        """Store a set of documents in one transaction; return what changed."""
        return self._own.apply(documents, prune=prune)

    def state(self, name: str) -> Body:
        """Position and watermark at the destination."""
        return self._get(f"/v1/pipelines/{_part(name)}/state")

    def reset(self, name: str, to: str | None) -> Body:
        """Forget the unfinished load and move the watermark."""
        return self._post(f"/v1/pipelines/{_part(name)}/reset", {"to": to})

    def preview(self, name: str, documents: Sequence[PutDocument], *, limit: int | None, rows: bool) -> Body:
        """The first rows of a pipeline, stored or given with the connections that it names; stores what is given."""
        self._put(documents)
        return self._post(f"/v1/pipelines/{_part(name)}/preview", {"limit": limit, "rows": rows})

    def runs(self, *, pipeline: str | None, limit: int, cursor: str | None) -> Body:
        """A page of runs, newest first."""
        return self._get("/v1/runs", pipeline=pipeline, limit=limit, cursor=cursor)

    def run(self, run_id: str) -> Body:
        """A run."""
        return self._get(f"/v1/runs/{_part(run_id)}")

    def transitions(self, run_id: str) -> Body:
        """A run's history, oldest first."""
        path = f"/v1/runs/{_part(run_id)}/transitions"
        return newest_pages(lambda cursor: self._get(path, limit=MOST_OF_A_PAGE, cursor=cursor))

    def logs(self, run_id: str) -> Body:
        """A run's history together with its stored events, oldest first."""
        path = f"/v1/runs/{_part(run_id)}/logs"
        return newest_pages(lambda cursor: self._get(path, limit=MOST_OF_A_PAGE, cursor=cursor))

    def wait_for(self, run_id: str) -> Body:
        """A run once it is at its end."""
        while True:
            found = self.run(run_id)
            if found["state"] not in ("queued", "running"):
                return found
            time.sleep(_LOOK_EVERY_SECONDS)

    def trigger(self, name: str, documents: Sequence[PutDocument], request: RunRequest) -> Body:
        """Leave a run to the server."""
        self._put(documents)
        asked = {
            "parameters": dict(request.parameters),
            "limit": request.limit,
            "full_refresh": request.full_refresh,
            "abandon": request.abandon,
        }
        return self._post(f"/v1/pipelines/{_part(name)}/trigger", asked)

    def run_to_end(
        self, name: str, documents: Sequence[PutDocument], request: RunRequest, listener: Listener = NOBODY
    ) -> Body:
        """Ask for a run, and give it as it is at its end."""
        del listener  # The server reads the batches.
        return self.wait_for(self.trigger(name, documents, request)["id"])

    def retry(self, run_id: str, *, abandon: bool, listener: Listener = NOBODY) -> Body:
        """Ask for a failed run again, and give the new one as it is at its end."""
        del listener  # The server reads the batches.
        return self.wait_for(self._post(f"/v1/runs/{_part(run_id)}/retry", {"abandon": abandon})["id"])

    def cancel(self, run_id: str) -> Body:
        """Cancel a run."""
        return self._post(f"/v1/runs/{_part(run_id)}/cancel")

    def refused(self, pipeline: str, *, state: str | None, run: str | None, limit: int, cursor: str | None) -> Body:
        """A page of a pipeline's refused rows, oldest first."""
        return self._get("/v1/quarantine", pipeline=pipeline, limit=limit, state=state, run=run, cursor=cursor)

    def replay(self, pipeline: str, *, run: str | None, listener: Listener = NOBODY) -> Body:
        """Replay a pipeline's open refused rows, and give the run as it is at its end."""
        del listener  # The server reads the batches.
        return self.wait_for(self._post("/v1/quarantine/replay", {"pipeline": pipeline, "run": run})["id"])

    def try_connection(self, name: str) -> Body:
        """Whether a connection works, and which step does not."""
        return self._post(f"/v1/connections/{_part(name)}/test")

    def tables(self, name: str) -> Body:
        """The tables of a connection."""
        return self._get(f"/v1/connections/{_part(name)}/tables")

    def table(self, name: str, table: str) -> Body:
        """The columns and the key of a table."""
        return self._get(f"/v1/connections/{_part(name)}/tables", table=table)

    def issue_key(self, wanted: IssueKey) -> Body:
        """Make a key; the answer shows it, and nothing else ever will."""
        return self._own.issue_key(wanted)

    def keys(self) -> Body:
        """The keys, without the keys."""
        return self._own.keys()

    def revoke_key(self, prefix: str) -> Body:
        """Revoke a key, the one that the server is asked with too."""
        return self._own.revoke_key(prefix)

    def workers(self) -> Body:
        """The processes that were heard of lately, and how many rings wait."""
        return self._get("/v1/workers")

    def drain(self, worker_id: str) -> Body:
        """Ask a process to bring its runs to a checkpoint and to stop."""
        return self._post(f"/v1/workers/{_part(worker_id)}/drain")

    def readiness(self) -> Body:
        """Whether work can be taken, and each part's trouble; that it cannot is an answer too."""
        status, found, name = self._server.answer("GET", "/ready")
        is_answer = status == 503 and isinstance(found, dict) and "parts" in found
        body: Body = found if is_answer else self._server.checked(status, found, name)
        return body

    def _put(self, documents: Sequence[PutDocument]) -> None:
        """Store documents, connections first."""
        for document in sorted(documents, key=lambda document: document.kind):
            self._server.request("PUT", f"/v1/{document.kind}s/{_part(document.name)}", dict(document.body))

    def _get(self, path: str, **query: Any) -> Body:
        given = urlencode({name: value for name, value in query.items() if value is not None})
        body: Body = self._server.request("GET", f"{path}?{given}" if given else path)
        return body

    def _post(self, path: str, content: Mapping[str, Any] | None = None) -> Body:
        body: Body = self._server.request("POST", path, content)
        return body


def _part(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")
