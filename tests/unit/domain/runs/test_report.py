"""Reports and errors of runs are told as they were stored, by whichever version, and what is hidden is gone."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domain.errors import StoreUnavailableError, WorkFailedError
from domain.first_errors import FirstError
from domain.loads.read_set import ReadSet
from domain.quality.measures import Counts, LandedRows, RowChanges
from domain.rule_results import RuleResult
from domain.runs.report import ReadSetPart, RunReport, Spent, StreamPart
from domain.runs.run import RunError

COUNTS = '{"read": 3, "used": 2, "filtered": 0, "produced": 2, "deduplicated": 0, "quarantined": 1, "failed": 0}'
ERROR = (
    '{"kind": "rule", "message": "m", "ordinal": 0, "column": "c", "shape": "text", "stream": "0", "place": "row 1"}'
)
RULE = (
    '{"rule": "not_null(c)", "scope": "row", "on_violation": "quarantine", "verdict": "quarantined", "checks": 3, '
    '"violations": 1, "value": 1.0, "threshold": null}'
)
STREAM = (
    f'{{"stream": "0", "counts": {COUNTS}, "seq": 1, "rows_read": 3, "batches": 1, "bytes_read": 24, "seconds": 0.25, '
    f'"retries": 0, "interrupted": false, "errors": [{ERROR}], "merged": {{"inserted": 1, "updated": 1, "deleted": 0}}, '
    '"rows_per_second": 12}'
)
RUN = (
    f'{{"read_set": "r1", "adopted": false, "watermark": "9", "complete_as_of": null, "cursor": {{"unknown": ["u"]}}, '
    f'"published": "run", "way": "arrow", "way_because": "w", "snapshots": 1, "counts": {COUNTS}, "bytes_read": 24, '
    f'"batches": 1, "retries": 0, "seconds": 0.25, "rows_per_second": 12, "rules": [{RULE}], "first_errors": [{ERROR}], '
    f'"streams": [{STREAM}], "python": [{{"name": "f"}}], "discarded_columns": ["d"], "added_columns": ["a"], '
    '"columns_left_out": ["l"], "unconverted": {"c": 1}, "profiles": {"c": {"count": 2, "nulls": 1, "distinct": 2, '
    '"min": 1, "max": 2.5, "mean": 1.75, "quantiles": {"p50": 1.0}, "top": {"1": 1}}, "t": {"count": 1, "nulls": 0, '
    '"distinct": 1, "top": {"x": 1}}}, "merged": {"inserted": 1, "updated": 1, "deleted": 0}, '
    '"delete_missing": "skipped", "note": "n", "landed": {"written": 2, "shown": null}, "warnings": ["w"]}'
)
FIRST = f'{{"read_set": "r0", "adopted": true, "watermark": null, "counts": {COUNTS}, "rules": [], "first_errors": []}}'
STORED = {
    "first version": f'{{"read_set": "r1", "adopted": false, "watermark": null, "published": "batch", "snapshots": 1, '
    f'"counts": {COUNTS}, "rules": [], "first_errors": [{{"kind": "rule", "message": "m"}}], '
    f'"streams": [{{"stream": "0", "counts": {COUNTS}, "seq": 1, "rows_per_second": null}}]}}',
    "run": RUN,
    "unfinished": f'{{"read_set": "r1", "watermark": null, "published": null, "counts": {COUNTS}, "rules": [], '
    f'"first_errors": [], "streams": [{{"stream": "0", "state": "loading", "seq": 1, "counts": {COUNTS}}}]}}',
    "told by another worker": f'{{"read_set": "r1", "adopted": true, "watermark": "9", "counts": {COUNTS}, "rules": [], '
    '"first_errors": [], "streams": [], "note": "n", "landed": {"written": 2, "shown": 1}, "warnings": ["w"], '
    '"merged": {"inserted": 1, "updated": 1, "deleted": 0}}',
    "nothing but counts": f'{{"counts": {COUNTS}, "first_errors": [{ERROR}]}}',
    "after another": f'{{"counts": {COUNTS}, "adopted": true, "first_errors": [], "completed_first": {FIRST}, "read_sets": '
    f'[{{"read_set": "r0", "adopted": true, "watermark": null, "counts": {COUNTS}}}, {{"read_set": null, "adopted": false, '
    f'"watermark": null, "counts": {COUNTS}}}]}}',
}

SINCE_THEN = {"full_refresh": None}
"""What a read set says that the version of the records did not know."""


@pytest.mark.parametrize("end", list(STORED))
def test_report_is_told_to_the_letter_as_it_was_stored(end: str) -> None:
    assert json.dumps(RunReport.from_json(json.loads(STORED[end])).to_json()) == STORED[end]


def test_records_that_an_earlier_version_has_left_are_told_to_the_letter() -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript((Path(__file__).parents[3] / "faults" / "records_0003" / "sqlite.sql").read_text())
    rows = connection.execute("SELECT read_set, report FROM runs WHERE report IS NOT NULL").fetchall()
    connection.close()

    assert len(rows) > 3
    for read_set, report in rows:
        planned = {**json.loads(read_set), **SINCE_THEN}
        assert json.dumps(ReadSet.from_json(json.loads(read_set)).to_json()) == json.dumps(planned)
        assert json.dumps(RunReport.from_json(json.loads(report)).to_json()) == report


def test_what_a_later_version_says_too_is_left_out() -> None:
    assert RunReport.from_json({"note": "n", "cost": 3}).to_json() == {"note": "n"}


def test_what_is_not_shown_is_not_there_either() -> None:
    report = RunReport.from_json(json.loads(RUN)).only(frozenset({"counts", "seconds", "read_sets"}))

    assert report.names == ("counts", "seconds")
    assert (report.first_errors, report.watermark, report.streams, report.way_because) == ((), None, (), None)


def test_optional_things_are_told_where_there_is_something_of_them() -> None:
    report = RunReport(note="n", merged=RowChanges(), landed=LandedRows(0)).saying("way", if_any=("note", "warnings"))

    assert report.names == ("way", "note")
    assert report.saying(if_any=("warnings", "merged", "landed")).names == ("merged", "landed")


COUNTED = Counts(read=3, used=2, produced=2, quarantined=1)


def of(**said: Any) -> RunReport:
    return RunReport(**said).saying(*said)


def test_report_of_a_run_is_over_all_that_it_read() -> None:
    first = of(read_set="r0", counts=COUNTED, bytes_read=10, batches=1, retries=2, seconds=0.5, rows_per_second=6,
               first_errors=tuple(FirstError(ordinal=n) for n in range(8)))  # fmt: skip
    own = of(read_set="r1", watermark="9", counts=COUNTED, bytes_read=5, batches=3, retries=0, seconds=1.5,
             rows_per_second=2, first_errors=tuple(FirstError(ordinal=n) for n in range(8)))  # fmt: skip

    whole = own.after(first)

    assert (whole.read_set, whole.watermark, whole.adopted, whole.counts) == ("r1", "9", True, COUNTED + COUNTED)
    assert (whole.bytes_read, whole.batches, whole.retries, whole.seconds, whole.rows_per_second) == (15, 4, 2, 2.0, 3)
    assert [error.ordinal for error in whole.first_errors] == [*range(8), 0, 1]
    assert whole.completed_first == first
    assert whole.read_sets == (first.part, own.part)
    assert first.part == ReadSetPart(("read_set", "adopted", "watermark", "counts"), read_set="r0", counts=COUNTED)
    assert own.after(None) == own


def test_effort_that_a_report_does_not_tell_is_not_told_in_total() -> None:
    first = of(read_set="r0", counts=COUNTED, bytes_read=10, seconds=0.5)

    whole = RunReport.of_counts(Counts()).after(first)

    assert whole.names == ("counts", "adopted", "first_errors", "completed_first", "read_sets")
    assert (whole.counts, whole.rows_per_second) == (COUNTED, None)


def test_what_is_kept_of_a_report_before_more_is_read_is_no_stream_profile_or_function() -> None:
    report = RunReport.from_json(json.loads(RUN))

    kept = report.before_more

    assert set(report.names) - set(kept.names) == {"streams", "profiles", "python"}
    assert (kept.streams, kept.profiles, kept.python) == ((), {}, ())


def test_rows_of_a_batch_that_was_not_committed_are_blamed_in_place_of_others() -> None:
    blamed = [FirstError(ordinal=7)]

    assert RunReport.of_counts(COUNTED).blaming(blamed, ()).names == ("counts", "first_errors")
    unfinished = RunReport.from_json(json.loads(STORED["unfinished"])).blaming(blamed, ())
    assert list(unfinished.to_json()) == list(json.loads(STORED["unfinished"]))
    assert unfinished.first_errors == (FirstError(ordinal=7),)


def test_rules_for_which_nothing_was_published_are_told_with_the_rows() -> None:
    rule = RuleResult("unique(id)", "run", "fail", "fail", checks=4, violations=1, value=1.0)

    blamed = RunReport.of_counts(COUNTED).blaming((), [rule])

    assert blamed.names == ("counts", "rules")
    assert blamed.to_json()["rules"] == [rule.to_json()]


def test_seconds_of_stages_are_told_to_the_millisecond_and_added_over_read_sets() -> None:
    first = RunReport(spent=Spent(1.0, 0.25, 2.0)).saying("spent")
    own = RunReport(spent=Spent(0.5, 0.1234, 1.0)).saying("spent")

    assert own.to_json() == {"spent": {"read": 0.5, "judge": 0.123, "write": 1.0}}
    assert RunReport.from_json(own.to_json()).spent == Spent(0.5, 0.123, 1.0)
    assert own.after(first).spent == Spent(1.5, 0.3734, 3.0)


def test_part_of_a_stream_keeps_what_it_says_when_something_of_it_changes() -> None:
    part = StreamPart(stream="0", seq=3).saying("stream", "seq")

    assert replace(part, seq=4).to_json() == {"stream": "0", "seq": 4}


@pytest.mark.parametrize(
    "stored",
    [
        '{"code": "run.timeout", "message": "m", "retryable": false, "unavailable": false}',
        '{"code": "run.timeout", "message": "m", "retryable": true}',
        '{"code": "run.timeout", "message": "m"}',
    ],
)
def test_error_is_told_to_the_letter_as_it_was_stored(stored: str) -> None:
    assert json.dumps(RunError.from_json(json.loads(stored)).to_json()) == stored


def test_error_says_whether_something_was_not_to_be_reached() -> None:
    assert RunError.of(StoreUnavailableError("m")) == RunError("store.unavailable", "m", True, True)
    assert RunError.of(WorkFailedError("m")) == RunError("run.failed", "m", False, False)
