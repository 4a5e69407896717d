"""Parts of loads for stories that need no store."""

from datetime import timedelta
from typing import Any

from application.loads.attempt import Attempt
from application.loads.work import PipelineWork
from application.runs.work import Claim
from domain.loads.checkpoint import LaneState, StreamState
from domain.loads.memory import LaneMemory
from domain.loads.read_set import ReadSet, SourcePlan, Stream
from domain.pipelines.spec import PipelineSpec
from domain.ports.records.runs import ILease
from domain.quality.measures import Counts
from domain.runs.run import Run, RunRequest, RunState
from domain.runs.work import WorkKind, WorkRef
from infrastructure.clock import SystemClock

FINGERPRINT_OF_ANOTHER = "another source"


class Held(ILease):
    """A lease that nobody takes; what it says is set by the story."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def stop_reason(self) -> str | None:
        return self.reason

    def moved_to(self, fence: int) -> None:
        return


def spec_of(*, mode: str = "append", cursor: bool = False, **more: Any) -> PipelineSpec:
    source: dict[str, Any] = {"table": "orders", "connection": "shop", "key": ["id"]}
    if cursor:
        source["cursor"] = {"column": "at"}
    destination = {"table": "landed", "mode": mode, **({"key": ["id"]} if mode == "merge" else {})}
    return PipelineSpec.from_document(
        {"version": 1, "pipeline": "orders", "source": source, "destination": destination, **more}
    )


def attempt_of(spec: PipelineSpec, stored: ReadSet | None = None, **asked: Any) -> Attempt:
    work_ref = WorkRef(WorkKind.PIPELINE, "orders", 1)
    run = Run("r1", "default", work_ref, "main", RunState.RUNNING, RunRequest(**asked), fence=1, attempt=1)
    work: PipelineWork = PipelineWork.__new__(PipelineWork)  # Nothing asks it in these stories.
    claim = Claim(
        run, work, Held(), fence=1, timeout=timedelta(hours=1), is_draining=lambda: False, clock=SystemClock()
    )
    return Attempt(claim, spec, tuple, stored=stored)


def read_set_of(spec: PipelineSpec, name: str = "rs1", **more: Any) -> ReadSet:
    plan = SourcePlan((("id", "int64"),), (Stream("s"),), ordered=True, order=("id",))
    return ReadSet(name, spec.fingerprint, plan, 10, **more)


def lane_of(spec: PipelineSpec | None, read_set: ReadSet | None = None, *, rows: int = 0, **more: Any) -> LaneState:
    """A lane that is loading a read set and has committed so many rows of it, or one that is idle."""
    fingerprint = spec.fingerprint if spec else FINGERPRINT_OF_ANOTHER
    if read_set is None:
        return LaneState("idle", 1, **{"memory": LaneMemory(fingerprint), **more})
    streams = (StreamState("s", seq=1 if rows else 0, counts=Counts(read=rows, used=rows, produced=rows)),)
    memory = LaneMemory(fingerprint, read_set)
    return LaneState("loading", 1, **{"read_set_id": read_set.id, "memory": memory, "streams": streams, **more})
