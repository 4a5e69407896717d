"""Starts what runs `after:` another pipeline's commit, once per (target, causing run) (S3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from domain.events import Origin, RunFinished, RunQueued
from domain.ports.records.events import StoredEvent
from domain.ports.records.unit_of_work import IUnitOfWork
from domain.ports.runtime import IIdentifiers
from domain.runs.lane import MAIN_LANE
from domain.runs.run import Ring, Run, RunRequest, RunState
from domain.runs.work import WorkKind, WorkRef

# Who writes into the records meanwhile waits; a pipeline may have thousands of followers, and finish often.
_MOST_AT_A_TIME = 500


@dataclass(frozen=True)
class FollowerStarter:
    """A reaction to finished runs."""

    identifiers: IIdentifiers

    async def __call__(self, unit: IUnitOfWork, events: Sequence[StoredEvent]) -> Sequence[Ring]:
        """Queue a run of every follower of every run that succeeded; return what to ring for."""
        followers = await _followers(unit, events)
        if not followers:
            return []
        finished = [event for event in events if _has_succeeded(event)]
        known = await unit.runs.caused_by([_finished(event)[1] for event in finished])
        revisions = {
            organization: await unit.pipelines.latest(
                organization,
                sorted({name for (other, _), each in followers.items() if other == organization for name in each}),
            )
            for organization in {organization for organization, _ in followers}
        }
        asked = []
        for event in finished:
            organization, (name, cause) = event.organization, _finished(event)
            for follower in followers.get((organization, name), ()):
                revision = revisions[organization].get(follower)
                if revision is None or (WorkKind.PIPELINE.named(follower), cause) in known:
                    continue
                known.add((WorkKind.PIPELINE.named(follower), cause))
                asked.append(
                    Run(
                        id=self.identifiers.new_id(),
                        organization=organization,
                        work=WorkRef(WorkKind.PIPELINE, follower, revision),
                        lane=MAIN_LANE,
                        state=RunState.QUEUED,
                        request=RunRequest(),
                        requested_by=f"after:{name}",
                        cause=cause,
                        trace=event.payload.get("trace"),
                        correlation_id=event.payload.get("correlation_id"),
                    )
                )
        if asked:
            await unit.runs.insert_many(asked)
            await unit.events.add(*(RunQueued(Origin.of(run), cause=run.cause) for run in asked))
        return [Ring(run.organization, run.id, run.trace) for run in asked]

    async def first(self, unit: IUnitOfWork, events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
        """As many events, one at least, as start no more followers than one transaction may."""
        followers, started = await _followers(unit, events), 0
        for place, event in enumerate(events):
            if _has_succeeded(event):
                started += len(followers.get((event.organization, _finished(event)[0]), ()))
            if started > _MOST_AT_A_TIME and place:
                return events[:place]
        return events


def _has_succeeded(event: StoredEvent) -> bool:
    """Followers are of pipelines; what is told of another kind of work is not theirs."""
    is_end = event.event_type == RunFinished.event_type and event.payload["status"] == RunState.SUCCEEDED
    return is_end and event.payload["subject"]["kind"] == WorkKind.PIPELINE


def _finished(event: StoredEvent) -> tuple[str, str]:
    return str(event.payload["subject"]["name"]), str(event.payload["run_id"])


async def _followers(unit: IUnitOfWork, events: Sequence[StoredEvent]) -> Mapping[tuple[str, str], Sequence[str]]:
    """Who runs after the pipelines whose runs succeeded."""
    return await unit.followers.of(
        sorted({(event.organization, _finished(event)[0]) for event in events if _has_succeeded(event)})
    )
