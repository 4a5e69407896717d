"""What commands ask for, whoever answers: every answer is the body that the HTTP API gives, as values of JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

    from application.catalog.documents import PutDocument
    from application.identity.access import IssueKey
    from domain.ports.engine import Progress
    from domain.runs.run import RunRequest

Body = dict[str, Any]
MOST_OF_A_PAGE = 500
"""So many items the API gives at once."""

_MOST_PAGES = 40


def newest_pages(page: Callable[[str | None], Body]) -> Body:
    """The lines of a list whose first page has the newest, oldest first; of a very long one the newest pages."""
    pages: list[Any] = []
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        body = page(cursor)
        pages, cursor = [body["items"], *pages], body["next_cursor"]
        if cursor is None:
            break
    items = [line for lines in pages for line in lines]
    more = {} if cursor is None else {"note": f"Only the newest {len(items):,} are shown."}
    return {"items": items, **more}


def _nothing(_: object) -> None:
    """Nobody listens."""


def _nobody() -> Callable[[Progress], None]:
    return _nothing


@dataclass(frozen=True)
class Listener:
    """Who hears of a run that is waited for: its batches, where this process reads them, and what else
    there is to say.
    """

    progress: Callable[[], Callable[[Progress], None]] = _nobody
    """Begins to listen: called when all is open that the run needs, and its time counts."""
    note: Callable[[str], None] = _nothing


NOBODY = Listener()


class IClient(ABC):
    """A session of one command; what it opens is closed at the end of its block.

    1. An answer is the body of the API's answer, whoever gives it.
    2. A failure is the error that the use case raises, of the same exit code and with its code and sentence.
    3. Beside a running `headrace up` that process does the work; what it does not offer, keys and documents applied as
       one set, is done on the records that both share.
    4. Documents that are not stored are opened by the process of the command, whose they are.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Release what was opened; harmless when nothing was."""

    # Documents

    @abstractmethod
    def documents(self, kind: str) -> Body:
        """All stored documents of a kind by name, as one page."""

    @abstractmethod
    def document(self, kind: str, name: str) -> Body:
        """The latest revision of a document."""

    @abstractmethod
    def delete(self, kind: str, name: str) -> None:
        """Forget a document."""

    @abstractmethod
    def plan(self, documents: Sequence[PutDocument], *, prune: bool) -> list[Body]:
        """What applying a set of documents would change, and how its pipelines would run."""

    @abstractmethod
    def forgotten(self, documents: Sequence[PutDocument]) -> list[Body]:
        """What applying a set of documents with `prune` would forget."""

    @abstractmethod
    def apply(self, documents: Sequence[PutDocument], *, prune: bool) -> list[Body]:
        """Store a set of documents in one transaction; return what changed."""

    # Pipelines

    @abstractmethod
    def state(self, name: str) -> Body:
        """Position and watermark at the destination."""

    @abstractmethod
    def reset(self, name: str, to: str | None) -> Body:
        """Forget the unfinished load and move the watermark."""

    @abstractmethod
    def preview(self, name: str, documents: Sequence[PutDocument], *, limit: int | None, rows: bool) -> Body:
        """The first rows of a pipeline, which is stored or given with the connections that it names."""

    # Runs

    @abstractmethod
    def runs(self, *, pipeline: str | None, limit: int, cursor: str | None) -> Body:
        """A page of runs, newest first."""

    @abstractmethod
    def run(self, run_id: str) -> Body:
        """A run."""

    @abstractmethod
    def transitions(self, run_id: str) -> Body:
        """A run's history, oldest first."""

    @abstractmethod
    def logs(self, run_id: str) -> Body:
        """A run's history together with its stored events, oldest first."""

    @abstractmethod
    def wait_for(self, run_id: str) -> Body:
        """A run once it is at its end."""

    @abstractmethod
    def trigger(self, name: str, documents: Sequence[PutDocument], request: RunRequest) -> Body:
        """Store the documents, leave a run to a running `headrace up`, and do not wait for it.

        Raises:
            UnavailableError: there is none (`server.gone`).
        """

    @abstractmethod
    def run_to_end(
        self, name: str, documents: Sequence[PutDocument], request: RunRequest, listener: Listener = NOBODY
    ) -> Body:
        """Store the documents, ask for a run, and give it as it is at its end."""

    @abstractmethod
    def retry(self, run_id: str, *, abandon: bool, listener: Listener = NOBODY) -> Body:
        """Ask for a failed run again, and give the new one as it is at its end."""

    @abstractmethod
    def cancel(self, run_id: str) -> Body:
        """Cancel a run."""

    # Refused rows

    @abstractmethod
    def refused(self, pipeline: str, *, state: str | None, run: str | None, limit: int, cursor: str | None) -> Body:
        """A page of a pipeline's refused rows, oldest first."""

    @abstractmethod
    def replay(self, pipeline: str, *, run: str | None, listener: Listener = NOBODY) -> Body:
        """Replay a pipeline's open refused rows, and give the run as it is at its end."""

    # Connections

    @abstractmethod
    def try_connection(self, name: str) -> Body:
        """Whether a connection works, and which step does not."""

    @abstractmethod
    def tables(self, name: str) -> Body:
        """The tables of a connection."""

    @abstractmethod
    def table(self, name: str, table: str) -> Body:
        """The columns and the key of a table."""

    # Keys

    @abstractmethod
    def issue_key(self, wanted: IssueKey) -> Body:
        """Make a key; the answer shows it, and nothing else ever will."""

    @abstractmethod
    def keys(self) -> Body:
        """The keys, without the keys."""

    @abstractmethod
    def revoke_key(self, prefix: str) -> Body:
        """Revoke a key."""

    # Processes

    @abstractmethod
    def workers(self) -> Body:
        """The processes that were heard of lately, and how many rings wait."""

    @abstractmethod
    def drain(self, worker_id: str) -> Body:
        """Ask a process to bring its runs to a checkpoint and to stop."""

    @abstractmethod
    def readiness(self) -> Body:
        """Whether work can be taken, and each part's trouble."""
