"""Starts what runs `after:` another pipeline's commit, once per (target, causing run) (S3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from domain.events import RunFinished, RunQueued
from domain.ports.runtime import IIdentifiers
from domain.ports.unit_of_work import IUnitOfWork, StoredEvent
from domain.runs.lane import MAIN_LANE
from domain.runs.run import Ring, Run, RunRequest, RunState

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
        finished = [(event.organization, *_finished(event)) for event in events if _has_succeeded(event)]
        known = await unit.runs.caused_by([run_id for _, _, run_id in finished])
        revisions = {
            organization: await unit.pipelines.latest(
                organization,
                sorted({name for (other, _), each in followers.items() if other == organization for name in each}),
            )
            for organization in {organization for organization, _ in followers}
        }
        asked = []
        for organization, name, cause in finished:
            for follower in followers.get((organization, name), ()):
                revision = revisions[organization].get(follower)
                if revision is None or (follower, cause) in known:
                    continue
                known.add((follower, cause))
                asked.append(
                    Run(
                        id=self.identifiers.new_id(),
                        organization=organization,
                        pipeline=follower,
                        revision=revision,
                        lane=MAIN_LANE,
                        state=RunState.QUEUED,
                        request=RunRequest(),
                        requested_by=f"after:{name}",
                        cause=cause,
                    )
                )
        if asked:
            await unit.runs.insert_many(asked)
            await unit.events.add(
                *(RunQueued(run.organization, run.pipeline, run.id, cause=run.cause) for run in asked)
            )
        return [Ring(run.organization, run.id) for run in asked]

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
    return event.event_type == RunFinished.event_type and event.payload["state"] == RunState.SUCCEEDED


def _finished(event: StoredEvent) -> tuple[str, str]:
    return str(event.payload["pipeline"]), str(event.payload["run_id"])


async def _followers(unit: IUnitOfWork, events: Sequence[StoredEvent]) -> Mapping[tuple[str, str], Sequence[str]]:
    """Who runs after the pipelines whose runs succeeded."""
    return await unit.followers.of(
        sorted({(event.organization, _finished(event)[0]) for event in events if _has_succeeded(event)})
    )
