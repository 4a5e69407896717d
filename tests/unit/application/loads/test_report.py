"""Reports of runs say the same, whoever tells them, and previews show values as people read them."""

from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa

from application.answers import AnswerLimits
from application.loads.report import published_report
from application.pipelines.preview import Preview
from domain.loads.checkpoint import LaneState
from domain.loads.read_set import ReadSet, SourcePlan
from domain.quality.measures import Counts, Measures
from entrypoints.answers.pipelines import preview_body


def test_report_of_a_run_whose_worker_died_before_telling_has_the_note_on_its_source() -> None:
    noted, silent = (ReadSet("r", "f", SourcePlan((), (), True, note=note), 10) for note in ("at stays text", None))

    assert published_report(LaneState("idle", 1), noted).to_json()["note"] == "at stays text"
    assert "note" not in published_report(LaneState("idle", 1), silent).to_json()


def test_preview_writes_bytes_and_intervals_as_people_read_them() -> None:
    values = {"b": [b"\0\xff"], "i": pa.array([pa.MonthDayNano([14, -3, 4_567_000_000])])}

    body = preview_body(Preview((), (pa.table(values),), Counts(), Measures()), AnswerLimits())

    assert body["rows"] == [{"b": "\\x00ff", "i": "14 months -3 days 4.567 seconds"}]


def test_preview_writes_what_is_inside_of_a_value_as_it_would_be_shown_alone() -> None:
    at = pa.array([datetime(2024, 1, 1, tzinfo=UTC)], pa.timestamp("us", "UTC"))
    values = {
        "l": [[1, None]],
        "t": pa.ListArray.from_arrays([0, 1], at),
        "s": [{"a": b"\0", "f": float("nan"), "d": Decimal("1.10")}],
        "m": pa.array([[("k", [1])]], pa.map_(pa.string(), pa.list_(pa.int32()))),
    }

    body = preview_body(Preview((), (pa.table(values),), Counts(), Measures()), AnswerLimits())

    inside = {"a": "\\x00", "f": "nan", "d": "1.10"}
    assert body["rows"] == [
        {"l": [1, None], "t": ["2024-01-01 00:00:00+00:00"], "s": inside, "m": [["k", [1]]]},
    ]
