"""From opening a read set to publishing it, without a store."""

from dataclasses import replace

import pytest

from domain.errors import ConflictError, FencedError, QualityRejectedError
from domain.loads.checkpoint import LaneState, StreamState
from domain.loads.memory import LandingNote
from domain.loads.publication import (
    Finished,
    TableWriter,
    forgotten,
    leftovers,
    opened,
    refuse_discard,
    refuse_rejected,
    refuse_second_writer,
    sealed,
    taken_over,
)
from domain.loads.read_set import ReadSet, SourcePlan, Stream
from domain.quality.measures import Counts, Measures
from domain.quality.profile import Profile
from domain.quality.rules import Judgement
from domain.rule_results import RuleResult
from domain.runs.lane import Lane
from domain.stores.table import TableName

LANE = Lane("default", "orders")
TABLE = TableName("orders")
IDLE = LaneState("idle", 3, watermark="10", generation=7, token="ours")
ACCEPTED = Judgement(())
BEFORE, AFTER = Profile(count=1), Profile(count=2)


def read_set(*, shadow: str | None = None, hi: str | None = "20", ordered: bool = True) -> ReadSet:
    plan = SourcePlan((("id", "int64"),), (Stream("0"), Stream("1")), ordered, hi=hi)
    return ReadSet("r1", "fingerprint", plan, 10, shadow, baseline={"id": BEFORE})


NOTHING, UNMEASURED = Counts(), Measures()


def at(lane: LaneState, *states: str, counts: Counts = NOTHING, measures: Measures = UNMEASURED) -> LaneState:
    streams = zip(lane.streams, states, strict=True)
    return replace(
        lane, streams=tuple(replace(s, state=state, seq=1, counts=counts, measures=measures) for s, state in streams)
    )


def test_opened_read_set_begins_every_stream_and_keeps_the_watermark() -> None:
    lane = opened(IDLE, read_set(shadow="stage"), makes_table=False, noted=LandingNote("1"))

    assert (lane.state, lane.read_set_id, lane.watermark, lane.generation) == ("loading", "r1", "10", 8)
    assert lane.streams == (StreamState("0"), StreamState("1"))
    assert (lane.memory.stage, lane.memory.landing, lane.memory.made_table) == ("stage", LandingNote("1"), False)
    assert (lane.fence, lane.token) == (3, "ours")


def test_who_made_the_table_is_known_until_something_is_published() -> None:
    lane = opened(IDLE, read_set(), makes_table=True, noted=None)
    assert leftovers(lane).has_made_table
    again = opened(lane, read_set(), makes_table=False, noted=None)
    assert leftovers(again).has_made_table
    assert not leftovers(at(again, "loading", "loading")).has_made_table  # Something has landed.
    assert not leftovers(IDLE).has_made_table


@pytest.mark.parametrize(("ordered", "seq", "left"), [(True, 1, None), (True, 0, "stage"), (False, 1, "stage")])
def test_stage_is_left_over_where_nobody_can_go_on_from_it(ordered: bool, seq: int, left: str | None) -> None:
    lane = opened(IDLE, read_set(shadow="stage", ordered=ordered), makes_table=False, noted=None)
    assert leftovers(at(lane, "loading", "loading") if seq else lane).stage == left


def test_sealed_streams_are_open_again_once_they_are_taken_over() -> None:
    lane = sealed(at(opened(IDLE, read_set(), makes_table=False, noted=None), "loading", "done"))
    assert [stream.state for stream in lane.streams] == ["sealed", "done"]

    lane = taken_over(lane, 4, "next")

    assert [stream.state for stream in lane.streams] == ["loading", "done"]
    assert (lane.fence, lane.token, lane.generation) == (4, "next", 8)


def test_lane_that_is_reset_keeps_its_fence_alone() -> None:
    lane = forgotten(opened(IDLE, read_set(shadow="stage"), makes_table=True, noted=None), "41")
    assert lane == LaneState("idle", 3, watermark="41", generation=9, token="ours")


