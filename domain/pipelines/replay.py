"""A replay: the refused rows of a pipeline once more through its transforms and rules, in a lane of their own (D9)."""

from dataclasses import replace

from domain.errors import InvalidInputError
from domain.loads.quarantine import ALL_RUNS, PLACE, Refusals, RefusedState
from domain.pipelines.spec import Mode, OnError, PipelineSpec, Publish, SourceSpec
from domain.runs.run import RunRequest

REPLAY_LANE = "replay"


def lane_of(spec: PipelineSpec, request: RunRequest) -> str:
    """Name the lane that a run with these wishes belongs to."""
    return REPLAY_LANE if request.replay is not None else spec.lane_for(request.parameters)


def refusals_of(spec: PipelineSpec, organization: str, run: str | None = None) -> Refusals:
    """The refused rows of a pipeline, or of one of its runs."""
    cursor = spec.source.cursor.column if spec.source.cursor else None
    return Refusals(organization, spec.name, spec.destination.table, run_id=run, cursor=cursor)


def check_replay(spec: PipelineSpec) -> None:
    """Refuse to replay where the next run reads everything anyway.

    Raises:
        InvalidInputError: the pipeline replaces its table (`quarantine.replace`).
    """
    if spec.destination.mode is Mode.REPLACE:
        raise InvalidInputError(
            f"{spec.name} replaces its table: its next run reads the refused rows again, so run it instead.",
            code="quarantine.replace",
        )


def replay_of(spec: PipelineSpec, organization: str, replay: str) -> PipelineSpec:
    """The spec of a replay: it reads the quarantine, judges row by row, and leaves what is refused again where it is.

    Rules over a whole run say nothing about a few of its rows; batches are committed with the marks on what they
    repair, so rows land at once.
    """
    check_replay(spec)
    run = None if replay == ALL_RUNS else replay
    refused = replace(refusals_of(spec, organization, run), state=RefusedState.OPEN)
    return replace(
        spec,
        source=SourceSpec(connection=spec.destination.connection, refused=refused, key=PLACE),
        quality=tuple(rule.patient for rule in spec.quality if rule.is_row_rule),
        on_error=OnError(),
        destination=replace(spec.destination, publish=Publish.BATCH, delete_missing=None),
    )
