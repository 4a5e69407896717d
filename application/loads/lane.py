"""What a lane remembers, held against what a run wants: what may be finished, what is over, and what must not be read
again.
"""

from application.loads.attempt import Attempt
from application.loads.landing import Prepared
from domain.errors import ConflictError
from domain.loads.checkpoint import LaneState
from domain.loads.read_set import ReadSet
from domain.pipelines.spec import Mode, PipelineSpec


def fits(spec: PipelineSpec, state: LaneState) -> bool:
    """Whether what the lane remembers belongs to this source, cursor, key and destination."""
    return state.memory.fingerprint in (None, spec.fingerprint)


def kept_watermark(spec: PipelineSpec, state: LaneState) -> str | None:
    """The watermark, if it belongs to this source, cursor, key and destination, whatever was opened since."""
    return state.watermark if state.memory.of_watermark in (None, spec.fingerprint) else None


def is_forgotten(spec: PipelineSpec, state: LaneState) -> bool:
    """Whether an abandoned lane has something to forget: an unfinished load, or the watermark of another source."""
    return state.is_loading or (not fits(spec, state) and _has_position(spec, state))


def leaves_nothing(spec: PipelineSpec, state: LaneState) -> bool:
    """Whether the unfinished load of an earlier revision lies in staging alone: nobody has seen anything of it."""
    if fits(spec, state) or _has_position(spec, state) or not state.is_loading:
        return False
    return bool(state.memory.stage)


def is_over(stored: ReadSet, state: LaneState) -> bool:
    """Whether the lane has moved on since a read set was planned: it is not the open one, and others were since."""
    if stored.id == state.read_set_id:
        return False
    return stored.generation is not None and stored.generation != state.generation


def unfinished(attempt: Attempt, state: LaneState) -> ReadSet | None:
    """The lane's unfinished read set, if this run may finish it.

    Raises:
        ConflictError: it may not, or the watermark belongs to another source.
    """
    spec, left = attempt.spec, state.memory.read_set
    if attempt.request.full_refresh:
        return None
    has_begun = state.is_loading and state.seq > 0  # Of what committed no batch there is nothing to finish.
    if left is not None and _is_refresh(left, state):
        has_begun, is_fitting = False, kept_watermark(spec, state) == state.watermark
    else:
        is_fitting = fits(spec, state)
    if not is_fitting and (has_begun or _has_position(spec, state)):
        what = "an unfinished load" if has_begun else "the watermark"
        raise ConflictError(
            f"The source, key, cursor or destination changed since {what} of {spec.name} was written: run "
            "with --full-refresh to replace the table, or with --abandon to forget it and start again beside the "
            "rows that are there.",
            code="run.position_conflict",
        )
    return left if has_begun and left is not None and not _is_moot(attempt, left) else None


def _is_refresh(left: ReadSet, state: LaneState) -> bool:
    """Whether what is unfinished was to take the table's place: nobody has seen anything of it, and as part of another
    run its rows would stand beside those that it was to replace. Any other reads from the watermark on.
    """
    if left.full_refresh is not None:
        return left.full_refresh
    return left.shadow is not None and left.plan.lo is None and left.plan.hi is not None and state.watermark is not None


def _is_moot(attempt: Attempt, left: ReadSet) -> bool:
    """Whether this run has all of what is unfinished by itself: it replaces the table in which rows of that lie, or
    reads another part of a source without a cursor into a stage of its own.
    """
    if left.shadow is None:
        return attempt.spec.destination.mode is Mode.REPLACE
    return left.plan.limit != attempt.request.limit and attempt.spec.source.cursor is None


def refuse_to_read_again(attempt: Attempt, state: LaneState) -> None:
    """Refuse to append beside what this run or another one has loaded already.

    Raises:
        ConflictError: the lane has moved on and no watermark says what is left, or it was reset while this run was at
            work (`run.overtaken`).
    """
    spec = attempt.spec
    if spec.destination.mode is not Mode.APPEND or attempt.request.full_refresh:
        return
    if state.read_set_id is None:  # A reset of these records would have had the run plan anew: it was another's.
        raise ConflictError(
            f"The position of {spec.name} was reset elsewhere while this run was at work, so it would read its own "
            "rows once more: nothing more was written. Run it again to read from the new position.",
            code="run.overtaken",
        )
    if spec.source.cursor is None and spec.source.refused is None:
        raise ConflictError(
            f"Another run of {spec.name} has taken over and moved on since this one was planned, and without a cursor "
            "nothing tells what is left: nothing more was written. Run it again if the rows are to be loaded once "
            "more.",
            code="run.overtaken",
        )


def check_table_is_there(spec: PipelineSpec, state: LaneState, landing: Prepared, *, is_open: bool) -> None:
    """Refuse to go on beside rows that are gone: what follows would look like the whole.

    Raises:
        ConflictError: the table was dropped after rows had landed in it (`destination.missing`).
    """
    if not landing.is_new or landing.target.replaces:
        return
    has_landed = is_open and landing.target.shadow is None and state.seq > 0
    # A watermark that somebody has put there by hand tells of no rows.
    has_loaded = spec.source.cursor is not None and state.watermark is not None and state.memory.fingerprint is not None
    if has_landed or has_loaded:
        raise ConflictError(
            f"The table {landing.target.table} is gone, though rows were loaded into it: run with --full-refresh to "
            f"load everything again, or forget the position with 'headrace pipelines reset {spec.name}'.",
            code="destination.missing",
        )


def _has_position(spec: PipelineSpec, state: LaneState) -> bool:
    return state.watermark is not None and spec.source.cursor is not None
