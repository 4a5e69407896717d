"""Who may act on a lane and write to a stream."""

from dataclasses import replace

import pytest

from domain.errors import ConversionError, FencedError, PlatformError, StoreRefusedError, StoreUnavailableError
from domain.loads.checkpoint import CheckpointUpdate, LaneState
from domain.loads.fencing import Ownership, Standing, StreamOwnership, may_have_committed
from domain.quality.measures import Counts, Measures
from domain.runs.lane import Lane

LANE = Lane("default", "orders")
OURS = Ownership(LANE, 3, "ours")
WRITER = StreamOwnership(LANE, "0", "r1", 3, "ours")


def update(seq: int, *, is_last: bool = False) -> CheckpointUpdate:
    return CheckpointUpdate(seq, (str(seq),), Counts(read=1, used=1), Measures(), is_last)


@pytest.mark.parametrize(
    ("stands", "owner", "is_refused"),
    [
        (LaneState("idle", 0), Ownership(LANE, 1, None), False),
        (LaneState("idle", 2, token="theirs"), OURS, False),
        (LaneState("idle", 3, token="ours"), OURS, False),
        (LaneState("idle", 3, token="theirs"), OURS, True),
        (LaneState("idle", 3, token="ours"), Ownership(LANE, 3, None), True),
        (LaneState("idle", 3), Ownership(LANE, 3, None), True),
        (LaneState("idle", 4, token="ours"), OURS, True),
    ],
)
def test_lane_is_taken_over_from_below_or_by_the_claim_that_holds_it(
    stands: LaneState, owner: Ownership, is_refused: bool
) -> None:
    if not is_refused:
        owner.check_above(stands)
        return
    with pytest.raises(FencedError) as refused:
        owner.check_above(stands)
    assert refused.value.fence == stands.fence


@pytest.mark.parametrize("found", [(2, "ours"), (4, "ours"), (3, "theirs"), (3, None), (None, None)])
def test_owner_and_writer_act_under_their_own_fence_and_token_only(found: tuple[int | None, str | None]) -> None:
    OURS.check_holds(3, "ours")
    WRITER.check_holds(3, "ours")
    with pytest.raises(FencedError) as refused:
        OURS.check_holds(*found)
    assert refused.value.fence == found[0]
    with pytest.raises(FencedError):
        WRITER.check_holds(*found)


def test_batch_is_written_behind_the_one_before_it_alone() -> None:
    stands = Standing(3, "ours", "r1", 4, "loading")
    assert WRITER.before(update(5)) == stands
    for other in (
        replace(stands, fence=4),
        replace(stands, token="theirs"),
        replace(stands, read_set_id="r2"),
        replace(stands, seq=5),
        replace(stands, state="done"),
        replace(stands, state="sealed"),
    ):
        assert WRITER.before(update(5)) != other


def test_stream_of_a_batch_whose_answer_was_lost_says_whether_it_is_durable() -> None:
    assert WRITER.has_committed(update(5), 5, 3, "ours")
    for stands in ((4, 3, "ours"), (6, 3, "ours"), (5, 4, "ours"), (5, 3, "theirs"), (5, 3, None)):
        assert not WRITER.has_committed(update(5), *stands)


@pytest.mark.parametrize(
    ("error", "is_interrupted", "expected"),
    [
        (StoreUnavailableError("It broke off."), False, True),
        (StoreUnavailableError("It broke off."), True, False),
        (StoreUnavailableError("The disk is full.", code="disk_full"), False, False),
        (StoreRefusedError("No."), False, False),
        (FencedError("No."), False, False),
        (ConversionError("No."), False, False),
    ],
)
def test_only_a_store_that_broke_off_may_have_committed(
    error: PlatformError, is_interrupted: bool, expected: bool
) -> None:
    assert may_have_committed(error, is_interrupted=is_interrupted) is expected


def test_checkpoint_of_the_last_batch_ends_its_stream() -> None:
    moved = update(5).moved("0")
    assert (moved.stream, moved.seq, moved.position, moved.counts.read, moved.is_done) == ("0", 5, ("5",), 1, False)
    assert update(6, is_last=True).moved("0").is_done
