"""What a lane remembers, held against what a run wants."""

from dataclasses import replace

import pytest

from application.loads.lane import is_forgotten, is_over, leaves_nothing, refuse_to_read_again, unfinished
from domain.errors import ConflictError
from domain.loads.checkpoint import LaneState
from tests.unit.application.loads.making import attempt_of, lane_of, read_set_of, spec_of


def test_what_an_earlier_run_left_unfinished_is_finished_first() -> None:
    spec = spec_of()
    left = read_set_of(spec)

    assert unfinished(attempt_of(spec), lane_of(spec, left, rows=3)) == left
    assert unfinished(attempt_of(spec), lane_of(spec, left)) is None  # Nothing of it was committed.
    assert unfinished(attempt_of(spec), lane_of(spec)) is None
    assert unfinished(attempt_of(spec, full_refresh=True), lane_of(spec, left, rows=3)) is None


def test_what_this_run_has_all_of_by_itself_is_not_finished() -> None:
    staged = "_headrace_stage_1"
    for mode, is_staged, limit, is_finished in (
        ("append", False, None, True),
        ("append", False, 3, True),  # Rows of it stand in the table, and once more they would be there twice.
        ("append", True, 3, False),
        ("merge", True, 3, False),
        ("merge", False, 3, True),
        ("replace", True, None, True),
        ("replace", True, 3, False),
        ("replace", False, None, False),  # It was begun in another mode.
    ):
        spec = spec_of(mode=mode)
        left = read_set_of(spec, shadow=staged if is_staged else None)
        left = replace(left, plan=replace(left.plan, limit=limit))

        assert (unfinished(attempt_of(spec), lane_of(spec, left, rows=3)) == left) is is_finished
        assert unfinished(attempt_of(spec, limit=limit), lane_of(spec, left, rows=3)) == (
            left if is_staged or mode != "replace" else None
        )
        adopted = replace(left, is_adopted=True)
        assert attempt_of(spec).goes_on_after(adopted) is (limit is not None and mode != "append")


@pytest.mark.parametrize(("says", "lo"), [(True, None), (True, "5"), (None, None)])
def test_full_refresh_is_finished_by_nobody_else(says: bool | None, lo: str | None) -> None:
    spec = spec_of(cursor=True)
    left = read_set_of(spec, shadow="_headrace_stage_1", full_refresh=says)
    left = replace(left, plan=replace(left.plan, lo=lo, hi="9"))

    assert unfinished(attempt_of(spec), lane_of(spec, left, rows=3, watermark="7")) is None


@pytest.mark.parametrize(
    ("is_open", "rows", "watermark", "is_refused"),
    [(True, 3, None, True), (True, 0, None, False), (False, 0, "7", True), (False, 0, None, False)],
)
def test_what_belongs_to_another_source_is_neither_finished_nor_gone_on_from(
    is_open: bool, rows: int, watermark: str | None, is_refused: bool
) -> None:
    spec = spec_of(cursor=True)
    lane = lane_of(None, read_set_of(spec) if is_open else None, rows=rows, watermark=watermark)

    if not is_refused:
        assert unfinished(attempt_of(spec), lane) is None
        return
    with pytest.raises(ConflictError) as refused:
        unfinished(attempt_of(spec), lane)
    assert refused.value.code == "run.position_conflict"
    assert is_forgotten(spec, lane)  # Which --abandon does.


def test_staging_that_nobody_has_seen_is_given_up_without_a_word() -> None:
    spec = spec_of()

    assert leaves_nothing(spec, lane_of(None, read_set_of(spec, shadow="_headrace_stage_1"), rows=3))
    assert not leaves_nothing(spec, lane_of(None, read_set_of(spec), rows=3))  # Its rows stand in the table.
    assert not leaves_nothing(spec, lane_of(spec, read_set_of(spec, shadow="_headrace_stage_1"), rows=3))


@pytest.mark.invariant("D1")
def test_read_set_is_over_once_the_lane_has_moved_on() -> None:
    spec = spec_of()
    planned = read_set_of(spec, generation=4)

    assert not is_over(planned, lane_of(spec, generation=4))
    assert not is_over(planned, lane_of(spec, planned, generation=5))
    assert is_over(planned, lane_of(spec, read_set_of(spec, "rs2"), generation=5))
    assert is_over(planned, lane_of(spec, generation=6))


@pytest.mark.invariant("D1")
@pytest.mark.parametrize(
    ("mode", "cursor", "asked", "published", "is_refused"),
    [
        ("append", False, {}, "rs2", True),
        ("append", True, {}, "rs2", False),
        ("append", True, {}, None, True),  # Somebody with other records has reset it.
        ("append", False, {"full_refresh": True}, "rs2", False),
        ("merge", False, {}, "rs2", False),
        ("replace", False, {}, "rs2", False),
    ],
)
def test_rows_are_not_appended_again_where_nothing_tells_what_is_left(
    mode: str, cursor: bool, asked: dict[str, bool], published: str | None, is_refused: bool
) -> None:
    attempt = attempt_of(spec_of(mode=mode, cursor=cursor), **asked)
    lane = LaneState("idle", 2, read_set_id=published)

    if not is_refused:
        refuse_to_read_again(attempt, lane)
        return
    with pytest.raises(ConflictError) as refused:
        refuse_to_read_again(attempt, lane)
    assert refused.value.code == "run.overtaken"
