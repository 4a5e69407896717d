"""Reports of runs say the same, whoever tells them."""

from application.pipelines.reporting import published_report
from domain.pipelines.checkpoint import LaneState
from domain.pipelines.read_set import ReadSet, SourcePlan


def test_report_of_a_run_whose_worker_died_before_telling_has_the_note_on_its_source() -> None:
    noted, silent = (ReadSet("r", "f", SourcePlan((), (), True, note=note), 10) for note in ("at stays text", None))

    assert published_report(LaneState("idle", 1), noted)["note"] == "at stays text"
    assert "note" not in published_report(LaneState("idle", 1), silent)