def test_read_set_is_published_once_it_is_open_and_every_stream_at_its_end() -> None:
    lane = opened(IDLE, read_set(), makes_table=False, noted=None)
    for unfinished in (lane, at(lane, "done", "loading"), at(lane, "sealed", "done")):
        with pytest.raises(ConflictError) as refused:
            Finished.of(read_set(), unfinished)
        assert refused.value.code == "run.unfinished"
    done = at(lane, "done", "done")
    with pytest.raises(FencedError):
        Finished.of(replace(read_set(), id="r2"), done)
    published = Finished.of(read_set(), done).published(ACCEPTED, Measures())
    with pytest.raises(FencedError):
        Finished.of(read_set(), published)


@pytest.mark.parametrize(("hi", "watermark"), [("20", "20"), (None, "10")])
def test_published_lane_has_the_watermark_of_its_read_and_what_the_rules_said(hi: str | None, watermark: str) -> None:
    planned = read_set(shadow="stage", hi=hi)
    done = at(opened(IDLE, planned, makes_table=False, noted=None), "done", "done", measures=Measures(nulls={"id": 1}))
    finished = Finished.of(planned, done)
    judgement = Judgement((RuleResult("unique(id)", "run", "warn", "warn", 1, 1),))

    lane = finished.published(judgement, replace(finished.measures, profiles={"name": AFTER}))

    assert (lane.state, lane.watermark, lane.generation, lane.read_set_id) == ("idle", watermark, 9, "r1")
    assert (lane.memory.verdicts[0].rule, lane.memory.measures) == ("unique(id)", Measures(nulls={"id": 2}))
    assert lane.memory.profiles == {"id": BEFORE, "name": AFTER}
    assert (lane.memory.stage, lane.memory.fingerprint) == (None, "fingerprint")


@pytest.mark.parametrize(
    ("counts", "has_landed", "is_known"),
    [
        (Counts(read=1, used=1, produced=1), True, True),
        (Counts(read=1, filtered=1), False, True),
        (Counts(read=1, quarantined=1), False, False),
        (Counts(read=1, failed=1), False, False),
    ],
)
def test_what_is_missing_is_known_where_no_row_was_refused(counts: Counts, has_landed: bool, is_known: bool) -> None:
    done = at(opened(IDLE, read_set(), makes_table=False, noted=None), "done", "done", counts=counts)
    finished = Finished.of(read_set(), done)
    assert (finished.has_landed, finished.knows_what_is_missing) == (has_landed, is_known)
    assert finished.evidence({}, {}).counts == counts + counts


def test_rule_that_forbids_it_is_named() -> None:
    refuse_rejected(ACCEPTED)
    with pytest.raises(QualityRejectedError, match=r"unique\(id\)"):
        refuse_rejected(Judgement((RuleResult("unique(id)", "run", "fail", "fail", 1, 1),)))


def test_table_that_is_replaced_has_one_pipeline() -> None:
    def writer(pipeline: str, *, replaces: bool = False, organization: str = "default") -> TableWriter:
        return TableWriter(organization, pipeline, replaces)

    mine = writer("orders")
    refuse_second_writer(TABLE, mine, [mine, writer("other")])
    refuse_second_writer(TABLE, writer("orders", replaces=True), [writer("orders", replaces=True)])
    for wanted, other in (
        (mine, writer("other", replaces=True)),
        (writer("orders", replaces=True), writer("other")),
        (mine, writer("orders", organization="another", replaces=True)),
    ):
        with pytest.raises(ConflictError) as refused:
            refuse_second_writer(TABLE, wanted, [wanted, other])
        assert refused.value.code == "destination.owned"


def test_table_that_others_write_too_is_not_dropped() -> None:
    mine, other = TableWriter("default", "orders", True), TableWriter("default", "other", False)
    refuse_discard(TABLE, LANE, [])
    refuse_discard(TABLE, LANE, [mine])
    with pytest.raises(ConflictError) as refused:
        refuse_discard(TABLE, LANE, [mine, other])
    assert refused.value.code == "destination.owned"
