"""What is asked of staged rows, and what is said of the answers."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from application.loads.publish import verdict_of
from domain.errors import ConversionError
from domain.loads.horizon import ReadEnd
from domain.ports.transformer import TransformPlan
from domain.quality.measures import Counts
from domain.quality.rules import Evidence
from domain.stores.table import Column
from tests.unit.application.loads.making import read_set_of, spec_of

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
NORMALIZED = TransformPlan(source=(Column("Id", "int64"), Column("At", "timestamptz")), normalizes=True)


def test_rules_over_a_run_ask_by_the_names_that_columns_land_with() -> None:
    rules = [{"rule": "unique", "columns": ["Id"]}, {"rule": "not_null", "column": "Id"}]
    spec = spec_of(quality=rules)

    checks = verdict_of(spec, read_set_of(spec), NORMALIZED, NOW).checks

    assert checks.duplicates == (("id",),)


def test_verdict_is_given_over_all_rows() -> None:
    spec = spec_of(quality=[{"rule": "unique", "columns": ["id"]}])
    verdict = verdict_of(spec, read_set_of(spec), TransformPlan(source=(Column("id", "int64"),)), NOW)
    counts = Counts(read=2, used=2, produced=2)

    alone = verdict.judge(Evidence(counts, duplicates={("id",): 0}))
    twice = verdict.judge(Evidence(counts, duplicates={("id",): 1}))

    assert [(result.verdict, result.violations) for result in alone.results] == [("pass", 0)]
    assert [(result.verdict, result.violations) for result in twice.results] == [("fail", 1)]


@pytest.mark.parametrize(("failed", "is_refused"), [(1, False), (2, True)])
def test_more_rows_that_do_not_convert_than_allowed_keep_a_load_from_being_published(
    failed: int, is_refused: bool
) -> None:
    spec = spec_of(on_error={"max_rows": 1})
    verdict = verdict_of(spec, read_set_of(spec), TransformPlan(source=()), NOW)
    evidence = Evidence(Counts(read=10, used=10 - failed, produced=10 - failed, failed=failed))

    if is_refused:
        with pytest.raises(ConversionError, match="2 of 10 rows"):
            verdict.judge(evidence)
    else:
        verdict.judge(evidence)


@pytest.mark.parametrize(("read_up_to", "expected"), [("11:30", "pass"), ("10:30", "fail")])
def test_freshness_is_judged_by_the_time_up_to_which_the_cursor_was_read_completely(
    read_up_to: str, expected: str
) -> None:
    source = {"table": "orders", "key": ["Id"], "cursor": {"column": "At"}}
    spec = spec_of(source=source, quality=[{"rule": "freshness", "column": "At", "max_age": "1h"}])
    read_set = read_set_of(spec)
    end = ReadEnd(complete_as_of=f"2026-01-02T{read_up_to}:00+00:00")
    read_set = replace(read_set, plan=replace(read_set.plan, end=end))

    judgement = verdict_of(spec, read_set, NORMALIZED, NOW).judge(
        Evidence(Counts(read=1, used=1, produced=1), newest={"at": "2026-01-01T00:00:00+00:00"})
    )

    assert [result.verdict for result in judgement.results] == [expected]
