"""Starts what runs `after:` another pipeline's commit, once per (target, causing run) (S3)."""

from collections.abc import Sequence
from dataclasses import dataclass

from domain.events import RunFinished, RunQueued
from domain.ports.runtime import IIdentifiers
from domain.ports.unit_of_work import IUnitOfWork, StoredEvent
from domain.runs.lane import MAIN_LANE
from domain.runs.run import Ring, Run, RunRequest, RunState


@dataclass(frozen=True)
class FollowerStarter:
    """A reaction to finished runs."""

    identifiers: IIdentifiers

    async def __call__(self, unit: IUnitOfWork, events: Sequence[StoredEvent]) -> Sequence[Ring]:
        """Queue a run of every follower of every run that succeeded; return what to ring for."""
        finished = [
            (event.organization, str(event.payload["pipeline"]), str(event.payload["run_id"]))
            for event in events
            if event.event_type == RunFinished.event_type and event.payload["state"] == RunState.SUCCEEDED
        ]
        followers = await unit.followers.of(sorted({(organization, name) for organization, name, _ in finished}))
        if not followers:
            return []
        known = await unit.runs.caused_by([run_id for _, _, run_id in finished])
        asked = []
        for organization, name, cause in finished:
            for follower in followers.get((organization, name), ()):
                stored = await unit.pipelines.get(organization, follower)
                if stored is None or (follower, cause) in known:
                    continue
                known.add((follower, cause))
                asked.append(
                    Run(
                        id=self.identifiers.new_id(),
                        organization=organization,
                        pipeline=follower,
                        revision=stored.revision,
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
